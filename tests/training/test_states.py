"""Training states: the newest whole one is continued, of the same training only."""

import hashlib
import io
import logging
import zipfile
from pathlib import Path

import pytest
import torch
from helpers.logs import logged
from helpers.prepared_runs import a_model

from lits_helpers.checkpoints import CheckpointError, load_checkpoint
from lits_helpers.training import newest_state, states
from lits_helpers.training.states import (
    MirrorSlots,
    named_state,
    read_slot,
    read_state,
    require_same,
    save_state,
)

RECIPE = {
    "name": "default",
    "betas": (0.9, 0.999),
    "spec": {"size": 160, "window": (-200, 300)},
    "width": 16,
}


def a_state(epoch=1, step=0, **changes):
    state = {
        "system": "liver",
        "recipe": RECIPE,
        "seed": 0,
        "training_ids": ["0", "1"],
        "data": {"0": "aa", "1": "bb", "2": None},
        "validation_ids": ["2"],
        "epoch": epoch,
        "step": step,
        "history": [],
    }
    return {**state, **changes}


def test_a_tumor_training_of_before_a_field_goes_on_as_long_as_the_field_is_off():
    before = a_state(system="tumor", recipe={"epochs": 3})
    require_same(before, a_state(system="tumor", recipe={"epochs": 3, "drawn_lesions": 0.0}), "")
    drawn = a_state(system="tumor", recipe={"epochs": 3, "drawn_lesions": 0.5})
    with pytest.raises(CheckpointError, match=r"drawn_lesions was 0\.0, now 0\.5"):
        require_same(before, drawn, "last.pth")


def test_newer_state_keeps_the_one_before(tmp_path):
    save_state(tmp_path, a_state(1))
    save_state(tmp_path, a_state(2))
    assert read_state(tmp_path / "last.pth")["epoch"] == 2
    assert read_state(tmp_path / "previous.pth")["epoch"] == 1


