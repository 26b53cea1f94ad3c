"""Label files are compared with references wherever both lie, and by the names people give them."""

import numpy as np
import pytest
from helpers.drawn import BODY_SPACING_MM, blob, write_nifti

from lits_helpers.cases import Case, label_id, with_patients
from lits_helpers.machine import file_hash, read_json, write_json
from lits_helpers.pipeline import compare

LABELS = blob()


def half():
    """The labels with half of the liver's slices: 2 to 5 of 2 to 8."""
    part = LABELS.copy()
    part[6:] = 0
    return part


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("prediction-volume-7.nii.gz", "7"),
        ("out/volume-7.nii", "7"),
        ("segmentations/segmentation-7.nii", "7"),
        ("labelsTr/liver_12.nii.gz", "liver_12"),
        ("prediction-volume-liver_12.nii.gz", "liver_12"),
        ("s0004/segmentations/liver.nii.gz", "s0004"),
        ("a_seg.nii.gz", "a"),
        ("a.txt", None),
    ],
)
def test_a_label_file_tells_its_case(tmp_path, name, case):
    assert label_id(tmp_path / name) == case


def test_two_files_are_compared_whatever_their_names_and_orientations(tmp_path):
    mine = write_nifti(half(), tmp_path / "mine.nii.gz", "RAS", BODY_SPACING_MM)
    theirs = write_nifti(LABELS, tmp_path / "theirs.nii", "LPS", BODY_SPACING_MM)
    (row,), summary = compare(mine, theirs, tmp_path / "out")
    voxels = np.array([(half() > 0).sum(), (LABELS > 0).sum()])
    assert row["liver_dice"] == pytest.approx(2 * voxels[0] / voxels.sum())
    assert row["voxel_mm3"] == pytest.approx(10.0 * 4.5 * 5.0)
    assert row["note"] is None
    assert summary["cases"] == 1
    assert (tmp_path / "out" / "metrics.csv").is_file()
    assert read_json(tmp_path / "out" / "summary.json")["liver_dice"]["cases"] == 1


def test_a_liver_of_6_ml_and_rounded_labels_are_noted_and_give_no_mm(tmp_path):
    mine = write_nifti(half() * 0.9999999998, tmp_path / "mine.nii.gz")
    theirs = write_nifti(LABELS, tmp_path / "theirs.nii")
    (row,), _ = compare(mine, theirs, tmp_path / "out")
    assert row["liver_dice"] > 0
    assert row["voxel_mm3"] is None
    assert "label values such as" in row["note"]
    assert "the liver measures 6 ml by voxels of 5 x 0.7 x 0.8 mm" in row["note"]


def test_two_folders_are_compared_by_case_and_what_lacks_a_partner_is_named(tmp_path):
    for case in (2, 12, 13):
        write_nifti(half(), tmp_path / "p" / f"prediction-volume-liver_{case}.nii.gz")
    for case in (2, 12, 40):
        write_nifti(LABELS, tmp_path / "set" / "labelsTr" / f"liver_{case}.nii.gz")
    rows, summary = compare(tmp_path / "p", tmp_path / "set" / "labelsTr", tmp_path / "out")
    assert [row["case_id"] for row in rows] == ["liver_2", "liver_12"]
    assert summary["without_reference"] == ["liver_13"]


def test_a_folder_of_cases_gives_its_references_not_its_cts(tmp_path):
    write_nifti(half(), tmp_path / "p" / "prediction-volume-s0004.nii.gz")
    write_nifti(LABELS * 0 - 50, tmp_path / "set" / "s0004" / "ct.nii.gz", dtype=np.int16)
    reference = (LABELS > 0).astype(np.uint8)
    write_nifti(reference, tmp_path / "set" / "s0004" / "segmentations" / "liver.nii.gz")
    (row,), summary = compare(tmp_path / "p", tmp_path / "set", tmp_path / "out")
    assert 0 < row["liver_dice"] < 1
    # nobody knows this patient's tumors: the predicted one is no false positive
    assert row["tumor_dice"] is None
    assert summary["cases_with_tumor"] == summary["cases_without_tumor"] == 0
    assert summary["lesion_precision_0"] is summary["burden_rmse"] is None


