"""What goes wrong in a training is said with its cure, and what was saved stays."""

import logging
import math
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from helpers.small_runs import SPLIT, small_liver, small_tumor

from lits_helpers.checkpoints import load_checkpoint
from lits_helpers.machine import locked
from lits_helpers.training import (
    TrainingDivergedError,
    engine,
    health,
    start,
    train_liver_gan,
    train_tumor_regnet,
)
from lits_helpers.training.engine import Trainer
from lits_helpers.training.optimization import Precision
from lits_helpers.training.states import Position
from lits_helpers.training.stopping import Stopwatch
from lits_helpers.training.systems import LiverSystem

# -- what goes wrong -----------------------------------------------------------------------------


def test_nan_stops_within_the_epoch_and_keeps_what_was_saved(slices, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "LOOK_SECONDS", 0.0)
    plain = LiverSystem.step

    def broken(system, images, labels, weight):
        losses = plain(system, images, labels, weight)
        calls.append(1)
        return losses * float("nan") if len(calls) == 4 else losses

    calls = []
    monkeypatch.setattr(LiverSystem, "step", broken)
    with pytest.raises(TrainingDivergedError, match=r"g_loss.*epoch 2.*lower learning_rate"):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")
    assert len(calls) == 4
    best = load_checkpoint(tmp_path / "checkpoints" / "best_model.pth")
    assert all(torch.isfinite(tensor).all() for tensor in best["model"].values())


def test_without_tumor_to_validate_on_the_last_epoch_is_kept(slices, tmp_path, caplog):
    """A model that says nothing would have a perfect Dice."""
    train_tumor_regnet(slices, tmp_path, SPLIT, small_tumor(epochs=2), device="cpu")
    best = load_checkpoint(tmp_path / "checkpoints" / "best_model.pth")
    assert best["epoch"] == 2
    assert math.isnan(best["validation_dice"])
    assert "no validation case holds tumor" in caplog.text


def test_collapse_of_the_dice_is_told_with_what_to_try(caplog):
    fallen = SimpleNamespace(dice=0.1, predicted_pixels=9)
    silent = SimpleNamespace(dice=0.0, predicted_pixels=0)
    assert health.warn_of_collapse(fallen, 0.8, 5, small_liver())
    assert "fell from a Dice of 0.800 to 0.100" in caplog.text
    assert health.warn_of_collapse(silent, 0.1, 5, small_liver(name="original"))
    assert "predicts nothing at all" in caplog.text
    assert 'try head="sigmoid"' in caplog.text
    assert not health.warn_of_collapse(
        SimpleNamespace(dice=0.75, predicted_pixels=9), 0.8, 5, small_liver()
    )


@pytest.mark.parametrize(("scale", "warns"), [(65536.0, False), (0.5, True)])
def test_steps_that_fp16_leaves_out_are_told(scale, warns, caplog):
    precision = Precision(torch.device("cpu"), "fp16")
    precision.scaler.load_state_dict({**precision.scaler.state_dict(), "scale": scale})
    health.warn_of_skipped_steps(precision, 3)
    assert ("epoch 3: most steps are left out" in caplog.text) is warns
    health.warn_of_skipped_steps(Precision(torch.device("cpu"), "bf16"), 4)
    assert "epoch 4" not in caplog.text


