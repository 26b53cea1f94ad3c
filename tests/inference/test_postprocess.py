"""Each rule of the clean-up, on drawn labels with spacing (5.0, 0.7, 0.8) mm."""

import numpy as np
import pytest

from lits_helpers.inference import Postprocessing, postprocess
from lits_helpers.inference.postprocess import (
    clean_liver,
    drop_faint_lesions,
    drop_small_lesions,
    keep_near_liver,
    liver_reach,
)

SHAPE = (12, 40, 48)
SPACING_MM = (5.0, 0.7, 0.8)
VOXEL_MM3 = 2.8


def two_parts():
    """A liver of 480 voxels with a spleen-like part of 60 that it does not touch."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:7, 5:17, 4:12] = 1
    labels[3:6, 20:25, 30:34] = 1
    return labels


def hollow():
    """A liver with one enclosed cavity and one notch that is open to the side."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:8, 5:20, 4:24] = 1
    labels[4, 8:10, 9:12] = 0
    labels[5, 14, 20:24] = 0
    return labels


def test_only_the_largest_component_of_the_liver_stays():
    labels = two_parts()
    clean_liver(labels, Postprocessing())
    assert labels.sum() == 480
    assert labels[2:7, 5:17, 4:12].all()


def test_components_that_touch_at_an_edge_only_are_two():
    labels = np.zeros(SHAPE, np.uint8)
    labels[3, 5:10, 4:9] = 1
    labels[4, 10:12, 4:9] = 1  # shares an edge, no face, with the first
    clean_liver(labels, Postprocessing())
    assert labels[3].sum() == 25
    assert labels[4].sum() == 0


def test_all_components_stay_when_the_largest_is_not_asked_for():
    labels = two_parts()
    clean_liver(labels, Postprocessing(largest_liver=False))
    assert labels.sum() == 480 + 60


def test_enclosed_cavities_become_liver_and_open_notches_do_not():
    labels = hollow()
    clean_liver(labels, Postprocessing())
    assert labels[4, 8:10, 9:12].all()
    assert not labels[5, 14, 20:24].any()
    assert labels.sum() == 6 * 15 * 20 - 4


def test_cavities_stay_when_filling_is_off():
    labels = hollow()
    before = labels.copy()
    clean_liver(labels, Postprocessing(fill_holes=False))
    assert np.array_equal(labels, before)


def test_a_hole_open_through_the_volumes_last_slice_is_no_cavity():
    labels = np.zeros(SHAPE, np.uint8)
    labels[8:12, 5:20, 4:24] = 1
    labels[10:12, 9:12, 9:12] = 0
    clean_liver(labels, Postprocessing())
    assert not labels[10:12, 9:12, 9:12].any()


def test_nothing_stays_nothing():
    labels = np.zeros(SHAPE, np.uint8)
    clean_liver(labels, Postprocessing())
    drop_small_lesions(labels, SPACING_MM, Postprocessing())
    keep_near_liver(labels, labels, SPACING_MM, Postprocessing())
    assert not labels.any()
    assert len(liver_reach(labels, SPACING_MM, Postprocessing())) == 0


@pytest.mark.parametrize(
    ("margin_mm", "reach"),
    [(0.0, [4, 5, 6]), (4.9, [4, 5, 6]), (5.0, [3, 4, 5, 6, 7]), (10.0, [2, 3, 4, 5, 6, 7, 8])],
)
def test_slices_in_reach_are_whole_slice_distances_within_the_margin(margin_mm, reach):
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:7, 10, 10] = 1
    post = Postprocessing(margin_mm=margin_mm)
    assert liver_reach(labels, SPACING_MM, post).tolist() == reach


def test_tumor_is_kept_up_to_the_margin_in_mm_along_each_axis():
    labels = np.zeros(SHAPE, np.uint8)
    labels[5, 20, 20] = 1
    tumor = np.ones(SHAPE, np.uint8)
    keep_near_liver(tumor, labels, SPACING_MM, Postprocessing(margin_mm=5.0))
    assert np.flatnonzero(tumor[:, 20, 20]).tolist() == [4, 5, 6]
    assert np.flatnonzero(tumor[5, :, 20]).tolist() == list(range(13, 28))  # 7 * 0.7 mm = 4.9
    assert np.flatnonzero(tumor[5, 20]).tolist() == list(range(14, 27))  # 6 * 0.8 mm = 4.8


def test_margin_is_round_and_exact_to_the_pixel():
    labels = np.zeros(SHAPE, np.uint8)
    labels[5, 20, 20] = 1
    tumor = np.ones(SHAPE, np.uint8)
    keep_near_liver(tumor, labels, SPACING_MM, Postprocessing(margin_mm=5.0))
    y, x = np.indices(SHAPE[1:])
    expected = np.hypot((y - 20) * 0.7, (x - 20) * 0.8) <= 5.0 + 1e-9  # (1.4, 4.8) counts
    assert np.array_equal(tumor[5] > 0, expected)


