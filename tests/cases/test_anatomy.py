"""Which way a body lies, told by what is in it."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from helpers.drawn import FLIPS, body, stored_as, turned, write_case

from lits_helpers.cases import check_case, find_cases, load_case


def codes(findings):
    return [finding.code for finding in findings]


@pytest.mark.parametrize("flips", FLIPS)
def test_body_stored_the_wrong_way_round_is_mended(tmp_path, flips):
    hu, labels = body()
    write_case(tmp_path, 3, turned(hu, flips), turned(labels, flips), orientation="RAS")
    case = find_cases(tmp_path)[0]
    findings = check_case(case)
    assert codes(findings) == (["turned"] if any(flips) else [])
    volume, mended, _ = load_case(case)
    np.testing.assert_array_equal(volume.hu, hu)
    np.testing.assert_array_equal(mended, labels)
    found = findings[-1].orientation if findings else None
    volume, mended, again = load_case(replace(case, orientation=found))
    np.testing.assert_array_equal(volume.hu, hu)
    np.testing.assert_array_equal(mended, labels)
    assert again == []


def identity_pair(tmp_path, with_mask):
    """Stored as LAS under an identity affine, as LiTS 28 to 47 are."""
    hu, labels = body()
    for name, array in (("volume-28.nii", hu), ("segmentation-28.nii", labels)):
        if with_mask or name.startswith("volume"):
            nib.save(nib.Nifti1Image(stored_as(array, "LAS"), np.eye(4)), tmp_path / name)
    return find_cases(tmp_path)[0], hu, labels


@pytest.mark.parametrize("with_mask", [True, False])
def test_identity_affine_is_flagged_and_comes_out_unmirrored(tmp_path, with_mask):
    case, hu, labels = identity_pair(tmp_path, with_mask)
    volume, mask, findings = load_case(case)
    assert {"spacing_untrusted", "turned"} <= set(codes(findings))
    assert not any(finding.harmful for finding in findings)
    np.testing.assert_array_equal(volume.hu, hu)
    assert volume.geometry.orientation == findings[-1].orientation == "LAS"
    if with_mask:
        np.testing.assert_array_equal(mask, labels)


def test_scan_without_a_body_is_noted(tmp_path):
    hu = np.full((6, 40, 48), -1000, np.int16)
    hu[:, 18:23, 20:29] = 40
    write_case(tmp_path, 3, hu)
    assert codes(check_case(find_cases(tmp_path)[0])) == ["no_segmentation", "no_body"]
