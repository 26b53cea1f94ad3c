"""Files as they come: each kind is read correctly or refused by name, never read wrongly."""

import gzip
import io
import os
import random
import struct

import nibabel as nib
import numpy as np
import pytest
from helpers.drawn import BODY_SPACING_MM, affine_of, body, ramp, write_nifti

from lits_helpers.cases import Case, find_cases
from lits_helpers.machine import files
from lits_helpers.preprocess import prepare, prepared_cases
from lits_helpers.volumes import open_volume, read_segmentation, read_volume
from lits_helpers.volumes.nifti import NiftiSource, open_nifti, read_hu, read_labels

HU = ramp()
STORED = np.asfortranarray(HU.transpose(2, 1, 0))
AFFINE = affine_of(HU.shape, "LPS")
# byte offsets in a NIfTI-1 header
DIM, DATATYPE, BITPIX, PIXDIM, VOX_OFFSET, SLOPE, INTERCEPT, SROW, MAGIC = (
    *(40, 70, 72, 76, 108, 112, 116, 280, 344),
)


def whole(dtype=np.int16, stored=STORED, affine=AFFINE, codes=(1, 1)) -> bytearray:
    """Bytes of a sound .nii, to be damaged."""
    image = nib.Nifti1Image(stored.astype(dtype), affine, dtype=np.dtype(dtype))
    image.set_sform(affine, code=codes[0])
    image.set_qform(affine, code=codes[1])
    return bytearray(image.to_bytes())


def patched(offset: int, form: str, *values, codes=(1, 1), **kinds) -> bytes:
    """A sound .nii with some header field overwritten."""
    content = whole(codes=codes, **kinds)
    struct.pack_into("<" + form, content, offset, *values)
    return bytes(content)


def scaled(dtype, slope, intercept) -> bytes:
    """HU stored as (HU - intercept) / slope."""
    content = whole(dtype, (STORED.astype(np.float64) - intercept) / slope)
    struct.pack_into("<2f", content, SLOPE, slope, intercept)
    return bytes(content)


def structured(dtype) -> bytes:
    return nib.Nifti1Image(np.zeros((48, 40, 12), dtype), AFFINE).to_bytes()


def flipped_bit(content: bytes, bit: int) -> bytes:
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
BIG_ENDIAN = nib.Nifti1Image(
    STORED.astype(">i2"), AFFINE, nib.Nifti1Header(endianness=">")
).to_bytes()
HTML = b"<!DOCTYPE html><html><body>404: sign in to Kaggle</body></html>" * 20
UNKNOWN_SPACING = {"affine": np.diag([-0.8, -0.7, 5.0, 1.0])}