def test_margin_zero_keeps_tumor_in_the_liver_alone():
    labels, tumor = two_parts(), np.ones(SHAPE, np.uint8)
    keep_near_liver(tumor, labels, SPACING_MM, Postprocessing(margin_mm=0))
    assert np.array_equal(tumor, labels)


def test_lesions_are_dropped_below_the_stated_volume_and_kept_at_it():
    tumor = np.zeros(SHAPE, np.uint8)
    tumor[3, 5, 5:15] = 1  # 10 voxels = 28.0 mm3
    tumor[7, 20, 5:16] = 1  # 11 voxels = 30.8 mm3
    drop_small_lesions(tumor, SPACING_MM, Postprocessing(min_lesion_mm3=11 * VOXEL_MM3))
    assert tumor[3].sum() == 0
    assert tumor[7].sum() == 11


def test_lesions_touching_at_a_corner_are_measured_one_by_one():
    tumor = np.zeros(SHAPE, np.uint8)
    tumor[3, 5:7, 5:8] = 1
    tumor[4, 7:9, 8:11] = 1  # 6 voxels each, 16.8 mm3
    drop_small_lesions(tumor, SPACING_MM, Postprocessing(min_lesion_mm3=30))
    assert not tumor.any()


def test_lesions_that_nowhere_reach_the_peak_are_dropped_and_others_stay_whole():
    tumor, probability = np.zeros(SHAPE, np.uint8), np.full(SHAPE, 255, np.uint8)
    tumor[3, 5, 5:15] = tumor[7, 20, 5:16] = 1
    probability[tumor > 0] = 130  # 0.51
    probability[3, 5, 9], probability[7, 20, 9] = 204, 203  # 0.8, and just below
    drop_faint_lesions(tumor, probability, 0.8)
    assert tumor[3].sum() == 10
    assert tumor[7].sum() == 0


@pytest.mark.parametrize("peak", [-0.1, 1.5])
def test_a_peak_is_a_probability(peak):
    with pytest.raises(ValueError, match=r"tumor_peak must lie in \[0, 1\] or be None, got"):
        Postprocessing(tumor_peak=peak)


def test_every_lesion_stays_at_volume_zero():
    tumor = np.zeros(SHAPE, np.uint8)
    tumor[3, 5, 5] = 1
    drop_small_lesions(tumor, SPACING_MM, Postprocessing(min_lesion_mm3=0))
    assert tumor.sum() == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"liver_threshold": 0}, r"liver_threshold must lie in \(0, 1\), got 0"),
        ({"tumor_threshold": 1.0}, r"tumor_threshold must lie in \(0, 1\), got 1.0"),
        ({"margin_mm": -1}, "margin_mm must be finite and not negative, got -1"),
        ({"min_lesion_mm3": -0.5}, "min_lesion_mm3 must be finite and not negative, got -0.5"),
    ],
)
def test_impossible_switches_are_refused_by_name(change, words):
    with pytest.raises(ValueError, match=words):
        Postprocessing(**change)


def test_the_liver_itself_does_not_become_tumor():
    labels, tumor = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    labels[4:7, 10:20, 10:24] = 1
    tumor[5, 12, 13:16] = 1
    before = tumor.copy()
    keep_near_liver(tumor, labels, SPACING_MM, Postprocessing())
    assert np.array_equal(tumor, before)


@pytest.mark.parametrize(
    ("margin_mm", "rows", "columns"), [(4.9, 7, 6), (4.8, 6, 6), (2.1, 3, 2), (2.4, 3, 3)]
)
def test_a_margin_of_whole_pixels_reaches_the_last_of_them(margin_mm, rows, columns):
    labels, tumor = np.zeros(SHAPE, np.uint8), np.ones(SHAPE, np.uint8)
    labels[5, 20, 20] = 1
    keep_near_liver(tumor, labels, SPACING_MM, Postprocessing(margin_mm=margin_mm))
    assert tumor[5, :, 20].sum() == 2 * rows + 1
    assert tumor[5, 20].sum() == 2 * columns + 1


def test_lesions_below_one_cubic_millimetre_are_dropped_if_that_is_the_limit():
    tumor = np.zeros(SHAPE, np.uint8)
    tumor[3, 5, 5] = 1  # 0.56 mm3
    tumor[3, 9, 5:7] = 1  # 1.12 mm3
    drop_small_lesions(tumor, (1.0, 0.7, 0.8), Postprocessing(min_lesion_mm3=1))
    assert tumor.sum(axis=(0, 2)).nonzero()[0].tolist() == [9]


def test_components_that_lie_in_several_parts_of_the_count_are_added_up(monkeypatch):
    monkeypatch.setattr(postprocess, "COUNTED_AT_ONCE", 50)
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 5:9, 4:9] = 1  # 40 voxels
    labels[5:11, 25:27, 30:34] = 1  # 48 voxels, fewer in a slice
    clean_liver(labels, Postprocessing())
    assert labels.sum() == 48
    assert labels[5:11, 25:27, 30:34].all()
