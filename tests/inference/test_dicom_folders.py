"""A folder of DICOM studies: one SEG a study, one bad study ends no other."""

# ruff: noqa: E402  (what may be missing is asked for first)

import gzip
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason='pip install highdicom "pylibjpeg[all]"')
pytest.importorskip("highdicom", reason='pip install highdicom "pylibjpeg[all]"')

from helpers.drawn import BODY_SPACING_MM, body
from helpers.drawn_dicom import write_seg, write_series
from helpers.grey_models import SHAPE, bright_model, segment_below, write_ct
from helpers.prepared_runs import write_checkpoint

from lits_helpers.__main__ import main
from lits_helpers.cases import find_cases
from lits_helpers.inference import find_volumes, read_ct, segment_files
from lits_helpers.machine import read_json
from lits_helpers.pipeline import find_predictions
from lits_helpers.pipeline.reports import cts_of, named_predictions, report_predictions
from lits_helpers.preprocess import prepare
from lits_helpers.volumes import read_segmentation, read_volume, write_segmentation


def ct(slice_index=0, shape=SHAPE):
    hu = np.full(shape, -1000, np.int16)
    hu[slice_index, 4:12, 3:20] = 100
    return hu


def write_studies(root):
    """Three studies, two of them with more than one series; the third lacks a slice."""
    write_series(root / "a" / "ct", ct(1), study="a")
    write_series(root / "a" / "arterial", ct(0)[:2], study="a", series=3)
    write_series(root / "b", ct(2), study="b", patient="P2")
    write_series(root / "b", ct(0, (5, 20, 32)), study="c", patient="P3")
    write_series(root / "d" / "ct", ct(0, (5, 20, 32)), study="d", patient="P4")[2].unlink()
    (root / "notes.txt").write_text("x")
    return root


def test_studies_are_found_and_named_after_their_folders(tmp_path):
    root = tmp_path / "raw"
    write_studies(root)
    shutil.make_archive(str(root / "upload"), "zip", root / "a")
    found = {case.id: case.volume.relative_to(root).as_posix() for case in find_volumes(root)}
    assert found == {"a": "a", "b": "b", "d-ct": "d/ct", "upload": "upload.zip"}


@pytest.mark.parametrize("flat", [False, True])
def test_a_zip_of_several_studies_gives_what_its_folder_gives(tmp_path, flat):
    root = tmp_path / "unpacked"
    for study, patient, k in (("a", "P1", 0), ("b", "P1", 1), ("c", "P2", 2)):
        write_series(root / study, ct(k), study=study, patient=patient)
        write_series(root / study / "short", ct(0)[:2], study=study, patient=patient, series=5)
        if flat:
            for path in root.rglob("*.dcm"):
                if path.parent != root:
                    path.rename(root / f"{study}-{path.parent.name}-{path.name}")
    packed = Path(shutil.make_archive(str(tmp_path / "in" / "upload"), "zip", root))
    model = bright_model()
    of_folder = segment_below(root, tmp_path / "one", model)
    of_zip = segment_below(packed, tmp_path / "two", model)
    names = [path.name for path in of_folder.written.values()]
    assert len(names) == 3
    assert [path.name for path in of_zip.written.values()] == names
    for name in names:
        one, other = (nib.load(tmp_path / place / name).get_fdata() for place in ("one", "two"))
        np.testing.assert_array_equal(one, other)
    assert not segment_below(packed, tmp_path / "two", model).written
    prefixed = {f"upload-{case.id}" for case in find_volumes(root)}
    assert {case.id for case in find_volumes(packed.parent)} == prefixed
    pages, failed = report_predictions(
        find_predictions(tmp_path / "two"), cts_of({}, packed), tmp_path / "pages"
    )
    assert (len(pages), failed) == (3, {})


