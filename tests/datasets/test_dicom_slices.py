"""Slices of raw DICOM folders."""

import cv2
import numpy as np
import pytest

pytest.importorskip("highdicom", reason='pip install highdicom "pylibjpeg[all]"')

from helpers.drawn import blob, ramp
from helpers.drawn_dicom import write_seg, write_series
from helpers.packed_cases import LIVER

from lits_helpers.datasets.slices import find_slices


def test_a_dicom_case_is_the_series_that_its_reference_was_drawn_on(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    drawn_on = write_series(tmp_path / "raw" / "P" / "a", ramp(), series=4)
    longer = np.concatenate([ramp() + np.int16(500), ramp()[:4]])
    write_series(tmp_path / "raw" / "P" / "b", longer, series=5)
    write_seg(tmp_path / "raw" / "P" / "seg.dcm", drawn_on, blob())
    (case,) = find_slices(tmp_path / "raw", ["P"], LIVER)
    np.testing.assert_array_equal([case.hu(k) for k in case.slice_indices], ramp())
    np.testing.assert_array_equal([case.labels(k) for k in case.slice_indices], blob())


def test_a_case_with_png_masks_is_read_from_its_raw_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    write_series(tmp_path / "raw" / "1" / "DICOM_anon", ramp())
    (tmp_path / "raw" / "1" / "Ground").mkdir()
    for k, plane in enumerate(blob()):
        path = tmp_path / "raw" / "1" / "Ground" / f"liver_GT_{k:03d}.png"
        cv2.imwrite(str(path), (plane > 0).astype(np.uint8) * 255)
    (case,) = find_slices(tmp_path / "raw", ["1"], LIVER)
    labels = np.stack([case.labels(k) for k in case.slice_indices])
    assert labels.sum() == np.count_nonzero(blob())
