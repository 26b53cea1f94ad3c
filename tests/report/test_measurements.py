"""Values of the report, counted in the head, by brute force, and by SimpleITK."""

import csv
import itertools

import numpy as np
import pytest
from helpers.drawn import labeled_volume

from lits_helpers.metrics import axial_diameters
from lits_helpers.report import judge, look, measure, place_of, row_of, write_table
from lits_helpers.volumes import volume_from_array

SPACING_MM = (5.0, 0.7, 0.8)


def two_lesions():
    """Liver of 80 HU with a lesion of 4 x 3 pixels over two slices, and one of a single voxel."""
    labels = np.zeros((6, 20, 30), np.uint8)
    labels[1:5, 2:17, 3:24] = 1
    labels[2:4, 4:7, 5:9] = 2
    labels[4, 15, 22] = 2
    hu = np.where(labels == 0, -100, np.where(labels == 1, 80, 30)).astype(np.int16)
    return hu, labels


def test_volumes_burden_and_lesions_are_those_in_the_head():
    hu, labels = two_lesions()
    found = measure(volume_from_array(hu, (5.0, 1.0, 1.0)), labels)
    assert found["liver"] == {"voxels": 1260, "ml": 6.3, "hu": 80.0}
    assert found["tumor"] == {"voxels": 25, "ml": 0.125, "hu": 30.0}
    assert found["burden"] == 25 / 1260
    large, small = found["lesions"]
    assert (large["number"], large["voxels"], large["slice_index"]) == (1, 24, 2)
    assert large["ml"] == 0.12
    assert large["longest_mm"] == pytest.approx(5.0)  # 3, 4, 5
    assert large["perpendicular_mm"] == pytest.approx(3.75)
    assert large["hu_difference"] == -50
    assert large["place"] == "right front"
    assert small["place"] == "upper left back"
    assert small["center"] == [4, 15, 22]
    assert sorted(map(tuple, large["longest"])) in ([(4, 5), (7, 9)], [(4, 9), (7, 5)])


def test_voxels_that_cannot_be_trusted_give_no_mm_and_no_ml_and_say_why():
    hu, labels = two_lesions()
    found = measure(volume_from_array(hu), labels)
    assert "voxel size cannot be trusted" in found["no_mm"]
    assert found["liver"]["ml"] is None
    assert [found["lesions"][0][name] for name in ("ml", "longest_mm", "perpendicular_mm")] == [
        None
    ] * 3
    assert found["burden"] == 25 / 1260


def test_labels_without_liver_measure_nothing():
    hu, labels = two_lesions()
    found = measure(volume_from_array(hu, SPACING_MM), 0 * labels)
    assert found["liver"] == {"voxels": 0, "ml": 0.0, "hu": None}
    assert found["burden"] is None
    assert found["lesions"] == []


def test_labels_of_another_grid_are_refused():
    hu, labels = two_lesions()
    with pytest.raises(ValueError, match=r"labels have shape \(5, 20, 30\), the CT \(6, 20, 30\)"):
        measure(volume_from_array(hu, SPACING_MM), labels[1:])


def test_diameters_equal_brute_force_over_all_corners():
    rng = np.random.default_rng(1)
    for _ in range(20):
        mask = rng.random((2, 7, 9)) > 0.6
        found = axial_diameters(mask, SPACING_MM)
        longest, across = brute_force(mask, SPACING_MM)
        assert found.longest_mm == pytest.approx(longest)
        assert found.perpendicular_mm <= found.longest_mm + 1e-9
        assert found.perpendicular_mm == pytest.approx(across(found), abs=0.02)


def brute_force(mask, spacing_mm):
    """Longest distance of pixel corners; and chords sampled every hundredth along the diameter."""
    corners = [
        {(y + b, x + a) for y, x in np.argwhere(plane) for a in (0, 1) for b in (0, 1)}
        for plane in mask
    ]
    scaled = [np.array(sorted(points)) * spacing_mm[1:] for points in corners]
    distances = [
        max(np.linalg.norm(p - q) for p, q in itertools.combinations(s, 2)) for s in scaled
    ]

    def across(found):
        points = scaled[found.slice_index]
        start, end = np.array(found.longest) * spacing_mm[1:]
        along = (end - start) / np.linalg.norm(end - start)
        s, t = (points - start) @ along, (points - start) @ [-along[1], along[0]]
        i, j = np.nonzero(s - s[:, None] > 1e-9)  # every line between two corners
        place = np.linspace(s.min(), s.max(), 1000)[:, None]
        heights = t[i] + (place - s[i]) / (s[j] - s[i]) * (t[j] - t[i])
        crossed = (s[i] <= place) & (place <= s[j])
        highest = np.where(crossed, heights, -np.inf).max(1)
        return (highest - np.where(crossed, heights, np.inf).min(1))[crossed.any(1)].max(initial=0)

    return max(distances), across


