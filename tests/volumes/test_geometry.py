"""What a header says of sides and voxel size, and when that is not believed."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from helpers.drawn import SPACING_MM, affine_of, blob, ramp, stored_as, write_nifti

from lits_helpers.volumes import (
    read_geometry,
    read_segmentation,
    read_volume,
    same_grid,
    write_segmentation,
)
from lits_helpers.volumes.geometry import (
    geometry_of_header,
    header_from_bytes,
    matched_to,
    plain_geometry,
)


def test_orientation_override_turns_the_volume_and_its_way_back(tmp_path):
    path = write_nifti(ramp(), tmp_path / "volume-0.nii", "RAS")
    volume = read_volume(path, orientation="LAS")
    np.testing.assert_array_equal(volume.hu, ramp()[:, :, ::-1])
    mask = read_segmentation(write_nifti(blob(), tmp_path / "s.nii", "RAS"), like=volume)
    np.testing.assert_array_equal(mask, blob()[:, :, ::-1])
    written = nib.load(write_segmentation(mask, volume, tmp_path / "out.nii"))
    np.testing.assert_array_equal(
        np.asarray(written.dataobj), np.asarray(nib.load(tmp_path / "s.nii").dataobj)
    )


def test_orientation_that_is_none_is_refused(tmp_path):
    path = write_nifti(ramp(), tmp_path / "volume-0.nii")
    with pytest.raises(ValueError, match=r"one code each of L/R, P/A and S/I.*'LLS'"):
        read_volume(path, orientation="LLS")


def test_spacing_of_an_identity_affine_is_not_trusted(tmp_path):
    identity = write_nifti(ramp(), tmp_path / "a.nii", "RAS", affine=np.eye(4))
    shifted = np.eye(4)
    shifted[:3, 3] = (-90, -110, 300)
    assert not read_volume(identity).geometry.spacing_trusted
    invented = read_volume(write_nifti(ramp(), tmp_path / "b.nii", "RAS", affine=shifted)).geometry
    assert not invented.spacing_trusted  # until the body speaks for it
    assert invented.orientation_trusted
    microns = np.diag([0.001, 0.001, 0.005, 1])
    tiny = write_nifti(ramp(), tmp_path / "c.nii", "RAS", affine=microns)
    assert not read_volume(tiny).geometry.spacing_trusted


@pytest.mark.parametrize(("step", "trusted"), [(1.0, False), (0.8, True)])
def test_a_header_without_forms_says_nothing_of_sides(tmp_path, step, trusted):
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
    image.header.set_zooms((step, step, step))
    nib.save(image, tmp_path / "a.nii")
    geometry = read_volume(tmp_path / "a.nii").geometry
    assert not geometry.orientation_trusted
    assert geometry.spacing_trusted == trusted
    assert geometry.trusted_spacing_mm == ((step, step, step) if trusted else None)


@pytest.mark.parametrize("code", [0, 1])
def test_a_slice_thickness_of_zero_is_not_taken_for_a_millimetre(tmp_path, code):
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
    image.header.set_zooms((0.7, 0.7, 5.0))
    image.set_qform(np.diag([0.7, 0.7, 5.0, 1.0]) if code else None, code=code)
    nib.save(image, tmp_path / "a.nii")
    assert read_volume(tmp_path / "a.nii").geometry.spacing_trusted
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[88:92] = bytes(4)  # pixdim[3]
    (tmp_path / "a.nii").write_bytes(content)
    assert not read_volume(tmp_path / "a.nii").geometry.spacing_trusted


SHAPE = (12, 40, 48)


def stored_geometry(orientation):
    header = nib.Nifti1Header()
    header.set_data_shape(stored_as(blob(), orientation).shape)
    header.set_sform(affine_of(SHAPE, orientation), code=1)
    return geometry_of_header(header)


def test_reversing_an_axis_twice_leaves_it_as_it_was():
    plain = plain_geometry(SHAPE, SPACING_MM)
    turned = plain.reversed_along((True, False, True))
    assert (plain.orientation, turned.orientation) == ("LPS", "RPI")
    assert turned.reversed_along((True, True, False)).flips == (False, True, True)


def test_header_of_an_array_that_comes_from_no_file_states_lps_in_both_forms():
    header = plain_geometry(SHAPE, SPACING_MM).nifti_header()
    for affine, code in (header.get_sform(coded=True), header.get_qform(coded=True)):
        np.testing.assert_allclose(affine, np.diag([-0.8, -0.7, 5.0, 1.0]), rtol=1e-6)
        assert code == 1
    assert header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize(("shift_mm", "same"), [(0.0, True), (0.06, True), (0.08, False)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_grids_are_the_same_up_to_a_tenth_of_the_smallest_voxel_side(axis, shift_mm, same):
    plain = plain_geometry(SHAPE, SPACING_MM)
    affine = np.array(plain.affine)
    affine[axis, 3] += shift_mm
    moved = replace(plain, affine=tuple(map(tuple, affine)))
    assert same_grid(plain, moved) is same


@pytest.mark.parametrize("orientation", ["LPS", "SPL", "AIR", "RAS"])
def test_mask_in_any_order_follows_a_volume_whose_axes_were_swapped_by_hand(orientation):
    like = stored_geometry("LPS").with_orientation("PLS")
    mask = matched_to(stored_geometry(orientation), like)
    expected = like.as_internal(stored_as(blob(), "LPS"))
    found = mask.as_internal(stored_as(blob(), orientation))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("sides", "lacks"),
    [((0, 0.7, 5, 1), True), ((0.8, 0.7, 0, 1), True), ((0.8, 0.7, 5, 0), False)],
)
def test_a_voxel_side_of_zero_is_no_spacing_and_a_frame_of_zero_seconds_is_none(
    sides, lacks, tmp_path
):
    header = nib.Nifti1Header()
    header.set_data_shape((2, 3, 4))
    header.set_data_dtype(np.int16)
    header["pixdim"][1:5] = sides
    header["magic"], header["vox_offset"] = b"n+1", 352
    (tmp_path / "volume-0.nii").write_bytes(header.binaryblock + bytes(4 + 2 * 2 * 3 * 4))
    assert read_geometry(tmp_path / "volume-0.nii").spacing_trusted is not lacks


def test_bytes_that_are_no_header_are_refused_whatever_their_number():
    for count in (348, 540, 1000):
        with pytest.raises(ValueError, match="no NIfTI header: it starts with b'xxx"):
            header_from_bytes(b"x" * count)


def test_an_axis_without_length_is_refused():
    header = nib.Nifti1Header()
    header.set_data_shape((48, 40, 12))
    header.set_sform(np.diag([0.8, 0.0, 5.0, 1.0]), code=1)
    with pytest.raises(ValueError, match="the affine is not usable"):
        geometry_of_header(header)