def test_full_disk_leaves_both_states_and_says_so(tmp_path, monkeypatch):
    save_state(tmp_path, a_state(1))
    save_state(tmp_path, a_state(2))

    def full(_content, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"No space left .*free disk space.*intact"):
        save_state(tmp_path, a_state(3))
    found, _ = newest_state(tmp_path)
    assert found["epoch"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pth", "previous.pth"]


def with_a_pickle(content):
    """Return a checkpoint as torch writes it whose pickle is `content`."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, part in {"data.pkl": content, "version": b"3\n"}.items():
            archive.writestr(f"a/{name}", part)
    return made.getvalue()


DAMAGES = {
    "truncated": lambda content: content[:-99],
    "foreign": lambda _: b"foreign",
    "a tensor of nothing": lambda _: with_a_pickle(
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R."
    ),
}


@pytest.mark.parametrize("damage", [*DAMAGES, "absent"])
def test_damaged_last_state_falls_back_to_the_one_before_and_says_so(tmp_path, caplog, damage):
    save_state(tmp_path, a_state(1))
    save_state(tmp_path, a_state(2))
    last = tmp_path / "last.pth"
    if damage == "absent":  # killed between the two renames
        last.unlink()
    else:
        last.write_bytes(DAMAGES[damage](last.read_bytes()))
    state, where = newest_state(tmp_path)
    assert state["epoch"] == 1
    assert where.endswith("previous.pth")
    assert damage == "absent" or logged(caplog, "last.pth", "checkpoint before")


def test_no_state_anywhere_is_none(tmp_path):
    assert newest_state(tmp_path, tmp_path / "mirror") is None


def test_mirror_rewrites_two_slots_in_place_by_turns(tmp_path):
    mirror = MirrorSlots(tmp_path)
    for epoch in (1, 2):
        mirror.write(a_state(epoch))
    inodes = [slot.stat().st_ino for slot in mirror.slots]
    mirror.write(a_state(3))
    assert [read_slot(slot)["epoch"] for slot in mirror.slots] == [3, 2]
    assert [slot.stat().st_ino for slot in mirror.slots] == inodes


def test_new_process_writes_over_the_older_slot(tmp_path):
    mirror = MirrorSlots(tmp_path)
    for epoch in (1, 2, 3):
        mirror.write(a_state(epoch))
    MirrorSlots(tmp_path).write(a_state(4))
    assert [read_slot(slot)["epoch"] for slot in mirror.slots] == [3, 4]


def test_torn_slot_is_passed_over_for_the_whole_one(tmp_path, caplog):
    mirror = MirrorSlots(tmp_path / "mirror")
    for epoch in (1, 2):
        mirror.write(a_state(epoch))
    torn = bytearray(mirror.slots[1].read_bytes())
    torn[-200] ^= 1
    mirror.slots[1].write_bytes(torn)
    state, _ = newest_state(tmp_path, tmp_path / "mirror")
    assert state["epoch"] == 1
    assert logged(caplog, ".slot", "checksum")


def test_mirror_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    def failing(path):
        raise OSError(5, "Input/output error", str(path))

    MirrorSlots(tmp_path / "mirror").write(a_state(3))
    monkeypatch.setattr(states, "read_slot", failing)
    with pytest.raises(OSError, match=r"cannot be read now .*run again in a minute"):
        newest_state(tmp_path, tmp_path / "mirror")
    save_state(tmp_path, a_state(2))
    assert newest_state(tmp_path, tmp_path / "mirror")[0]["epoch"] == 2


def test_shorter_state_leaves_no_tail_of_the_longer(tmp_path):
    mirror = MirrorSlots(tmp_path)
    for epoch in (1, 2, 3):
        mirror.write(a_state(epoch, weights=torch.zeros(5000 if epoch == 1 else 5)))
    assert mirror.slots[0].stat().st_size < 10000
    assert read_slot(mirror.slots[0])["epoch"] == 3


def test_furthest_state_wins_wherever_it_lies(tmp_path):
    save_state(tmp_path, a_state(4, step=1))
    MirrorSlots(tmp_path / "mirror").write(a_state(4, step=2))
    state, where = newest_state(tmp_path, tmp_path / "mirror")
    assert state["step"] == 2
    assert where.endswith(".slot")


def test_mirror_that_cannot_be_written_is_only_logged(tmp_path, caplog):
    (tmp_path / "mirror").write_text("a file where the folder should be")
    MirrorSlots(tmp_path / "mirror").write(a_state())
    assert logged(caplog, "mirror", "cannot be written")


@pytest.mark.parametrize(("place", "broken"), [(states, "read_slot"), (Path, "stat")])
def test_mirror_that_cannot_be_read_is_left_alone_until_it_can(
    tmp_path, monkeypatch, caplog, place, broken
):
    plain, asked = getattr(place, broken), []

    def failing_once(path, **options):
        asked.append(path)
        if len(asked) == 1:
            raise OSError(107, "Transport endpoint is not connected", str(path))
        return plain(path, **options)

    mirror = MirrorSlots(tmp_path)
    for epoch in (1, 2):
        mirror.write(a_state(epoch))
    new = MirrorSlots(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(place, broken, failing_once)
        new.write(a_state(3))
    assert logged(caplog, "mirror", "Transport endpoint")
    assert [read_slot(slot)["epoch"] for slot in new.slots] == [1, 2]
    new.write(a_state(4))
    assert [read_slot(slot)["epoch"] for slot in new.slots] == [4, 2]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recipe": {**RECIPE, "width": 32}}, "recipe.width was 16, now 32"),
        ({"seed": 7}, "seed was 0, now 7"),
        ({"system": "tumor"}, "is a liver training, asked is tumor"),
        ({"training_ids": ["0"]}, r"training_ids lost 1 \(1\)"),
        ({"data": {"0": "aa", "1": "cc"}}, "the files of case 1 have changed since"),
        ({"validation_ids": ["2", "3"]}, r"validation_ids gained 1 \(3\)"),
    ],
)
def test_state_of_another_training_is_refused_with_the_difference(changes, words):
    with pytest.raises(CheckpointError, match=words):
        require_same(a_state(), a_state(**changes), "last.pth")


def test_named_state_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no training state"):
        read_state(tmp_path / "last.pth")


def test_fallback_is_logged_as_a_warning(tmp_path, caplog):
    (tmp_path / "last.pth").write_bytes(b"foreign")
    with caplog.at_level(logging.WARNING):
        assert newest_state(tmp_path) is None
    assert caplog.records[0].levelname == "WARNING"


@pytest.mark.parametrize("name", ["run/previous.pth", "kept/last.pth"])
@pytest.mark.parametrize("further", ["here", "mirror"])
def test_named_file_is_refused_where_a_training_got_further(tmp_path, name, further):
    run, mirror = tmp_path / "run", tmp_path / "mirror"
    save_state(run, a_state(2))
    save_state(tmp_path / "kept", a_state(2))
    save_state(run, a_state(3 if further == "here" else 2))
    if further == "mirror":
        MirrorSlots(mirror).write(a_state(3))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match=r"got further .*choose another run folder"):
        named_state(tmp_path / name, run, mirror)
    assert {path: path.read_bytes() for path in before} == before
    assert named_state(tmp_path / name, tmp_path / "another")["epoch"] == 2


def test_named_file_that_got_furthest_is_read(tmp_path):
    save_state(tmp_path, a_state(2))
    save_state(tmp_path, a_state(3))
    assert named_state(tmp_path / "last.pth", tmp_path)["epoch"] == 3


def test_of_two_states_alike_the_one_with_its_model_is_taken(tmp_path):
    save_state(tmp_path, a_state(2))
    MirrorSlots(tmp_path / "mirror").write(a_state(2, best_model=a_model()))
    assert newest_state(tmp_path, tmp_path / "mirror")[0]["best_model"]


def test_state_of_a_training_is_not_taken_for_its_model(tmp_path):
    save_state(tmp_path, a_state(parts={}))
    with pytest.raises(CheckpointError, match=r"last.pth is the state.*take best_model.pth"):
        load_checkpoint(tmp_path / "last.pth")


def test_a_slot_holds_its_name_its_length_its_checksum_and_the_state(tmp_path):
    mirror = MirrorSlots(tmp_path / "a" / "new" / "folder")
    mirror.write(a_state(3))
    assert [slot.name for slot in mirror.slots] == ["checkpoint_a.slot", "checkpoint_b.slot"]
    assert [slot.exists() for slot in mirror.slots] == [True, False]
    content = mirror.slots[0].read_bytes()
    payload = content[32:]
    assert content[:8] == b"LITSSLOT"
    assert content[8:16] == len(payload).to_bytes(8, "big")
    assert content[16:32] == hashlib.blake2b(payload, digest_size=16).digest()
    assert torch.load(io.BytesIO(payload), weights_only=True) == a_state(3)


@pytest.mark.parametrize("damage", [(0, b"X"), (15, b"\0"), (20, b"\0"), (-1, b"\1")])
def test_a_slot_with_one_byte_changed_is_refused(tmp_path, damage):
    mirror = MirrorSlots(tmp_path)
    mirror.write(a_state(3))
    place, byte = damage
    content = bytearray(mirror.slots[0].read_bytes())
    if content[place] == byte[0]:
        byte = b"\2"
    content[place] = byte[0]
    mirror.slots[0].write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checkpoint_a\.slot is no whole checkpoint slot"):
        read_slot(mirror.slots[0])


def test_a_whole_slot_that_holds_no_state_is_refused_by_what_it_lacks(tmp_path):
    mirror = MirrorSlots(tmp_path)
    content = a_state()
    del content["history"], content["seed"]
    mirror.write(content)
    with pytest.raises(CheckpointError, match=r"checkpoint_a\.slot .* lacks history, seed"):
        read_slot(mirror.slots[0])


def test_cleared_slots_stay_and_hold_nothing(tmp_path):
    mirror = MirrorSlots(tmp_path)
    for epoch in (1, 2):
        mirror.write(a_state(epoch))
    mirror.clear()
    assert [slot.stat().st_size for slot in mirror.slots] == [0, 0]
    assert newest_state(tmp_path / "nowhere", tmp_path) is None
    mirror.write(a_state(3))
    assert newest_state(tmp_path / "nowhere", tmp_path)[0]["epoch"] == 3


def test_a_slot_is_read_by_its_name_and_a_checkpoint_by_its(tmp_path):
    mirror = MirrorSlots(tmp_path)
    for epoch in (1, 2):
        mirror.write(a_state(epoch))
    save_state(tmp_path, a_state(5))
    names = ("checkpoint_a.slot", "checkpoint_b.slot", "last.pth")
    assert [read_state(tmp_path / name)["epoch"] for name in names] == [1, 2, 5]


def test_a_state_that_lacks_something_is_refused_by_what_it_lacks(tmp_path):
    content = a_state()
    del content["data"]
    save_state(tmp_path, content)
    with pytest.raises(CheckpointError, match=r"last\.pth .* lacks data"):
        read_state(tmp_path / "last.pth")


def test_of_epochs_and_steps_the_epoch_counts_first_and_both_as_numbers(tmp_path):
    save_state(tmp_path, a_state(10, step=1))
    save_state(tmp_path, a_state(9, step=70))
    state, where = newest_state(tmp_path)
    assert (state["epoch"], where) == (10, str(tmp_path / "previous.pth"))


@pytest.mark.parametrize("spoil", [bytes, lambda content: content[:-1]])  # emptied, or cut short
@pytest.mark.parametrize("spoiled", [0, 1])
def test_a_new_process_writes_over_the_slot_that_holds_nothing(tmp_path, spoiled, spoil):
    mirror = MirrorSlots(tmp_path)
    for _ in range(2):
        mirror.write(a_state(1))
    slot, other = mirror.slots[spoiled], mirror.slots[1 - spoiled]
    slot.write_bytes(spoil() if spoil is bytes else spoil(slot.read_bytes()))
    MirrorSlots(tmp_path).write(a_state(1, step=1))
    assert [read_slot(each)["step"] for each in (slot, other)] == [1, 0]


def test_a_state_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"cannot write .*last\.pth \(.*No space left"):
        save_state(tmp_path, a_state())


def refusal(**changes):
    with pytest.raises(CheckpointError) as refused:
        require_same(a_state(), a_state(**changes), "run/last.pth")
    text = str(refused.value)
    start, _, cure = text.partition(". Use the same settings, another run folder, or ")
    assert cure == 'resume="never" to replace it'
    return start.removeprefix("run/last.pth belongs to another training: ")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"system": "tumor", "seed": 3}, "it is a liver training, asked is tumor"),
        (
            {"recipe": {name: value for name, value in RECIPE.items() if name != "width"}},
            "recipe.width was 16, now None",
        ),
        (
            {"recipe": {**RECIPE, "ema": 0.9}},
            "recipe.ema was None, now 0.9",
        ),
        (
            {"recipe": {**RECIPE, "spec": {"size": 96, "window": (-200, 300)}}},
            "recipe.spec was {'size': 160, 'window': (-200, 300)}, "
            "now {'size': 96, 'window': (-200, 300)}",
        ),
        (
            {"seed": 3, "training_ids": ["0", *"3456789"]},
            "seed was 0, now 3; training_ids lost 1 (1); "
            "training_ids gained 7 (3, 4, 5, 6, 7, ...)",
        ),
        ({"training_ids": ["0", "1", *"34567"]}, "training_ids gained 5 (3, 4, 5, 6, 7)"),
        ({"validation_ids": []}, "validation_ids lost 1 (2)"),
        ({"data": {"0": "xx", "1": "yy", "7": "zz"}}, "the files of case 0, 1 have changed since"),
    ],
)
def test_every_difference_to_another_training_is_named(changes, words):
    assert refusal(**changes) == words


def test_at_most_five_changed_cases_are_named():
    before = {str(n): "aa" for n in range(7)}
    now = {str(n): "bb" for n in range(7)}
    with pytest.raises(CheckpointError, match=r"files of case 0, 1, 2, 3, 4 have changed since\."):
        require_same(a_state(data=before), a_state(data=now), "last.pth")


def test_lists_count_as_tuples_however_deep_they_lie():
    recipe = RECIPE | {"betas": [0.9, 0.999], "spec": {"size": 160, "window": [-200, 300]}}
    require_same(a_state(), a_state(recipe=recipe), "last.pth")
