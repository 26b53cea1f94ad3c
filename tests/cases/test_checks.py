"""What is found about a CT and its segmentation, and which of that is harmful."""

import re
from dataclasses import replace

import numpy as np
import pytest
from helpers.drawn import (
    BODY_SPACING_MM,
    FLIPS,
    ORIENTATIONS,
    affine_of,
    body,
    turned,
    write_case,
    write_nifti,
)

from lits_helpers.cases import Case, check_case, check_lits_set, find_cases, load_case
from lits_helpers.preprocess import PreparedCase
from lits_helpers.settings import real_data


def codes(findings):
    return [finding.code for finding in findings]


def test_sound_case_has_no_finding(tmp_path):
    write_case(tmp_path, 3, *body(), orientation="SAR", suffix=".nii.gz")
    assert check_case(find_cases(tmp_path)[0]) == []


def test_case_without_segmentation_is_named_but_harmless(tmp_path):
    write_case(tmp_path, 3, body()[0])
    (finding,) = check_case(find_cases(tmp_path)[0])
    assert (finding.code, finding.harmful) == ("no_segmentation", False)
    assert "fine for inference" in finding.text


@pytest.mark.parametrize("flips", FLIPS[1:])
def test_mask_turned_against_its_ct_is_harmful(tmp_path, flips):
    hu, labels = body()
    write_case(tmp_path, 3, hu, turned(labels, flips))
    (finding,) = check_case(find_cases(tmp_path)[0])
    assert finding.harmful
    assert finding.code in ("mask_turned", "mask_misplaced")


def test_mask_of_someone_else_is_harmful(tmp_path):
    hu, labels = body()
    elsewhere = np.roll(labels, (0, 14, 9), axis=(0, 1, 2))
    write_case(tmp_path, 3, hu, elsewhere)
    (finding,) = check_case(find_cases(tmp_path)[0])
    assert (finding.code, finding.harmful) == ("mask_misplaced", True)


def test_mask_header_that_differs_is_noted_and_paired_by_voxel(tmp_path):
    hu, labels = body()
    write_nifti(hu, tmp_path / "volume-48.nii", "RAS", BODY_SPACING_MM)
    affine = affine_of(hu.shape, "LPS", origin=(0, 0, 0))
    write_nifti(labels, tmp_path / "segmentation-48.nii", "RAS", affine=affine)
    _, mask, findings = load_case(find_cases(tmp_path)[0])
    assert [(f.code, f.harmful) for f in findings] == [("mask_header_differs", False)]
    np.testing.assert_array_equal(mask, labels)


def harmful_change(hu, labels, kind):
    changes = {
        "empty_liver": (hu, labels * 0),
        "constant": (hu * 0 - 1024, labels),
        "offset_missing": (hu - hu.min(), labels),
        "eight_bit": (np.clip(hu + 100, 0, 255).astype(np.int16), labels),
        "narrow": (hu[:, :, :3], labels[:, :, :3]),
        "absurd": (np.where(hu > -300, 9 * hu + 4000, hu).astype(np.int16), labels),
    }
    return changes[kind]


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("empty_liver", "empty_liver", "holds no liver"),
        ("constant", "not_hu", "every voxel of the volume is -1024"),
        ("offset_missing", "not_hu", "not Hounsfield units.*subtract 1024"),
        ("eight_bit", "not_hu", r"values 0\.\.255 are not Hounsfield units"),
        ("narrow", "no_abdomen", r"slices of \d+ x 3 pixels show no abdomen"),
        ("absurd", "not_hu", "above 800 HU, where only bone and metal lie"),
    ],
)
def test_harmful_content_is_found(tmp_path, kind, code, words):
    write_case(tmp_path, 3, *harmful_change(*body(), kind))
    finding = check_case(find_cases(tmp_path)[0])[0]
    assert (finding.code, finding.harmful) == (code, True)
    assert re.search(words, finding.text)


def test_extreme_hu_are_kept_and_noted(tmp_path):
    hu, labels = body()
    hu[3, 4, 5], hu[3, 4, 6] = -10522, 27572
    write_case(tmp_path, 3, hu, labels)
    volume, _, (finding,) = load_case(find_cases(tmp_path)[0])
    assert (finding.code, finding.harmful) == ("extreme_hu", False)
    assert "-10522..27572" in finding.text
    assert volume.hu.min() == -10522


def test_shapes_that_differ_are_harmful_and_named(tmp_path):
    hu, labels = body()
    write_case(tmp_path, 3, hu, labels[:, :, :-2])
    (finding,) = check_case(find_cases(tmp_path)[0])
    assert finding.harmful
    assert "segmentation-3.nii" in finding.text
    assert "(74, 60, 14) differs" in finding.text


def test_missing_file_is_a_finding_and_no_crash(tmp_path):
    (finding,) = check_case(Case("3", "3", tmp_path / "volume-3.nii"))
    assert (finding.code, finding.harmful) == ("unreadable", True)
    assert "volume-3.nii" in finding.text


def lits_like(number, depth=447, tumor=True):
    shape = (depth, 512, 512)
    return PreparedCase(
        str(number), str(number), shape, (1, 1, 1), (), (1,), (1,) if tumor else (), True
    )


def test_known_counts_are_compared_only_where_all_of_lits_is_there():
    without = {32, 34, 38, 41, 47, 87, 89, 91, 105, 106, 114, 115, 119}
    depths = {0: 74, 1: 987, 2: 58638 - 74 - 987 - 128 * 447}
    cases = [lits_like(n, depths.get(n, 447), n not in without) for n in range(131)]
    assert check_lits_set(cases) == []
    assert check_lits_set(cases[:-1]) == []
    cases[5] = replace(cases[5], shape=(446, 512, 512), tumor_slices=())
    slices, tumors = check_lits_set(cases)
    assert "58637, but LiTS has 58638" in slices.text
    assert "[5, 32" in tumors.text


@pytest.mark.real
def test_real_scans_are_sound_and_mended_from_every_turn(tmp_path):
    if real_data() is None:
        pytest.skip("LITS_REAL names no folder with real data")
    for case in find_cases(real_data() / "lits"):
        assert check_case(case) == []
        assert codes(check_case(replace(case, segmentation=None))) == ["no_segmentation"]
    hu, labels, _ = load_case(find_cases(real_data() / "lits")[2])
    turned = hu.hu[:, ::-1, ::-1], labels[:, ::-1, ::-1]
    write_case(tmp_path, 2, *turned, spacing_mm=hu.spacing_mm)
    volume, mended, findings = load_case(find_cases(tmp_path)[0])
    assert codes(findings) == ["turned"]
    np.testing.assert_array_equal(volume.hu, hu.hu)
    np.testing.assert_array_equal(mended, labels)


def test_there_are_48_orientations():
    assert len(set(ORIENTATIONS)) == 48
