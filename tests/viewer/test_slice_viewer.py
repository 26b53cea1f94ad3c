"""The slice viewer without a browser: what its controls do to the picture, and what it says."""

import gc
import sys
import weakref
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from helpers.drawn import SPACING_MM
from helpers.viewed_cases import SHAPE, make_labels, make_volume

from lits_helpers.figures import PALETTE, WINDOWS
from lits_helpers.viewer import SliceViewer, composing, uncertainty_of
from lits_helpers.viewer import slice_viewer as viewer_module
from lits_helpers.viewer.controls import TIPS
from lits_helpers.volumes import window_to_uint8


@pytest.fixture(autouse=True, params=[True, False], ids=["anywidget", "typed"])
def front(request, monkeypatch):
    """Let every test hold with the picture that answers and with `ipywidgets.Image`."""
    if request.param:
        pytest.importorskip("anywidget", reason="pip install anywidget")
    else:
        monkeypatch.setitem(sys.modules, "anywidget", None)
    return request.param


def make_viewer(**options) -> SliceViewer:
    layers = {"reference": make_labels(), "prediction": make_labels(1)}
    return SliceViewer(make_volume(), layers, **options)


def shown(viewer, control: str, value):
    """Set a control as a front end does; return the pictures before and after."""
    before = viewer.picture
    widget = getattr(viewer.controls, control)
    widget.value = value
    assert viewer.controls.message.value == ""
    return before, viewer.picture


@pytest.mark.parametrize(
    ("control", "value"),
    [
        ("slider", 4),
        ("plane", "coronal"),
        ("plane", "sagittal"),
        ("preset", "bone"),
        ("window", (0, 50)),
        ("style", "fill"),
        ("errors", "liver"),
        ("errors", "tumor"),
        ("arrangement", "layers side by side"),
        ("arrangement", "three planes"),
        ("hide", True),
        ("marked", False),
        ("zoom", 3.0),
    ],
)
def test_each_control_changes_the_picture_with_one_frame(control, value):
    viewer = make_viewer()
    before, after = shown(viewer, control, value)
    assert not np.array_equal(before, after)
    assert viewer.frames_drawn == 2


def test_each_layer_can_be_switched_off():
    viewer = make_viewer()
    names = [
        f"{source} {organ}" for source in ("reference", "predicted") for organ in ("liver", "tumor")
    ]
    assert list(viewer.controls.shown) == names
    for name in names:
        before = viewer.picture
        viewer.controls.shown[name].value = False
        assert not np.array_equal(before, viewer.picture), name
    assert (viewer.picture.max(axis=2) == viewer.picture.min(axis=2)).all()  # gray only
    assert viewer.controls.legend.value == ""


def test_opacity_acts_on_fills():
    viewer = make_viewer()
    viewer.controls.style.value = "fill"
    before, after = shown(viewer, "opacity", 0.9)
    middle = np.s_[200, 200]  # row 21, column 18: liver of both
    gray = [np.ptp(picture[middle]) for picture in (before, after)]
    assert gray[1] > gray[0] + 50


def test_the_picture_has_the_aspect_of_the_spacing():
    viewer = make_viewer(frame=480)
    assert viewer.picture.shape[:2] == (round(480 * 28 / 38.4), 480)
    viewer.controls.plane.value = "coronal"
    assert viewer.picture.shape[:2] == (480, round(480 * 38.4 / 60))
    viewer.controls.plane.value = "sagittal"
    assert viewer.picture.shape[:2] == (480, round(480 * 28 / 60))


def test_a_plane_gives_the_controls_their_ranges():
    viewer = make_viewer()
    ranges = {}
    for name in ("axial", "coronal", "sagittal"):
        viewer.controls.plane.value = name
        controls = viewer.controls
        ranges[name] = controls.slider.max, controls.row.max, controls.column.max
        assert controls.play.max == controls.slider.max
    assert ranges == {"axial": (11, 39, 47), "coronal": (39, 11, 47), "sagittal": (47, 11, 39)}


