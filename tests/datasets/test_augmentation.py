"""Augmentation: bounded, repeatable, and the labels go with the image."""

from dataclasses import replace

import pytest
import torch
from helpers.packed_cases import CONTEXT, LIVER
from torch.utils._python_dispatch import TorchDispatchMode

from lits_helpers.datasets import (
    Augmentation,
    SliceCache,
    augment_batch,
    augmentation,
    augmentation_of,
    rotated,
)
from lits_helpers.datasets.augmentation import affine_grid, affine_matrices, grey_curves
from lits_helpers.recipes import InputSpec, liver_recipe, tumor_recipe


def test_augmentation_repeats_to_the_bit_from_the_same_generator_state(prepared):
    cache = SliceCache(prepared, ["3"], CONTEXT)
    generator = torch.Generator().manual_seed(5)
    state = generator.get_state()
    first = cache.batch([4, 5], augment=Augmentation(), generator=generator)
    second = cache.batch([4, 5], augment=Augmentation(), generator=generator)
    generator.set_state(state)
    again = cache.batch([4, 5], augment=Augmentation(), generator=generator)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], second[0])


def drawn_batch(size=64):
    """(levels, labels): a bright off-centre rectangle whose labels are the same rectangle."""
    levels = torch.full((4, 1, size, size), 60, dtype=torch.uint8)
    levels[:, :, 20:34, 12:40] = 200
    labels = torch.zeros(4, 1, size, size, dtype=torch.uint8)
    labels[:, :, 20:34, 12:40] = 2
    return levels, labels


def test_changed_all_at_once_as_on_a_gpu_or_one_by_one_images_are_the_same(monkeypatch):
    levels, labels = drawn_batch()
    labels[:, :, 24:30, 16:30] = 1  # liver, with tumor all around
    limits = Augmentation(fatty_liver=0.4, fatty_share=0.7, bright_lesions=0.7)

    def changed():
        return augment_batch(levels, labels, LIVER, torch.Generator().manual_seed(1), limits)

    one_by_one = changed()
    monkeypatch.setattr(augmentation, "takes_all", lambda _: True)
    at_once = changed()
    plain = augment_batch(
        levels, labels, LIVER, torch.Generator().manual_seed(1), replace(limits, fatty_liver=0.0)
    )
    assert torch.equal(one_by_one[0], at_once[0])
    assert torch.equal(one_by_one[1], at_once[1])
    assert not torch.equal(plain[0], at_once[0])


