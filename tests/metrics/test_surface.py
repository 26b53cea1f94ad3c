"""Surface distances: hand-drawn, by brute force, and beside MONAI."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lits_helpers.metrics import evaluate_case
from lits_helpers.metrics.surface import border, surface_distances, surface_metrics

SHAPE = (12, 40, 48)
SPACING_MM = (5.0, 0.7, 0.8)

small_shapes = st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 6))
masks = small_shapes.flatmap(lambda shape: arrays.arrays(bool, (2, *shape)))
spacings_mm = st.tuples(*[st.floats(0.4, 6.0)] * 3)


def block() -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[4:7, 10:13, 20:23] = True
    return mask


def brute_border(mask: np.ndarray) -> np.ndarray:
    steps = [s for s in np.ndindex(3, 3, 3) if sum(abs(np.array(s) - 1)) in (1, 2)]
    padded = np.pad(mask, 1)
    result = np.zeros_like(mask)
    for place in np.argwhere(mask):
        result[tuple(place)] = not all(padded[tuple(place + step)] for step in steps)
    return result


def brute_distances(first: np.ndarray, second: np.ndarray, spacing_mm) -> np.ndarray:
    others = np.argwhere(brute_border(second))
    return np.array(
        [
            min(math.hypot(*((place - other) * spacing_mm)) for other in others)
            for place in np.argwhere(brute_border(first))
        ]
    )


def test_block_of_27_has_one_voxel_inside():
    assert border(block()).sum() == 26


def test_missing_corner_leaves_the_centre_inside():
    mask = block()
    mask[4, 10, 20] = False
    assert not border(mask)[5, 11, 21]


@pytest.mark.parametrize("place", [(4, 10, 21), (4, 11, 20), (5, 10, 20), (6, 12, 21)])
def test_missing_edge_voxel_makes_the_centre_border(place):
    mask = block()
    mask[place] = False
    assert border(mask)[5, 11, 21]


def test_outside_the_volume_is_background():
    assert border(np.ones((3, 4, 5), bool)).sum() == 60 - 1 * 2 * 3


@given(masks)
@settings(max_examples=60, deadline=None)
def test_border_is_what_the_18_neighbourhood_says(pair):
    assert np.array_equal(border(pair[0]), brute_border(pair[0]))


def test_figures_of_a_voxel_against_a_row_of_three():
    reference, prediction = np.zeros((2, *SHAPE), bool)
    reference[5, 20, 20] = True
    prediction[5, 20, 20:23] = True  # 0, 0.8 and 1.6 mm away; back: 0
    result = surface_metrics(prediction, reference, SPACING_MM, empty_mm=99.0)
    assert result["assd_mm"] == pytest.approx(2.4 / 4)
    assert result["rmsd_mm"] == pytest.approx(math.sqrt((0.64 + 2.56) / 4))
    assert result["max_surface_mm"] == pytest.approx(1.6)
    assert result["hd95_mm"] == pytest.approx(0.8 + 0.9 * 0.8)  # 95 % of the way through 3 values


def test_distance_between_two_voxels_is_measured_along_all_axes():
    first, second = np.zeros((2, *SHAPE), bool)
    first[3, 10, 10] = second[4, 12, 13] = True
    there, back = surface_distances(first, second, SPACING_MM)
    assert there == back == pytest.approx([math.hypot(5.0, 1.4, 2.4)])


@given(masks, spacings_mm)
@settings(max_examples=60, deadline=None)
def test_distances_are_those_of_the_nearest_border_voxel(pair, spacing_mm):
    assume(pair[0].any() and pair[1].any())
    there, back = surface_distances(*pair, spacing_mm, workers=1)
    assert there == pytest.approx(brute_distances(*pair, spacing_mm))
    assert back == pytest.approx(brute_distances(*pair[::-1], spacing_mm))


@given(masks, spacings_mm)
@settings(max_examples=60, deadline=None)
def test_surface_figures_are_symmetric_and_ordered(pair, spacing_mm):
    result = surface_metrics(*pair, spacing_mm, empty_mm=1000.0, workers=1)
    assert result == pytest.approx(surface_metrics(*pair[::-1], spacing_mm, empty_mm=1000.0))
    assert result["assd_mm"] <= result["rmsd_mm"] + 1e-9
    assert result["rmsd_mm"] <= result["max_surface_mm"] + 1e-9
    assert result["hd95_mm"] <= result["max_surface_mm"] + 1e-9


def test_threads_change_nothing():
    generator = np.random.default_rng(0)
    first, second = generator.random((2, *SHAPE)) < 0.3
    one = surface_metrics(first, second, SPACING_MM, empty_mm=0.0, workers=1)
    assert one == surface_metrics(first, second, SPACING_MM, empty_mm=0.0, workers=2)


def test_distances_agree_with_monai_on_our_borders():
    monai = pytest.importorskip("monai.metrics.utils", reason="MONAI is in requirements-dev.txt")
    generator = np.random.default_rng(1)
    first, second = generator.random((2, *SHAPE)) < 0.02
    there, back = surface_distances(first, second, SPACING_MM)
    borders = border(first), border(second)
    theirs = monai.get_surface_distance(*borders, spacing=SPACING_MM)
    assert there == pytest.approx(np.asarray(theirs), abs=1e-4)
    theirs = monai.get_surface_distance(*borders[::-1], spacing=SPACING_MM)
    assert back == pytest.approx(np.asarray(theirs), abs=1e-4)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_case_agrees_with_monai_where_both_have_the_same_border():
    monai = pytest.importorskip("monai.metrics", reason="MONAI is in requirements-dev.txt")
    import torch

    reference, prediction = np.zeros((2, *SHAPE), np.uint8)
    reference[3:8, 5:25, 6:30] = 1  # a box has the same border for 6 and for 18 neighbours
    prediction[4:10, 8:25, 3:30] = 1
    ours = evaluate_case(prediction, reference, SPACING_MM)
    pair = [torch.from_numpy(labels)[None, None].float() for labels in (prediction, reference)]
    mm = {"include_background": True, "spacing": SPACING_MM}
    theirs = {
        "dice": monai.compute_dice(*pair),
        "voe": 1 - monai.compute_iou(*pair),
        "assd_mm": monai.compute_average_surface_distance(*pair, symmetric=True, **mm),
        "max_surface_mm": monai.compute_hausdorff_distance(*pair, **mm),
        "hd95_mm": monai.compute_hausdorff_distance(*pair, percentile=95, **mm),
    }
    for key, value in theirs.items():
        assert ours[f"liver_{key}"] == pytest.approx(value.item(), rel=1e-5), key


EMPTY = np.zeros((12, 40, 48), bool)
FILLED = EMPTY.copy()
FILLED[4:7, 10:13, 20:23] = True


@pytest.mark.parametrize(
    ("first", "second", "value"),
    [(EMPTY, FILLED, 99.0), (FILLED, EMPTY, 99.0), (EMPTY, EMPTY, 0.0)],
)
def test_figures_of_an_empty_mask_are_the_stated_value_and_of_two_zero(first, second, value):
    found = surface_metrics(first, second, (5.0, 0.7, 0.8), empty_mm=99.0)
    assert found == dict.fromkeys(("assd_mm", "rmsd_mm", "max_surface_mm", "hd95_mm"), value)
