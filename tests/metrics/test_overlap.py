"""What counts as liver."""

import numpy as np
import pytest

from lits_helpers.metrics import overlap


def test_a_tumor_belongs_to_the_liver_mask():
    labels = np.array([[0, 1, 2]])
    assert overlap.label_mask(labels, "liver").tolist() == [[False, True, True]]
    assert overlap.label_mask(labels, "tumor").tolist() == [[False, False, True]]


def test_an_unknown_structure_is_refused():
    with pytest.raises(ValueError, match='"liver" or "tumor"'):
        overlap.label_mask(np.zeros((4, 4)), "spleen")
