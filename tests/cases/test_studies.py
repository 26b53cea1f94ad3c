"""DICOM SEG as references: found beside the CT that they were drawn on, by UIDs, never by names."""

# ruff: noqa: E402  (what may be missing is asked for first)

import csv
import re
import shutil

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason='pip install highdicom "pylibjpeg[all]"')
pytest.importorskip("highdicom", reason='pip install highdicom "pylibjpeg[all]"')

from helpers.drawn import BODY_SPACING_MM, body, ramp
from helpers.drawn_dicom import shuffled, write_seg, write_series
from pydicom.uid import MRImageStorage

from lits_helpers.__main__ import main
from lits_helpers.cases import find_cases, find_cts, load_case, search_cases
from lits_helpers.pipeline import compare
from lits_helpers.volumes import read_volume, write_segmentation

HU = ramp((4, 6, 5))
LABELS = np.zeros(HU.shape, np.uint8)
LABELS[1:3, 2:5, 1:3] = 1
LABELS[2, 2, 2] = 2


def write_study(folder, seg=None, study=None, series=4, patient="P1", **options):
    """Write a CT and, at `seg`, a DICOM SEG drawn on it; return the CT's files."""
    tags = {"study": study or folder.name, "series": series, "patient": patient}
    files = write_series(folder / f"s{series}", HU, **tags)
    if seg:
        write_seg(seg, files, LABELS, **options)
    return files


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
def test_seg_is_the_reference_of_its_ct_wherever_it_lies(tmp_path, kind):
    write_study(tmp_path / "a", tmp_path / "results" / "1.dcm", kind=kind)
    write_study(tmp_path / "b", tmp_path / "b" / "seg" / "x.dcm", patient="P2", kind=kind)
    write_study(tmp_path / "c", patient="P3")
    cases = {case.id: case for case in find_cases(tmp_path)}
    assert list(cases) == ["a-s4", "b-s4", "c-s4"]
    for name in ("a-s4", "b-s4"):
        volume, labels, _ = load_case(cases[name])
        np.testing.assert_array_equal(volume.hu, HU)
        np.testing.assert_array_equal(labels, LABELS)
    assert cases["c-s4"].segmentation is None
    assert not any(case.liver_only for case in cases.values())


def test_series_with_a_seg_is_taken_before_a_longer_one_and_two_are_two_cases(tmp_path):
    write_study(tmp_path / "a", tmp_path / "a" / "4.dcm")
    write_series(tmp_path / "a" / "long", ramp((9, 6, 5)), study="a", series=5)
    write_study(tmp_path / "b", tmp_path / "b" / "4.dcm", patient="P2")
    write_study(tmp_path / "b", tmp_path / "b" / "5.dcm", patient="P2", series=5)
    cases = find_cases(tmp_path)
    assert [(case.id, case.segmentation.name) for case in cases] == [
        ("a", "4.dcm"), ("b", "4.dcm"), ("b-2", "5.dcm"),
    ]  # fmt: skip
    for case in cases:
        np.testing.assert_array_equal(load_case(case)[1], LABELS)
    assert [case.id for case in find_cts(tmp_path)] == ["a", "b"]


def test_seg_that_names_no_series_goes_to_the_ct_of_its_frame(tmp_path):
    files = write_study(tmp_path / "a", tmp_path / "1.dcm")
    seg = pydicom.dcmread(tmp_path / "1.dcm")
    del seg.ReferencedSeriesSequence
    seg.save_as(tmp_path / "1.dcm")
    (case,) = find_cases(tmp_path)
    assert case.segmentation == tmp_path / "1.dcm"
    files[0].parent.rename(tmp_path / "b")
    np.testing.assert_array_equal(load_case(find_cases(tmp_path)[0])[1], LABELS)


def test_seg_that_may_be_of_either_of_two_phases_is_left_aside_by_name(tmp_path):
    write_study(tmp_path / "a", tmp_path / "1.dcm")
    write_series(tmp_path / "a" / "long", ramp((9, 6, 5)), study="a", series=5)
    seg = pydicom.dcmread(tmp_path / "1.dcm")
    del seg.ReferencedSeriesSequence
    seg.save_as(tmp_path / "1.dcm")
    search = search_cases(tmp_path)
    assert [case.segmentation for case in search.cases] == [None]
    words = "left aside in .: 1 SEG that does not say which series it was drawn on"
    assert words in "; ".join(search.notes)


def test_seg_stays_in_its_study_where_another_holds_a_copy_of_the_series(tmp_path):
    for study in ("a", "b"):
        uid = "1.2.3.4"
        files = write_series(tmp_path / study, HU, study=study, SeriesInstanceUID=uid)
        write_seg(tmp_path / study / "seg.dcm", files, LABELS)
    assert [case.segmentation.parent.name for case in find_cases(tmp_path)] == ["a", "b"]


