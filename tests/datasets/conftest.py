"""Folders that the data sets of the tests read."""

import cv2
import numpy as np
import pytest
from helpers.drawn import blob, ramp
from helpers.packed_cases import write_packed_case


@pytest.fixture
def prepared(tmp_path):
    """Two labelled cases of different shapes and one without segmentation."""
    write_packed_case(tmp_path, "3", ramp(), blob())
    write_packed_case(tmp_path, "12", ramp((9, 48, 40))[:, ::-1].copy(), blob((9, 48, 40)))
    write_packed_case(tmp_path, "20", ramp((4, 40, 48)), None)
    return tmp_path


@pytest.fixture
def png_folder(tmp_path):
    """One case with slices 4, 9 and 10 only."""
    for name in ("images", "masks"):
        (tmp_path / name / "7").mkdir(parents=True)
    for k in (4, 9, 10):
        image = np.full((40, 48), k, np.uint8)
        mask = np.zeros((40, 48), np.uint8)
        mask[5:20, k : k + 12] = 255
        cv2.imwrite(str(tmp_path / "images" / "7" / f"{k}.png"), image)
        cv2.imwrite(str(tmp_path / "masks" / "7" / f"{k}.png"), mask)
    return tmp_path
