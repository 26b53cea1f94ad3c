"""What a header says of sides and voxel size, and when that is not believed."""

import nibabel as nib
import numpy as np
import pytest
from helpers.drawn import blob, ramp, write_nifti

from lits_helpers.volumes import read_segmentation, read_volume, write_segmentation


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