def test_studies_of_one_patient_stay_together_and_the_id_is_not_shown(tmp_path):
    for study, patient in (("a", "MRN771"), ("b", "MRN772"), ("c", "MRN771")):
        write_study(tmp_path / study, patient=patient)
    assert [case.patient for case in find_cases(tmp_path)] == ["a-s4", "b-s4", "a-s4"]
    (tmp_path / "b" / "s4").rename(tmp_path / "elsewhere")
    write_study(tmp_path / "d", patient="MRN771")
    shutil.rmtree(tmp_path / "elsewhere")
    search = search_cases(tmp_path)
    assert [case.patient for case in search.cases] == ["a-s4", "c-s4", "d-s4"]
    assert "all 3 studies have one patient id" in "; ".join(search.notes)


def test_a_patient_keeps_the_place_in_the_split_when_a_later_study_comes(tmp_path):
    for folder, date, patient in (("b", "20200101", "1"), ("c", "20210101", "2")):
        write_series(tmp_path / folder, HU, study=folder, patient=patient, StudyDate=date)
    assert [case.patient for case in find_cases(tmp_path)] == ["b", "c"]
    for folder, date, patient in (("a", "20220101", "1"), ("d", "20190101", "3")):
        write_series(tmp_path / folder, HU, study=folder, patient=patient, StudyDate=date)
    found = {case.id: case.patient for case in find_cases(tmp_path)}
    assert found == {"a": "b", "b": "b", "c": "c", "d": "d"}


def test_a_table_of_patients_wins_over_the_ids_in_dicom(tmp_path):
    for folder, patient in (("a", "1"), ("b", "1"), ("c", "2")):
        write_series(tmp_path / folder, HU, study=folder, patient=patient)
    (tmp_path / "patients.csv").write_text("case,patient\na,Ada\nb,Ada\nc,Ada\n")
    assert [case.patient for case in find_cases(tmp_path)] == ["Ada"] * 3


def test_phases_of_one_study_are_one_patient_whatever_its_id_says(tmp_path):
    for series in (3, 4, 5):
        write_study(tmp_path / "a", tmp_path / "a" / f"{series}.dcm", series=series, patient="")
    search = search_cases(tmp_path)
    assert [case.patient for case in search.cases] == ["a"] * 3
    for study in "abcd":
        for series in (3, 4):
            write_study(tmp_path / study, tmp_path / study / f"{series}.dcm", series=series)
    shutil.rmtree(tmp_path / "a")
    search = search_cases(tmp_path)
    assert [case.patient for case in search.cases] == ["b", "b", "c", "c", "d", "d"]
    assert "all 3 studies have one patient id" in "; ".join(search.notes)
    shutil.rmtree(tmp_path / "d")
    assert {case.patient for case in find_cases(tmp_path)} == {"b"}


def test_files_named_by_uids_and_folders_that_read_alike_are_cases_of_their_own(tmp_path):
    for name in ("1.2.840.77.100", "1.2.840.77.200"):
        path = write_series(tmp_path / "flat", HU, study=name, patient=name)[0]
        path.rename(path.with_name(name))
        for other in path.parent.glob("*.dcm"):
            other.unlink()
    for name in ("A/1", "A-1", "a-1"):
        write_series(tmp_path / name, HU, study=name, patient=name)
    names = ["A-1", "A-1-2", "a-1-3", "flat-1.2.840.77.100", "flat-1.2.840.77.200"]
    assert sorted(case.id for case in find_cases(tmp_path)) == names


@pytest.mark.parametrize("uid", ["", "1.2.840.77.1"])
def test_patients_without_a_studys_uid_or_with_one_for_all_are_apart(tmp_path, uid):
    for k, name in enumerate("ab"):
        write_series(tmp_path / "in" / name, HU + k, study=name, patient=name, StudyInstanceUID=uid)
    packed = shutil.make_archive(str(tmp_path / "up"), "zip", tmp_path / "in")
    for cases in (find_cases(tmp_path / "in"), find_cts(packed)):
        assert [case.id for case in cases] == ["a", "b"]
        assert [case.patient for case in cases] == ["a", "b"]
        for k, case in enumerate(cases):
            assert (read_volume(case.volume, series=case.series).hu == HU + k).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"parts": (None, "Mass")}, "a DICOM SEG without a liver: 1.dcm"),
        ({"parts": ("Spleen", "Kidney")}, "a DICOM SEG without a liver: 1.dcm"),
        ({"Manufacturer": "lits-helpers"}, "a DICOM SEG made by this program: 1.dcm"),
    ],
)
def test_seg_that_is_no_reference_is_left_aside_by_name(tmp_path, options, words):
    write_study(tmp_path / "a", tmp_path / "1.dcm", **options)
    search = search_cases(tmp_path)
    assert search.cases[0].segmentation is None
    assert words in "; ".join(search.notes)


