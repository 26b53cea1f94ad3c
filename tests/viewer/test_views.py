"""Places: a voxel in a plane, and a slice in the picture."""

import numpy as np
import pytest

from lits_helpers.viewer import views

DEPTH = 12


@pytest.mark.parametrize(
    ("name", "place"),
    [("axial", (2, 30, 40)), ("coronal", (30, 9, 40)), ("sagittal", (40, 9, 30))],
)
def test_a_voxel_has_its_place_in_each_plane_and_returns(name, place):
    assert views.in_plane((2, 30, 40), name, DEPTH) == place  # the head is up: row 12 - 1 - 2
    assert views.from_plane(place, name, DEPTH) == (2, 30, 40)


def test_a_box_stays_inside_the_slice():
    assert views.box_around((20, 24), (40, 48), 4) == (15, 18, 10, 12)
    assert views.box_around((39, 0), (40, 48), 4) == (30, 0, 10, 12)
    assert views.box_around((0, 0), (40, 48), 1) == (0, 0, 40, 48)


def test_a_panel_knows_the_pixel_under_a_place_in_the_picture():
    panel = views.Panel("axial", box=(10, 20, 4, 6), corner=(100, 50), shape=(40, 60))
    assert panel.holds(100, 50)
    assert not panel.holds(99, 50)
    assert not panel.holds(100, 110)
    assert panel.pixel(115, 85) == (11.5, 23.5)  # 10 pixels of the picture for one of the slice
    assert panel.pixel(0, 999) == pytest.approx((10, 26), abs=1e-3)  # kept inside


def test_pictures_lie_beside_each_other_and_apart():
    gap = views.GAP
    assert views.side_by_side([(20, 30)] * 3) == [(0, 0), (0, 30 + gap), (0, 60 + 2 * gap)]
    assert views.side_by_side([(20, 30)] * 4)[2:] == [(20 + gap, 0), (20 + gap, 30 + gap)]
    shapes = [(40, 50), (10, 20), (16, 12)]
    corners = views.first_large(shapes)
    assert corners == [(0, 0), (0, 50 + gap), (10 + gap, 50 + gap)]
    parts = [np.full((*shape, 3), n + 1, np.uint8) for n, shape in enumerate(shapes)]
    whole = views.joined(parts, corners)
    assert whole.shape == (40, 50 + gap + 20, 3)
    assert [np.count_nonzero(whole == n) for n in range(1, 4)] == [6000, 600, 576]
