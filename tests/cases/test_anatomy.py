"""Which way a body lies, told by what is in it."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from helpers.drawn import FLIPS, body, stored_as, turned, write_case

from lits_helpers.cases import about_ct, check_case, find_cases, load_case
from lits_helpers.cases.anatomy import coarse_copy, spine_cue


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
    assert codes(again) == (["orientation_given"] if found else [])


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


def test_mirrored_ct_without_mask_is_not_turned_but_asked_about(tmp_path):
    hu = body()[0][:, :, ::-1]
    write_case(tmp_path, 3, hu)
    volume, _, findings = load_case(find_cases(tmp_path)[0])
    assert codes(findings) == ["no_segmentation", "mirrored_doubtful"]
    assert "lies on the patient's left" in findings[1].text
    assert "orientation (such as LPS)" in findings[1].text
    np.testing.assert_array_equal(volume.hu, hu)


def test_spine_in_front_alone_does_not_overturn_a_header(tmp_path):
    hu = body()[0][:, ::-1]
    write_case(tmp_path, 3, hu)
    volume, _, findings = load_case(find_cases(tmp_path)[0])
    assert codes(findings) == ["no_segmentation", "spine_doubtful"]
    np.testing.assert_array_equal(volume.hu, hu)


def test_spine_in_front_of_a_table_above_is_turned_back(tmp_path):
    hu = body()[0]
    hu[:, -2:, 10:-10] = 60  # the table
    write_case(tmp_path, 3, hu[:, ::-1])
    volume, _, findings = load_case(find_cases(tmp_path)[0])
    assert codes(findings) == ["no_segmentation", "turned"]
    np.testing.assert_array_equal(volume.hu, hu)


def test_gas_below_alone_does_not_turn_a_scan_upside_down(tmp_path):
    hu, labels = body()
    hu[(hu > -900) & (hu < -800)] = -60  # no lungs
    hu[:4, 20:44, 40:62] = -950  # bowel
    write_case(tmp_path, 3, hu, labels)
    volume, _, findings = load_case(find_cases(tmp_path)[0])
    assert codes(findings) == ["lungs_doubtful"]
    assert "Nothing was turned; look at it, then give orientation" in findings[0].text
    np.testing.assert_array_equal(volume.hu, hu)


def test_liver_upside_down_without_lungs_is_asked_about(tmp_path):
    hu, labels = (array[2:10, :, :] for array in body())
    write_case(tmp_path, 3, hu, labels)
    assert codes(check_case(find_cases(tmp_path)[0])) == []
    tilted = [
        np.stack([np.roll(plane, 2 * k, axis=1) for k, plane in enumerate(a)]) for a in (hu, labels)
    ]
    write_case(tmp_path, 3, *(array[::-1] for array in tilted))
    volume, _, findings = load_case(find_cases(tmp_path)[0])
    assert codes(findings) == ["head_doubtful"]
    np.testing.assert_array_equal(volume.hu, tilted[0][::-1])


def test_mask_of_an_organ_on_the_left_mirrors_no_scan(tmp_path):
    hu, _ = body()
    spleen = np.zeros(hu.shape, np.uint8)
    spleen[5:9, 26:40, 55:65] = 1
    hu[spleen > 0] = 120
    write_case(tmp_path, 3, hu, spleen)
    volume, _, findings = load_case(find_cases(tmp_path)[0])
    assert "liver_doubtful" in codes(findings)
    assert "liver_doubtful" not in codes(about_ct(findings))
    assert "turned" not in codes(findings)
    np.testing.assert_array_equal(volume.hu, hu)


def test_fatty_liver_beside_a_bright_spleen_is_no_mirrored_copy(tmp_path):
    hu, labels = body()
    hu[labels > 0] = -20
    hu[3:10, 26:44, 50:68] = 50  # spleen and stomach
    write_case(tmp_path, 3, hu)
    assert codes(check_case(find_cases(tmp_path)[0])) == ["no_segmentation"]
    write_case(tmp_path, 3, hu[:, :, ::-1])
    assert codes(check_case(find_cases(tmp_path)[0])) == ["no_segmentation", "mirrored_doubtful"]


def test_contrast_before_the_spine_does_not_hide_a_clear_table(tmp_path):
    hu = body()[0]
    hu[:, 50:54, 16:-16] = np.maximum(hu[:, 50:54, 16:-16], -80)  # the back is flat
    hu[:, 26:34, 30:46] = 400  # contrast: half of the bone lies near the middle
    hu[:, -3:, 4:-4] = 60  # the table
    write_case(tmp_path, 3, hu[:, ::-1])
    coarse = coarse_copy(hu, None)
    assert 0 < spine_cue(coarse) < 0.08
    volume, _, findings = load_case(find_cases(tmp_path)[0])
    assert "turned" in codes(findings)
    np.testing.assert_array_equal(volume.hu, hu)


@pytest.mark.parametrize("with_mask", [True, False])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (1, 0, 2), (0, 2, 1), (2, 0, 1)])
def test_array_in_another_axis_order_under_an_identity_is_mended(tmp_path, order, with_mask):
    hu, labels = body()
    for name, array in (("volume-3.nii", hu), ("segmentation-3.nii", labels)):
        if with_mask or name.startswith("volume"):
            nib.save(nib.Nifti1Image(array.transpose(order), np.eye(4)), tmp_path / name)
    volume, mask, findings = load_case(find_cases(tmp_path)[0])
    assert not any(finding.harmful for finding in findings)
    assert "axes_reordered" in codes(findings)
    np.testing.assert_array_equal(volume.hu, hu)
    if with_mask:
        np.testing.assert_array_equal(mask, labels)


def test_axis_order_against_a_stated_header_is_refused(tmp_path):
    hu, labels = body()
    write_case(tmp_path, 3, hu.transpose(1, 0, 2), labels.transpose(1, 0, 2))
    harmful = [finding for finding in check_case(find_cases(tmp_path)[0]) if finding.harmful]
    assert codes(harmful)[0] == "axes_doubtful"
    assert "its header says LPS, but its anatomy looks like" in harmful[0].text


def test_a_body_of_narrow_pixels_does_not_lie_on_its_side(tmp_path):
    hu, labels = (array[:10] for array in body((14, 180, 228)))  # without lungs
    hu[5:9, 50:110, 150:200] = 300  # contrast in the stomach
    for every in (1, 3):
        spacing_mm = (10.0, 1.5, 1.5 * every)
        write_case(tmp_path, every, hu[..., ::every], labels[..., ::every], spacing_mm=spacing_mm)
    for case in find_cases(tmp_path):
        assert check_case(case) == []


def test_the_users_orientation_turns_nothing_and_is_noted(tmp_path):
    hu, labels = body()
    write_case(tmp_path, 3, hu[:, :, ::-1], labels[:, :, ::-1])
    case = find_cases(tmp_path)[0]
    assert codes(check_case(case)) == ["turned"]
    volume, _, findings = load_case(replace(case, orientation="LPS"))
    np.testing.assert_array_equal(volume.hu, hu[:, :, ::-1])
    assert codes(findings) == ["orientation_given", "turned"]
    assert "as the user says" in findings[0].text
    volume, _, findings = load_case(replace(case, accepted=("turned",)))
    np.testing.assert_array_equal(volume.hu, hu[:, :, ::-1])
    assert "accepted by the user" in findings[0].text


def test_scan_without_a_body_is_noted(tmp_path):
    hu = np.full((6, 40, 48), -1000, np.int16)
    hu[:, 18:23, 20:29] = 40
    write_case(tmp_path, 3, hu)
    assert codes(check_case(find_cases(tmp_path)[0])) == ["no_segmentation", "no_body"]


def test_a_copy_made_before_gets_the_liver_and_stays_the_same():
    hu, labels = body()
    whole = coarse_copy(hu, labels, 2.0)
    added = coarse_copy(hu, labels, 2.0, coarse_copy(hu, None, 2.0))
    for name in ("hu", "body", "liver"):
        np.testing.assert_array_equal(getattr(added, name), getattr(whole, name))
    assert added.liver.any()
