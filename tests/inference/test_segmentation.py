"""The front door: a CT in, labels, a file and a viewer out."""

import shutil

import nibabel as nib
import numpy as np
import pytest
from helpers.drawn import body
from helpers.grey_models import bright_model, tumor_model, write_ct
from helpers.logs import logged

import lits_helpers
from lits_helpers.inference import say_synthetic, segment_file
from lits_helpers.machine import read_json


def test_a_file_is_segmented_written_and_shown(tmp_path):
    ct = write_ct(tmp_path / "ct.nii.gz", slice_index=1)
    made = lits_helpers.segment(ct, bright_model(), tumor=None, out=tmp_path / "labels.nii.gz")
    assert made.labels.shape == made.volume.hu.shape
    assert made.labels[1].any()
    assert not made.labels[[0, 2]].any()
    assert made.models == {"liver": "a loaded model"}
    stored = np.asarray(nib.load(tmp_path / "labels.nii.gz").dataobj)
    assert stored.sum() == made.labels.sum()
    assert made.view().cases
    page = made.report(tmp_path / "reports")
    assert page == tmp_path / "reports" / "ct.html"
    text = page.read_text(encoding="utf-8")
    assert "Not a medical device" in text
    assert "Tumors were not looked for" in text
    assert "trained on no real patient" in text
    assert made.flags == read_json(page.with_suffix(".json"))["flags"]


def test_flags_of_tumors_alone_say_that_nobody_looked_for_the_liver(tmp_path):
    ct = write_ct(tmp_path / "ct.nii.gz")
    for share in (0.9, 0.1):  # everything, nothing
        made = lits_helpers.segment(ct, liver=None, tumor=tumor_model(share))
        assert [reason[:32] for reason in made.flags["reasons"]] == [
            "the liver was not looked for: no"
        ]
        page = made.report(tmp_path / "reports")
        assert made.flags == read_json(page.with_suffix(".json"))["flags"]


def test_nothing_to_segment_with_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="needs a liver model, a tumor model or both"):
        lits_helpers.segment(write_ct(tmp_path / "ct.nii"), liver=None, tumor=None)


@pytest.mark.parametrize(
    ("name", "words"), [("labels.mha", "is written as .nii"), ("labels.dcm", "came from no DICOM")]
)
def test_a_place_that_cannot_hold_the_labels_is_refused_before_any_work(tmp_path, name, words):
    ct = write_ct(tmp_path / "ct.nii")
    out = tmp_path / name
    for given in (ct, lits_helpers.read_volume(ct)):
        with pytest.raises(ValueError, match=words):
            lits_helpers.segment(given, liver=None, tumor=None, out=out)
    with pytest.raises(ValueError, match=words):
        segment_file(ct, out)


def test_weights_that_never_saw_a_patient_are_named(caplog):
    caplog.set_level("INFO")
    say_synthetic([("liver", "synthetic"), ("tumor", "runs/tumor/best_model.pth")])
    assert logged(caplog, "liver: ", "never saw a real one") == 1
    assert logged(caplog, "tumor") == 0


def test_a_zip_of_dicom_gives_nifti_and_seg_and_its_report_no_name_of_a_patient(tmp_path):
    pytest.importorskip("highdicom", reason='pip install highdicom "pylibjpeg[all]"')
    from helpers.drawn_dicom import write_series

    write_series(tmp_path / "study", body()[0])
    packed = shutil.make_archive(str(tmp_path / "upload"), "zip", tmp_path / "study")
    made = lits_helpers.segment(packed, bright_model(), tumor=None)
    for name in ("labels.nii.gz", "labels.dcm"):
        again = lits_helpers.read_segmentation(made.save(tmp_path / name), like=made.volume)
        assert np.array_equal(again, made.labels)
    assert made.report(tmp_path).name == "upload.html"


def test_a_folder_named_after_the_patient_names_no_report(tmp_path):
    pytest.importorskip("highdicom", reason='pip install highdicom "pylibjpeg[all]"')
    from helpers.drawn_dicom import write_series

    write_series(tmp_path / "Doe_Jane" / "ct", body()[0])
    (tmp_path / "Doe_Jane" / "a.dcm").write_bytes(bytes(128) + b"DICM" + b"damaged")
    made = lits_helpers.segment(tmp_path / "Doe_Jane", bright_model(), tumor=None)
    page = made.report(tmp_path / "out")
    assert page.name.startswith("study-")
    assert "Doe" not in page.read_text(encoding="utf-8")


def test_two_dates_in_file_names_are_two_reports(tmp_path):
    cts = [write_ct(tmp_path / f"mueller.{year}-01-03.nii.gz") for year in (2024, 2025)]
    made = [lits_helpers.segment(ct, bright_model(), tumor=None) for ct in cts]
    assert [each.case_id for each in made] == ["mueller.2024-01-03", "mueller.2025-01-03"]
