"""Slices as pictures: hand-drawn masks, expectations counted by eye."""

import io

import cv2
import numpy as np
import pytest
from helpers.drawn import labeled_volume
from PIL import Image

from lits_helpers.figures import (
    PALETTE,
    WINDOWS,
    Layer,
    drawing,
    encode,
    encode_frame,
    error_layers,
    label_layers,
    mask_box,
    render_slice,
)
from lits_helpers.figures.drawing import write_text
from lits_helpers.settings import real_data
from lits_helpers.volumes import read_segmentation, read_volume, window_to_uint8

SHAPE, SPACING_MM = (12, 40, 48), (5.0, 0.7, 0.8)


REFERENCE, PREDICTED = PALETTE["reference liver"], PALETTE["predicted liver"]


def block(top=5, left=8, height=15, width=22, shape=SHAPE[1:]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def pixels_of(picture: np.ndarray, color) -> np.ndarray:
    return (picture == np.array(color)).all(axis=2)


def test_gray_values_are_those_of_the_png_export():
    hu = np.arange(-300, 420, dtype=np.int16).reshape(18, 40)
    drawn = render_slice(hu, window=(-200, 300))
    assert np.array_equal(drawn, np.repeat(window_to_uint8(hu, (-200, 300))[..., None], 3, axis=2))


def test_a_float_image_in_0_to_1_is_drawn_with_that_window():
    image = np.array([[0.0, 0.5, 1.0], [2.0, -1.0, 0.25]])
    assert render_slice(image, window=(0, 1))[..., 0].tolist() == [[0, 128, 255], [255, 0, 64]]


def test_an_outline_is_the_outermost_pixels_of_the_mask():
    mask = block(height=4, width=6)
    drawn = pixels_of(
        render_slice(np.zeros(SHAPE[1:], np.int16), layers={"reference": mask}), REFERENCE
    )
    assert drawn.sum() == 2 * 6 + 2 * 2
    assert not drawn[6:8, 9:13].any()
    assert not (drawn & ~mask).any()


@pytest.mark.parametrize("zoom", [2, 3, 2.6, 7.3])
def test_an_outline_lies_on_the_mask_border_at_any_zoom(zoom):
    mask = block() & ~block(9, 14, 3, 5)
    drawn = render_slice(np.zeros(SHAPE[1:], np.int16), layers={"reference": mask}, zoom=zoom)
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * old / n).astype(int), old - 1)
        for n, old in zip(drawn.shape, mask.shape, strict=False)
    )
    enlarged = mask[np.ix_(rows, columns)]
    padded = np.pad(enlarged, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    assert np.array_equal(pixels_of(drawn, REFERENCE), enlarged & ~inner)


def test_an_outline_is_cut_where_the_mask_leaves_the_picture():
    mask = block()
    drawn = render_slice(
        np.zeros(SHAPE[1:], np.int16), layers={"reference": mask}, box=(10, 0, 20, 20)
    )
    outline = pixels_of(drawn, REFERENCE)
    assert outline[:10, 8].all()  # the left border of the block
    assert not outline[0, 9:].any()  # the block goes on above
    assert outline[9, 8:].all()


def test_coinciding_outlines_show_both_colors():
    layers = {"reference": block(), "prediction": block()}
    drawn = render_slice(np.zeros(SHAPE[1:], np.int16), layers=layers)
    counts = [pixels_of(drawn, color).sum() for color in (REFERENCE, PREDICTED)]
    assert sum(counts) == 2 * 22 + 2 * 13
    assert min(counts) > 20


def test_a_fill_mixes_color_and_gray_by_its_opacity():
    hu = np.full(SHAPE[1:], 50, np.int16)
    layers = {"x": Layer(block(), (200, 100, 0), "fill", 0.25)}
    drawn = render_slice(hu, window=(0, 100), layers=layers)
    assert drawn[6, 9].tolist() == [146, 121, 96]  # 128 * 0.75 + color * 0.25
    assert drawn[0, 0].tolist() == [128, 128, 128]


def test_rows_twice_as_thick_make_the_picture_twice_as_high():
    hu = np.zeros((10, 30), np.int16)
    assert render_slice(hu, spacing_mm=(5.0, 2.5)).shape == (20, 30, 3)
    assert render_slice(hu, spacing_mm=(2.5, 5.0), zoom=2).shape == (20, 120, 3)


@pytest.mark.parametrize(
    ("spacing_mm", "box"),
    [
        (None, (25, 15, 40, 20)),  # 4.5 of 30 rows, rounded up
        ((0.8, 0.8), (25, 15, 40, 20)),
        ((0.8, 2.4), (25, 18, 40, 14)),
    ],
)
def test_the_margin_of_a_box_is_as_wide_in_mm_on_all_sides(spacing_mm, box):
    mask = np.zeros((90, 48), bool)
    mask[30:60, 20:30] = True
    assert mask_box(mask, 0.15, spacing_mm) == box


def test_the_scale_bar_has_its_length():
    drawn = render_slice(
        np.full((300, 300), -1000, np.int16), spacing_mm=(0.5, 0.5), scale_bar=True
    )
    white = pixels_of(drawn, (255, 255, 255))
    assert white.sum(axis=1).max() == 50 / 0.5  # the longest round length within a third of 150 mm


def test_errors_are_what_only_one_of_the_masks_holds():
    prediction, reference = block(left=8), block(left=10)
    layers = error_layers(prediction, reference)
    assert layers["false positive"].mask.sum() == layers["false negative"].mask.sum() == 2 * 15
    assert layers["false positive"].mask[5:20, 8:10].all()


def test_the_liver_layer_holds_the_tumor():
    _, labels = labeled_volume()
    layers = label_layers("reference", labels[6])
    assert layers["reference liver"].mask.sum() == 20 * 20
    assert layers["reference tumor"].mask.sum() == 6 * 7


def test_a_key_names_each_color_once_and_breaks_its_lines():
    picture = np.zeros((30, 140, 3), np.uint8)
    keyed = drawing.with_key(picture, ["reference liver", "predicted liver"])
    assert keyed.shape == (30 + 2 * drawing.KEY_LINE, 140, 3)  # too long for one line
    counts = [pixels_of(keyed, color).sum() for color in (REFERENCE, PREDICTED)]
    assert counts == [10 * 10, 10 * 10]
    wide = drawing.with_key(np.zeros((30, 600, 3), np.uint8), ["reference liver", "uncertain"])
    assert wide.shape == (30 + drawing.KEY_LINE, 600, 3)


def test_png_returns_the_picture_and_jpeg_is_smaller():
    hu, labels = labeled_volume()
    picture = render_slice(hu[6], layers=label_layers("reference", labels[6]), zoom=4)
    png, jpeg = encode(picture, "png"), encode(picture)
    assert np.array_equal(np.array(Image.open(io.BytesIO(png))), picture)
    back = np.array(Image.open(io.BytesIO(jpeg))).astype(int)
    assert np.abs(back - picture).mean() < 6
    assert len(jpeg) < len(png)


def test_a_noisy_frame_stays_small():
    noise = np.random.default_rng(0).normal(40, 60, (512, 512)).astype(np.int16)
    frame = render_slice(noise, window=(-20, 180))
    assert len(encode(frame)) > 100_000
    assert len(encode_frame(frame)) < len(encode(frame, quality=78))
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.0)
    frame = render_slice(smooth, window=(-160, 240))
    assert encode_frame(frame) == encode(frame)


