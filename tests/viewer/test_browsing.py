"""What the viewer knows of a case."""

import numpy as np
import pytest
from helpers.drawn import SPACING_MM
from helpers.viewed_cases import SHAPE, make_labels, make_volume

from lits_helpers.viewer.browsing import BrowsedCase, find_lesions


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