def test_a_named_series_is_looked_for_in_each_study_of_a_zip(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "unpacked"
    for study in "ab":
        write_series(root / study / "long", ct(0), study=study)
    write_series(root / "b" / "late", ct(1)[:2], study="b", series=5)
    packed = shutil.make_archive(str(tmp_path / "upload"), "zip", root)
    liver = str(write_checkpoint(tmp_path / "liver.pth", "liver"))
    words = ["predict", packed, "--liver", liver, "--only", "liver", "--series", "5", "--out", "o"]
    assert main(words) == 1
    assert "upload.zip/a-long-series5: " in (told := capsys.readouterr()).err
    assert "has no series 5 with slices; there are: 4 (3 slices)\n" in told.err
    assert told.out == "o/prediction-volume-b-series5.nii.gz\n"


def test_one_volume_of_several_studies_says_what_it_left_aside(tmp_path, caplog):
    for study, count in (("a", 3), ("b", 2)):
        write_series(tmp_path / study, ct(0)[:count], study=study, SeriesDescription=study * 3)
    assert len(read_volume(tmp_path).hu) == 3
    (told,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "4 (3 slices, aaa) of one of 2 studies; not taken: 4 (2 slices, bbb)" in told.message


def test_each_study_gets_one_seg_and_a_second_call_makes_none_again(tmp_path):
    root, out = write_studies(tmp_path / "raw"), tmp_path / "out"
    (root / "b").rename(tmp_path / "elsewhere")
    report = segment_below(root, out, bright_model(), formats=["dicom-seg", "nifti"])
    assert [path.name for path in report.written.values()] == ["prediction-volume-a.dcm"]
    (reason,) = report.failed.values()
    assert "a slice is missing" in reason
    volume = read_volume(root / "a")
    labels = read_segmentation(out / "prediction-volume-a.dcm", like=volume)
    assert np.flatnonzero(labels.any(axis=(1, 2))).tolist() == [1]
    twin = nib.load(out / "prediction-volume-a.nii.gz")
    np.testing.assert_allclose(twin.affine, volume.geometry.affine)
    again = segment_below(root, out, bright_model(), formats=["dicom-seg", "nifti"])
    assert [path.name for path in again.present.values()] == ["prediction-volume-a.dcm"]
    assert not again.written


WHO = {
    "PatientName": "Featherstonehaugh^Jacqueline",
    "patient": "MRN0077123",
    "PatientBirthDate": "19450102",
    "AccessionNumber": "ACC0099887",
    "ReferringPhysicianName": "Cholmondeley",
    "StationName": "STATION0815",
}


def test_nothing_written_or_said_but_the_seg_tells_who_the_patient_is(tmp_path, caplog, capsys):
    root, out = tmp_path / "raw", tmp_path / "out"
    caplog.set_level("DEBUG")
    hu, labels = body()
    options = {"spacing_mm": BODY_SPACING_MM} | WHO
    files = write_series(root / "one", hu, study="a", **options)
    write_seg(root / "one" / "seg.dcm", files, labels)
    write_series(root / "Featherstonehaugh 1945", hu, study="b", **options)
    write_series(root / "lacking", hu, study="c", **options)[3].unlink()
    cut = write_series(root / "cut", hu, study="d", **options)[13]
    cut.write_bytes(cut.read_bytes()[:-500])
    mixed = write_series(root / "mixed", hu, study="e", **options)[5]
    dataset = pydicom.dcmread(mixed)
    dataset.PatientID, dataset.PatientName = "MRN0099999", "Other^Featherstonehaugh"
    dataset.save_as(mixed)
    report = segment_below(root, out, bright_model(), formats=["dicom-seg", "nifti"])
    said = [report.text()]
    assert len(report.written) == 2
    assert len(report.failed) == 3
    pages, _ = report_predictions(find_predictions(out), cts_of({}, root), out / "reports")
    assert len(pages) == 2
    said.append(prepare(find_cases(root), tmp_path / "prepared", workers=0).table())
    said += [caplog.text.replace(str(root / "Featherstonehaugh 1945"), "")]
    said += capsys.readouterr()
    said[0] = said[0].replace(str(root / "Featherstonehaugh 1945"), "")
    for path in (path for folder in (out, tmp_path / "prepared") for path in folder.rglob("*")):
        said.append(str(path))
        if path.is_file() and path.suffix != ".dcm":
            content = path.read_bytes()
            content = gzip.decompress(content) if path.suffix == ".gz" else content
            said.append(content.decode("latin-1"))
    secrets = {word for value in WHO.values() for word in value.split("^")} | {"MRN0099999"}
    told = {word for word in secrets for text in said if word.lower() in text.lower()}
    assert not told
    assert "Featherstonehaugh" in str(pydicom.dcmread(next(out.glob("*.dcm"))).PatientName)


@pytest.mark.parametrize("number", ["4", "5"])
def test_a_report_on_a_named_series_is_measured_on_that_series(tmp_path, number):
    hu = body()[0]
    for name, series, shift in (("venous", 4, 0), ("late", 5, 20)):
        options = {"study": "a", "series": series, "spacing_mm": BODY_SPACING_MM}
        write_series(tmp_path / "cts" / "a" / name, hu - np.int16(shift), **options)
    (study,) = find_volumes(tmp_path / "cts")
    case = replace(study, id=f"{study.id}-series{number}", series=number)
    segment_files([case], tmp_path / "out", bright_model())
    (path,) = (tmp_path / "out").glob("*.nii.gz")
    volume, _ = read_ct(case)
    expected = volume.hu[read_segmentation(path, like=volume) == 1].mean()
    for given in ({case.id: case.volume}, {study.id: study.volume}):
        _, failed = report_predictions({case.id: path}, given, tmp_path / "pages")
        assert not failed
        measured = read_json(tmp_path / "pages" / f"{case.id}.json")["measurements"]
        assert measured["liver"]["hu"] == pytest.approx(expected)


def test_any_changed_slice_of_a_flat_folder_makes_its_case_anew_and_no_other(tmp_path):
    hu, _ = body()
    root, out, prepared = (tmp_path / name for name in ("raw", "out", "prepared"))
    root.mkdir()
    for study in "ab":
        tags = {"study": study, "patient": study, "spacing_mm": BODY_SPACING_MM}
        for path in write_series(tmp_path / study, hu, **tags):
            path.rename(root / f"{study}{path.name}")
    model = bright_model()
    assert len(segment_below(root, out, model).written) == 2
    assert len(prepare(find_cases(root), prepared, workers=0).prepared) == 2
    assert len(segment_below(root, out, model).present) == 2
    changed = pydicom.dcmread(root / "bIM009.dcm")
    changed.PixelData = changed.PixelData[2:] + changed.PixelData[:2]
    changed.save_as(root / "bIM009.dcm")
    assert prepare(find_cases(root), prepared, workers=0).unchanged == ["aIM001"]
    assert [path.name for path in segment_below(root, out, model).written] == ["bIM001.dcm"]


def test_results_in_a_studys_own_folder_leave_it_finished(tmp_path):
    write_series(tmp_path / "a", ct(1))
    for what in ("written", "present"):
        out, formats = tmp_path / "a" / "out", ["nifti", "dicom-seg"]
        report = segment_below(tmp_path / "a", out, bright_model(), formats=formats)
        assert len(getattr(report, what)) == 1


def test_report_takes_a_seg_and_the_folder_of_its_ct(tmp_path):
    hu, labels = body()
    write_series(tmp_path / "any" / "where", hu, spacing_mm=BODY_SPACING_MM)
    volume = read_volume(tmp_path / "any")
    path = write_segmentation(labels, volume, tmp_path / "mine.dcm")
    found = named_predictions(path)
    rows, failed = report_predictions(found, cts_of(found, tmp_path / "any" / "where"), tmp_path)
    assert not failed
    assert rows[0]["case_id"] == "mine"
    assert (tmp_path / "mine.html").is_file()


def test_a_nifti_ct_takes_no_seg_and_is_named(tmp_path):
    write_ct(tmp_path / "raw" / "volume-1.nii")
    report = segment_below(
        tmp_path / "raw", tmp_path / "out", bright_model(), formats=["dicom-seg"]
    )
    (reason,) = report.failed.values()
    assert "volume-1.nii came from no DICOM" in reason
