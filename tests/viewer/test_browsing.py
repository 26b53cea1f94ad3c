"""What the viewer knows of a case."""

import numpy as np
import pytest
from helpers.drawn import SPACING_MM
from helpers.viewed_cases import SHAPE, make_labels, make_volume
from scipy import ndimage

from lits_helpers.viewer.browsing import (
    LISTED,
    BrowsedCase,
    case_summary,
    find_lesions,
    lesion_lines,
)


def test_a_bool_mask_is_a_liver():
    case = BrowsedCase(make_volume().hu, SPACING_MM, {"prediction": make_labels() > 0})
    assert case.layers["prediction"].max() == 1
    assert case.lesions == []


def test_lesions_touch_by_faces_and_are_measured_within_a_slice():
    labels = np.zeros(SHAPE, np.uint8)
    labels[2, 10, 10:14] = 2  # 4 pixels in a row
    labels[3, 11, 14] = 2  # touches by a corner only
    long, single = find_lesions(labels, SPACING_MM)
    assert (long.voxels, single.voxels) == (4, 1)
    assert long.longest_mm == pytest.approx(np.hypot(4 * 0.8, 0.7))
    assert single.center == (3, 11, 14)


def test_centers_are_those_of_a_search_lesion_by_lesion():
    labels = 2 * (np.random.default_rng(0).random(SHAPE) < 0.2).astype(np.uint8)
    components, count = ndimage.label(labels == 2)
    lesions = find_lesions(labels, SPACING_MM)
    assert len(lesions) == count > 500
    assert [lesion.voxels for lesion in lesions] == sorted(
        np.bincount(components.ravel())[1:].tolist(), reverse=True
    )
    for lesion in lesions[:40]:
        mask = components == components[lesion.center]
        z = int(mask.sum(axis=(1, 2)).argmax())
        points = np.argwhere(mask[z])
        away = np.square(points - points.mean(axis=0)).sum(axis=1)
        assert lesion.center == (z, *points[away.argmin()].tolist())
        assert all(
            np.ptp(np.flatnonzero(mask.any(axis=others))) + 1 == s.stop - s.start
            for others, s in zip(((1, 2), (0, 2), (0, 1)), lesion.box, strict=True)
        )


def test_only_the_largest_of_many_lesions_are_measured_and_listed():
    labels = np.zeros((20, 100, 100), np.uint8)
    labels[::2, ::2, ::2] = 2  # 25,000 single voxels
    labels[1, 40:44, 40] = 2
    case = BrowsedCase(np.zeros(labels.shape, np.int16), SPACING_MM, {"prediction": labels})
    assert len(case.lesions) > 24_000
    assert len(lesion_lines(case)) == LISTED
    assert [lesion.longest_mm is None for lesion in case.lesions[LISTED - 1 : LISTED + 1]] == [
        False,
        True,
    ]


def test_next_and_previous_go_round_in_voxel_order():
    case = BrowsedCase(make_volume().hu, SPACING_MM, {"reference": make_labels()})
    small, large = case.lesions[1].center, case.lesions[0].center
    assert case.next_lesion((0, 0, 0)).center == small
    assert case.next_lesion(small).center == large
    assert case.next_lesion(large).center == small
    assert case.next_lesion(large, -1).center == small
    assert case.next_lesion(small, -1).center == large


def test_lesions_of_the_prediction_serve_where_the_reference_has_none():
    layers = {"prediction": make_labels(), "reference": (make_labels() > 0).astype(np.uint8)}
    assert len(BrowsedCase(make_volume().hu, SPACING_MM, layers).lesions) == 2


@pytest.mark.parametrize("sources", [(), ("prediction",), ("reference",)])
def test_without_two_sides_there_is_no_worst_slice(sources):
    case = BrowsedCase(make_volume().hu, SPACING_MM, dict.fromkeys(sources, make_labels()))
    with pytest.raises(ValueError, match="no prediction with a reference to compare it with"):
        case.worst_slice("liver")


def test_labels_without_tumor_do_not_say_that_there_is_none():
    case = BrowsedCase(make_volume().hu, SPACING_MM, {"prediction": make_labels() > 0})
    assert case_summary(case) == "lesions: none in the labels"
