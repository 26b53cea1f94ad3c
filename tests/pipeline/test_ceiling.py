"""The resize ceiling."""

import numpy as np
import pytest

from lits_helpers.pipeline.results import resize_ceiling
from lits_helpers.recipes import InputSpec


def disc(diameter: float, shape: tuple[int, int] = (200, 256)) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    inside = (rows - 90.3) ** 2 + (columns - 141.8) ** 2 <= (diameter / 2) ** 2
    return np.stack([inside & False, inside, inside])


def spec(size: int) -> InputSpec:
    return InputSpec(size=size, window=(-200, 300))


def test_native_size_costs_nothing():
    assert resize_ceiling(disc(20), spec(256)) == 1


def test_ceiling_falls_with_the_size_of_the_lesion():
    ceilings = [resize_ceiling(disc(wide), spec(64)) for wide in (80, 20, 8)]
    assert ceilings == sorted(ceilings, reverse=True)
    assert ceilings[0] > 0.96 > 0.88 > ceilings[2]


def test_ceiling_rises_with_the_working_size():
    ceilings = [resize_ceiling(disc(9), spec(size)) for size in (32, 64, 128, 256)]
    assert ceilings == sorted(ceilings)


def test_lesion_much_smaller_than_a_pixel_cannot_be_found():
    mask = np.zeros((2, 200, 256), bool)
    mask[1, 64, 64] = True
    assert resize_ceiling(mask, spec(64)) == 0


def test_higher_threshold_finds_less_of_a_thin_lesion():
    assert resize_ceiling(disc(6), spec(64), threshold=0.9) < resize_ceiling(disc(6), spec(64))


def test_ceiling_of_an_empty_mask_is_one():
    assert resize_ceiling(disc(0), spec(64)) == 1


def test_labels_are_refused():
    with pytest.raises(ValueError, match=r"mask must be \(Z, Y, X\) bool, got .* uint8"):
        resize_ceiling(disc(9).astype(np.uint8), spec(64))
