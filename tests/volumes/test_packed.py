"""Packed volumes: lossless, read like their file, refused when cut."""

import os
import pickle
import stat

import numpy as np
import pytest
from helpers.drawn import SPACING_MM, blob, ramp, write_nifti

from lits_helpers.machine import write_json
from lits_helpers.volumes import (
    open_volume,
    read_segmentation,
    read_volume,
    volume_from_array,
    write_packed,
    write_segmentation,
)


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


@pytest.mark.skipif(os.name == "nt", reason="Windows gives each user a temporary folder")
def test_nobody_else_may_read_the_packed_copies_of_a_user(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    copy = open_volume(write_nifti(ramp(), tmp_path / "volume-0.nii.gz")).path
    assert stat.S_IMODE(copy.parent.stat().st_mode) == 0o700


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
