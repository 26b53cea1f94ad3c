"""The file border: orientation there and back, pairs, packed arrays."""

import pickle
import shutil

import hypothesis.strategies as st
import nibabel as nib
import numpy as np
import pytest
from helpers.drawn import ORIENTATIONS, SPACING_MM, affine_of, blob, ramp, write_nifti
from hypothesis import given, settings

from lits_helpers.cases import find_cases
from lits_helpers.machine import write_json
from lits_helpers.settings import real_data
from lits_helpers.volumes import (
    open_volume,
    read_segmentation,
    read_volume,
    volume_from_array,
    write_packed,
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
    with pytest.raises(ValueError, match=r"\.nii or \.nii\.gz, got a\.png"):
        write_segmentation(blob(), volume, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_spacing_of_an_identity_affine_is_not_trusted(tmp_path):
    identity = write_nifti(ramp(), tmp_path / "a.nii", "RAS", affine=np.eye(4))
    shifted = np.eye(4)
    shifted[:3, 3] = (-90, -110, 300)
    assert not read_volume(identity).geometry.spacing_trusted
    assert read_volume(
        write_nifti(ramp(), tmp_path / "b.nii", "RAS", affine=shifted)
    ).geometry.spacing_trusted
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


def test_every_reader_gives_the_same_slices(tmp_path):
    plain = write_nifti(ramp(), tmp_path / "volume-0.nii", "ASR")
    packed_once = write_nifti(ramp(), tmp_path / "volume-1.nii.gz", "ASR")
    volume = read_volume(plain)
    packed = write_packed(volume.hu, tmp_path / "0.b2nd")
    write_json(tmp_path / "0.json", {"geometry": volume.geometry.to_dict()})
    for path in (plain, packed_once, packed):
        reader = open_volume(path, cache=tmp_path / "cache")
        assert (len(reader), reader.shape) == (12, (12, 40, 48))
        np.testing.assert_allclose(reader.spacing_mm, SPACING_MM, rtol=1e-5)
        again = pickle.loads(pickle.dumps(reader))
        for k in (0, 5, 11):
            np.testing.assert_array_equal(again.slice(k), ramp()[k])
        np.testing.assert_array_equal(reader.read(), ramp())
        with pytest.raises(IndexError, match="slices 0 to 11, got 12"):
            reader.slice(12)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_packed_case_is_read_like_its_file_and_writes_back_into_its_grid(tmp_path):
    path = write_nifti(ramp(), tmp_path / "volume-0.nii.gz", "PIR")
    volume = read_volume(path)
    write_json(tmp_path / "0.json", {"geometry": volume.geometry.to_dict()})
    packed = read_volume(write_packed(volume.hu, tmp_path / "0.b2nd"))
    np.testing.assert_array_equal(packed.hu, volume.hu)
    assert packed.geometry == volume.geometry
    direct = write_segmentation(blob(), volume, tmp_path / "a.nii.gz").read_bytes()
    assert write_segmentation(blob(), packed, tmp_path / "b.nii.gz").read_bytes() == direct
    with pytest.raises(ValueError, match=r"0\.b2nd was put right when it was prepared"):
        read_volume(tmp_path / "0.b2nd", orientation="LAS")
    with pytest.raises(ValueError, match=r"0\.b2nd has shape .* its CT \(11,"):
        read_segmentation(tmp_path / "0.b2nd", like=volume_from_array(volume.hu[1:]))
    assert volume_from_array(ramp(), (1.0, 1.0, 1.0)).geometry.spacing_trusted
    assert not volume_from_array(ramp()).geometry.spacing_trusted
    assert volume_from_array(ramp(), np.ones(3)).geometry.spacing_trusted
    assert not volume_from_array(ramp(), (0.005, 0.0007, 0.0007)).geometry.spacing_trusted  # metres


def test_packed_array_is_lossless_and_the_same_bytes_twice(tmp_path):
    noise = np.random.default_rng(0).integers(-10522, 27572, (5, 33, 47)).astype(np.int16)
    first = write_packed(noise, tmp_path / "a.b2nd").read_bytes()
    assert write_packed(noise.copy(), tmp_path / "b.b2nd").read_bytes() == first
    write_json(tmp_path / "a.json", {"geometry": volume_from_array(noise).geometry.to_dict()})
    np.testing.assert_array_equal(open_volume(tmp_path / "a.b2nd").read(), noise)


def test_packed_array_that_is_cut_or_lacks_its_record_is_refused(tmp_path):
    path = write_packed(ramp(), tmp_path / "7.b2nd")
    with pytest.raises(FileNotFoundError, match=r"no 7\.json beside it"):
        open_volume(path)
    path.write_bytes(path.read_bytes()[:-200])
    write_json(tmp_path / "7.json", {"geometry": volume_from_array(ramp()).geometry.to_dict()})
    with pytest.raises(ValueError, match=r"7.b2nd.*prepare the case again"):
        open_volume(path).read()
    with pytest.raises(ValueError, match=r"packed array must be \(Z, Y, X\) int16 or uint8"):
        write_packed(ramp().astype(np.float32), path)


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
        (float("nan"), SPACING_MM, "HU must fit into int16, got nan"),
        (0, (5.0, 0.0, 0.8), "above 0, got"),
        (0, (5.0, float("nan"), 0.8), "above 0, got"),
    ],
)
def test_array_that_is_no_ct_is_refused(values, spacing_mm, words):
    with pytest.raises(ValueError, match=words):
        volume_from_array(np.full((2, 3, 4), values), spacing_mm)
