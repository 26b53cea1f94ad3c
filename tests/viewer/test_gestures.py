"""What pointer and keys do, as the picture tells it."""

import sys

import numpy as np
import pytest
from helpers.viewed_cases import make_labels, make_volume

from lits_helpers.viewer import SliceViewer
from lits_helpers.viewer.front import SCRIPT
from lits_helpers.viewer.gestures import HELP, KEYS


@pytest.fixture
def viewer():
    pytest.importorskip("anywidget", reason="pip install anywidget")
    layers = {"reference": make_labels(), "prediction": make_labels(1)}
    return SliceViewer(make_volume(), layers)  # 40 rows of 0.7 mm, 48 columns of 0.8 mm


def tell(viewer, kind, row=0.0, column=0.0, **more):
    """Send an event at (row, column) of an axial slice that fills the picture."""
    event = {"kind": kind, "y": row / 40, "x": column / 48, "button": 0, "shift": False} | more
    answered = viewer.controls.image.answered
    viewer.controls.image.receive(event, viewer.take)
    assert viewer.controls.image.answered == answered + 1
    assert viewer.controls.message.value == ""


def press(viewer, *keys, **more):
    for key in keys:
        tell(viewer, "key", key=key, **more)


def drag(viewer, start, end, **more):
    tell(viewer, "down", *start, **more)
    way = {"dy": (end[0] - start[0]) / 40, "dx": (end[1] - start[1]) / 48}
    tell(viewer, "drag", *end, **way, **more)


def test_a_click_and_a_drag_move_the_point(viewer):
    assert viewer.voxel[0] == 5  # it opens at the largest lesion
    tell(viewer, "down", 31.5, 17.5)
    assert viewer.voxel == (5, 31, 17)
    assert f"HU {viewer.case.hu[5, 31, 17]} at voxel (z, y, x) = (5, 31, 17)" in (
        viewer.controls.readout.value
    )
    assert (viewer.controls.row.value, viewer.controls.column.value) == (31, 17)
    tell(viewer, "drag", 20.5, 10.5, dx=-0.1, dy=-0.1)
    assert viewer.voxel == (5, 20, 10)


def test_wheel_and_keys_move_through_the_slices_and_stop_at_the_ends(viewer):
    tell(viewer, "wheel", 20, 20, steps=2)
    assert viewer.controls.slider.value == 7
    press(viewer, "ArrowDown", "ArrowLeft", "ArrowUp")
    assert viewer.controls.slider.value == 6
    press(viewer, "PageUp", "PageUp")
    assert viewer.controls.slider.value == 11
    press(viewer, "Home")
    assert viewer.controls.position.value == "0 / 11 · 0 mm"  # as a report counts
    press(viewer, "End")
    assert viewer.controls.position.value == "11 / 11 · 55 mm"  # 11 x 5 mm above the first


def test_shifted_arrows_move_the_point_within_the_slice(viewer):
    viewer.move_to((5, 20, 20))
    press(viewer, "ArrowUp", "ArrowRight", "ArrowRight", shift=True)
    assert viewer.voxel == (5, 19, 22)


def test_zoom_keeps_what_is_under_the_pointer(viewer):
    tell(viewer, "zoom", 10.5, 36.5, steps=3.2)
    panel = viewer.panels[0]
    assert panel.box[2] < 25
    under = panel.pixel(10.5 / 40 * panel.shape[0], 36.5 / 48 * panel.shape[1])
    assert under == pytest.approx((10.5, 36.5), abs=1)
    press(viewer, "0")
    assert viewer.panels[0].box == (0, 0, 40, 48)
    press(viewer, "+", "+", "-")
    assert viewer.controls.zoom.value == pytest.approx(1.25)


def test_a_shifted_drag_moves_the_slice_with_the_pointer(viewer):
    viewer.move_to((5, 20, 24))
    viewer.controls.zoom.value = 4
    assert viewer.panels[0].box == (15, 18, 10, 12)
    drag(viewer, (20, 24), (24, 20), shift=True)  # a tenth of 10 rows down, a twelfth of 12 left
    assert viewer.panels[0].box == (14, 19, 10, 12)
    assert viewer.voxel == (5, 20, 24)


def test_a_right_drag_sets_the_window(viewer):
    low, high = viewer.controls.window.value
    drag(viewer, (20, 24), (20, 36), button=2)
    wider = viewer.controls.window.value
    assert wider[1] - wider[0] == pytest.approx(high - low + 200, abs=1)  # a quarter of 800 HU
    drag(viewer, (20, 24), (10, 24), button=2)
    assert sum(viewer.controls.window.value) - sum(wider) == pytest.approx(2 * 200, abs=2)
    assert viewer.controls.preset.value == "own"