def test_seg_of_the_liver_alone_says_nothing_about_tumors(tmp_path):
    files = write_study(tmp_path / "a", tmp_path / "1.dcm", parts=("Liver", None))
    assert find_cases(tmp_path)[0].liver_only
    (tmp_path / "cases.csv").write_text(f"case,volume,segmentation\nx,{files[0].parent},1.dcm\n")
    assert find_cases(tmp_path)[0].liver_only


def test_several_segs_of_one_ct_want_a_choice_and_one_alone_is_no_case(tmp_path):
    files = write_study(tmp_path / "a", tmp_path / "1.dcm")
    write_seg(tmp_path / "2.dcm", files, LABELS)
    search = search_cases(tmp_path)
    assert search.cases[0].segmentation is None
    assert "several DICOM SEG of one CT, left aside: 1.dcm, 2.dcm" in "; ".join(search.notes)
    for path in files:
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no case .*2 SEG of a series that is not here"):
        find_cases(tmp_path)


def test_of_several_segs_the_only_one_with_liver_and_tumors_is_taken(tmp_path):
    files = write_study(tmp_path / "a", tmp_path / "1.dcm", parts=("Liver", None))
    write_seg(tmp_path / "2.dcm", files, LABELS)
    write_seg(tmp_path / "3.dcm", files, LABELS, parts=("Spleen", "Kidney"))
    search = search_cases(tmp_path)
    assert search.cases[0].segmentation.name == "2.dcm"
    assert not search.cases[0].liver_only
    notes = "; ".join(search.notes)
    assert "several DICOM SEG of one CT, left aside: 1.dcm" in notes
    assert "left aside, a DICOM SEG without a liver: 3.dcm" in notes


def test_layout_can_be_forced_where_nifti_lies_too(tmp_path):
    write_study(tmp_path / "a", tmp_path / "1.dcm")
    (tmp_path / "volume-3.nii").write_bytes(b"x")
    assert [case.id for case in find_cases(tmp_path)] == ["3"]
    assert [case.id for case in find_cases(tmp_path, "dicom")] == ["a-s4"]
    assert [case.id for case in find_cts(tmp_path, "dicom")] == ["a-s4", "3"]
    (tmp_path / "b").mkdir()
    with pytest.raises(FileNotFoundError, match="expected folders of DICOM, a CT each"):
        find_cases(tmp_path / "b", "dicom")


def test_study_without_ct_is_named_with_what_it_is(tmp_path):
    write_study(tmp_path / "a")
    write_series(tmp_path / "b", HU, study="mr", SOPClassUID=MRImageStorage, Modality="MR")
    assert "a study without axial CT in b: 4 MR" in "; ".join(search_cases(tmp_path).notes)


def test_folder_that_bears_the_patients_name_gives_no_case_its_name(tmp_path):
    write_series(tmp_path / "DOE_JANE_1", HU, study="a")
    for name, called in (("liver 7", "Liver^Case"), ("HCC_015", "HCC_015")):  # no names of people
        write_series(tmp_path / name, HU, study=name, patient=name, PatientName=called)
    for found in (find_cases(tmp_path), find_cts(tmp_path)):
        ids = sorted(case.id for case in found)
        assert ids[:2] == ["HCC_015", "liver 7"]
        assert re.fullmatch(r"study-[0-9a-f]{8}", ids[2])
    packed = shutil.make_archive(str(tmp_path / "Jane Doe"), "zip", tmp_path / "DOE_JANE_1")
    assert find_cts(packed)[0].id == ids[2]
    write_series(tmp_path / "b" / "SCHMIDTEVA", HU, study="d", PatientName="Schmidt^Eva")
    assert "EVA" not in find_cases(tmp_path / "b")[0].id


def test_patients_name_is_hidden_though_the_first_files_do_not_tell_it(tmp_path):
    first, *_ = write_series(tmp_path / "DOE_JANE_1", HU, study="a", PatientName="Doe^Jane^1970")
    nameless = pydicom.dcmread(first)
    nameless.PatientName = ""
    nameless.save_as(first)
    assert find_cases(tmp_path)[0].id.startswith("study-")
    (first.parent / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(200))
    (first.parent / "A").write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI\xff\xff")
    packed = shutil.make_archive(str(tmp_path / "Jane Doe"), "zip", first.parent)
    assert find_cts(packed)[0].id.startswith("study-")


def test_dicomdir_is_named_where_its_images_are_missing(tmp_path):
    write_study(tmp_path / "a")
    index = bytes(128) + b"DICM" + bytes(200)
    (tmp_path / "DICOMDIR").write_bytes(index)
    assert "DICOMDIR" not in "; ".join(search_cases(tmp_path).notes)
    (tmp_path / "b").mkdir()
    (tmp_path / "DICOMDIR").rename(tmp_path / "b" / "DICOMDIR")
    assert "in b: 1 DICOMDIR, an index: copy the folders" in "; ".join(search_cases(tmp_path).notes)


