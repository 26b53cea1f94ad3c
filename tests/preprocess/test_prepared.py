"""The prepared folder: what it says of its cases, and what it leaves out."""

import shutil
from dataclasses import replace

import cv2
import nibabel as nib
import numpy as np
import pytest
from helpers.drawn import BODY_SPACING_MM, body, write_nifti
from helpers.logs import logged
from helpers.packed_cases import write_packed_case
from helpers.repository import load_script

from lits_helpers.cases import find_cases
from lits_helpers.preprocess import example_case, open_prepared, prepare, prepared_cases
from lits_helpers.volumes import open_volume, read_volume, write_segmentation

contents = load_script("benchmarks/kill_prepare.py").contents


def test_prediction_for_a_packed_case_needs_no_original(raw, tmp_path):
    case = find_cases(raw)[1]
    prepare([case], tmp_path / "out", workers=0)
    expected = nib.load(case.segmentation)
    stored = np.asarray(expected.dataobj)
    shutil.rmtree(raw)
    volume = read_volume(tmp_path / "out/cases/1.b2nd")
    labels = (body()[1] > 0).astype(np.uint8)
    written = nib.load(write_segmentation(labels, volume, tmp_path / "prediction.nii.gz"))
    np.testing.assert_array_equal(np.asarray(written.dataobj), stored)
    np.testing.assert_array_equal(written.affine, expected.affine)


def test_patients_that_are_told_later_are_taken_over(raw, tmp_path):
    out = tmp_path / "out"
    prepare(find_cases(raw), out, workers=0)
    (raw / "patients.csv").write_text("case,patient\n0,a\n1,a\n")
    assert prepare(find_cases(raw), out, workers=0).unchanged == ["0", "1", "2"]
    assert [case.patient for case in prepared_cases(out)] == ["a", "a", "2"]


def test_case_that_turned_bad_leaves_nothing_old_behind(raw, tmp_path):
    out = tmp_path / "out"
    prepare(find_cases(raw), out, workers=0)
    (raw / "volume_pt1" / "volume-0.nii").write_bytes(b"")
    report = prepare(find_cases(raw), out, workers=0)
    assert "volume-0.nii: it is empty" in report.skipped["0"]
    assert [case.id for case in prepared_cases(out)] == ["1", "2"]
    of_case = ("cases/0.", "cases/0-", "images/0/", "masks/0/")
    assert not [name for name in contents(out) if name.startswith(of_case)]


def test_bare_png_folder_is_a_list_of_cases(tmp_path):
    for case_id, slices in (("12", (9, 81)), ("7", (3,))):
        for kind in ("images", "masks"):
            (tmp_path / kind / case_id).mkdir(parents=True)
            for k in slices:
                image = np.full((30, 41), 255 * (kind == "images" or k == 81), np.uint8)
                cv2.imwrite(str(tmp_path / kind / case_id / f"{k}.png"), image)
    first, second = prepared_cases(tmp_path)
    assert (first.id, first.patient, first.shape) == ("7", "7", (1, 30, 41))
    assert (second.slices, second.liver_slices, second.tumor_slices) == ((9, 81), (81,), ())
    assert (second.spacing_mm, second.has_segmentation) == (None, True)


def test_empty_folder_names_the_function_that_fills_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no prepared case under .*preprocess.prepare"):
        prepared_cases(tmp_path)


def test_packed_file_that_was_cut_is_made_again(raw, tmp_path):
    out = tmp_path / "out"
    prepare(find_cases(raw), out, workers=0)
    for name in ("0.b2nd", "1-labels.b2nd"):
        path = out / "cases" / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    report = prepare(find_cases(raw), out, workers=0)
    assert (report.prepared, report.unchanged) == (["0", "1", "2"], ["2"])
    assert open_volume(out / "cases" / "0.b2nd").read().any()


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"version": 1}', "null"])
def test_record_that_cannot_be_understood_is_left_out_by_name(raw, tmp_path, caplog, content):
    prepare(find_cases(raw), tmp_path / "out", workers=0)
    (tmp_path / "out" / "cases" / "1.json").write_text(content)
    assert [case.id for case in prepared_cases(tmp_path / "out")] == ["0", "2"]
    assert logged(caplog, "1.json", "left out")
    assert prepare(find_cases(raw), tmp_path / "out", workers=0).unchanged == ["0", "2"]
    assert [case.id for case in prepared_cases(tmp_path / "out")] == ["0", "1", "2"]


def test_a_reference_of_the_liver_alone_is_marked(tmp_path):
    hu, labels = body()
    for name in ("s1", "s2"):
        ct = tmp_path / "raw" / name / "ct.nii.gz"
        write_nifti(hu + int(name[1]), ct, spacing_mm=BODY_SPACING_MM)
        liver = (labels > 0).astype(np.uint8)
        mask = tmp_path / "raw" / name / "segmentations" / "liver.nii.gz"
        write_nifti(liver, mask, spacing_mm=BODY_SPACING_MM)
    report = prepare(find_cases(tmp_path / "raw"), tmp_path / "out", workers=0, png=False)
    assert report.prepared == ["s1", "s2"]
    assert "liver_only  cases s1, s2  the reference shows the liver alone" in report.table()
    assert [case.liver_only for case in prepared_cases(tmp_path / "out")] == [True, True]
    assert (tmp_path / "out" / "cases" / "s1.b2nd").is_file()


def test_the_case_to_look_at_has_much_tumor_darker_than_its_liver(tmp_path):
    hu = np.full((12, 20, 24), 100, np.int16)
    hu[..., ::2] = 120  # the liver's scatter: 110 +- 10
    for name, value, slices in (("1", 150, 9), ("2", 60, 3), ("3", 105, 7), ("4", 70, 4)):
        labels = np.zeros(hu.shape, np.uint8)
        labels[1:11, 2:18, 3:20] = 1
        labels[1 : 1 + slices, 5:9, 6:11] = 2
        write_packed_case(tmp_path, name, np.where(labels == 2, value, hu).astype(np.int16), labels)
    write_packed_case(tmp_path, "5", hu, None)
    data = open_prepared(tmp_path)
    assert example_case(data).id == "4"  # 1 and 3 have more, but brighter or hardly darker
    bright = replace(data, cases=[data.case("5"), data.case("3"), data.case("1")])
    assert example_case(bright).id == "1"
    assert example_case(replace(data, cases=[data.case("5")])).id == "5"