def test_values_are_those_of_simpleitks_label_statistics():
    sitk = pytest.importorskip("SimpleITK", reason="pip install SimpleITK")
    hu, labels = labeled_volume()
    labels[4, 25, 20:23] = 2
    image, mask = sitk.GetImageFromArray(hu), sitk.GetImageFromArray(labels)
    for each in (image, mask):
        each.SetSpacing(SPACING_MM[::-1])
    parts = sitk.ConnectedComponent(mask == 2)
    shape, grey = sitk.LabelShapeStatisticsImageFilter(), sitk.LabelIntensityStatisticsImageFilter()
    shape.Execute(parts)
    grey.Execute(parts, image)
    expected = [(shape.GetPhysicalSize(n) / 1000, grey.GetMean(n)) for n in shape.GetLabels()]
    expected.sort(reverse=True)
    found = measure(volume_from_array(hu, SPACING_MM), labels)
    measured = [(lesion["ml"], lesion["hu"]) for lesion in found["lesions"]]
    np.testing.assert_allclose(measured, expected)
    whole = sitk.LabelShapeStatisticsImageFilter()
    whole.Execute(mask >= 1)
    assert found["liver"]["ml"] == pytest.approx(whole.GetPhysicalSize(1) / 1000)


def test_tumors_without_a_liver_have_no_liver_s_volume_burden_or_place():
    hu, labels = two_lesions()
    tumors = np.where(labels == 2, labels, 0)
    volume = volume_from_array(hu, (5.0, 1.0, 1.0))
    for makers in ({"tumor": [{}]}, None):  # without a record the labels tell
        found = measure(volume, tumors, makers)
        assert found["liver"] == {"voxels": None, "ml": None, "hu": None}
        assert (found["liver_sought"], found["tumors_sought"]) == (False, True)
        assert (found["burden"], found["tumor"]["ml"]) == (None, 0.125)
        assert [lesion["place"] for lesion in found["lesions"]] == [None, None]
        row = row_of("7", found, judge(look(hu, tumors, SPACING_MM, makers)))
        assert (row["liver_ml"], row["lesions"], row["flag"]) == (None, 2, "look at it")
    assert not measure(volume, 0 * labels, {"tumor": [{}]})["liver_sought"]
    assert measure(volume, 0 * labels)["liver_sought"]
    assert measure(volume, tumors, {"liver": [{}], "tumor": [{}]})["burden"] == 1


def test_a_place_is_named_by_thirds_of_the_liver():
    box = (slice(0, 9), slice(10, 40), slice(0, 30))
    assert place_of((0, 12, 2), box) == "lower right front"
    assert place_of((8, 39, 29), box) == "upper left back"
    assert place_of((4, 25, 15), box) == "middle"


def test_a_voxel_counts_from_its_middle_where_thirds_meet():
    box = (slice(0, 6),) * 3  # thirds end at 2 and 4, the middle of voxel 3.6 lies at 4.1
    assert place_of((3.6, 1.4, 3.4), box) == "upper front"


def test_a_table_has_a_line_a_patient(tmp_path):
    hu, labels = two_lesions()
    judged = {"word": "sound", "score": 0.1, "reasons": ["one", "two, three"]}
    row = row_of("7", measure(volume_from_array(hu, (5.0, 1.0, 1.0)), labels), judged)
    with open(write_table([row], tmp_path / "report.csv"), newline="") as stream:
        (read,) = csv.DictReader(stream)
    assert (read["case_id"], read["liver_ml"], read["lesions"]) == ("7", "6.3", "2")
    assert (read["largest_mm"], read["reasons"]) == ("5.0", "one; two, three")