@pytest.mark.parametrize(
    ("plane", "typed", "voxel"),
    [
        ("axial", (7, 13, 9), (7, 13, 9)),
        ("coronal", (13, 4, 9), (7, 13, 9)),
        ("sagittal", (9, 4, 13), (7, 13, 9)),
    ],
)
def test_hu_and_labels_are_read_at_the_typed_place(plane, typed, voxel):
    viewer = make_viewer()
    viewer.controls.plane.value = plane
    controls = viewer.controls
    controls.slider.value, controls.row.value, controls.column.value = typed
    text = controls.readout.value
    assert f"HU {viewer.case.hu[voxel]} at voxel (z, y, x) = {voxel}" in text
    assert "reference: tumor · prediction: tumor" in text


def test_a_preset_sets_the_window_and_a_moved_window_is_nobodys_preset():
    viewer = make_viewer()
    viewer.controls.preset.value = "lung"
    assert viewer.controls.window.value == WINDOWS["lung"]
    viewer.controls.window.value = (-100, 100)
    assert viewer.controls.preset.value == "own"


def test_jumps_go_to_the_largest_the_next_and_the_worst():
    viewer = make_viewer()
    viewer.controls.plane.value = "coronal"
    viewer.controls.to_largest.click()
    assert viewer.controls.plane.value == "coronal"  # the plane stays
    viewer.controls.plane.value = "axial"
    assert any(f"(z, y, x) = (5, {y}, 11)" in viewer.controls.readout.value for y in (14, 15))
    viewer.controls.to_next.click()
    assert "(z, y, x) = (4, 25, 20)" in viewer.controls.readout.value  # the first after the last
    viewer.controls.to_next.click()
    assert viewer.controls.slider.value == 5
    worst = make_labels(1)
    worst[8] = 0
    viewer = SliceViewer(make_volume(), {"reference": make_labels(), "prediction": worst})
    viewer.controls.to_worst.click()
    assert viewer.controls.slider.value == 8
    viewer = SliceViewer(make_volume(), {n: make_labels() for n in ("reference", "prediction")})
    viewer.controls.slider.value = 5
    viewer.controls.to_worst.click()
    assert viewer.controls.slider.value == 5
    assert "no voxel of the liver is wrong" in viewer.controls.message.value


def test_zoom_shows_the_part_around_the_typed_place():
    volume = make_volume()
    viewer = SliceViewer(volume)
    viewer.controls.row.value, viewer.controls.column.value = 39, 20
    viewer.controls.zoom.value = 4
    shown = window_to_uint8(volume.hu[viewer.controls.slider.value], WINDOWS["abdomen"])
    corners = viewer.picture[0, 0, 0], viewer.picture[0, -1, 0]
    assert corners == (shown[30, 14], shown[30, 25])  # 10 rows to the end, 12 columns around 20
    assert viewer.picture[-1, -1, 0] == shown[39, 25]


def test_scores_lesions_and_diameters_are_told():
    viewer = make_viewer()
    text = viewer.controls.scores.value
    assert "Dice of the case: liver 0.950" in text  # 19 of 20 rows overlap
    assert "lesions: 2 · longest axial diameters 7, 1 mm" in text
    viewer.controls.slider.value = 6
    assert "Dice of this slice: liver 0.950, tumor 0.833" in viewer.controls.readout.value
    viewer.controls.slider.value = 0
    assert "Dice of this slice: liver -, tumor -" in viewer.controls.readout.value


def test_untrusted_spacing_gives_the_montage_no_scale_bar(monkeypatch):
    given = []
    monkeypatch.setattr(viewer_module, "display", lambda *_: None)
    monkeypatch.setattr(
        viewer_module, "montage_image", lambda *_, spacing_mm, **__: given.append(spacing_mm)
    )
    monkeypatch.setattr(viewer_module, "with_key", lambda *_: None)
    monkeypatch.setattr(viewer_module, "encode", lambda *_: b"")
    for trusted in (True, False):
        SliceViewer(make_volume(trusted=trusted), None)._ipython_display_()
    assert given == [SPACING_MM, None]