READ = {
    "gzip_named_nii": ("volume-3.nii", gzip.compress(whole())),
    "nii_named_gzip": ("volume-3.nii.gz", bytes(whole())),
    "unicode_and_spaces": ("Jérôme Müller's scan ✓/volume-3.nii", bytes(whole())),
    "negative_spacing_with_affine": ("volume-3.nii", patched(PIXDIM + 4, "f", -0.8)),
    "zero_slope": ("volume-3.nii", patched(SLOPE, "2f", 0.0, 0.0)),
    "nan_slope": ("volume-3.nii", patched(SLOPE, "2f", np.nan, np.nan)),
    "offset_1024": ("volume-3.nii", scaled(np.uint16, 1.0, -2000.0)),
    "slope_and_intercept": ("volume-3.nii.gz", gzip.compress(scaled(np.int32, 0.125, 24.0))),
    "big_endian": ("volume-3.nii", BIG_ENDIAN),
    "float64": ("volume-3.nii", bytes(whole(np.float64))),
    "float32_gz": ("volume-3.nii.gz", gzip.compress(whole(np.float32))),
    "int64": ("volume-3.nii", bytes(whole(np.int64))),
    "one_frame": ("volume-3.nii", bytes(whole(stored=STORED[..., None]))),
    "contradicting_bits": ("volume-3.nii", patched(BITPIX, "h", 64)),
    "nan_sform_beside_a_qform": ("volume-3.nii", patched(SROW, "4f", *[np.nan] * 4)),
    "flat_sform_beside_a_qform": ("volume-3.nii", patched(SROW, "8f", *[1, 1, 0, 0] * 2)),
}
REFUSED = {
    "empty_nii": ("volume-3.nii", b"", "it is empty"),
    "empty_gz": ("volume-3.nii.gz", b"", "it is empty"),
    "empty_inside_gz": ("volume-3.nii.gz", gzip.compress(b""), "it is empty"),
    "header_alone": ("volume-3.nii", bytes(whole()[:352]), "truncated"),
    "html": ("volume-3.nii", HTML, "no NIfTI header: it starts with b'<!DOCTYPE html>"),
    "html_gz": ("volume-3.nii.gz", gzip.compress(HTML), "no NIfTI header"),
    "gzip_in_gzip": (
        "volume-3.nii.gz",
        gzip.compress(gzip.compress(whole())),
        "packed with gzip twice: unpack it once",
    ),
    "nrrd": ("volume-3.nii", b"NRRD0004\ntype: short\n" * 30, "no NIfTI file but NRRD: convert it"),
    "mha": ("volume-3.nii.gz", b"ObjectType = Image\n" * 30, "but MetaImage .*: convert it"),
    "h5": ("volume-3.nii", b"\x89HDF\r\n\x1a\n" * 60, "but HDF5: convert it"),
    "dcm": ("volume-3.nii", bytes(128) + b"DICM" + bytes(300), "header is damaged"),
    "zip": ("volume-3.nii", b"PK\x03\x04" * 200, "the zip is damaged or cut off"),
    "wrong_magic": ("volume-3.nii", patched(MAGIC, "4s", b"abcd"), "magic"),
    "half_of_a_pair": ("volume-3.nii", patched(MAGIC, "4s", b"ni1\0"), "not a single NIfTI file"),
    "checksum": (
        "volume-3.nii.gz",
        flipped_bit(gzip.compress(whole()), 8 * len(gzip.compress(whole())) - 50),
        "gzip stream is damaged",
    ),
    "huge": ("volume-3.nii", patched(DIM + 2, "3h", 32767, 32767, 32767), "impossible shape"),
    "huge_gz": (
        "volume-3.nii.gz",
        gzip.compress(patched(DIM + 2, "3h", 1000, 1000, 1000)),
        "truncated: its header claims",
    ),
    "zero_axis": ("volume-3.nii", patched(DIM + 2, "3h", 48, 0, 12), "impossible shape"),
    "negative_axis": ("volume-3.nii", patched(DIM + 2, "3h", 48, -40, 12), "impossible shape"),
    "smaller_than_its_data": ("volume-3.nii", patched(DIM + 2, "h", 32), "more data follow"),
    "nan_spacing": (
        "volume-3.nii",
        patched(PIXDIM + 4, "f", np.nan, codes=(0, 1), **UNKNOWN_SPACING),
        "affine is not usable|qform is broken",
    ),
    "infinite_slope": ("volume-3.nii", patched(SLOPE, "2f", np.inf, 0.0), "slope"),
    "infinite_intercept": ("volume-3.nii", patched(SLOPE, "2f", 1.0, np.inf), "slope|intercept"),
    "nan_voxels": (
        "volume-3.nii",
        bytes(whole(np.float32, np.where(STORED == 7, np.nan, STORED))),
        r"not finite \(NaN or infinity\); set them to -1024, the HU of air",
    ),
    "rgb": ("volume-3.nii", structured(RGB), "plain numbers"),
    "complex": ("volume-3.nii", structured(np.complex64), "plain numbers"),
    "unknown_type": ("volume-3.nii", patched(DATATYPE, "h", 4567), "data type|datatype|data code"),
    "two_frames": (
        "volume-3.nii",
        bytes(whole(stored=np.stack([STORED, STORED], -1))),
        r"three axes, got shape \(48, 40, 12, 2\)",
    ),
    "two_axes": ("volume-3.nii", bytes(whole(stored=STORED[..., 0])), "three axes"),
    "offset_in_the_header": ("volume-3.nii", patched(VOX_OFFSET, "f", 20.0), "offset"),
    "nan_offset": ("volume-3.nii", patched(VOX_OFFSET, "f", np.nan), "offset"),
}
random_places = random.Random(5)
for _i in range(10):
    _cut = random_places.randrange(1, len(whole()))
    REFUSED[f"cut_at_{_cut}"] = ("volume-3.nii", bytes(whole()[:_cut]), "truncated")
    _small = gzip.compress(whole())
    _cut = random_places.randrange(1, len(_small))
    REFUSED[f"gz_cut_at_{_cut}"] = ("volume-3.nii.gz", _small[:_cut], "damaged or cut|truncated")


