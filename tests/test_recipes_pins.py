"""Inputs at the edge of what is allowed."""

import numpy as np
import pytest

from lits_helpers.recipes import InputSpec


def test_the_smallest_input_is_32_pixels():
    assert InputSpec(size=32, window=(-200, 300)).size == 32


def test_a_window_of_no_width_is_refused():
    with pytest.raises(ValueError, match=r"low < high, got \(50, 50\)"):
        InputSpec(size=32, window=(50, 50))


@pytest.mark.parametrize("margin", [0, 1, np.float32(0.5)])
def test_margins_from_none_to_the_whole_box_are_kept_as_plain_numbers(margin):
    spec = InputSpec(size=32, window=(-200, 300), liver_margin=margin)
    assert (spec.liver_margin, type(spec.liver_margin)) == (margin, float)
