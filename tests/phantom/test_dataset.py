"""Generated patients as files: honest NIfTI in Kaggle's layout, written once."""

import json

import nibabel as nib
import numpy as np
import pytest

from lits_helpers.machine import file_hash
from lits_helpers.phantom import make_phantom, write_phantom_dataset

SHAPE = (12, 40, 48)


def files_of(root):
    return {str(p.relative_to(root)): file_hash(p) for p in root.rglob("*") if p.is_file()}


def read_lps(path):
    """Read NIfTI as (Z, Y, X) with voxels running to left, back and head, by nibabel alone."""
    image = nib.as_closest_canonical(nib.load(path))  # R, A, S
    array = np.asarray(image.dataobj).transpose(2, 1, 0)[:, ::-1, ::-1]
    return array, image.header.get_zooms()[::-1]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_phantom_dataset(tmp_path_factory.mktemp("phantoms"), cases=12, shape=SHAPE, seed=3)


def test_files_lie_where_kaggle_puts_them(dataset):
    names = {name.split(".nii")[0] for name in files_of(dataset)}
    assert {f"volume_pt1/volume-{n}" for n in range(11)} <= names
    assert "volume_pt2/volume-11" in names
    assert {f"segmentations/segmentation-{n}" for n in range(12)} <= names
    assert len(names) == 12 + 12 + 1  # and phantom.json


def test_files_hold_the_phantom_in_its_true_orientation(dataset):
    for number in range(12):
        (path,) = dataset.rglob(f"volume-{number}.nii*")
        hu, labels, spacing_mm = make_phantom((3, number, 0), read_lps(path)[0].shape)
        for array, pattern in (
            (hu, f"volume-{number}.nii*"),
            (labels, f"segmentation-{number}.nii*"),
        ):
            (path,) = dataset.rglob(pattern)
            stored, zooms = read_lps(path)
            np.testing.assert_array_equal(stored, array)
            np.testing.assert_allclose(zooms, spacing_mm, rtol=1e-5)


def test_storage_varies(dataset):
    volumes = [nib.load(path) for path in dataset.rglob("volume-*.nii*")]
    assert {path.suffix for path in dataset.rglob("volume-*")} == {".nii", ".gz"}
    assert len({nib.aff2axcodes(image.affine) for image in volumes}) >= 4
    assert {image.dataobj.inter for image in volumes} == {0.0, -1024.0}
    assert len({image.shape for image in volumes}) >= 6


def test_a_case_depends_on_seed_and_number_only(dataset, tmp_path):
    write_phantom_dataset(tmp_path, cases=2, shape=SHAPE, seed=3, first=10, workers=2)
    expected = files_of(dataset)
    written = {name: value for name, value in files_of(tmp_path).items() if "json" not in name}
    assert len(written) == 4
    assert all(expected[name] == value for name, value in written.items())


def test_a_second_call_writes_nothing(dataset):
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    write_phantom_dataset(dataset, cases=12, shape=SHAPE, seed=3)
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*")} == before


def test_a_stopped_call_is_continued(tmp_path):
    write_phantom_dataset(tmp_path, cases=2, shape=SHAPE)
    whole = files_of(tmp_path)
    (tmp_path / "phantom.json").rename(tmp_path / "phantom-unfinished.json")
    (volume,) = tmp_path.rglob("volume-1.nii*")
    volume.rename(volume.with_name(f".part-1-{volume.name}"))
    (kept,) = tmp_path.rglob("volume-0.nii*")
    time = kept.stat().st_mtime_ns
    write_phantom_dataset(tmp_path, cases=2, shape=SHAPE)
    assert files_of(tmp_path) == whole
    assert kept.stat().st_mtime_ns == time


def test_other_settings_in_the_same_folder_are_refused(dataset):
    with pytest.raises(ValueError, match="holds phantoms of other settings"):
        write_phantom_dataset(dataset, cases=12, shape=SHAPE, seed=4)
    assert json.loads((dataset / "phantom.json").read_text())["seed"] == 3


@pytest.mark.parametrize("name", ["volume-0.nii", "patient1.nii.gz"])
def test_a_folder_with_other_files_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"a patient's")
    with pytest.raises(ValueError, match="no phantoms; choose an empty folder"):
        write_phantom_dataset(tmp_path, cases=1, shape=SHAPE)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"a patient's"]


def test_sizes_that_cannot_be_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"shape=\(4, 40, 48\)"):
        write_phantom_dataset(tmp_path, cases=1, shape=(4, 40, 48))
    with pytest.raises(ValueError, match="cases=0"):
        write_phantom_dataset(tmp_path, cases=0)