def test_untrusted_spacing_gives_no_mm():
    viewer = SliceViewer(make_volume(trusted=False), {"reference": make_labels()})
    assert "diameters" not in viewer.controls.scores.value
    assert "nothing in mm" in viewer.controls.scores.value


def test_a_ct_without_labels_can_be_viewed():
    viewer = SliceViewer(make_volume())
    viewer.controls.slider.value = 3
    assert viewer.controls.message.value == ""
    assert viewer.controls.to_worst.disabled
    assert viewer.controls.to_largest.disabled
    viewer.controls.to_largest.click()
    assert "no tumor to jump to" in viewer.controls.message.value


def test_an_error_in_a_callback_is_shown_and_goes_with_the_next_success(monkeypatch):
    viewer = make_viewer()
    with monkeypatch.context() as patch:
        patch.setattr(composing, "render_slice", lambda *_, **__: 1 / 0)
        viewer.controls.slider.value = 2
    assert "ZeroDivisionError" in viewer.controls.message.value
    viewer.controls.slider.value = 3
    assert viewer.controls.message.value == ""


def test_a_case_is_read_when_chosen_and_the_former_let_go():
    read = []

    def reader(name):
        def read_case():
            read.append(name)
            return make_volume(seed=len(read)), {"reference": make_labels()}

        return read_case

    viewer = SliceViewer({"a": reader("a"), "b": reader("b")})
    assert read == ["a"]
    former = weakref.ref(viewer.case)
    viewer.controls.case.value = "b"
    gc.collect()
    assert read == ["a", "b"]
    assert former() is None


def test_an_unreadable_case_shows_no_other_patients_picture():
    def unreadable():
        raise OSError("volume-9.nii <is truncated>")

    viewer = SliceViewer({"a": (make_volume(), None), "b": unreadable})
    picture = viewer.controls.image.value
    viewer.controls.case.value = "b"
    assert "volume-9.nii &lt;is truncated&gt;" in viewer.controls.message.value
    assert viewer.controls.image.value != picture
    viewer.controls.slider.value = 1
    assert "case b could not be opened" in viewer.controls.message.value
    viewer.controls.case.value = "a"
    assert viewer.controls.message.value == ""


def test_the_viewer_holds_views_of_volume_and_labels():
    volume, labels = make_volume(), make_labels()
    case = SliceViewer(volume, {"reference": labels}).case
    assert np.shares_memory(case.hu, volume.hu)
    assert np.shares_memory(case.layers["reference"], labels)


def test_a_fallback_picture_follows_the_viewer(monkeypatch):
    shown = []
    monkeypatch.setattr("lits_helpers.viewer.slice_viewer.display", shown.append)
    viewer = make_viewer()
    viewer._ipython_display_()
    assert shown[0] is viewer.controls.box
    assert shown[1].data.startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ({"reference": np.zeros((12, 48, 40), np.uint8)}, "the volume's shape"),
        ({"reference": np.full(SHAPE, 3, np.uint8)}, "labels 0, 1, 2"),
        ({"reference": np.zeros(SHAPE, np.float32)}, "float32"),
    ],
)
def test_labels_that_do_not_fit_are_refused(layers, words):
    with pytest.raises(ValueError, match=words):
        SliceViewer(make_volume(), layers)


def test_a_single_slice_can_be_viewed_from_all_sides():
    volume = SimpleNamespace(hu=make_volume().hu[:1], spacing_mm=SPACING_MM)
    viewer = SliceViewer(volume, {"reference": make_labels()[5:6]})
    for name in ("coronal", "sagittal", "axial"):
        viewer.controls.plane.value = name
        assert viewer.controls.message.value == ""


