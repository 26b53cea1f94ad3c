"""Whole trainings: what is refused at once, and what is resumed ends with the same bits."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.prepared_runs import write_checkpoint
from helpers.repository import load_script
from helpers.small_runs import (
    SPLIT,
    TUMOR_SPLIT,
    forbid_decoding,
    same,
    small_liver,
    small_tumor,
    stopping_after,
    weights,
    without_clocks,
)

from lits_helpers.checkpoints import CheckpointError, load_checkpoint
from lits_helpers.datasets import cache
from lits_helpers.machine import locked, write_json
from lits_helpers.recipes import InputSpec
from lits_helpers.training import (
    TrainingDivergedError,
    newest_state,
    train_liver_gan,
    train_tumor_regnet,
)
from lits_helpers.training.engine import Trainer
from lits_helpers.training.systems import LiverSystem


def test_finished_run_returns_its_history_without_training(calm, slices, monkeypatch):
    monkeypatch.setattr(Trainer, "run", lambda self: pytest.fail("it trained again"))
    run, history = calm
    assert train_liver_gan(slices, run, SPLIT, small_liver(), device="cpu") == history


@pytest.mark.parametrize("stops", [[3], [2, 2, 2]])
def test_stopped_and_resumed_training_ends_with_the_same_bits(
    calm, slices, tmp_path, monkeypatch, stops
):
    for steps in stops:
        with monkeypatch.context() as patch:
            stopping_after(patch, steps)
            history = train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")
            assert len(history) < 2
    history = train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")
    assert without_clocks(history) == without_clocks(calm[1])
    assert same(weights(tmp_path), weights(calm[0]))
    assert same(weights(tmp_path, "best_model.pth"), weights(calm[0], "best_model.pth"))


def test_training_that_goes_on_decodes_nothing_again(calm, slices, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "free_memory_bytes", lambda: 1000)
    with monkeypatch.context() as patch:
        stopping_after(patch, 4)
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")
    assert len(list(tmp_path.glob("cache/*/*/levels.npy"))) == 2
    forbid_decoding(monkeypatch)
    train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")
    assert same(weights(tmp_path), weights(calm[0]))
    assert not (tmp_path / "cache").exists()  # the training is finished


def test_two_kills_change_no_bit(capsys):
    code = load_script("benchmarks/kill_training.py").main(kills=2, epochs=2, seed=0)
    told = capsys.readouterr().out
    assert code == 0, told
    assert "bit-identical" in told


def test_training_goes_on_from_the_mirror_of_a_lost_machine(calm, slices, tmp_path, monkeypatch):
    mirror = tmp_path / "drive"
    with monkeypatch.context() as patch:
        stopping_after(patch, 5)
        train_liver_gan(
            slices, tmp_path / "lost", SPLIT, small_liver(), device="cpu", mirror=mirror
        )
    run = tmp_path / "new"
    history = train_liver_gan(slices, run, SPLIT, small_liver(), device="cpu", mirror=mirror)
    assert without_clocks(history) == without_clocks(calm[1])
    assert same(weights(run, "best_model.pth"), weights(calm[0], "best_model.pth"))


def test_a_broken_state_is_not_saved_at_a_stop(slices, tmp_path, monkeypatch):
    monkeypatch.setattr(LiverSystem, "step", lambda *_: torch.full((4,), float("nan")))
    stopping_after(monkeypatch, 2)
    with pytest.raises(TrainingDivergedError, match='Try precision="fp32", which resumes'):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu", precision="bf16")
    assert not (tmp_path / "checkpoints" / "last.pth").exists()


def test_resuming_without_a_case_that_was_there_is_refused(slices, tmp_path, monkeypatch):
    data = shutil.copytree(slices, tmp_path / "slices")
    arguments = (data, tmp_path / "run", SPLIT, small_liver())
    with monkeypatch.context() as patch:
        stopping_after(patch, 2)
        train_liver_gan(*arguments, device="cpu")
    (data / "images" / "3" / "0.png").write_bytes(b"no picture")
    with pytest.raises(CheckpointError, match=r"9 slices .* 6 to validate, now there are 9 and 5"):
        train_liver_gan(*arguments, device="cpu")


def test_a_new_training_puts_no_model_of_the_former_on_the_mirror(slices, tmp_path, monkeypatch):
    options = {"device": "cpu", "mirror": tmp_path / "drive"}
    train_liver_gan(slices, tmp_path / "run", SPLIT, small_liver(epochs=1), **options)
    (tmp_path / "drive" / "checkpoints" / "val_predictions" / "epoch_0001").mkdir(parents=True)
    stopping_after(monkeypatch, 2)
    train_liver_gan(slices, tmp_path / "run", SPLIT, small_liver(), resume="never", **options)
    state, _ = newest_state(tmp_path / "nowhere", tmp_path / "drive")
    assert (state["history"], state["best_model"]) == ([], None)
    assert not (tmp_path / "drive" / "checkpoints" / "val_predictions").exists()


def test_named_checkpoint_is_continued(calm, slices, tmp_path):
    path = calm[0] / "checkpoints" / "previous.pth"  # the end of the first epoch
    history = train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu", resume=path)
    assert without_clocks(history) == without_clocks(calm[1])


def test_a_model_named_in_place_of_a_state_is_told_from_one(calm, slices, tmp_path):
    model = calm[0] / "checkpoints" / "best_model.pth"
    with pytest.raises(CheckpointError, match=r"is a model, .* last\.pth .*weights \(start_from"):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu", resume=model)


def test_named_checkpoint_whose_best_model_is_not_here_ends_with_one(calm, slices, tmp_path):
    state = torch.load(calm[0] / "checkpoints" / "previous.pth", weights_only=True)
    torch.save({**state, "best": 1.5}, tmp_path / "state.pth")  # what follows is no better
    arguments = (slices, tmp_path / "run", SPLIT, small_liver())
    history = train_liver_gan(*arguments, device="cpu", resume=tmp_path / "state.pth")
    best = load_checkpoint(tmp_path / "run" / "checkpoints" / "best_model.pth")
    assert (best["seed"], best["epoch"]) == (0, 2)
    assert best["validation_dice"] == history[-1]["validation_dice"]


def test_numpy_numbers_and_texts_make_a_checkpoint_that_opens(slices, tmp_path):
    split = SimpleNamespace(
        training=tuple(np.array(SPLIT.training)), validation=tuple(np.array(SPLIT.validation))
    )
    recipe = small_liver(epochs=np.int64(1), learning_rate=np.float64(0.01))
    train_liver_gan(slices, tmp_path, split, recipe, device="cpu", seed=np.int64(3))
    assert load_checkpoint(tmp_path / "checkpoints" / "best_model.pth")["seed"] == 3
    assert newest_state(tmp_path / "checkpoints")[0]["recipe"]["learning_rate"] == 0.01


def test_named_checkpoint_is_refused_where_a_training_got_further(calm, slices, tmp_path):
    early = calm[0] / "checkpoints" / "previous.pth"
    train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu", seed=7)
    with pytest.raises(CheckpointError, match="choose another run folder"):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu", resume=early)


def test_other_recipe_or_split_is_refused_with_the_difference(calm, slices):
    with pytest.raises(CheckpointError, match=r"recipe.batch_size was 4, now 3"):
        train_liver_gan(slices, calm[0], SPLIT, small_liver(batch_size=3), device="cpu")
    split = SimpleNamespace(training=("0", "1"), validation=("3", "4"))
    with pytest.raises(CheckpointError, match=r"training_ids lost 1 \(2\)"):
        train_liver_gan(slices, calm[0], split, small_liver(), device="cpu")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"training": ()}, "training part is empty"),
        ({"validation": ()}, "validation part is empty"),
        ({"validation": ("2", "3")}, "in training and validation: 2"),
        ({"training": ("0", "77")}, "no case 77"),
    ],
)
def test_split_that_cannot_be_trained_on_is_refused(slices, tmp_path, parts, words):
    split = SimpleNamespace(**{**vars(SPLIT), **parts})
    with pytest.raises(ValueError, match=words):
        train_liver_gan(slices, tmp_path / "run", split, small_liver(), device="cpu")


def test_batch_larger_than_the_training_part_is_refused(slices, tmp_path):
    with pytest.raises(ValueError, match="batch_size=10 is larger than the 9 training slices"):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(batch_size=10), device="cpu")


def test_labels_of_the_liver_alone_train_no_tumor_model(slices, tmp_path):
    with pytest.raises(ValueError, match=r"labels of 0, 1, 2 show the liver alone"):
        train_tumor_regnet(slices, tmp_path, SPLIT, small_tumor(), device="cpu")


def test_single_training_slice_is_refused(slices, tmp_path):
    data = shutil.copytree(slices, tmp_path / "slices")
    for k in (1, 2):
        (data / "images" / "0" / f"{k}.png").unlink()
    split = SimpleNamespace(training=("0",), validation=("3",), test=())
    with pytest.raises(ValueError, match="1 slice: batch norm needs at least 2"):
        train_liver_gan(data, tmp_path / "run", split, small_liver(), device="cpu")


def test_unbounded_critic_that_maximises_is_refused(slices, tmp_path):
    recipe = small_liver(critic="published", critic_goal="maximise")
    with pytest.raises(ValueError, match="diverges without a bound"):
        train_liver_gan(slices, tmp_path, SPLIT, recipe, device="cpu")


@pytest.mark.parametrize("options", [{"precision": "int8"}, {"compiled": "sometimes"}])
def test_unknown_option_is_named(slices, tmp_path, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu", **options)


def test_option_that_does_not_exist_is_named_before_any_work(tmp_path):
    with pytest.raises(TypeError, match="max_minute'"):
        train_liver_gan(tmp_path, tmp_path, SPLIT, small_liver(), max_minute=5)
    assert not list(tmp_path.iterdir())


def test_finished_training_answers_while_another_holds_its_folder(slices, tmp_path):
    before = train_liver_gan(slices, tmp_path, SPLIT, small_liver(epochs=1), device="cpu")
    with locked(tmp_path / ".lock", ""):
        assert train_liver_gan(slices, tmp_path, SPLIT, small_liver(epochs=1)) == before


def test_second_training_in_a_folder_is_refused(slices, tmp_path):
    with locked(tmp_path / ".lock", ""), pytest.raises(OSError, match="another process works in"):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(epochs=1), device="cpu")
    assert train_liver_gan(slices, tmp_path, SPLIT, small_liver(epochs=1), device="cpu")


def test_a_training_begins_with_the_weights_it_was_given(calm, slices, tmp_path):
    start = calm[0] / "checkpoints" / "best_model.pth"
    still = small_liver(epochs=1, learning_rate=1e-12)
    train_liver_gan(slices, tmp_path, SPLIT, still, device="cpu", start_from=start)
    made = load_checkpoint(tmp_path / "checkpoints" / "best_model.pth")
    given = load_checkpoint(start)["model"]
    for name, value in given.items():
        if "running" not in name and "num_batches" not in name:
            assert torch.allclose(made["model"][name], value, atol=1e-9), name
    assert (made["start"]["name"], made["start"]["training_ids"]) == ("best_model.pth", [*"012"])


def test_a_resumed_training_keeps_what_it_began_with(calm, slices, tmp_path, monkeypatch):
    start = tmp_path / "begun.pth"
    shutil.copy(calm[0] / "checkpoints" / "best_model.pth", start)
    run, how = tmp_path / "run", {"device": "cpu"}
    with monkeypatch.context() as patch:
        stopping_after(patch, 3)
        train_liver_gan(slices, run, SPLIT, small_liver(), start_from=start, **how)
    start.unlink()  # a machine that vanished
    train_liver_gan(slices, run, SPLIT, small_liver(), **how)
    kept = load_checkpoint(run / "checkpoints" / "best_model.pth")
    assert kept["start"]["name"] == "begun.pth"


def test_other_weights_than_a_training_began_with_are_refused_not_passed_over(
    calm, slices, tmp_path
):
    begun = calm[0] / "checkpoints" / "best_model.pth"
    arguments = (slices, tmp_path / "run", SPLIT, small_liver(epochs=1))
    first = train_liver_gan(*arguments, device="cpu", start_from=begun)
    assert train_liver_gan(*arguments, device="cpu", start_from=begun) == first
    other = tmp_path / "best_model.pth"  # of the same name
    torch.save(load_checkpoint(begun) | {"epoch": 7}, other)
    with pytest.raises(CheckpointError, match=r"did not begin with .* but with best_model\.pth"):
        train_liver_gan(*arguments, device="cpu", start_from=other)
    with pytest.raises(CheckpointError, match="but with no other weights: name no weights to go"):
        train_liver_gan(slices, calm[0], SPLIT, small_liver(), device="cpu", start_from=other)


def test_the_model_of_a_former_training_from_other_weights_is_not_the_best_of_this_one(
    calm, slices, tmp_path, monkeypatch
):
    arguments = (slices, tmp_path, SPLIT, small_liver())
    with monkeypatch.context() as patch:
        stopping_after(patch, 2)
        train_liver_gan(*arguments, device="cpu", resume="never")
    former = load_checkpoint(calm[0] / "checkpoints" / "best_model.pth")
    former |= {"epoch": 1, "validation_dice": 0.99, "start": {"name": "other.pth"}}
    path = tmp_path / "checkpoints" / "best_model.pth"
    torch.save(former, path)  # it stays until the new training's first epoch has ended
    train_liver_gan(*arguments, device="cpu")
    assert load_checkpoint(path)["validation_dice"] < 0.99


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 8}, r"weights have another shape \(.* there, \(.* here"),
        ({"spec": InputSpec(32, (-100, 300), 3, 1)}, r"InputSpec differs \(window .* there"),
    ],
)
def test_weights_of_another_network_or_input_cannot_start(calm, slices, tmp_path, changes, message):
    start = calm[0] / "checkpoints" / "best_model.pth"
    with pytest.raises(CheckpointError, match=message):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(**changes), start_from=start)


def test_weights_that_have_seen_a_validation_patient_cannot_start(volumes, tmp_path):
    swapped = SimpleNamespace(training=("2",), validation=("0",), test=())
    trained = train_tumor_regnet(volumes, tmp_path / "a", TUMOR_SPLIT, small_tumor())
    assert len(trained) == 1
    start = tmp_path / "a" / "checkpoints" / "best_model.pth"
    recipe = small_tumor(batch_size=2)
    with pytest.raises(CheckpointError, match=r"validate or test here \(0\)"):
        train_tumor_regnet(volumes, tmp_path / "b", swapped, recipe, start_from=start)


@pytest.mark.parametrize("part", ["validation", "test"])
@pytest.mark.parametrize("hashed", [True, False])
def test_weights_that_have_seen_a_held_out_case_cannot_start(tmp_path, part, hashed):
    """A case of a PNG folder is known by its name alone, any other by its CT."""
    for case in "0347":
        write_json(tmp_path / "cases" / f"{case}.json", {"source_hash": f"ct{case}-labels-header"})
    trained, seen = ("12", {"12": "ct7-others-header"}) if hashed else ("7", {})
    start = write_checkpoint(tmp_path / "a.pth", "liver", [trained], network=False, data=seen)
    split = {"training": ("3",), "validation": ("4",), "test": ("0",)} | {part: ("7",)}
    with pytest.raises(CheckpointError, match=r"validate or test here \(7\)"):
        train_liver_gan(
            tmp_path, tmp_path / "run", SimpleNamespace(**split), small_liver(), start_from=start
        )
