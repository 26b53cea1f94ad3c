"""Drawn cases in Kaggle's layout."""

import numpy as np
import pytest
from helpers.drawn import body, write_case


@pytest.fixture
def raw(tmp_path):
    hu, labels = body()
    write_case(tmp_path / "raw", 0, hu, labels, "LPS")
    write_case(tmp_path / "raw", 1, hu, (labels > 0).astype(np.uint8), "SRA", ".nii.gz")
    write_case(tmp_path / "raw", 2, hu, None, "RAS")
    return tmp_path / "raw"
