"""How a slice is resized, to the value, and what number types come out."""

import numpy as np
import pytest

from lits_helpers.recipes import InputSpec
from lits_helpers.volumes import (
    Frame,
    liver_frame,
    resize_image,
    restore,
    slice_levels,
    to_levels,
    window_to_uint8,
)
from lits_helpers.volumes.pixels import Box


def test_a_slice_is_shrunk_by_area_means():
    image = np.zeros((8, 8), np.float32)
    image[0, :4] = 80  # a quarter of the four by four pixels that become the first
    image[3, 7] = image[4, 0] = 32  # one of sixteen
    assert resize_image(image, 2).tolist() == [[20, 2], [2, 0]]


def test_a_slice_is_enlarged_bilinearly():
    image = np.tile(np.array([0, 80, 160, 240], np.uint8), (3, 1))
    plane = resize_image(image, 8)  # six rows, one of padding on each side
    assert plane[1:7].tolist() == [[0, 20, 60, 100, 140, 180, 220, 240]] * 6
    assert not plane[[0, 7]].any()


@pytest.mark.parametrize("size", [24, 96])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_resizing_keeps_the_number_type(dtype, size):
    assert resize_image(np.ones((40, 48), dtype), size).dtype == dtype


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float64])
def test_restored_planes_are_float32(dtype):
    assert restore(np.ones((32, 32), dtype), (40, 48)).dtype == np.float32


def test_a_slice_of_two_neighbouring_values_spans_all_levels():
    hu = np.array([[[-5, -4, -5]], [[7, 7, 7]]], np.int16)
    levels = to_levels(hu, InputSpec(size=32, window=None))
    assert levels.tolist() == [[[0, 65535, 0]], [[0, 0, 0]]]


def test_a_framed_slice_is_cut_to_its_box_and_seen_in_a_window_about_the_liver():
    spec = InputSpec(size=32, window=(-51, 51), liver_margin=0.1, liver_window=True)
    hu = np.full((40, 48), 400, np.int16)
    hu[4:20, 6:38] = 100  # the liver's median: the middle of the window
    hu[4:12, 6:22] = 60  # (60 - 49) / 102 * 255 = 27.5
    levels = slice_levels(hu, spec, Frame(box=Box(4, 6, 16, 32), median_hu=100))
    assert np.unique(levels[8:16, :16]).tolist() == [28]
    assert np.unique(levels[16:24]).tolist() == [128]
    assert not levels[:8].any()


def test_a_slice_without_frame_is_seen_whole_in_the_window_itself():
    spec = InputSpec(size=32, window=(-51, 51))
    hu = np.full((32, 32), -51, np.int16)
    hu[20:, 4:] = 51
    assert np.array_equal(slice_levels(hu, spec, Frame()), np.where(hu > 0, 255, 0))


def test_a_window_of_no_voxel_gives_none():
    assert window_to_uint8(np.zeros((0, 40, 48), np.int16), (-200, 300)).shape == (0, 40, 48)


SHAPE = (24, 40, 48)
LABELS = np.zeros(SHAPE, np.uint8)
LABELS[2:22, 10:20, 8:28] = 1  # twenty slices
LABELS[2:22, 10:20, 8:21] = 2  # most of the liver is tumor
HU = (
    np.where(LABELS == 2, 40, 130).astype(np.int16)
    + 10 * np.arange(24, dtype=np.int16)[:, None, None]
)
BOX = Box(8, 6, 14, 24)  # two pixels, a tenth of 20, on each side


def frame(**asked):
    spec = InputSpec(size=32, window=(-100, 100), **asked)
    return liver_frame(HU.__getitem__, LABELS.__getitem__, range(24), spec, 1.0)


def test_neither_crop_nor_window_is_the_whole_slice():
    assert frame() == Frame()


def test_a_crop_alone_leaves_the_window_where_it_is():
    assert frame(liver_margin=0.1) == Frame(box=BOX)


def test_a_window_alone_crops_nothing():
    assert frame(liver_window=True).box is None


def test_both_crop_and_move_the_window():
    found = frame(liver_margin=0.1, liver_window=True)
    assert (found.box, found.median_hu) == (BOX, frame(liver_window=True).median_hu)


@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_the_median_is_that_of_all_slices_with_liver_tumor_included_where_they_are_few(count):
    labels = np.zeros((count + 2, 3, 5), np.uint8)
    labels[1:-1, 1, 1:4] = (1, 2, 1)
    hu = (np.arange(count + 2)[:, None, None] ** 2 * np.ones((3, 5))).astype(np.int16)
    hu[1:-1, 1, 2] += 1000  # the tumor's: the highest third
    spec = InputSpec(size=32, window=(-100, 100), liver_window=True)
    found = liver_frame(hu.__getitem__, labels.__getitem__, range(count + 2), spec, 1.0).median_hu
    assert found == int(np.median(hu[labels > 0]))


def test_the_median_of_many_slices_is_that_of_sixteen_from_the_first_to_the_last():
    labels = np.zeros((100, 3, 5), np.uint8)
    labels[20:81, 1, 2] = 1  # 61 slices: every fourth is looked at
    hu = (np.arange(100)[:, None, None] * np.ones((3, 5))).astype(np.int16)
    seen = []

    def hu_of(k):
        seen.append(k)
        return hu[k]

    spec = InputSpec(size=32, window=(-100, 100), liver_window=True)
    assert liver_frame(hu_of, labels.__getitem__, range(100), spec, 1.0).median_hu == 50
    assert seen == list(range(20, 81, 4))
