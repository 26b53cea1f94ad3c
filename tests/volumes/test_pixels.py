"""Grey levels, sizes and the way back: the pixels a model sees."""

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from helpers.drawn import ramp

from lits_helpers.recipes import InputSpec
from lits_helpers.volumes import (
    Frame,
    liver_frame,
    resize_image,
    resize_mask,
    restore,
    slice_levels,
    to_levels,
    window_to_uint8,
)
from lits_helpers.volumes.geometry import plain_geometry
from lits_helpers.volumes.pixels import Box, content_box, liver_box

WINDOWED = InputSpec(size=160, window=(-200, 300))
MINMAX = InputSpec(size=128, window=None, channels=3, normalization="imagenet")


@pytest.mark.parametrize("window", [(-200, 300), (-100, 250), (-160, 240), (-7, 98)])
def test_window_rounds_half_up_exactly(window):
    low, high = window
    hu = np.arange(-1100, 1101, dtype=np.int16)
    exact = [
        min(255, max(0, int((Fraction(int(v) - low, high - low) * 255 + Fraction(1, 2)) // 1)))
        for v in hu
    ]
    np.testing.assert_array_equal(window_to_uint8(hu, window), exact)


def test_window_has_its_limits_at_black_and_white():
    levels = window_to_uint8(np.array([-32768, -200, 50, 300, 32767], np.int16), (-200, 300))
    assert levels.dtype == np.uint8
    assert levels.tolist() == [0, 0, 128, 255, 255]


def test_window_refuses_what_is_no_hu_or_no_window():
    with pytest.raises(ValueError, match="hu must be int16, got float64"):
        window_to_uint8(np.zeros((3, 4)), (-200, 300))
    with pytest.raises(ValueError, match=r"low < high, got \(300, -200\)"):
        window_to_uint8(np.zeros((3, 4), np.int16), (300, -200))


def test_minmax_spans_16_bit_in_each_slice_and_a_constant_slice_is_black():
    hu = np.array([[[-1000, 0], [500, 1000]], [[40, 40], [40, 40]]], np.int16)
    levels = to_levels(hu, MINMAX)
    assert levels.dtype == np.uint16
    assert levels[0].ravel().tolist() == [0, 32768, 49151, 65535]
    assert not levels[1].any()
    np.testing.assert_array_equal(to_levels(hu[0], MINMAX), levels[0])


@pytest.mark.parametrize(
    ("shape", "size", "box"),
    [
        ((40, 48), 160, (13, 0, 133, 160)),
        ((512, 512), 160, (0, 0, 160, 160)),
        ((101, 33), 128, (0, 43, 128, 42)),
        ((1, 500), 64, (31, 0, 1, 64)),
    ],
)
def test_content_keeps_its_aspect_in_the_middle(shape, size, box):
    assert content_box(shape, size) == box


@pytest.mark.parametrize(
    ("shape", "aspect", "box"),
    [
        ((512, 160), 1 / 3, (0, 5, 160, 150)),  # 512 rows are as long as 171 columns are wide
        ((40, 200), 3.0, (32, 0, 96, 160)),
        ((100, 40), 1.6, (0, 60, 160, 40)),
    ],
)
def test_content_of_pixels_that_are_not_square_keeps_its_true_shape(shape, aspect, box):
    assert content_box(shape, 160, aspect) == box


@pytest.mark.parametrize(
    ("spacing_mm", "aspect"),
    [((5, 0.8, 2.4), 1 / 3), ((5, 2.4, 0.8), 3), ((5, 0.8, 0.8079), 1), ((5, 0.8079, 0.8), 1)],
)
def test_pixels_count_as_square_to_one_percent(spacing_mm, aspect):
    assert plain_geometry((3, 40, 48), spacing_mm).pixel_aspect == pytest.approx(aspect, rel=1e-6)


def test_pixels_whose_millimetres_are_not_trusted_count_as_square():
    geometry = replace(plain_geometry((3, 40, 48), (5, 0.8, 2.4)), spacing_trusted=False)
    assert geometry.pixel_aspect == 1
    assert plain_geometry((3, 40, 48), (5e-3, 8e-4, 2.4e-3)).pixel_aspect == 1  # metres


@pytest.mark.parametrize("shape", [(512, 512), (300, 411), (101, 122), (64, 33), (160, 160)])
def test_a_slice_of_square_pixels_is_resized_by_the_one_call_that_models_were_trained_with(shape):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    scale = 160 / max(shape)
    height, width = (round(side * scale) for side in shape)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    wanted = cv2.resize(image, (width, height), interpolation=method)
    top, left = (160 - height) // 2, (160 - width) // 2
    plane = resize_image(image, 160)
    np.testing.assert_array_equal(plane[top : top + height, left : left + width], wanted)


def test_a_slice_that_shrinks_one_way_and_grows_the_other_takes_area_means_of_what_shrinks():
    stripes = np.tile(np.array([[0], [200]], np.uint8), (160, 20))
    plane = resize_image(stripes, 160, pixel_aspect=1 / 16)  # 320 x 20 become 160 x 160
    assert np.unique(plane).tolist() == [100]


@pytest.mark.parametrize("every", [(1, 3), (3, 1)])
def test_a_disc_of_any_pixels_arrives_as_the_same_disc(every):
    y, x = np.indices((300, 240)) * 1.0
    disc = np.hypot(y - 109, x - 151) < 70
    thin = disc[:: every[0], :: every[1]].astype(np.uint8)
    found = resize_mask(thin, 160, every[0] / every[1]) > 0
    wanted = resize_mask(disc, 160)
    assert 2 * (found & wanted).sum() > 0.97 * (found.sum() + wanted.sum())
    back = restore(found.astype(np.float32), thin.shape, every[0] / every[1]) >= 0.5
    assert 2 * (back & (thin > 0)).sum() > 0.97 * (back.sum() + thin.sum())


@pytest.mark.parametrize("shape", [(40, 48), (300, 411)])
def test_padding_is_the_windows_floor(shape):
    plane = slice_levels(np.full(shape, 300, np.int16), WINDOWED, Frame())
    top, left, height, width = content_box(shape, 160)
    assert plane.shape == (160, 160)
    assert (plane[top : top + height, left : left + width] == 255).all()
    assert plane.sum() == 255 * height * width


def test_shrinking_takes_area_means():
    checker = (np.indices((320, 320)).sum(0) % 2 * 200).astype(np.uint8)
    assert np.unique(resize_image(checker, 160)).tolist() == [100]


def test_masks_are_taken_at_pixel_centres():
    mask = np.arange(7 * 5, dtype=np.uint8).reshape(7, 5)
    top, left, height, width = content_box((7, 5), 32)
    plane = resize_mask(mask, 32)
    for row, column in ((0, 0), (13, 4), (31, 22)):
        source = mask[int((row + 0.5) * 7 / height), int((column + 0.5) * 5 / width)]
        assert plane[top + row, left + column] == source
    assert set(np.unique(plane)) == set(range(35))
    assert resize_mask(mask > 3, 32).dtype == bool


@pytest.mark.parametrize(("shape", "size"), [((40, 48), 160), ((101, 122), 160), ((240, 200), 96)])
def test_restore_undoes_the_geometry_of_resize(shape, size):
    y, x = np.indices(shape)
    smooth = (np.sin(y / 9) + np.cos(x / 7)).astype(np.float32)
    back = restore(resize_image(smooth, size), shape)
    assert back.shape == shape
    assert back.dtype == np.float32
    inside = (slice(4, -4), slice(4, -4))
    assert np.abs(back - smooth)[inside].max() < 0.05  # half a pixel off would be 0.07 and more


def test_restored_mask_keeps_its_centre():
    mask = np.zeros((120, 144), np.uint8)
    mask[30:61, 80:121] = 1
    back = restore(resize_mask(mask, 160).astype(np.float32), mask.shape) > 0.5
    rows, columns = np.nonzero(back)
    assert (rows.mean(), columns.mean()) == pytest.approx((45, 100), abs=0.3)


def test_restore_refuses_a_plane_that_is_not_square():
    with pytest.raises(ValueError, match=r"plane must be \(size, size\), got shape \(3, 4\)"):
        restore(np.zeros((3, 4)), (30, 40))


def test_levels_of_a_stack_equal_those_of_its_slices():
    for spec in (WINDOWED, MINMAX):
        whole = to_levels(ramp(), spec)
        for k in (0, 7):
            np.testing.assert_array_equal(whole[k], to_levels(ramp()[k], spec))


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
    return liver_frame(hu.__getitem__, labels.__getitem__, range(len(hu)), spec, 1.0)


def test_box_holds_the_liver_of_all_slices_tumors_included():
    assert frame_of(*liver(), framed()).box == Box(top=10, left=4, height=20, width=20)


def test_margin_is_a_share_of_the_longer_side_and_ends_at_the_slice():
    footprint = np.zeros((40, 48), bool)
    footprint[10:30, 4:24] = True
    assert liver_box(footprint, 0.25) == Box(top=5, left=0, height=30, width=29)


def test_margin_is_as_wide_in_millimetres_on_all_sides():
    footprint = np.zeros((90, 48), bool)
    footprint[30:60, 20:30] = True  # 30 rows and 10 columns, as long as these are wide
    assert liver_box(footprint, 0.3, pixel_aspect=1 / 3) == Box(
        top=21, left=17, height=48, width=16
    )
    assert liver_box(footprint.T, 0.3, pixel_aspect=3) == Box(top=17, left=21, height=16, width=48)


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
    assert frame_of(hu, np.zeros_like(labels), framed()) == Frame()
    assert frame_of(hu, labels, InputSpec(32, (-100, 100))) == Frame()


def test_window_that_follows_the_liver_needs_a_window():
    with pytest.raises(ValueError, match="liver_window needs a window"):
        InputSpec(32, None, liver_window=True)


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


DEEP = (24, 40, 48)
LABELS = np.zeros(DEEP, np.uint8)
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
