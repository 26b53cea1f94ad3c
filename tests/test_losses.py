"""Losses by fractions done in the head, and by order: the better prediction loses less."""

import math

import pytest
import torch

from lits_helpers.losses import (
    bce_dice_loss,
    cross_entropy_loss,
    feature_loss,
    liver_region,
    masked_image,
    pixel_loss,
    shared_dice_loss,
    soft_dice_loss,
)


def plane(*rows: str) -> torch.Tensor:
    """Draw (1, 1, H, W) from rows such as "..##"."""
    return torch.tensor([[float(c == "#") for c in row] for row in rows])[None, None]


MASK = plane("......", ".###..", ".###..", "......")


def test_pixel_loss_is_the_share_of_wrong_pixels_of_a_binary_prediction():
    prediction = plane("......", ".##...", ".##...", ".....#")
    assert pixel_loss(prediction, MASK).item() == pytest.approx(3 / 24)


def test_cross_entropy_is_the_mean_surprise_and_finite_where_the_prediction_is_certain_and_wrong():
    halves = torch.full_like(MASK, 0.5)
    assert cross_entropy_loss(halves, MASK).item() == pytest.approx(math.log(2))
    assert cross_entropy_loss(1 - MASK, MASK).item() == pytest.approx(-math.log(1e-6), rel=0.01)
    assert cross_entropy_loss(MASK, MASK).item() == pytest.approx(0, abs=1e-5)


def test_feature_loss_weighs_layers_equally_whatever_their_size():
    small = torch.zeros(1, 2), torch.ones(1, 2)  # differ by 1
    large = torch.zeros(1, 1000), torch.full((1, 1000), 0.5)  # differ by 0.5
    loss = feature_loss([small[0], large[0]], [small[1], large[1]])
    assert loss.item() == pytest.approx(0.75)


def test_feature_loss_refuses_lists_that_do_not_pair():
    with pytest.raises(ValueError, match="differ in length: 2 and 1 layers"):
        feature_loss([torch.ones(1, 2)] * 2, [torch.ones(1, 2)])


def test_feature_loss_reaches_the_predicted_mask():
    prediction = torch.full((1, 1, 4, 6), 0.5, requires_grad=True)
    image = torch.full((1, 1, 4, 6), 0.8)
    loss = feature_loss([masked_image(image, prediction)], [masked_image(image, MASK)])
    loss.backward()
    assert torch.equal(prediction.grad.sign(), 1 - 2 * MASK)  # down outside, up inside


def test_a_floor_makes_black_pixels_count():
    black, everywhere = torch.zeros(1, 1, 4, 6), torch.ones(1, 1, 4, 6)
    assert torch.equal(masked_image(black, MASK), masked_image(black, everywhere))
    assert not torch.equal(masked_image(black, MASK, 0.1), masked_image(black, everywhere, 0.1))


def test_dice_loss_of_a_perfect_prediction_is_zero():
    assert soft_dice_loss(MASK, MASK).item() == 0


def test_dice_loss_of_half_the_liver():
    prediction = plane("......", ".###..", "......", "......")
    # 1 - (2 * 3 + 1) / (3 + 6 + 1)
    assert soft_dice_loss(prediction, MASK).item() == pytest.approx(0.3)


def test_dice_loss_of_two_empty_masks_is_zero():
    assert soft_dice_loss(torch.zeros(2, 1, 4, 6), torch.zeros(2, 1, 4, 6)).item() == 0


def test_dice_loss_is_taken_over_the_batch_by_default():
    masks = torch.cat([MASK, torch.zeros_like(MASK)])
    prediction = torch.cat([MASK, plane("......", "......", "......", "....##")])
    # batch: 1 - (12 + 1) / (6 + 2 + 6 + 1)
    assert soft_dice_loss(prediction, masks).item() == pytest.approx(2 / 15)


