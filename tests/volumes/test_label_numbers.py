"""A dataset.json says what numbers in label files mean; without one they are LiTS'."""

import json

import numpy as np
import pytest
from helpers.drawn import BODY_SPACING_MM, body, write_nifti

from lits_helpers.cases import about_ct, check_case, find_cases, load_case
from lits_helpers.pipeline import compare
from lits_helpers.preprocess import prepare
from lits_helpers.volumes import meaning_of, read_segmentation, read_volume, write_segmentation
from lits_helpers.volumes.nifti import named_label

HU, LABELS = body()
NNUNET_SWAPPED = {"background": 0, "tumor": 1, "liver": 2}
REGIONS = {"background": 0, "liver": [1, 2], "liver tumor": [2]}


def write_set(root, labels, numbers=None):
    """Write liver_3 in MSD's layout, its labels as numbers[label]."""
    numbers = np.array((0, 1, 2) if numbers is None else numbers, np.uint8)
    write_nifti(HU, root / "imagesTr" / "liver_3.nii.gz", spacing_mm=BODY_SPACING_MM)
    path = root / "labelsTr" / "liver_3.nii.gz"
    write_nifti(numbers[LABELS], path, spacing_mm=BODY_SPACING_MM)
    content = labels if isinstance(labels, str) else json.dumps({"labels": labels})
    (root / "dataset.json").write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "labels",
    [
        {"0": "background", "1": "liver", "2": "cancer"},
        {"background": 0, "liver": 1, "tumor": 2},
        REGIONS,
        {},
    ],
)
def test_labels_numbered_as_in_lits_are_taken_as_they_are(tmp_path, labels):
    path = write_set(tmp_path, labels)
    np.testing.assert_array_equal(read_segmentation(path), LABELS)
    assert check_case(find_cases(tmp_path)[0]) == []


@pytest.mark.parametrize(
    ("labels", "numbers", "words"),
    [
        (NNUNET_SWAPPED, (0, 2, 1), "liver 2; tumor 1"),
        ({"0": "background", "6": "Liver", "7": "Hepatic_tumour"}, (0, 6, 7), "liver 6; tumor 7"),
        ({"background": 0, "spleen": 1, "liver": 3, "HCC": 4}, (0, 3, 4), "liver 3; tumor 4"),
    ],
)
def test_other_numbers_are_mapped_and_a_finding_says_so(tmp_path, labels, numbers, words):
    write_set(tmp_path, labels, numbers)
    _, mask, (finding,) = load_case(find_cases(tmp_path)[0])
    np.testing.assert_array_equal(mask, LABELS)
    assert finding.text == f"labels are read as dataset.json says: {words}"


def test_a_set_without_tumors_shows_the_liver_alone(tmp_path):
    write_set(tmp_path, {"background": 0, "kidney": 1, "liver": 2, "kidney tumor": 3}, (0, 2, 2))
    (case,) = find_cases(tmp_path)
    assert case.liver_only
    assert (load_case(case)[1] == (LABELS > 0)).all()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (
            {"0": "background", "1": "Vessel", "2": "Tumour"},
            "names no liver: its labels are backgr",
        ),
        ({"background": 0, "hepatic vein": 1}, "names no liver"),
        ('{"labels": ', "cannot be understood"),
        ('{"labels": {"liver": "one"}}', "cannot be understood"),
        ('{"labels": {"liver": 1e999}}', "cannot be understood"),
        ("[" * 100000, "cannot be understood"),
        ("[1]", "cannot be understood"),
    ],
)
def test_a_set_that_cannot_be_understood_is_refused(tmp_path, labels, words):
    write_set(tmp_path, labels)
    (finding,) = check_case(find_cases(tmp_path)[0])
    assert finding.harmful
    assert words in finding.text
    assert len(finding.text) < 400


