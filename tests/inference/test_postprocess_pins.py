"""The clean-up at its edges: sparse tumors, margins that fit exactly, large volumes in parts."""

import numpy as np
import pytest

from lits_helpers.inference import Postprocessing, postprocess
from lits_helpers.inference.postprocess import clean_liver, drop_small_lesions, keep_near_liver

SHAPE = (12, 40, 48)
SPACING_MM = (5.0, 0.7, 0.8)


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
