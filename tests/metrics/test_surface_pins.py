"""Surface figures of empty masks, as `surface_metrics` itself states them."""

import numpy as np
import pytest

from lits_helpers.metrics.surface import surface_metrics

EMPTY = np.zeros((12, 40, 48), bool)
FILLED = EMPTY.copy()
FILLED[4:7, 10:13, 20:23] = True


@pytest.mark.parametrize(
    ("first", "second", "value"),
    [(EMPTY, FILLED, 99.0), (FILLED, EMPTY, 99.0), (EMPTY, EMPTY, 0.0)],
)
def test_figures_of_an_empty_mask_are_the_stated_value_and_of_two_zero(first, second, value):
    found = surface_metrics(first, second, (5.0, 0.7, 0.8), empty_mm=99.0)
    assert found == dict.fromkeys(("assd_mm", "rmsd_mm", "max_surface_mm", "hd95_mm"), value)