def test_the_ruler_measures_mm_or_voxels(viewer, monkeypatch):
    said = []
    monkeypatch.setattr("lits_helpers.viewer.composing.draw_ruler", lambda *_: said.append(_[-1]))
    press(viewer, "r")
    drag(viewer, (10, 10), (10, 20))
    assert said[-1] == "8.0 mm"
    drag(viewer, (10, 10), (20, 10))
    assert said[-1] == "7.0 mm"
    viewer.case.trusted = False
    drag(viewer, (10, 10), (20, 10))
    assert said[-1] == "10.0 voxels"
    press(viewer, "ArrowUp")
    assert viewer.ruler is None  # it belonged to the other slice


def test_a_ruler_whose_slice_is_left_during_the_drag_begins_anew(viewer):
    press(viewer, "r")
    drag(viewer, (10, 10), (10, 20))
    tell(viewer, "wheel", 10, 20, steps=1)
    tell(viewer, "drag", 20, 20, dy=0.25, dx=0)
    tell(viewer, "drag", 20, 30, dy=0, dx=0.25)
    plane, *ends = viewer.ruler
    assert plane == "axial"
    np.testing.assert_allclose(ends, [(20, 20), (20, 30)])


def test_double_click_goes_to_the_nearest_lesion(viewer):
    viewer.move_to((4, 26, 22))
    tell(viewer, "double", 26, 22)
    assert viewer.voxel == (4, 25, 20)
    assert viewer.controls.lesions.value == 1  # the second in the list, and marked
    press(viewer, "l")
    assert viewer.controls.lesions.value == 0


def test_space_hides_and_shows_the_layers(viewer):
    colored = [np.ptp(viewer.picture, axis=2).any()]
    for _ in range(2):
        press(viewer, " ")
        colored.append(np.ptp(viewer.picture, axis=2).any())
    assert colored == [True, False, True]


def test_a_change_of_plane_keeps_the_voxel(viewer):
    viewer.move_to((6, 13, 9))
    for key, name in (("2", "coronal"), ("3", "sagittal"), ("1", "axial")):
        press(viewer, key)
        assert viewer.controls.plane.value == name
        assert viewer.voxel == (6, 13, 9)


def test_three_planes_are_linked(viewer):
    viewer.controls.arrangement.value = "three planes"
    assert [panel.plane for panel in viewer.panels] == ["axial", "coronal", "sagittal"]
    panel = viewer.panels[1]
    rows, columns = viewer.picture.shape[:2]
    middle = {
        "y": (panel.corner[0] + panel.shape[0] / 2) / rows,
        "x": (panel.corner[1] + panel.shape[1] / 2) / columns,
    }
    y = viewer.voxel[1]
    tell(viewer, "wheel", **middle, steps=3)
    assert viewer.voxel[1] == y + 3  # a coronal step moves along y, the chosen plane stays
    assert viewer.controls.plane.value == "axial"
    tell(viewer, "down", **middle)
    assert viewer.controls.plane.value == "coronal"
    assert viewer.voxel == (5, y + 3, 24)


def test_a_click_between_the_slices_does_nothing(viewer):
    viewer.controls.arrangement.value = "three planes"
    before = viewer.voxel
    tell(viewer, "down", y=0.99, x=0.99)
    tell(viewer, "drag", y=0.98, x=0.98, dx=-0.01, dy=-0.01)
    assert viewer.voxel == before


def test_an_error_of_a_gesture_is_answered_and_shown(viewer, monkeypatch):
    monkeypatch.setattr("lits_helpers.viewer.composing.render_slice", lambda *_, **__: 1 / 0)
    event = {"kind": "wheel", "x": 0, "y": 0, "steps": 1}
    viewer.controls.image.receive(event, viewer.take)
    assert "ZeroDivisionError" in viewer.controls.message.value
    assert viewer.controls.image.answered == 1  # else the front end would wait for ever


def test_the_script_loads_nothing_and_the_help_names_its_letters():
    text = SCRIPT.read_text()
    assert "http" not in text
    assert "import " not in text
    assert all(f"{key}" in HELP for key in KEYS if len(key) == 1 and key.isalnum())


def test_without_anywidget_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    viewer = SliceViewer(make_volume())
    assert "pip install anywidget" in viewer.controls.help.value
    assert viewer.controls.ruler.disabled
