"""The file border: orientation there and back, a CT and its mask as a pair."""

import shutil

import hypothesis.strategies as st
import nibabel as nib
import numpy as np
import pytest
from helpers.drawn import ORIENTATIONS, SPACING_MM, affine_of, blob, ramp, write_nifti
from hypothesis import given, settings

from lits_helpers.cases import find_cases
from lits_helpers.settings import real_data
from lits_helpers.volumes import (
    open_volume,
    read_segmentation,
    read_volume,
    volume_from_array,
    write_segmentation,
)


@settings(max_examples=96, deadline=None)
@given(
    orientation=st.sampled_from(ORIENTATIONS),
    shape=st.tuples(*[st.integers(2, 6)] * 3),
    spacing_mm=st.tuples(*[st.floats(0.3, 8.0)] * 3),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
)
def test_every_orientation_comes_back_voxel_exactly(
    tmp_path_factory, orientation, shape, spacing_mm, suffix
):
    folder = tmp_path_factory.mktemp("turn")
    labels = np.random.default_rng(sum(shape)).integers(0, 3, shape).astype(np.uint8)
    path = write_nifti(ramp(shape), folder / f"volume-0{suffix}", orientation, spacing_mm)
    mask_path = write_nifti(labels, folder / f"segmentation-0{suffix}", orientation, spacing_mm)

    volume = read_volume(path)
    np.testing.assert_array_equal(volume.hu, ramp(shape))
    np.testing.assert_allclose(volume.spacing_mm, spacing_mm, rtol=1e-5)
    assert volume.hu.dtype == np.int16
    assert volume.hu.flags.c_contiguous
    assert volume.geometry.orientation == orientation
    np.testing.assert_array_equal(read_segmentation(mask_path, like=volume), labels)

    written = nib.load(write_segmentation(labels, volume, folder / "out.nii.gz"))
    given_mask = nib.load(mask_path)
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(given_mask.dataobj))
    np.testing.assert_array_equal(written.affine, nib.load(path).affine)
    shutil.rmtree(folder)


def test_written_segmentation_keeps_the_header_codes_and_holds_uint8(tmp_path):
    image = nib.load(write_nifti(ramp(), tmp_path / "volume-0.nii", "PIR"))
    image.header.set_qform(image.affine, code=2)
    image.header.set_sform(image.affine, code=4)
    image.header.set_xyzt_units("mm")
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), tmp_path / "v.nii")
    volume = read_volume(tmp_path / "v.nii")
    written = nib.load(write_segmentation(blob(), volume, tmp_path / "out.nii.gz")).header
    assert (int(written["qform_code"]), int(written["sform_code"])) == (2, 4)
    assert written.get_xyzt_units()[0] == "mm"
    assert written.get_data_dtype() == np.uint8
    assert written.get_slope_inter() in ((1.0, 0.0), (None, None))


def test_written_segmentation_is_the_same_file_twice(tmp_path):
    volume = read_volume(write_nifti(ramp(), tmp_path / "volume-0.nii"))
    first = write_segmentation(blob(), volume, tmp_path / "a.nii.gz").read_bytes()
    assert write_segmentation(blob(), volume, tmp_path / "b.nii.gz").read_bytes() == first
    assert first[4:8] == bytes(4)  # no time in the gzip header


def test_oblique_volume_keeps_its_grid_and_affine(tmp_path):
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ affine_of((12, 40, 48), "RAS")
    path = write_nifti(ramp(), tmp_path / "volume-0.nii", "RAS", affine=affine)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.hu, ramp())
    np.testing.assert_allclose(volume.spacing_mm, SPACING_MM, rtol=1e-5)
    written = nib.load(write_segmentation(blob(), volume, tmp_path / "out.nii"))
    np.testing.assert_array_equal(written.affine, nib.load(path).affine)


def test_nifti_2_and_a_frame_axis_of_one_come_back_as_they_were(tmp_path):
    stored = ramp().transpose(2, 1, 0)[..., None]
    nib.save(nib.Nifti2Image(stored, affine_of(ramp().shape, "LPS")), tmp_path / "volume-0.nii")
    volume = read_volume(tmp_path / "volume-0.nii")
    np.testing.assert_array_equal(volume.hu, ramp())
    written = nib.load(write_segmentation(blob(), volume, tmp_path / "out.nii"))
    assert isinstance(written, nib.Nifti2Image)
    assert written.shape == (48, 40, 12, 1)


def test_mask_stored_in_another_axis_order_is_paired_by_its_header(tmp_path):
    volume = read_volume(write_nifti(ramp(), tmp_path / "volume-0.nii", "LPS"))
    for orientation in ("RAS", "SPL", "AIR"):
        mask = write_nifti(blob(), tmp_path / f"{orientation}.nii.gz", orientation)
        np.testing.assert_array_equal(read_segmentation(mask, like=volume), blob())


def test_mask_in_another_axis_order_follows_an_overridden_volume(tmp_path):
    volume = read_volume(write_nifti(ramp(), tmp_path / "volume-0.nii", "LPS"), orientation="RPS")
    mask = write_nifti(blob(), tmp_path / "s.nii", "SAR")
    np.testing.assert_array_equal(read_segmentation(mask, like=volume), blob()[:, :, ::-1])


