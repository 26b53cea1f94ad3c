"""Lesions are measured in the spacing that is given, and no spacing is infinite."""

import numpy as np
import pytest

from lits_helpers.metrics import evaluate_case, evaluate_lesions

TUMOR = np.zeros((12, 40, 48), np.uint8)
TUMOR[4:6, 8:12, 10:15] = 2  # 40 voxels of 2.8 mm3


def test_lesions_are_listed_with_their_size_in_mm():
    reference, prediction = evaluate_lesions(TUMOR, TUMOR, (5.0, 0.7, 0.8))
    for lesion, side in ((reference, "reference"), (prediction, "prediction")):
        assert (lesion["side"], lesion["voxels"], lesion["size_class"]) == (side, 40, "small")
        assert lesion["volume_mm3"] == pytest.approx(112)
        assert lesion["diameter_mm"] == pytest.approx((6 * 112 / np.pi) ** (1 / 3))


@pytest.mark.parametrize("measure", [evaluate_case, evaluate_lesions])
def test_a_spacing_that_is_infinite_is_refused(measure):
    with pytest.raises(ValueError, match=r"each above 0, or None, got \(5\.0, inf, 0\.8\)"):
        measure(TUMOR, TUMOR, (5.0, np.inf, 0.8))