def test_studies_with_seg_are_prepared_and_scored(tmp_path, capsys):
    hu, labels = body()
    raw, prepared, runs = tmp_path / "raw", tmp_path / "prepared", tmp_path / "runs"
    files = write_series(raw / "a", hu, "LPI", spacing_mm=BODY_SPACING_MM, order=shuffled(14))
    write_seg(raw / "a" / "seg.dcm", files, labels, "LPI", order=shuffled(14))
    places = ["--source", "folder", "--raw", raw, "--prepared", prepared, "--runs", runs]
    places = list(map(str, places))
    assert main(["prepare", *places, "--workers", "0"]) == 0
    half = labels.copy()
    half[labels == 2] = 1
    volume = read_volume(raw / "a")
    out = runs / "results" / "predictions"
    write_segmentation(half, volume, out / "prediction-volume-a.nii.gz")
    assert main(["evaluate", *places]) == 0
    with open(runs / "results" / "metrics.csv", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["case_id"], float(row["liver_dice"]), float(row["tumor_dice"])) == ("a", 1, 0)


def cropped(labels, first):
    """Labels without those below a slice: their DICOM SEG holds fewer slices."""
    return np.where(np.arange(len(labels))[:, None, None] < first, 0, labels).astype(np.uint8)


@pytest.mark.parametrize("kinds", [("dcm", "dcm"), ("nii.gz", "dcm"), ("dcm", "nii.gz")])
def test_seg_are_compared_with_each_other_and_with_nifti(tmp_path, kinds):
    write_series(tmp_path / "ct", HU)
    volume = read_volume(tmp_path / "ct")
    predicted, reference = cropped(LABELS, 2), LABELS
    files = [
        write_segmentation(labels, volume, tmp_path / f"{name}.{kind}")
        for labels, name, kind in zip((predicted, reference), "AB", kinds, strict=True)
    ]
    (row,), _ = compare(*files, tmp_path / "out")
    both = [int((labels > 0).sum()) for labels in (predicted, reference)]
    assert row["liver_dice"] == pytest.approx(2 * both[0] / sum(both))
    assert row["tumor_dice"] == 1
    assert "the liver measures 0 ml by voxels of 5 x 0.7 x 0.8 mm" in row["note"]


def test_seg_of_different_voxels_are_not_compared(tmp_path, capsys):
    for name, origin in (("a", 0), ("b", 0.3)):
        change = lambda k, p, by=origin: {"ImagePositionPatient": [p[0] + by, *p[1:]]}  # noqa: E731
        write_series(tmp_path / name, HU, change=change)
        volume = read_volume(tmp_path / name)
        write_segmentation(LABELS, volume, tmp_path / f"{name}.dcm")
    files = [str(tmp_path / "a.dcm"), str(tmp_path / "b.dcm")]
    assert main(["evaluate", *files, "--out", str(tmp_path / "out")]) == 1
    assert "its voxels lie elsewhere" in capsys.readouterr().err


def test_folder_of_predictions_is_compared_with_studies(tmp_path):
    for name, patient in (("a", "P1"), ("b", "P2")):
        write_study(tmp_path / "raw" / name, tmp_path / "raw" / name / "seg.dcm", patient=patient)
        volume = read_volume(tmp_path / "raw" / name / "s4")
        for kind in ("dcm", "nii.gz"):  # as --format both leaves them
            path = tmp_path / "out" / f"prediction-volume-{name}-s4.{kind}"
            write_segmentation(LABELS, volume, path)
    rows, _ = compare(tmp_path / "out", tmp_path / "raw", tmp_path / "scores")
    assert [row["case_id"] for row in rows] == ["a-s4", "b-s4"]
    assert [row["tumor_dice"] for row in rows] == [1, 1]


def test_a_seg_in_a_table_takes_the_series_that_it_was_drawn_on(tmp_path):
    hu, labels = body()
    drawn_on = write_series(tmp_path / "P" / "a", hu, series=4, spacing_mm=BODY_SPACING_MM)
    longer = np.concatenate([hu, hu[-1:]]) + np.int16(9)  # a later phase, at the same places
    write_series(tmp_path / "P" / "b", longer, series=5, spacing_mm=BODY_SPACING_MM)
    write_seg(tmp_path / "s.dcm", drawn_on, labels)
    (tmp_path / "cases.csv").write_text("case,volume,segmentation\n7,P,s.dcm\n")
    volume, found, findings = load_case(find_cases(tmp_path)[0])
    np.testing.assert_array_equal(volume.hu, hu)
    np.testing.assert_array_equal(found, labels)
    assert findings == []