def place(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", READ)
def test_odd_but_sound_file_is_read_correctly(tmp_path, kind):
    path = place(tmp_path, *READ[kind])
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.hu, HU)
    assert volume.hu.dtype == np.int16
    np.testing.assert_allclose(volume.spacing_mm, (5.0, 0.7, 0.8), rtol=1e-5)
    np.testing.assert_array_equal(open_volume(path, cache=tmp_path / "cache").read(), HU)


@pytest.mark.parametrize("kind", REFUSED)
def test_broken_file_is_refused_by_name(tmp_path, kind):
    name, content, words = REFUSED[kind]
    path = place(tmp_path, name, content)
    with pytest.raises(ValueError, match=rf"(?s)volume-3.*({words})"):
        read_volume(path)


def test_uint8_and_one_slice_are_read(tmp_path):
    small = (HU % 200).astype(np.int16)
    path = place(tmp_path, "volume-1.nii", bytes(whole(np.uint8, small.transpose(2, 1, 0))))
    np.testing.assert_array_equal(read_volume(path).hu, small)
    path = place(tmp_path, "volume-2.nii", bytes(whole(stored=STORED[..., 4:5])))
    np.testing.assert_array_equal(read_volume(path).hu, HU[4:5])


def test_values_beyond_int16_stop_at_its_limits(tmp_path):
    values = np.where(STORED > 0, 1e9, -1e9)
    volume = read_volume(place(tmp_path, "volume-1.nii", bytes(whole(np.float64, values))))
    assert set(np.unique(volume.hu)) == {-32768, 32767}


def test_bit_flips_in_the_header_never_give_another_array_shape_or_a_crash(tmp_path):
    values = np.sort(HU, axis=None)
    for bit in range(0, 348 * 8, 5):
        path = place(tmp_path, "volume-3.nii", flipped_bit(bytes(whole()), bit))
        try:
            volume = read_volume(path)
        except ValueError:
            continue
        assert sorted(volume.hu.shape) == [12, 40, 48]
        if not SLOPE <= bit // 8 < SLOPE + 8 and not VOX_OFFSET <= bit // 8 < VOX_OFFSET + 4:
            assert np.array_equal(np.sort(volume.hu, axis=None), values)


def test_bit_flips_in_a_gzip_stream_are_always_found(tmp_path):
    sound = gzip.compress(whole(), mtime=0)
    chance = random.Random(1)
    for _ in range(60):
        bit = chance.randrange(10 * 8, len(sound) * 8)
        path = place(tmp_path, "volume-3.nii.gz", flipped_bit(sound, bit))
        with pytest.raises(ValueError, match="volume-3"):
            read_volume(path)


def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    with pytest.raises(FileNotFoundError, match="volume-3"):
        read_volume(tmp_path / "volume-3.nii")
    (tmp_path / "volume-4.nii").symlink_to(tmp_path / "gone.nii")
    with pytest.raises(FileNotFoundError, match="volume-4"):
        read_volume(tmp_path / "volume-4.nii")
    (tmp_path / "volume-5.nii").mkdir()
    with pytest.raises(ValueError, match=r"volume-5.nii holds no DICOM image"):
        read_volume(tmp_path / "volume-5.nii")  # a folder
    os.mkfifo(tmp_path / "volume-6.nii")
    with pytest.raises(OSError, match=r"it is not a regular file: .*volume-6.nii"):
        read_volume(tmp_path / "volume-6.nii")


def test_a_locked_file_is_refused_by_name_with_the_cure(tmp_path, monkeypatch):
    path = place(tmp_path, "volume-3.nii", bytes(whole()))

    def locked(*_):  # root may read everything
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(files, "open", locked, raising=False)
    for read in (read_volume, read_segmentation):
        with pytest.raises(PermissionError, match=r"chmod u\+r makes it readable: .*volume-3"):
            read(path)


def test_run_over_all_broken_files_prepares_the_sound_one_and_names_the_others(tmp_path):
    hu, labels = body()
    write_nifti(hu, tmp_path / "raw" / "volume-0.nii", spacing_mm=BODY_SPACING_MM)
    write_nifti(labels, tmp_path / "raw" / "segmentation-0.nii", spacing_mm=BODY_SPACING_MM)
    for number, (name, content, _) in enumerate(REFUSED.values(), start=1):
        suffix = name.removeprefix("volume-3")
        place(tmp_path / "raw", f"volume-{number}{suffix}", content)
    (tmp_path / "raw" / "volume-900.nii").symlink_to(tmp_path / "gone.nii")
    place(tmp_path / "raw", "prediction-volume-0.nii.gz", b"nothing")
    cases = find_cases(tmp_path / "raw")
    assert len(cases) == 2 + len(REFUSED)
    report = prepare(cases, tmp_path / "prepared", workers=0, png=False)
    assert report.prepared == ["0"]
    assert set(report.skipped) == {case.id for case in cases} - {"0"}
    for case_id, reason in report.skipped.items():
        assert f"volume-{case_id}.nii" in reason
        code = "failed    " if case_id == "900" else "unreadable"  # it may come back
        assert f"SKIPPED  {code}  case {case_id} " in report.table()
    assert [case.id for case in prepared_cases(tmp_path / "prepared")] == ["0"]


