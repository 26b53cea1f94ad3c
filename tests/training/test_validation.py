"""Validation Dice at working size, over whole patients."""

import math

import pytest
import torch

from lits_helpers.training.validation import validation_score


class HandDrawn:
    """A cache of three cases with 2, 1 and 1 slices of 2x2 pixels."""

    case_ids = ("a", "b", "c")
    case_of = torch.tensor([0, 0, 1, 2])
    references = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    predictions = torch.tensor([[1, 0, 0, 0], [1, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]])

    def batch(self, indices):
        shape = (-1, 1, 2, 2)
        return self.predictions[indices].view(shape).float(), self.references[indices].view(
            -1, 2, 2
        )


def score_of(cache):
    return validation_score(
        lambda images, labels: images > 0, lambda labels: (labels > 0)[:, None], cache, batch_size=3
    )


def test_validation_dice_is_taken_per_case_over_all_its_slices():
    # case a: overlap 2, sizes 3 and 3 -> 4/6; b: 1; c holds no target and is left out of the mean
    score = score_of(HandDrawn())
    assert score.dice == pytest.approx((2 / 3 + 1) / 2)
    assert score.dice_global == pytest.approx(2 * 6 / (7 + 7))


def test_validation_without_any_target_has_no_dice():
    empty = HandDrawn()
    empty.references = torch.zeros(4, 4, dtype=torch.int64)
    score = score_of(empty)
    assert math.isnan(score.dice)
    assert score.dice_global == 0.0  # of pixels that should not be there
