"""Pictures on disk: what a PNG tells of its pixels."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from lits_helpers.volumes import png_pixel_aspect, read_png, write_picture

IMAGE = np.arange(40 * 48, dtype=np.uint8).reshape(40, 48)


@pytest.mark.parametrize(("pixel_mm", "aspect"), [((0.8, 2.4), 1 / 3), ((2.4, 0.8), 3)])
def test_a_png_tells_the_shape_of_its_pixels_and_keeps_its_values(tmp_path, pixel_mm, aspect):
    path = tmp_path / "7.png"
    write_picture(path, IMAGE, pixel_mm=pixel_mm)
    assert png_pixel_aspect(path) == pytest.approx(aspect, rel=0.002)
    np.testing.assert_array_equal(read_png(path), IMAGE)


def test_the_size_of_a_pixel_is_written_as_the_standard_wants(tmp_path):
    write_picture(tmp_path / "7.png", IMAGE, pixel_mm=(0.8, 2.5))
    content = tmp_path.joinpath("7.png").read_bytes()
    start = content.index(b"pHYs")
    x, y, unit, checksum = struct.unpack(">IIBI", content[start + 4 : start + 17])
    assert (x, y, unit) == (400, 1250, 1)  # pixels in a metre
    assert checksum == zlib.crc32(content[start : start + 13])
    assert start < content.index(b"IDAT")


def test_a_png_without_a_size_is_written_as_opencv_writes_it_and_taken_for_square(tmp_path):
    write_picture(tmp_path / "7.png", IMAGE)
    assert (tmp_path / "7.png").read_bytes() == cv2.imencode(".png", IMAGE)[1].tobytes()
    assert png_pixel_aspect(tmp_path / "7.png") == 1


@pytest.mark.parametrize("length", [0, 7, 40, 47, 60])
def test_a_png_that_is_cut_short_tells_nothing(tmp_path, length):
    path = tmp_path / "7.png"
    write_picture(path, IMAGE)
    path.write_bytes(path.read_bytes()[:length])
    assert png_pixel_aspect(path) == 1
