"""The mirror's slots to the byte, and every difference between two trainings by its words."""

import hashlib
import io

import pytest
import torch

from lits_helpers.checkpoints import CheckpointError
from lits_helpers.training import newest_state
from lits_helpers.training.states import (
    MirrorSlots,
    read_slot,
    read_state,
    require_same,
    save_state,
)


def a_state(epoch=1, step=0, **changes):
    state = {
        "system": "liver",
        "recipe": {"name": "default", "spec": {"size": 160, "window": (-200, 300)}, "width": 16},
        "seed": 0,
        "training_ids": ["0", "1"],
        "data": {"0": "aa", "1": "bb", "2": None},
        "validation_ids": ["2"],
        "epoch": epoch,
        "step": step,
        "history": [],
    }
    return {**state, **changes}


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
            {"recipe": {"name": "default", "spec": {"size": 160, "window": [-200, 300]}}},
            "recipe.width was 16, now None",
        ),
        (
            {"recipe": {**a_state()["recipe"], "ema": 0.9}},
            "recipe.ema was None, now 0.9",
        ),
        (
            {"recipe": {**a_state()["recipe"], "spec": {"size": 96, "window": (-200, 300)}}},
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
    recipe = {"name": "default", "spec": {"size": 160, "window": [-200, 300]}, "width": 16}
    require_same(a_state(), a_state(recipe=recipe), "last.pth")