def test_planes_are_views_with_the_head_up_and_the_right_on_the_left():
    volume = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    assert drawing.plane(volume, "axial", 3)[4, 5] == volume[3, 4, 5]
    assert drawing.plane(volume, "coronal", 4)[0, 5] == volume[11, 4, 5]
    assert drawing.plane(volume, "sagittal", 5)[11, 4] == volume[0, 4, 5]
    assert all(np.shares_memory(drawing.plane(volume, name, 0), volume) for name in drawing.PLANES)
    assert drawing.plane_spacing(SPACING_MM, "coronal") == (5.0, 0.8)
    assert drawing.plane_spacing(SPACING_MM, "sagittal") == (5.0, 0.7)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: render_slice(np.zeros((1, 4, 4), np.int16)), r"must be \(H, W\)"),
        (lambda: render_slice(np.zeros((4, 4)), window=(3, 3)), "low < high"),
        (lambda: render_slice(np.zeros((4, 4)), layers={"a": np.ones((4, 5))}), "layer 'a'"),
        (lambda: render_slice(np.zeros((4, 4)), box=(0, 0, 5, 4)), "must lie in"),
        (lambda: Layer(np.ones((4, 4)), REFERENCE, "dotted"), '"outline" or "fill"'),
        (lambda: Layer(np.ones((4, 4)), REFERENCE, opacity=2), r"0\.\.1"),
        (lambda: encode(np.zeros((4, 4, 3), np.uint8), "gif"), '"jpeg" or "png"'),
        (lambda: drawing.plane(np.zeros(SHAPE), "oblique", 0), "axial, coronal, sagittal"),
    ],
)
def test_errors_say_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.real
@pytest.mark.parametrize("number", [0, 1, 2])
def test_real_patients_lie_with_the_liver_on_the_left_and_the_spine_below(number):
    root = real_data()
    if root is None:
        pytest.skip("LITS_REAL names no folder with real CT")
    volume = read_volume(next(root.rglob(f"volume-{number}.nii.gz")))
    labels = read_segmentation(next(root.rglob(f"segmentation-{number}.nii.gz")), volume)
    k = int((labels > 0).sum(axis=(1, 2)).argmax())
    layers = {"liver": Layer(labels[k] > 0, PREDICTED, "fill", 1.0)}
    drawn = render_slice(volume.hu[k], window=WINDOWS["bone"], layers=layers)
    liver = np.argwhere(pixels_of(drawn, PREDICTED))
    body = np.argwhere(volume.hu[k] > -300)
    bone = np.argwhere(volume.hu[k] > 250)
    assert liver[:, 1].mean() < body[:, 1].mean() - 0.1 * np.ptp(body[:, 1])
    assert np.median(bone[:, 0]) > body[:, 0].mean()


@pytest.mark.parametrize("height", [200, 700])
def test_every_letter_has_a_dark_rim_on_white(height):
    picture, alone = np.full((height, 400, 3), 255, np.uint8), np.zeros((height, 400), np.uint8)
    write_text(picture, "50 mm", (20, 100))
    size = min(max(height / 1000, 0.4), 0.9)
    cv2.putText(alone, "50 mm", (20, 100), cv2.FONT_HERSHEY_SIMPLEX, size, 255, 1, cv2.LINE_AA)
    rim = (cv2.dilate((alone > 128).astype(np.uint8), np.ones((3, 3))) > 0) & (alone < 64)
    assert (picture[rim] < 128).mean() > 0.95
    assert (picture[alone > 200] > 200).mean() > 0.95
