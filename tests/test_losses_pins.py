"""Regions of one pixel, blind losses of each image, and what the losses are when nobody asks."""

import math

import pytest
import torch

from lits_helpers.losses import bce_dice_loss, liver_region, shared_dice_loss, soft_dice_loss


def plane(*rows: str) -> torch.Tensor:
    """Draw (1, 1, H, W) from rows such as "..##"."""
    return torch.tensor([[float(c == "#") for c in row] for row in rows])[None, None]


MASK = plane("......", ".###..", ".###..", "......")


def test_dice_of_each_image_is_blind_outside_the_region():
    region = plane("####..", "####..", "####..", "####..")
    stray = MASK + plane("....##", "......", "......", "....##")
    assert shared_dice_loss(stray, MASK, region, 1.0).item() == 0
    assert shared_dice_loss(stray, MASK, None, 1.0).item() == pytest.approx(1 - 13 / 17)


def test_cross_entropy_of_a_region_of_one_pixel_is_that_pixels():
    region = plane("......", "......", "..#...", "......")
    loss = bce_dice_loss(torch.zeros(1, 1, 4, 6), MASK, region, dice_weight=0)
    assert loss.item() == pytest.approx(math.log(2))


def test_dice_counts_once_and_over_the_batch_unless_asked_otherwise():
    masks = torch.cat([MASK, plane("......", "......", "....#.", "......")])
    logits = torch.cat([4 * (2 * MASK - 1), torch.full_like(MASK, -2.0)])
    entropy = bce_dice_loss(logits, masks, dice_weight=0)
    expected = entropy + soft_dice_loss(logits.sigmoid(), masks)
    torch.testing.assert_close(bce_dice_loss(logits, masks), expected)


def test_liver_region_reaches_eight_pixels_to_each_side():
    labels = torch.zeros(1, 30, 36, dtype=torch.uint8)
    labels[0, 13, 16] = 1
    expected = torch.zeros(1, 1, 30, 36)
    expected[0, 0, 5:22, 8:25] = 1
    assert torch.equal(liver_region(labels), expected)
