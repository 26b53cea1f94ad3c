"""The loop: its arithmetic with losses one can add up in the head, its estimate of the time."""

import math
import time

import pytest
import torch
from helpers.logs import logged
from helpers.small_runs import SPLIT, small_liver, small_tumor

from lits_helpers.checkpoints import load_checkpoint
from lits_helpers.datasets import SliceCache
from lits_helpers.training import train_liver_gan, train_tumor_regnet
from lits_helpers.training.stopping import Stopwatch
from lits_helpers.training.systems import LiverSystem


def losing(monkeypatch, losses):
    """Let the steps of a liver training learn nothing and lose so much, one number a step."""
    left = iter(losses)
    monkeypatch.setattr(LiverSystem, "step", lambda *_: torch.full((4,), float(next(left))))


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


def test_without_tumor_to_validate_on_the_last_epoch_is_kept(slices, tmp_path, caplog):
    """A model that says nothing would have a perfect Dice."""
    train_tumor_regnet(slices, tmp_path, SPLIT, small_tumor(epochs=2), device="cpu")
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