def test_what_is_no_volume_is_refused():
    with pytest.raises(TypeError, match="read_volume"):
        SliceViewer(make_volume().hu)


def test_no_case_is_refused():
    with pytest.raises(ValueError, match="no case to show"):
        SliceViewer({})


def test_it_opens_at_the_largest_lesion_else_at_the_largest_liver():
    assert make_viewer().voxel[0] == 5
    liver = (make_labels() > 0).astype(np.uint8)
    liver[7, 30:35, 6:26] = 1
    viewer = SliceViewer(make_volume(), {"prediction": liver})
    assert viewer.voxel[0] == 7
    assert SliceViewer(make_volume()).voxel == (6, 20, 24)


def test_a_change_of_plane_keeps_the_typed_place():
    viewer = make_viewer()
    viewer.controls.slider.value, viewer.controls.row.value, viewer.controls.column.value = 7, 13, 9
    viewer.controls.plane.value = "coronal"
    assert [control.value for control in viewer.controls.typed()] == [13, 12 - 1 - 7, 9]
    assert "(z, y, x) = (7, 13, 9)" in viewer.controls.readout.value


def test_linked_sliders_never_hold_a_value_outside_of_each_others_range():
    viewer = SliceViewer(make_volume(), {"reference": make_labels()}, static=False)
    linked = viewer.controls.slider, viewer.controls.play
    cut = []

    def check(_):
        cut.extend(c for c in linked if c.value > min(linked[0].max, linked[1].max))

    for control in linked:
        control.observe(check, ["value", "max"])
    for plane in ("coronal", "axial", "sagittal", "coronal", "axial"):
        viewer.controls.plane.value = plane
    assert not cut


def test_the_list_of_lesions_goes_there_and_marks_where_one_is():
    viewer = make_viewer()
    assert [line for line, _ in viewer.controls.lesions.options] == [
        "1: 7 mm, slice 5",
        "2: 1 mm, slice 4",
    ]
    assert viewer.controls.lesions.value == 0
    viewer.controls.lesions.value = 1
    assert viewer.voxel == (4, 25, 20)
    viewer.controls.row.value = 0
    assert viewer.controls.lesions.value is None
    viewer.controls.to_previous.click()
    assert viewer.controls.lesions.value == 0  # before the first comes the last


def test_what_does_nothing_is_disabled():
    controls = make_viewer().controls
    assert controls.opacity.disabled
    controls.style.value = "fill"
    assert not controls.opacity.disabled
    controls.errors.value = "tumor"
    assert controls.opacity.disabled
    assert all(box.disabled for box in controls.shown.values())
    controls.arrangement.value = "layers side by side"
    assert not any(box.disabled for box in controls.shown.values())


def test_every_control_says_what_it_does():
    controls = make_viewer().controls
    for name in TIPS:
        widget = getattr(controls, name)
        tip = widget.tooltip if widget.has_trait("tooltip") else widget.description_tooltip
        assert " " in tip or name == "message", name


def test_uncertainty_is_a_layer_and_is_read_at_the_point():
    uncertainty = np.zeros(SHAPE, np.float32)
    uncertainty[5, 14:16, 8:20] = 0.75
    viewer = SliceViewer(make_volume(), {"prediction": make_labels()}, uncertainty=uncertainty)
    viewer.controls.style.value, viewer.controls.opacity.value = "fill", 1.0
    color = np.array(PALETTE["uncertain"])
    assert (viewer.picture == color).all(axis=2).any()
    viewer.controls.row.value, viewer.controls.column.value = 15, 10
    assert "uncertainty 0.75" in viewer.controls.readout.value
    viewer.controls.shown["uncertain"].value = False
    assert not (viewer.picture == color).all(axis=2).any()
    with pytest.raises(ValueError, match=r"uncertainty must have .*\(12, 40, 48\)"):
        SliceViewer(make_volume(), uncertainty=uncertainty[:3])


