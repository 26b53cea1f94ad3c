"""What a tumor model is shown: the liver's box, and its median HU as the middle of the window."""

import numpy as np
import pytest

from lits_helpers.recipes import InputSpec
from lits_helpers.volumes import WHOLE_SLICE, liver_frame, slice_levels
from lits_helpers.volumes.pixels import Box, liver_box

SHAPE = (6, 40, 48)


def framed(margin=0.0, window=True):
    return InputSpec(32, (-100, 100), liver_margin=margin, liver_window=window)


def liver():
    """A liver in slices 1 to 4, rows 10-29 and columns 4-23, 90 HU; air around it."""
    hu = np.full(SHAPE, -1000, np.int16)
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:4, 10:30, 4:20] = 1
    labels[4, 12:16, 20:24] = 2
    hu[labels > 0] = 90
    return hu, labels


def frame_of(hu, labels, spec):
    return liver_frame(hu.__getitem__, labels.__getitem__, range(len(hu)), spec)


def test_box_holds_the_liver_of_all_slices_tumors_included():
    assert frame_of(*liver(), framed()).box == Box(top=10, left=4, height=20, width=20)


def test_margin_is_a_share_of_the_longer_side_and_ends_at_the_slice():
    footprint = np.zeros((40, 48), bool)
    footprint[10:30, 4:24] = True
    assert liver_box(footprint, 0.25) == Box(top=5, left=0, height=30, width=29)


def test_speck_of_liver_is_not_blown_up_without_end():
    footprint = np.zeros((40, 48), bool)
    footprint[20, 20] = True
    assert liver_box(footprint, 0.0).height == pytest.approx(12, abs=1)  # a quarter of 48


def test_window_counts_from_the_livers_median():
    hu, labels = liver()
    frame = frame_of(hu, labels, framed())
    assert frame.median_hu == 90
    assert slice_levels(hu[2], framed(), frame)[16, 8] == 128  # the middle of 0..255
    brighter = hu + np.int16(60)  # more contrast medium, the same picture
    shifted = frame_of(brighter, labels, framed())
    np.testing.assert_array_equal(
        slice_levels(brighter[2], framed(), shifted)[:, :20],
        slice_levels(hu[2], framed(), frame)[:, :20],
    )


def test_without_liver_or_wish_the_whole_slice_is_shown():
    hu, labels = liver()
    assert frame_of(hu, np.zeros_like(labels), framed()) == WHOLE_SLICE
    assert frame_of(hu, labels, InputSpec(32, (-100, 100))) == WHOLE_SLICE


def test_window_that_follows_the_liver_needs_a_window():
    with pytest.raises(ValueError, match="liver_window needs a window"):
        InputSpec(32, None, liver_window=True)