def test_too_little_memory_names_the_setting_and_a_value(slices, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(LiverSystem, "step", full)
    with pytest.raises(MemoryError, match=r"batch_size=4 at size=32: set batch_size=2"):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")


def test_other_errors_are_not_taken_for_too_little_memory():
    with pytest.raises(RuntimeError, match="shapes differ"), health.memory_advice(small_liver()):
        raise RuntimeError("shapes differ")


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


def test_single_training_slice_is_refused():
    with pytest.raises(ValueError, match="1 slice: batch norm needs at least 2"):
        start._check_batch(small_liver(), 1)


def test_folder_that_cannot_be_written_is_told(slices, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OSError, match=r"cannot write .*choose a writable folder"):
        train_liver_gan(slices, tmp_path / "taken", SPLIT, small_liver(), device="cpu")


def test_unbounded_critic_that_maximises_is_refused(slices, tmp_path):
    recipe = small_liver(critic="published", critic_goal="maximise")
    with pytest.raises(ValueError, match="diverges without a bound"):
        train_liver_gan(slices, tmp_path, SPLIT, recipe, device="cpu")


def test_tensorboard_that_is_not_installed_is_told(slices, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu", tensorboard=True)


@pytest.mark.parametrize("options", [{"precision": "int8"}, {"compiled": "sometimes"}])
def test_unknown_option_is_named(slices, tmp_path, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu", **options)


def test_option_that_does_not_exist_is_named_before_any_work(tmp_path):
    with pytest.raises(TypeError, match="max_minute'"):
        train_liver_gan(tmp_path, tmp_path, SPLIT, small_liver(), max_minute=5)
    assert not list(tmp_path.iterdir())


def test_limit_shorter_than_the_training_is_told(caplog):
    watch = Stopwatch(max_minutes=10)
    watch.began -= 60  # a minute ago
    with caplog.at_level(logging.INFO):
        watch.estimate(minutes_left=600)
    assert "about 10.0 hours of training left" in caplog.text
    assert "stops cleanly after 10 minutes" in caplog.text


def test_compiling_counts_in_no_estimate_of_the_time_left(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    told = []
    watch = SimpleNamespace(estimate=told.append)
    trainer = Trainer.__new__(Trainer)
    trainer.began, trainer.estimated, trainer.watch = None, False, watch
    trainer.at = Position()
    for steps, now in ((1, 600.0), (300, 630.0), (601, 660.0)):  # the first step took ten minutes
        trainer.at.steps, clock[0] = steps, now
        trainer._estimate(1201)
    assert told == [pytest.approx(1.0)]


@pytest.mark.parametrize(
    "wrong", [{"seed": -1}, {"recipe": small_liver(batch_size=10)}, {"tensorboard": True}]
)
def test_what_was_trained_is_forgotten_only_when_the_new_training_can_begin(
    slices, tmp_path, monkeypatch, wrong
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    train_liver_gan(slices, tmp_path, SPLIT, small_liver(epochs=1), device="cpu")
    options = {"recipe": small_liver(), "device": "cpu", "resume": "never"} | wrong
    with pytest.raises((ValueError, ImportError)):
        train_liver_gan(slices, tmp_path, SPLIT, **options)
    assert (tmp_path / "checkpoints" / "last.pth").exists()


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_finished_training_whose_model_is_lost_says_so(slices, tmp_path, damage):
    train_liver_gan(slices, tmp_path, SPLIT, small_liver(epochs=1), device="cpu")
    best = tmp_path / "checkpoints" / "best_model.pth"
    best.write_bytes(best.read_bytes()[:99]) if damage == "cut" else best.unlink()
    with pytest.raises(ValueError, match=r"best_model.pth is gone, damaged or .*START_ANEW"):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(epochs=1), device="cpu")


def test_model_of_a_finished_training_comes_back_from_the_mirror(slices, tmp_path):
    arguments = (slices, tmp_path / "run", SPLIT, small_liver(epochs=1))
    options = {"device": "cpu", "mirror": tmp_path / "drive"}
    before = train_liver_gan(*arguments, **options)
    best = tmp_path / "run" / "checkpoints" / "best_model.pth"
    best.unlink()
    assert train_liver_gan(*arguments, **options) == before
    assert load_checkpoint(best)


def test_finished_training_answers_while_another_holds_its_folder(slices, tmp_path):
    before = train_liver_gan(slices, tmp_path, SPLIT, small_liver(epochs=1), device="cpu")
    with locked(tmp_path / ".lock", ""):
        assert train_liver_gan(slices, tmp_path, SPLIT, small_liver(epochs=1)) == before


def test_second_training_in_a_folder_is_refused(slices, tmp_path):
    with locked(tmp_path / ".lock", ""), pytest.raises(OSError, match="another process works in"):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(epochs=1), device="cpu")
    assert train_liver_gan(slices, tmp_path, SPLIT, small_liver(epochs=1), device="cpu")
