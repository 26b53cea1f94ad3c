"""The loop: its arithmetic with losses one can add up in the head, its estimate of the time."""

import math
import time
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers.logs import logged
from helpers.small_runs import (
    SPLIT,
    TUMOR_SPLIT,
    small_liver,
    small_tumor,
    stopping_after,
    write_volumes,
)

from lits_helpers.checkpoints import load_checkpoint
from lits_helpers.datasets import SliceCache
from lits_helpers.training import (
    TrainingDivergedError,
    engine,
    newest_state,
    train_liver_gan,
    train_tumor_regnet,
)
from lits_helpers.training.optimization import learning_rate
from lits_helpers.training.stopping import Stopwatch
from lits_helpers.training.systems import LiverSystem
from lits_helpers.training.validation import ValidationScore


def losing(monkeypatch, losses):
    """Let the steps of a liver training learn nothing and lose so much, one number a step."""
    left = iter(losses)

    def step(system, images, labels, weight):
        assert weight == 1.0  # all of the batch is this process's
        return torch.full((4,), float(next(left)))

    monkeypatch.setattr(LiverSystem, "step", step)


def test_losses_of_an_epoch_are_means_over_its_own_images(slices, tmp_path, monkeypatch):
    losing(monkeypatch, [1, 2, 6, 5, 5, 5])  # nine slices in batches of 4, 4 and 1, twice
    history = train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")
    assert [row["pixel_loss"] for row in history] == [pytest.approx(2), pytest.approx(5)]


def test_every_step_of_a_training_draws_its_own_augmentation(slices, tmp_path, monkeypatch):
    def seeds(name, seed):
        drawn = []

        def batch(cache, *arguments, generator=None, **options):
            drawn.extend([generator.initial_seed()] if generator else [])
            return plain(cache, *arguments, generator=generator, **options)

        monkeypatch.setattr(SliceCache, "batch", batch)
        losing(monkeypatch, [1] * 6)
        run = tmp_path / name
        train_liver_gan(slices, run, SPLIT, small_liver(augment=True), device="cpu", seed=seed)
        return drawn

    plain = SliceCache.batch
    first, again, other = seeds("first", 0), seeds("again", 0), seeds("other", 1)
    assert first == again
    assert len(first) == len(other) == 6
    assert len({*first, *other}) == 12


def test_without_tumor_to_validate_on_the_last_epoch_is_kept(tmp_path, caplog):
    """A model that says nothing would have a perfect Dice."""
    (tmp_path / "raw").mkdir()
    reference = write_volumes(tmp_path / "raw") / "segmentation-2.nii"
    image = nib.load(reference)
    healthy = np.minimum(np.asarray(image.dataobj), 1)
    nib.save(nib.Nifti1Image(healthy, image.affine), reference)
    train_tumor_regnet(tmp_path / "raw", tmp_path, TUMOR_SPLIT, small_tumor(epochs=2), device="cpu")
    best = load_checkpoint(tmp_path / "checkpoints" / "best_model.pth")
    assert best["epoch"] == 2
    assert math.isnan(best["validation_dice"])
    assert logged(caplog, "no validation case", "tumor")


def test_compiling_counts_in_no_estimate_of_the_time_left(slices, tmp_path, monkeypatch):
    now, told = [0.0], []

    def step(*_):
        now[0] += 10 if now[0] else 600  # the first step took ten minutes
        return torch.zeros(4)

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(LiverSystem, "step", step)
    monkeypatch.setattr(Stopwatch, "estimate", lambda _, minutes_left: told.append(minutes_left))
    train_liver_gan(slices, tmp_path, SPLIT, small_liver(epochs=5), device="cpu")
    # told once, after ten more of the 15 steps: four are left, of ten seconds each
    assert told == [pytest.approx(4 * 10 / 60)]


def test_the_learning_rate_of_a_step_is_that_of_its_place_in_the_training(
    slices, tmp_path, monkeypatch
):
    rates = []

    def step(system, *_):
        rates.append([o.param_groups[0]["lr"] for o in system.optimizers])
        return torch.ones(4)

    monkeypatch.setattr(LiverSystem, "step", step)
    recipe = small_liver(schedule="cosine")
    history = train_liver_gan(slices, tmp_path, SPLIT, recipe, device="cpu")
    expected = [learning_rate(recipe, place / 3) for place in range(6)]
    for each in zip(*rates, strict=True):  # of the generator and of the critic
        assert each == pytest.approx(expected)
    assert [row["learning_rate"] for row in history] == pytest.approx([expected[2], expected[5]])