def test_ct_and_mask_swapped_are_refused(tmp_path):
    hu, labels = body()
    ct = write_nifti(hu, tmp_path / "segmentation-3.nii")
    mask = write_nifti(labels, tmp_path / "volume-3.nii")
    report = prepare([Case("3", "3", mask, ct)], tmp_path / "out", workers=0)
    assert "segmentation-3.nii" in report.skipped["3"]
    assert "labels must be 0" in report.skipped["3"]
    report = prepare([Case("3", "3", mask)], tmp_path / "out", workers=0)
    assert "look like a segmentation" in report.skipped["3"]


PLAIN = np.diag([-0.8, -0.7, 5.0, 1.0])
SHAPE = (48, 40, 12)


def stored(dtype=np.int16):
    return (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 1500 - 700).astype(dtype)


def claiming(array=None, slices=12):
    """A NIfTI file's bytes whose header claims so many slices."""
    image = nib.Nifti1Image(stored() if array is None else array, PLAIN)
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

    content = claiming()
    source = NiftiSource(Drip(content), len(content), False)
    hu = read_hu(source, source.geometry)
    np.testing.assert_array_equal(hu, stored().transpose(2, 1, 0))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_one_slab_more_than_the_header_claims_is_refused(tmp_path, pack):
    (tmp_path / "volume-3.nii").write_bytes(pack(claiming(slices=11)))
    with pytest.raises(ValueError, match=r"claims the shape \(48, 40, 11\), but more data follow"):
        read(tmp_path / "volume-3.nii")


def test_a_file_shorter_than_its_header_claims_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "volume-3.nii").write_bytes(claiming()[:-5000])
    claimed = 352 + 2 * 48 * 40 * 12
    with pytest.raises(
        ValueError, match=f"claims {claimed} bytes, there are at most {claimed - 5000}"
    ):
        read(tmp_path / "volume-3.nii")


def test_a_whole_gzip_of_a_file_cut_short_is_refused_by_the_slab(tmp_path):
    (tmp_path / "volume-3.nii.gz").write_bytes(gzip.compress(claiming()[:-5000]))
    with pytest.raises(ValueError, match="it is truncated: the data end in slab 10 of 12"):
        read(tmp_path / "volume-3.nii.gz")


def test_labels_stored_scaled_are_read_as_what_they_mean(tmp_path):
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:20, 5:30, 2:9] = 1
    labels[8:12, 10:14, 3:5] = 2
    image = nib.Nifti1Image(10 + 2 * labels, PLAIN)
    image.header.set_slope_inter(0.5, -5.0)
    content = bytearray(image.to_bytes())
    content[352:] = (10 + 2 * labels).tobytes(order="F")  # nibabel itself would scale once more
    content[112:120] = np.array([0.5, -5.0], np.float32).tobytes()
    (tmp_path / "segmentation-3.nii").write_bytes(content)
    found = read(tmp_path / "segmentation-3.nii", read_labels)
    np.testing.assert_array_equal(found, labels.transpose(2, 1, 0))


def test_a_shape_whose_voxels_overflow_is_impossible(tmp_path):
    header = nib.Nifti2Header()
    header.set_sform(PLAIN, code=1)
    header["dim"][:4] = 3, 2**32, 2**32, 1  # 2**64 voxels: 0 in 64 bits
    header["vox_offset"] = 544
    (tmp_path / "volume-3.nii").write_bytes(header.binaryblock + bytes(1000))
    with pytest.raises(ValueError, match="claims the impossible shape"):
        read(tmp_path / "volume-3.nii")


def test_spacing_from_a_side_of_zero_is_not_trusted(tmp_path):
    content = bytearray(claiming())
    content[80:84] = np.float32(0).tobytes()  # the first side
    content[252:256] = (1).to_bytes(2, "little") + bytes(2)  # a qform and no sform
    (tmp_path / "volume-3.nii").write_bytes(content)
    with open_nifti(tmp_path / "volume-3.nii") as source:
        assert source.geometry.spacing_trusted is False