def test_the_least_sure_model_counts():
    liver = np.array([[[0, 51, 255, 128]]], np.uint8)
    tumor = np.array([[[0, 0, 204, 0]]], np.uint8)
    unsure = uncertainty_of({"liver": liver, "tumor": tumor})
    assert unsure[0, 0] == pytest.approx([0.0, 0.4, 0.4, 1.0], abs=0.01)
    assert uncertainty_of({}) is None


def test_notes_stand_above_the_scores():
    viewer = SliceViewer(make_volume(), {"prediction": make_labels()}, notes=["burden > 70%"])
    lines = viewer.controls.scores.value.split("<br>")
    assert lines[0].endswith("burden &gt; 70%")
    assert "lesions: 2" in lines[1]


def test_a_picture_is_saved_at_twice_its_size_with_its_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layers = {"reference": make_labels()}
    viewer = SliceViewer({"a/b": (make_volume(), layers), "c": (make_volume(), None)})
    viewer.controls.to_file.click()
    assert viewer.controls.message.value == "saved a_b-axial-5.png"
    saved = cv2.imread("a_b-axial-5.png", cv2.IMREAD_COLOR_RGB)
    rows, columns = viewer.picture.shape[:2]
    assert abs(saved.shape[1] - 2 * columns) <= 1
    assert saved.shape[0] > 2 * rows
    key = saved[2 * rows + 2 :]
    assert (key == PALETTE["reference tumor"]).all(axis=2).sum() >= 100


def test_a_window_of_one_hu_leaves_a_picture_and_a_sentence():
    viewer = make_viewer()
    viewer.controls.window.value = (40, 40)
    assert viewer.controls.message.value == ""
    assert "one HU wide" in viewer.controls.readout.value
    assert {0, 255} <= set(np.unique(viewer.picture[..., 0]).tolist())


@pytest.mark.parametrize("shape", [(1, 40, 48), (1500, 8, 9), (3, 100, 2000), (3, 5, 1)])
def test_odd_shapes_can_be_viewed_in_every_arrangement(shape):
    labels = np.zeros(shape, np.uint8)
    labels[0, 2:4] = 2
    volume = SimpleNamespace(hu=np.full(shape, 40, np.int16), spacing_mm=(5.0, 0.7, 0.8))
    viewer = SliceViewer(volume, {"prediction": labels})
    for arrangement in ("three planes", "layers side by side", "one plane"):
        viewer.controls.arrangement.value = arrangement
        for name in ("coronal", "sagittal", "axial"):
            viewer.controls.plane.value = name
            viewer.controls.zoom.value = 3 if name == "coronal" else 1
            assert viewer.controls.message.value == ""


def test_labels_without_a_ct_can_be_viewed():
    viewer = SliceViewer(None, {"prediction": make_labels()})
    assert "HU" not in viewer.controls.readout.value
    assert "voxel (z, y, x)" in viewer.controls.readout.value
    assert "mm" not in viewer.controls.position.value
    assert np.ptp(viewer.picture, axis=2).any()
    with pytest.raises(ValueError, match="nothing to show"):
        SliceViewer(None)


def test_unknown_spacing_gives_no_mm_anywhere():
    volume = SimpleNamespace(hu=make_volume().hu, spacing_mm=None)
    viewer = SliceViewer(volume, {"reference": make_labels()})
    controls = viewer.controls
    lines = [line for line, _ in controls.lesions.options]
    assert lines == ["1: 126 voxels, slice 5", "2: 1 voxel, slice 4"]
    said = [controls.position.value, controls.readout.value, *lines]
    assert not any("mm" in text for text in said)
    assert "nothing in mm" in controls.scores.value


def test_a_first_case_that_fails_leaves_a_sentence_and_the_others():
    viewer = SliceViewer({"bad": lambda: 1 / 0, "good": (make_volume(), None)})
    assert "ZeroDivisionError" in viewer.controls.message.value
    viewer.controls.case.value = "good"
    assert viewer.controls.message.value == ""
    assert viewer.frames_drawn == 1