@pytest.mark.parametrize(
    ("scores", "best"), [((0.5, 0.5, 0.4), 1), ((0.4, 0.6, 0.5), 2), ((0.0, 0.0, 0.0), 1)]
)
def test_the_model_of_the_first_epoch_with_the_highest_dice_is_kept(
    scores, best, slices, tmp_path, monkeypatch
):
    left = iter(scores)
    monkeypatch.setattr(
        engine,
        "validation_score",
        lambda *_: ValidationScore(next(left), 0.25, 100),
    )
    losing(monkeypatch, [1] * 9)
    history = train_liver_gan(slices, tmp_path, SPLIT, small_liver(epochs=3), device="cpu")
    kept = load_checkpoint(tmp_path / "checkpoints" / "best_model.pth")
    assert (kept["epoch"], kept["validation_dice"]) == (best, scores[best - 1])
    assert [row["validation_dice"] for row in history] == list(scores)
    assert [row["validation_dice_global"] for row in history] == [0.25] * 3
    assert [(row["epoch"], row["steps"]) for row in history] == [(1, 3), (2, 6), (3, 9)]


def test_the_rest_is_estimated_once_from_the_steps_after_the_first(slices, tmp_path, monkeypatch):
    def step(*_):
        clock[0] += 2.0  # seconds a step
        return torch.ones(4)

    clock, estimates = [100.0], []
    monkeypatch.setattr(LiverSystem, "step", step)
    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(engine, "ESTIMATE_SECONDS", 4.0)
    monkeypatch.setattr(engine, "ESTIMATE_STEPS", 3)
    monkeypatch.setattr(Stopwatch, "estimate", lambda _watch, minutes: estimates.append(minutes))
    history = train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")
    assert estimates == [pytest.approx(2 * 2.0 / 60)]  # after the fourth of six steps
    assert [row["seconds"] for row in history] == [6.0, 6.0]
    assert [row["images_per_second"] for row in history] == [1.5, 1.5]  # nine slices


def test_the_bar_shows_the_loss_the_last_dice_and_the_best(slices, tmp_path, monkeypatch):
    class Bar(engine.tqdm):
        def set_postfix(self, shown):
            seen.append({name: value for name, value in shown.items() if name != "images/s"})

    seen, scores = [], iter([0.75, 0.5])
    monkeypatch.setattr(engine, "tqdm", Bar)
    monkeypatch.setattr(engine, "LOOK_SECONDS", -1.0)  # after every step
    monkeypatch.setattr(engine, "validation_score", lambda *_: ValidationScore(next(scores), 0, 9))
    losing(monkeypatch, [1, 2, 6, 5, 5, 5])
    train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")
    first = [{"g_loss": loss} for loss in ("1.0000", "1.5000", "2.0000")]
    assert seen[:3] == first
    assert seen[3] == {"Dice": "0.750", "best": "0.750"}
    assert seen[4:7] == [{"g_loss": "5.0000", "Dice": "0.750"}] * 3
    assert seen[7] == {"Dice": "0.500", "best": "0.750"}


def test_a_loss_that_is_no_number_is_told_with_its_epoch(slices, tmp_path, monkeypatch):
    losing(monkeypatch, [1, 1, 1, 1, float("nan"), 1])
    with pytest.raises(TrainingDivergedError, match=r"g_loss.* became NaN or infinite in epoch 2;"):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")


def test_a_head_that_died_is_told_the_cure_for_it(slices, tmp_path, monkeypatch, caplog):
    silent = ValidationScore(0.0, 0.0, 0)
    monkeypatch.setattr(engine, "validation_score", lambda *_: silent)
    losing(monkeypatch, [1] * 9)
    train_liver_gan(slices, tmp_path, SPLIT, small_liver(epochs=3, head="relu"), device="cpu")
    assert "predicts nothing at all; the best checkpoint is kept" in caplog.text
    assert 'try head="sigmoid"' in caplog.text


def test_a_training_stopped_in_its_last_epoch_is_saved_there(slices, tmp_path, monkeypatch):
    losing(monkeypatch, [1] * 6)
    stopping_after(monkeypatch, 5)
    train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")
    state, _ = newest_state(tmp_path / "checkpoints")
    assert (state["epoch"], state["step"], state["steps"]) == (2, 1, 4)
