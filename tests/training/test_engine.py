"""The engine's arithmetic, held with losses one can add up in the head."""

import pytest
import torch
from helpers.small_runs import SPLIT, small_liver

from lits_helpers.datasets import SliceCache
from lits_helpers.training import train_liver_gan
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