def test_cases_of_recorded_trainings_are_left_out(tmp_path):
    for case in "12":
        path = write_nifti(half(), tmp_path / "p" / f"prediction-volume-{case}.nii.gz")
        write_nifti(LABELS, tmp_path / "r" / f"segmentation-{case}.nii.gz")
    spec = {"size": 32, "window": [-200, 300]}
    liver = {"spec": spec, "training_ids": ["1"], "training_cts": [], "weights": "x"}
    record = {"liver": liver, "tumor": None, "postprocessing": {}, "source": "", "prediction": ""}
    write_json(path.with_name(path.name + ".json"), record)
    rows, summary = compare(tmp_path / "p", tmp_path / "r", tmp_path / "out")
    assert [row["training_case"] for row in rows] == [True, False]
    assert (summary["cases"], summary["training_cases"]) == (1, 1)


def test_a_ct_that_was_trained_on_under_another_name_is_left_out_too(tmp_path):
    spec = {"size": 32, "window": [-200, 300]}
    liver = {"spec": spec, "training_ids": ["7"], "training_cts": ["its hash"], "weights": "x"}
    for case, source in (("a", "its hash"), ("b", "another")):
        path = write_nifti(half(), tmp_path / "p" / f"prediction-volume-{case}.nii.gz")
        write_nifti(LABELS, tmp_path / "r" / f"segmentation-{case}.nii.gz")
        record = {"liver": liver, "tumor": None, "postprocessing": {}, "source": source}
        record["prediction"] = file_hash(path)
        write_json(path.with_name(path.name + ".json"), record)
    rows, _ = compare(tmp_path / "p", tmp_path / "r", tmp_path / "out")
    assert {row["case_id"]: row["training_case"] for row in rows} == {"a": True, "b": False}


@pytest.mark.parametrize("where", ["r", "p", "prepared"])
def test_cases_of_one_patient_are_one_patient_wherever_that_is_known(tmp_path, where):
    for case in "abc":
        path = write_nifti(half(), tmp_path / "p" / f"prediction-volume-{case}.nii.gz")
        write_nifti(LABELS, tmp_path / "r" / f"segmentation-{case}.nii.gz")
    (tmp_path / where).mkdir(exist_ok=True)
    (tmp_path / where / "patients.csv").write_text("case,patient\na,Ada\nb,Ada\n")
    if where == "prepared":
        cases = [Case(case, case, path) for case in "abc"]
        with_patients(tmp_path / where, cases)
        for case in cases:
            record = {"case_id": case.id, "patient": case.patient, "has_segmentation": True}
            record |= {"shape": [1, 1, 1], "spacing_mm": [1, 1, 1]}
            record |= {"liver_slices": [], "tumor_slices": []}
            write_json(tmp_path / where / "cases" / f"{case.id}.json", record)
    spec = {"size": 32, "window": [-200, 300]}
    liver = {"spec": spec, "training_ids": ["a"], "training_cts": [], "weights": "x"}
    record = {"liver": liver, "tumor": None, "postprocessing": {}, "source": "", "prediction": ""}
    compared = [tmp_path / name for name in ("p", "r", "out")]
    rows, _ = compare(*compared, prepared=tmp_path / "prepared")
    assert [row["patient"] for row in rows] == ["Ada", "Ada", "c"]
    write_json(path.with_name(path.name + ".json"), record)
    rows, _ = compare(*compared, prepared=tmp_path / "prepared")
    assert [row["training_case"] for row in rows] == [True, True, False]


def test_what_cannot_be_compared_is_one_sentence(tmp_path):
    mine = write_nifti(half(), tmp_path / "a" / "x.nii.gz")
    write_nifti(LABELS, tmp_path / "b" / "y.nii.gz")
    with pytest.raises(ValueError, match=r"no prediction has a reference: x in .* y in .*one name"):
        compare(tmp_path / "a", tmp_path / "b", tmp_path / "out")
    write_nifti(half(), tmp_path / "a" / "x_seg.nii.gz")
    write_nifti(half(), tmp_path / "a" / "deep" / "x_label.nii.gz")
    (tmp_path / "a" / "x.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"two label files of case x: .*x_label.* and .*x_seg"):
        compare(tmp_path / "a", tmp_path / "b", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"there is no file or folder .*c"):
        compare(tmp_path / "c", tmp_path / "b", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no label file in .*empty"):
        compare(tmp_path / "empty", tmp_path / "b", tmp_path / "out")
    moved = write_nifti(LABELS, tmp_path / "moved.nii.gz", spacing_mm=(2.0, 0.7, 0.8))
    write_nifti(half(), mine)
    with pytest.raises(ValueError, match=r"header puts the voxels elsewhere than moved\.nii\.gz"):
        compare(mine, moved, tmp_path / "out")
