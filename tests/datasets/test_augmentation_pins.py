"""Augmentation to the value: labels move with their image, and each draw has its direction."""

import pytest
import torch

from lits_helpers.datasets import Augmentation, augment_batch, rotated
from lits_helpers.datasets.augmentation import grey_curves
from lits_helpers.recipes import InputSpec

SPEC = InputSpec(size=32, window=(-200, 300))


@pytest.mark.parametrize("axis", [2, 3])
def test_labels_end_where_the_image_does_to_half_a_pixel(axis):
    labels = torch.zeros(60, 1, 32, 32, dtype=torch.uint8)
    labels.narrow(axis, 13, 19).fill_(2)  # the half of a plane
    limits = Augmentation(0, scale=1.5, shift=0.1, gamma=1, gain=0, bias=0, noise=0)
    images, moved = augment_batch(
        labels // 2 * 255, labels, SPEC, torch.Generator().manual_seed(3), limits
    )
    shown, told = images[:, 0] > 0.5, moved == 2
    middle = slice(12, 20)  # along the edge, where none sees the corners of the image
    middle = (slice(None), slice(None), middle) if axis == 2 else (slice(None), middle)
    assert torch.equal(shown[middle], told[middle])
    assert 0.2 < told[middle].float().mean() < 0.8


@pytest.mark.parametrize(
    ("draws", "level"),
    [
        ([0.0, 0.0, 0.0], 0.4),
        ([1.0, 0.0, 0.0], 0.4**1.25),
        ([-1.0, 0.0, 0.0], 0.4**0.8),
        ([0.0, 1.0, 0.0], 0.4 * 1.15),
        ([0.0, -1.0, 0.0], 0.4 * 0.85),
        ([0.0, 0.0, 1.0], 0.4 + 0.08),
        ([0.0, 0.0, -1.0], 0.4 - 0.08),
    ],
)
def test_gamma_gain_and_bias_change_a_grey_level_by_what_was_drawn(draws, level):
    limits = Augmentation(gamma=1.25, gain=0.15, bias=0.08)
    curves = grey_curves(torch.tensor([draws]), limits, 255)
    assert curves[0, 102].item() == pytest.approx(level, abs=1e-6)  # 102 / 255 = 0.4
    assert curves[0, 0].item() == 0


def test_turning_by_nothing_changes_nothing_up_to_the_border():
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rotated(image, 0), image, atol=1e-5, rtol=0)
