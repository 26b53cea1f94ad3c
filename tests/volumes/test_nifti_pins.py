"""NIfTI read in drips, one slab too many or too few, and labels that are stored scaled."""

import gzip
import io

import nibabel as nib
import numpy as np
import pytest

from lits_helpers.volumes.nifti import NiftiSource, open_nifti, read_hu, read_labels

AFFINE = np.diag([-0.8, -0.7, 5.0, 1.0])
SHAPE = (48, 40, 12)


def stored(dtype=np.int16):
    return (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 1500 - 700).astype(dtype)


def whole(array=None, slices=12):
    """A NIfTI file's bytes whose header claims so many slices."""
    image = nib.Nifti1Image(stored() if array is None else array, AFFINE)
    content = bytearray(image.to_bytes())
    content[46:48] = slices.to_bytes(2, "little")
    return bytes(content)


def read(path, reading=read_hu):
    with open_nifti(path) as source:
        return reading(source, source.geometry)


def test_a_stream_that_gives_a_few_bytes_at_a_time_is_read_whole():
    class Drip(io.BytesIO):
        def readinto(self, memory):
            return super().readinto(memory[:97])

    content = whole()
    source = NiftiSource(Drip(content), len(content), False)
    hu = read_hu(source, source.geometry)
    np.testing.assert_array_equal(hu, stored().transpose(2, 1, 0))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_one_slab_more_than_the_header_claims_is_refused(tmp_path, pack):
    (tmp_path / "volume-3.nii").write_bytes(pack(whole(slices=11)))
    with pytest.raises(ValueError, match=r"claims the shape \(48, 40, 11\), but more data follow"):
        read(tmp_path / "volume-3.nii")


def test_a_file_shorter_than_its_header_claims_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "volume-3.nii").write_bytes(whole()[:-5000])
    claimed = 352 + 2 * 48 * 40 * 12
    with pytest.raises(
        ValueError, match=f"claims {claimed} bytes, there are at most {claimed - 5000}"
    ):
        read(tmp_path / "volume-3.nii")


def test_a_whole_gzip_of_a_file_cut_short_is_refused_by_the_slab(tmp_path):
    (tmp_path / "volume-3.nii.gz").write_bytes(gzip.compress(whole()[:-5000]))
    with pytest.raises(ValueError, match="it is truncated: the data end in slab 10 of 12"):
        read(tmp_path / "volume-3.nii.gz")


def test_labels_stored_scaled_are_read_as_what_they_mean(tmp_path):
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:20, 5:30, 2:9] = 1
    labels[8:12, 10:14, 3:5] = 2
    image = nib.Nifti1Image(10 + 2 * labels, AFFINE)
    image.header.set_slope_inter(0.5, -5.0)
    content = bytearray(image.to_bytes())
    content[352:] = (10 + 2 * labels).tobytes(order="F")  # nibabel itself would scale once more
    content[112:120] = np.array([0.5, -5.0], np.float32).tobytes()
    (tmp_path / "segmentation-3.nii").write_bytes(content)
    found = read(tmp_path / "segmentation-3.nii", read_labels)
    np.testing.assert_array_equal(found, labels.transpose(2, 1, 0))


def test_a_shape_whose_voxels_overflow_is_impossible(tmp_path):
    header = nib.Nifti2Header()
    header.set_sform(AFFINE, code=1)
    header["dim"][:4] = 3, 2**32, 2**32, 1  # 2**64 voxels: 0 in 64 bits
    header["vox_offset"] = 544
    (tmp_path / "volume-3.nii").write_bytes(header.binaryblock + bytes(1000))
    with pytest.raises(ValueError, match="claims the impossible shape"):
        read(tmp_path / "volume-3.nii")


def test_spacing_from_a_side_of_zero_is_not_trusted(tmp_path):
    content = bytearray(whole())
    content[80:84] = np.float32(0).tobytes()  # the first side
    content[252:256] = (1).to_bytes(2, "little") + bytes(2)  # a qform and no sform
    (tmp_path / "volume-3.nii").write_bytes(content)
    with open_nifti(tmp_path / "volume-3.nii") as source:
        assert source.geometry.spacing_trusted is False