class Operations(TorchDispatchMode):
    """Counts torch's operations, views and memory that is not filled aside."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = function.overloadpacket.__name__
        self.count += not function.is_view and name not in ("empty", "empty_like", "new_empty")
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize(
    ("recipe", "half"), [(liver_recipe(), 71), (tumor_recipe(pretrained=False), 93)]
)
def test_all_at_once_a_batch_takes_half_the_operations_of_one_by_one(monkeypatch, recipe, half):
    monkeypatch.setattr(augmentation, "takes_all", lambda _: True)
    levels, labels = (part.expand(-1, 3, -1, -1) for part in drawn_batch())
    limits = replace(augmentation_of(recipe), fatty_share=1.0)
    with Operations() as counted:
        augment_batch(levels, labels, recipe.spec, torch.Generator().manual_seed(1), limits)
    assert 50 < counted.count <= half


def test_labels_move_with_the_image():
    levels, labels = drawn_batch()
    limits = Augmentation(gamma=1, gain=0, bias=0, noise=0)
    images, moved = augment_batch(levels, labels, LIVER, torch.Generator().manual_seed(0), limits)
    bright = images[:, 0] > 130 / 255
    overlap = (bright & (moved == 2)).sum((1, 2))
    dice = 2 * overlap / (bright.sum((1, 2)) + (moved == 2).sum((1, 2)))
    assert (dice > 0.97).all()
    assert not torch.equal(moved, labels[:, 0])
    assert moved.unique().tolist() == [0, 2]


def test_no_limits_change_nothing():
    levels, labels = drawn_batch()
    limits = Augmentation(0, 1, 0, 1, 0, 0, 0)
    images, moved = augment_batch(levels, labels, LIVER, torch.Generator(), limits)
    torch.testing.assert_close(images, levels.float() / 255, atol=1e-4, rtol=0)
    assert torch.equal(moved, labels[:, 0])


def test_shift_moves_by_the_stated_share_of_the_side():
    levels, _ = drawn_batch()
    matrices = affine_matrices(torch.tensor([[0.0, 0, 1, 0]]), Augmentation(shift=8 / 64))
    grid = affine_grid(matrices, 64)
    moved = torch.nn.functional.grid_sample(
        levels[:1].float(), grid, mode="nearest", align_corners=False
    )
    assert torch.equal(moved[..., :56], levels[:1, :, :, 8:].float())


def test_grid_agrees_with_torchs():
    matrices = affine_matrices(torch.rand(3, 4) * 2 - 1, Augmentation())
    expected = torch.nn.functional.affine_grid(matrices, [3, 1, 48, 48], align_corners=False)
    torch.testing.assert_close(affine_grid(matrices, 48), expected, atol=1e-5, rtol=0)


def test_grey_curves_rise_and_keep_black_black():
    curves = grey_curves(torch.rand(20, 3) * 2 - 1, Augmentation(), 255)
    assert (curves[:, 0] == 0).all()
    assert (curves[:, 1:].diff(dim=1) >= 0).all()
    assert (curves >= 0).all()
    assert (curves <= 1).all()


def test_noise_leaves_black_alone():
    levels, labels = drawn_batch()
    levels[:, :, :10] = 0
    limits = Augmentation(0, 1, 0, 1, 0, 0, noise=0.1)
    images, _ = augment_batch(levels, labels, LIVER, torch.Generator().manual_seed(1), limits)
    assert (images[:, :, :9] == 0).all()
    assert images[:, :, 40:].std() > 0.01


def test_fatty_livers_are_darker_and_nothing_else_is():
    levels, labels = drawn_batch()
    limits = Augmentation(0, 1, 0, 1, 0, 0, 0, fatty_liver=0.5, fatty_share=1.0)
    images, _ = augment_batch(levels, labels, LIVER, torch.Generator().manual_seed(1), limits)
    inside = images[:, 0, 22:32, 14:38] / (200 / 255)
    assert torch.allclose(inside.amin((1, 2)), inside.amax((1, 2)), atol=1e-4)
    assert (inside > 0.49).all()
    assert inside.min() < 0.9
    assert len(inside[:, 0, 0].unique()) == 4  # each its own
    torch.testing.assert_close(images[:, :, 36:], levels[:, :, 36:] / 255, atol=1e-4, rtol=0)


def test_a_fatty_liver_is_darker_where_it_lies_in_each_neighbour():
    levels = torch.full((2, 3, 64, 64), 200, dtype=torch.uint8)
    labels = torch.zeros_like(levels)
    labels[:, 1, 20:34, 12:40] = 1
    labels[:, 2, 40:50, 12:40] = 1
    limits = Augmentation(0, 1, 0, 1, 0, 0, 0, fatty_liver=0.5, fatty_share=1.0)
    spec = replace(LIVER, channels=3, context=1)
    images, moved = augment_batch(levels, labels, spec, torch.Generator().manual_seed(1), limits)
    darker = images < 199 / 255
    assert not darker[:, 0].any()
    assert darker[:, 1, 22:32, 14:38].all()
    assert not darker[:, 1, 36:].any()
    assert darker[:, 2, 42:48, 14:38].all()
    assert not darker[:, 2, :38].any()
    assert torch.equal(moved, labels[:, 1])


def test_turning_moves_a_picture_about_its_centre_and_back():
    image = torch.zeros(1, 1, 65, 65)
    image[..., 30:35, 50:55] = 1  # right of the centre
    turned = rotated(image, 90)
    assert turned[..., 10:15, 30:35].min() > 0.99 or turned[..., 50:55, 30:35].min() > 0.99
    torch.testing.assert_close(rotated(turned, -90), image, atol=1e-4, rtol=0)
    assert not torch.allclose(rotated(turned, 90), image, atol=0.5)
    torch.testing.assert_close(rotated(image - 2, 30).amin(), torch.tensor(-2.0))  # edges repeated
    assert rotated(image - 2, 30).amax() <= -1


def test_only_the_stated_share_of_livers_is_fatty():
    levels, labels = (part[:1].repeat_interleave(400, 0) for part in drawn_batch(32))
    limits = Augmentation(0, 1, 0, 1, 0, 0, 0, fatty_liver=0.5, fatty_share=0.3)
    images, _ = augment_batch(levels, labels, LIVER, torch.Generator().manual_seed(1), limits)
    darker = images[:, 0, 26, 20] < 199.5 / 255
    assert 0.2 < darker.float().mean() < 0.4


def lesion_batch(count: int = 2):
    """A liver of level 150 in level 100, with a lesion of level 120 in the middle of it."""
    labels = torch.zeros(count, 3, 64, 64, dtype=torch.uint8)
    labels[:, :, 8:56, 8:56] = 1
    labels[:, :, 26:38, 26:38] = 2
    levels = torch.tensor([100, 150, 120], dtype=torch.uint8)[labels.long()]
    return levels, labels


ONLY_BRIGHT = Augmentation(0, 1, 0, 1, 0, 0, 0, bright_lesions=1.0)

THREE_SLICES = replace(LIVER, channels=3, context=1)


def test_a_bright_lesion_is_as_much_brighter_as_it_was_darker():
    levels, labels = lesion_batch()
    generator = torch.Generator().manual_seed(1)
    images, moved = augment_batch(levels, labels, THREE_SLICES, generator, ONLY_BRIGHT)
    expected = levels.float() / 255
    expected[labels == 2] = 180 / 255
    torch.testing.assert_close(images, expected, atol=1e-3, rtol=0)
    assert torch.equal(moved, labels[:, 1])


def test_no_dark_rim_remains_around_a_bright_lesion():
    levels, labels = lesion_batch()
    levels[:, :, 24:40, 24:40] = 120  # two pixels wider than its mask: a soft edge
    generator = torch.Generator().manual_seed(1)
    images, _ = augment_batch(levels, labels, THREE_SLICES, generator, ONLY_BRIGHT)
    assert images[:, :, 10:54, 10:54].amin() > 145 / 255


def test_a_lesion_turns_about_the_liver_and_leaves_what_lies_outside():
    levels, labels = lesion_batch()
    labels[:, :, :, 38:] = 0  # the lesion reaches the liver's edge, fat lies behind
    levels[:, :, :, 37:] = 30  # and in a part of the last pixels of the liver
    generator = torch.Generator().manual_seed(1)
    images, _ = augment_batch(levels, labels, THREE_SLICES, generator, ONLY_BRIGHT)
    torch.testing.assert_close(images[..., 37:], levels[..., 37:] / 255, atol=1e-3, rtol=0)
    assert (images[:, :, 28:36, 28:36] > 170 / 255).all()


def test_around_a_bright_lesion_the_liver_is_as_noisy_as_elsewhere():
    levels, labels = lesion_batch()
    grain = torch.randint(-20, 21, levels.shape, generator=torch.Generator().manual_seed(2))
    levels = (levels + grain).to(torch.uint8)
    generator = torch.Generator().manual_seed(1)
    images, _ = augment_batch(levels, labels, THREE_SLICES, generator, ONLY_BRIGHT)
    for ring in range(1, 6):  # pixels from the lesion
        before, after = (each[:, :, 26 - ring, 26:38].std() for each in (levels / 255, images))
        assert abs(after - before) < 0.02 * before


def test_a_lesion_without_liver_beside_it_is_left():
    levels, labels = lesion_batch()
    labels[labels == 1] = 0
    generator = torch.Generator().manual_seed(1)
    images, _ = augment_batch(levels, labels, THREE_SLICES, generator, ONLY_BRIGHT)
    torch.testing.assert_close(images, levels / 255, atol=1e-4, rtol=0)


def test_only_the_stated_share_of_lesions_is_bright():
    levels, labels = lesion_batch(400)
    limits = replace(ONLY_BRIGHT, bright_lesions=0.25)
    generator = torch.Generator().manual_seed(1)
    images, _ = augment_batch(levels, labels, THREE_SLICES, generator, limits)
    assert 0.18 < (images[:, 1, 32, 32] > 0.6).float().mean() < 0.32


def test_recipes_say_how_far_they_augment():
    assert augmentation_of(liver_recipe()).fatty_liver > 0
    assert augmentation_of(tumor_recipe()).bright_lesions > 0
    assert augmentation_of(liver_recipe("original")) is None
    assert augmentation_of(tumor_recipe(drawn_lesions=0.4)).drawn_lesions == 0.4
    assert augmentation_of(liver_recipe()).drawn_lesions == 0


def test_each_channel_of_each_image_gets_noise_of_its_own():
    levels = torch.full((2, 3, 64, 64), 128, dtype=torch.uint8)
    limits = Augmentation(0, 1, 0, 1, 0, 0, noise=0.05)
    spec = replace(LIVER, channels=3, context=1)
    labels = torch.zeros_like(levels)
    images, _ = augment_batch(levels, labels, spec, torch.Generator().manual_seed(0), limits)
    planes = images.flatten(0, 1).flatten(1)  # (6, 64 * 64)
    assert (planes.std(1) > 0).all()
    assert (planes.std(1) < 0.06).all()
    assert (torch.corrcoef(planes) - torch.eye(6)).abs().max() < 0.2


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