def test_dice_loss_per_image_counts_small_targets_fully_and_empty_slices_not_at_all():
    small = plane("......", "......", "....#.", "......")
    masks = torch.cat([MASK, small, torch.zeros_like(MASK)])
    missed = torch.cat(
        [MASK, torch.zeros_like(MASK), plane("......", "......", "......", "....##")]
    )
    # images: 0, 1 - 1 / 2 and, without target, 0
    assert soft_dice_loss(missed, masks, per_image=True).item() == pytest.approx(1 / 6)


def test_shared_dice_loss_lies_between_that_of_the_batch_and_that_of_each_image():
    masks = torch.cat([MASK, plane("......", "......", "....#.", "......")])
    prediction = torch.cat([0.5 * MASK, torch.zeros_like(MASK)])
    batch, image = (soft_dice_loss(prediction, masks, per_image=each) for each in (False, True))
    assert batch < image
    for share, expected in ((0.0, batch), (1.0, image), (0.25, 0.75 * batch + 0.25 * image)):
        torch.testing.assert_close(shared_dice_loss(prediction, masks, None, share), expected)


def test_dice_and_cross_entropy_are_blind_outside_the_region():
    region = plane("####..", "####..", "####..", "####..")
    good, stray = 8 * (2 * MASK - 1), 8 * (2 * MASK - 1)
    stray[..., 4:] = 8.0  # false alarms outside the region only
    assert bce_dice_loss(stray, MASK, region) == bce_dice_loss(good, MASK, region)
    assert bce_dice_loss(stray, MASK) > bce_dice_loss(good, MASK) + 1


def test_cross_entropy_is_the_mean_over_the_regions_pixels():
    logits = torch.zeros(1, 1, 4, 6)  # every pixel costs ln 2
    region = plane("#.....", "#.....", "......", "......")
    loss = bce_dice_loss(logits, MASK, region, dice_weight=0)
    assert loss.item() == pytest.approx(math.log(2))


def test_an_empty_region_gives_zero_loss_and_zero_gradient():
    logits = torch.randn(1, 1, 4, 6, requires_grad=True)
    loss = bce_dice_loss(logits, MASK, torch.zeros_like(MASK))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_without_dice_the_loss_is_torchs_cross_entropy():
    logits = torch.randn(2, 1, 4, 6)
    masks = (torch.rand(2, 1, 4, 6) > 0.5).float()
    expected = torch.nn.BCEWithLogitsLoss()(logits, masks)
    torch.testing.assert_close(bce_dice_loss(logits, masks, dice_weight=0), expected)


def test_losses_fall_as_the_prediction_improves():
    logits = torch.stack([k * (2 * MASK[0] - 1) for k in (-2.0, 0.0, 1.0, 4.0)])[:, None]
    for loss in (lambda z: bce_dice_loss(z, MASK), lambda z: soft_dice_loss(z.sigmoid(), MASK)):
        values = [loss(one).item() for one in logits]
        assert values == sorted(values, reverse=True)


def test_losses_are_float32_whatever_the_network_ran_in():
    logits = torch.zeros(1, 1, 4, 6, dtype=torch.bfloat16)
    assert bce_dice_loss(logits, MASK).dtype == torch.float32
    assert pixel_loss(logits, MASK).dtype == torch.float32


def test_liver_region_grows_liver_and_tumor_by_the_margin():
    labels = torch.zeros(2, 6, 8, dtype=torch.uint8)
    labels[0, 2, 5] = 2
    labels[0, 3, 5] = 1
    expected = torch.zeros(2, 1, 6, 8)
    expected[0, 0, 1:5, 4:7] = 1
    assert torch.equal(liver_region(labels, margin=1), expected)


def test_liver_region_does_not_wrap_at_the_border():
    labels = torch.zeros(1, 6, 8, dtype=torch.uint8)
    labels[0, 0, 0] = 1
    expected = torch.zeros(1, 1, 6, 8)
    expected[0, 0, :3, :3] = 1
    assert torch.equal(liver_region(labels, margin=2), expected)


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


def test_the_floor_lifts_the_image_where_the_mask_is():
    seen = masked_image(torch.full((1, 1, 4, 6), 0.25), MASK, 0.125)
    assert torch.equal(seen, 0.375 * MASK)
