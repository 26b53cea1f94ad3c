"""A generated patient: deterministic, in the right places, and not solved by a threshold."""

import numpy as np
import pytest
from helpers.phantoms import phantom
from scipy import ndimage

from lits_helpers.phantom import make_phantom

SHAPE = (12, 40, 48)


def test_a_seed_gives_the_same_phantom_and_another_seed_another():
    first, again, other = (make_phantom(seed, SHAPE) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert first[2] == again[2] != other[2]
    assert (first[0] != other[0]).mean() > 0.5


def test_phantom_has_the_asked_shape_and_the_declared_types():
    hu, labels, (dz, dy, dx) = phantom(0, SHAPE)
    assert hu.shape == labels.shape == SHAPE
    assert (hu.dtype, labels.dtype) == (np.int16, np.uint8)
    assert 1 <= dz <= 8
    assert dy == dx
    assert 300 <= 48 * dx <= 421


def test_the_same_seed_is_the_same_patient_at_another_resolution():
    volumes_ml = []
    for shape in ((24, 80, 88), (40, 100, 110)):
        _, labels, spacing_mm = phantom(4, shape)
        volumes_ml.append((labels > 0).sum() * np.prod(spacing_mm) / 1000)
    assert volumes_ml[0] == pytest.approx(volumes_ml[1], rel=0.06)


@pytest.mark.parametrize("seed", range(4))
def test_the_liver_lies_right_the_spine_behind_and_the_lungs_above(seed):
    hu, labels, _ = phantom(seed)
    liver = labels > 0
    depth, height, width = hu.shape
    assert np.nonzero(liver)[2].mean() < 0.45 * width  # the patient's right is the image's left
    middle = hu[:, :, width // 2 - 4 : width // 2 + 4]
    assert np.nonzero(middle > 250)[1].mean() > 0.5 * height
    body = ndimage.binary_fill_holes((hu > -300).any(0))
    lung = (hu < -700) & (hu > -950) & body
    assert lung[-depth // 4 :].sum() > 4 * max(lung[: depth // 4].sum(), 10)


@pytest.mark.parametrize("seed", range(8))
def test_there_are_slices_above_and_below_the_liver(seed):
    _, labels, _ = phantom(seed)
    holds_liver = np.flatnonzero((labels > 0).any((1, 2)))
    assert holds_liver[0] >= 1
    assert holds_liver[-1] <= labels.shape[0] - 2


def dice(a, b):
    return 2 * (a & b).sum() / max(a.sum() + b.sum(), 1)


def largest_part(mask):
    parts, count = ndimage.label(mask)
    return parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]) if count else mask


def smoothings(hu):
    hu = np.clip(hu, -200, 300).astype(np.float32)
    return hu, ndimage.gaussian_filter(hu, (0, 0.8, 0.8)), ndimage.median_filter(hu, (1, 3, 3))


def test_thresholds_find_neither_liver_nor_tumor():
    """The best of many windows, one for all cases and chosen knowing the answers, is too little."""
    windows = [(low, high) for low in range(20, 110, 15) for high in range(low + 30, 190, 25)]
    cases = [phantom(seed)[:2] for seed in range(20, 26)]
    masks = [
        [
            largest_part((image >= low) & (image < high))
            for image in smoothings(hu)
            for low, high in windows
        ]
        for hu, _ in cases
    ]
    liver_dice = np.mean(
        [
            [dice(mask, labels > 0) for mask in found]
            for found, (_, labels) in zip(masks, cases, strict=True)
        ],
        0,
    )
    assert liver_dice.max() <= 0.70
    tumor_dice = []
    for found, (hu, labels) in zip(masks, cases, strict=True):
        if (labels == 2).any():
            closed = ndimage.binary_closing(found[liver_dice.argmax()], iterations=2)
            liver = ndimage.binary_fill_holes(closed)
            tumor_dice.append(_tumor_scores(hu, liver, labels == 2))
    assert np.mean(tumor_dice, 0).max() <= 0.25


def _tumor_scores(hu, liver, tumor):
    """Return Dice of everything darker by some HU in the liver found, and of its largest part."""
    scores, middle = [], np.median(hu[liver])
    for image in smoothings(hu):
        for darker in range(10, 50, 8):
            for deepest in (60, 200):
                mask = liver & (image < middle - darker) & (image > middle - deepest)
                scores += [dice(mask, tumor), dice(largest_part(mask), tumor)]
    return scores