@pytest.mark.parametrize(
    ("label", "names"),
    [
        (2, "tumor|Tumour 2|all tumors|malignant_lesion|HCC|metastases|Mass|HCC_tumor_1"),
        (2, "liver tumor|Hepatic_tumour|colorectal liver metastasis|non-enhancing liver tumor"),
        (1, "liver|Liver without tumor|non-tumor liver|liver_no_lesion|hepatic vein"),
        (0, "Kidney tumor|bladder tumor|prostate cancer|Colorectal cancer|metastasis_lung"),
        (0, "lymph node metastasis|brain metastasis|masseter|no tumor|spleen"),
    ],
)
def test_a_tumor_counts_if_its_name_says_liver_or_no_organ_at_all(label, names):
    assert {name: named_label(name) for name in names.split("|")} == dict.fromkeys(
        names.split("|"), label
    )


def test_an_organ_that_lits_does_not_have_is_background(tmp_path):
    path = write_set(tmp_path, {"background": 0, "liver": 1, "tumor": 2, "spleen": 3}, (3, 1, 2))
    np.testing.assert_array_equal(read_segmentation(path), LABELS)


def test_a_number_that_is_not_named_is_refused(tmp_path):
    path = write_set(tmp_path, {"background": 0, "liver": 2, "ignore": 1}, (0, 2, 1))
    with pytest.raises(ValueError, match=r"one of 0, 2, as dataset\.json says, found 1"):
        read_segmentation(path)


def test_a_changed_dataset_json_prepares_its_cases_again(tmp_path):
    write_set(tmp_path, {"0": "background", "1": "liver", "2": "cancer"})
    cases = find_cases(tmp_path)
    for labels, unchanged in ((None, 0), (None, 1), (NNUNET_SWAPPED, 0)):
        if labels:
            write_set(tmp_path, labels)
        report = prepare(cases, tmp_path / "out", workers=0, png=False)
        assert (len(report.prepared), len(report.unchanged)) == (1, unchanged)


def test_a_prepared_case_says_that_its_set_names_no_tumors_as_soon_as_it_does(tmp_path):
    with_tumor, without = {"background": 0, "liver": 1, "tumor": 2}, {"background": 0, "liver": 1}
    for labels in (with_tumor, without, with_tumor):
        write_set(tmp_path, labels)
        report = prepare(find_cases(tmp_path), tmp_path / "out", workers=0, png=False)
        codes = [found.code for found in report.findings.get("liver_3", ())]
        assert codes == ["liver_only"] * (labels is without)
    assert report.unchanged == ["liver_3"]


def test_predictions_beside_a_dataset_json_are_read_by_it_and_those_of_this_module_are_not(
    tmp_path,
):
    write_set(tmp_path / "set", {"background": 0, "liver": 1, "tumor": 2})
    there = write_set(tmp_path / "other", NNUNET_SWAPPED, (0, 2, 1)).rename(
        tmp_path / "other" / "liver_3.nii.gz"
    )
    (row,), _ = compare(there, tmp_path / "set" / "labelsTr", tmp_path / "out")
    assert (row["liver_dice"], row["tumor_dice"]) == (1, 1)
    assert meaning_of(there.with_name("prediction-volume-liver_3.nii.gz")) is None


def test_labels_are_not_written_where_a_dataset_json_would_give_them_another_meaning(tmp_path):
    path = write_set(tmp_path, NNUNET_SWAPPED, (0, 2, 1))
    ct = read_volume(tmp_path / "imagesTr" / "liver_3.nii.gz")
    with pytest.raises(ValueError, match=r"dataset\.json gives labels .* choose another folder"):
        write_segmentation(LABELS, ct, path.with_name("mine.nii.gz"))
    write_segmentation(LABELS, ct, path.with_name("prediction-volume-mine.nii.gz"))
    write_set(tmp_path, REGIONS)
    write_segmentation(LABELS, ct, path.with_name("mine.nii.gz"))
    for name in ("mine", "prediction-volume-mine"):
        labels = read_segmentation(path.with_name(f"{name}.nii.gz"), like=ct)
        np.testing.assert_array_equal(labels, LABELS)


def test_swapped_numbers_that_nothing_names_are_asked_about(tmp_path):
    write_set(tmp_path, "{}", (0, 2, 1))
    findings = check_case(find_cases(tmp_path)[0])
    assert "are its numbers swapped?" in findings[0].text
    assert about_ct(findings) == []  # nothing of the CT's