def test_mask_with_a_foreign_header_is_paired_voxel_by_voxel(tmp_path):
    volume = read_volume(write_nifti(ramp(), tmp_path / "volume-0.nii", "RAS"))
    stored = write_nifti(blob(), tmp_path / "s.nii", "RAS", affine=np.diag([-1.0, -1.0, 1.0, 1.0]))
    np.testing.assert_array_equal(read_segmentation(stored, like=volume), blob())


def test_mask_of_another_depth_is_refused_with_both_shapes(tmp_path):
    volume = read_volume(write_nifti(ramp(), tmp_path / "volume-0.nii"))
    short = write_nifti(blob()[:11], tmp_path / "segmentation-0.nii")
    with pytest.raises(ValueError, match=r"segmentation-0.nii.*\(48, 40, 11\).*\(48, 40, 12\)"):
        read_segmentation(short, like=volume)


@pytest.mark.parametrize(("value", "dtype"), [(255, np.uint8), (3, np.int16), (0.5, np.float32)])
def test_labels_other_than_0_1_2_are_refused_by_value(tmp_path, value, dtype):
    labels = blob().astype(dtype)
    labels[3, 7, 9] = value
    path = write_nifti(labels, tmp_path / "segmentation-0.nii", dtype=dtype)
    with pytest.raises(ValueError, match=rf"segmentation-0.*must be 0 .*found {value:g}"):
        read_segmentation(path)


def test_mask_as_float_is_read(tmp_path):
    path = write_nifti(blob(), tmp_path / "segmentation-0.nii.gz", dtype=np.float32)
    labels = read_segmentation(path)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, blob())


def test_writing_refuses_other_shapes_labels_and_names(tmp_path):
    volume = volume_from_array(ramp(), SPACING_MM)
    with pytest.raises(ValueError, match=r"labels must be \(12, 40, 48\).*\(11, 40, 48\)"):
        write_segmentation(blob()[1:], volume, tmp_path / "a.nii")
    with pytest.raises(ValueError, match=r"labels must be 0, 1 or 2"):
        write_segmentation(blob() * 7, volume, tmp_path / "a.nii")
    with pytest.raises(ValueError, match=r"as \.nii, \.nii\.gz or .*\.dcm, got a\.png"):
        write_segmentation(blob(), volume, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real
def test_real_scans_return_in_their_own_orientation(tmp_path):
    if real_data() is None:
        pytest.skip("LITS_REAL names no folder with real data")
    found = []
    for case in find_cases(real_data() / "lits"):
        volume = read_volume(case.volume)
        labels = read_segmentation(case.segmentation, like=volume)
        found.append(volume.geometry.orientation)
        written = nib.load(write_segmentation(labels, volume, tmp_path / f"{case.id}.nii.gz"))
        theirs, ct = nib.load(case.segmentation), nib.load(case.volume)
        np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(theirs.dataobj))
        np.testing.assert_array_equal(written.affine, ct.affine)
        for code in ("qform_code", "sform_code"):
            assert written.header[code] == ct.header[code]
    assert found == ["LPS", "LPS", "RAS"]


@pytest.mark.parametrize(
    ("values", "spacing_mm", "words"),
    [
        (40000, SPACING_MM, "HU must fit into int16, got 40000"),
        (float("nan"), SPACING_MM, "got nan to nan: set NaN to -1024, the HU of air"),
        (0, (5.0, 0.0, 0.8), "above 0, got"),
        (0, (5.0, float("nan"), 0.8), "above 0, got"),
    ],
)
def test_array_that_is_no_ct_is_refused(values, spacing_mm, words):
    with pytest.raises(ValueError, match=words):
        volume_from_array(np.full((2, 3, 4), values), spacing_mm)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fractions_of_an_array_are_rounded_as_those_of_a_file(tmp_path, dtype):
    values = np.array([[[-1000.6, -0.9, -0.5, 59.999996, 60.5, 61.4]]], dtype)
    np.testing.assert_array_equal(volume_from_array(values).hu, [[[-1001, -1, 0, 60, 61, 61]]])
    path = write_nifti(values, tmp_path / "a.nii")
    np.testing.assert_array_equal(read_volume(path).hu, volume_from_array(values).hu)


@pytest.mark.parametrize("name", ["volume-0.nii", "link.nii", "../raw/volume-0.nii"])
def test_labels_are_never_written_over_their_own_ct(tmp_path, name):
    path = (
        write_nifti(ramp(), tmp_path / "raw" / "volume-0.nii") or tmp_path / "raw" / "volume-0.nii"
    )
    (tmp_path / "raw" / "link.nii").symlink_to(path)
    before = path.read_bytes()
    volume = read_volume(path)
    with pytest.raises(ValueError, match="is the CT itself, which its labels would replace"):
        write_segmentation(blob(), volume, tmp_path / "raw" / name)
    assert path.read_bytes() == before


def test_a_series_of_what_is_no_dicom_is_refused_not_passed_over(tmp_path):
    path = write_nifti(ramp(), tmp_path / "ct.nii.gz")
    for read in (read_volume, open_volume):
        with pytest.raises(
            ValueError, match=r"ct\.nii\.gz is no DICOM and has no series: leave ser"
        ):
            read(path, series="3")
