"""Phantoms: deterministic, honest NIfTI in the Kaggle layout, and not solved by a threshold."""

import json
from functools import cache

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from lits_helpers.machine import file_hash
from lits_helpers.phantom import make_phantom, write_phantom_dataset
from lits_helpers.phantom.dataset import _case_shape
from lits_helpers.phantom.liver import draw_lesions

SHAPE = (12, 40, 48)


@cache
def phantom(seed, shape=(24, 80, 88)):
    return make_phantom(seed, shape)


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


def test_a_seed_gives_the_same_phantom_and_another_seed_another():
    first, again, other = (make_phantom(seed, SHAPE) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert first[2] == again[2] != other[2]
    assert (first[0] != other[0]).mean() > 0.5


def test_phantom_has_the_asked_shape_and_the_declared_types():
    hu, labels, (dz, dy, dx) = phantom(0, SHAPE)
    assert hu.shape == labels.shape == SHAPE
    assert (hu.dtype, labels.dtype) == (np.int16, np.uint8)
    assert 1 <= dz <= 8
    assert dy == dx
    assert 300 <= 48 * dx <= 421


def test_the_same_seed_is_the_same_patient_at_another_resolution():
    volumes_ml = []
    for shape in ((24, 80, 88), (40, 100, 110)):
        _, labels, spacing_mm = phantom(4, shape)
        volumes_ml.append((labels > 0).sum() * np.prod(spacing_mm) / 1000)
    assert volumes_ml[0] == pytest.approx(volumes_ml[1], rel=0.06)


@pytest.mark.parametrize("seed", range(4))
def test_the_liver_lies_right_the_spine_behind_and_the_lungs_above(seed):
    hu, labels, _ = phantom(seed)
    liver = labels > 0
    depth, height, width = hu.shape
    assert np.nonzero(liver)[2].mean() < 0.45 * width  # the patient's right is the image's left
    middle = hu[:, :, width // 2 - 4 : width // 2 + 4]
    assert np.nonzero(middle > 250)[1].mean() > 0.5 * height
    body = ndimage.binary_fill_holes((hu > -300).any(0))
    lung = (hu < -700) & (hu > -950) & body
    assert lung[-depth // 4 :].sum() > 4 * max(lung[: depth // 4].sum(), 10)


@pytest.mark.parametrize("seed", range(8))
def test_there_are_slices_above_and_below_the_liver(seed):
    _, labels, _ = phantom(seed)
    holds_liver = np.flatnonzero((labels > 0).any((1, 2)))
    assert holds_liver[0] >= 1
    assert holds_liver[-1] <= labels.shape[0] - 2


def test_the_liver_varies_and_its_neighbours_share_its_hu():
    livers = [phantom(seed) for seed in range(6)]
    means = [hu[labels == 1].mean() for hu, labels, _ in livers]
    sizes = [(labels > 0).sum() * np.prod(spacing) for _, labels, spacing in livers]
    assert np.ptp(means) > 20
    assert max(sizes) > 1.4 * min(sizes)
    for (hu, labels, _), mean in zip(livers, means, strict=True):
        alike = (np.abs(ndimage.gaussian_filter(hu.astype(float), (0, 1, 1)) - mean) < 15) & (
            labels == 0
        )
        assert alike.sum() > 0.3 * (labels > 0).sum()


def test_tumor_lies_in_the_liver_and_is_darker_as_a_rule():
    darker = []
    for seed in range(8):
        hu, labels, _ = phantom(seed)
        assert set(np.unique(labels)) <= {0, 1, 2}
        if (labels == 2).sum() > 20:
            around = ndimage.binary_dilation(labels == 2, iterations=2)
            assert (labels[around] == 0).mean() < 0.7
            darker.append(hu[labels == 2].mean() < hu[(labels == 1) & around].mean())
    assert np.mean(darker) > 0.6


def test_lesions_are_drawn_as_described():
    patients = [draw_lesions(np.random.default_rng(seed)) for seed in range(900)]
    counts = [len(lesions) for lesions in patients]
    sizes, contrasts, _ = np.array([lesion for lesions in patients for lesion in lesions]).T
    assert np.mean(np.equal(counts, 0)) == pytest.approx(1 / 6, abs=0.04)
    assert max(counts) == 8
    assert 3 <= sizes.min() < 5
    assert 40 < sizes.max() <= 45
    assert (sizes[sizes > 12] ** 3).sum() > 0.9 * (sizes**3).sum()
    dark = contrasts < 0
    assert 0.8 < dark.mean() < 0.95
    assert contrasts[dark].min() >= -60
    assert contrasts[dark].max() <= -15


def test_files_lie_where_kaggle_puts_them(dataset):
    names = {name.split(".nii")[0] for name in files_of(dataset)}
    assert {f"volume_pt1/volume-{n}" for n in range(11)} <= names
    assert "volume_pt2/volume-11" in names
    assert {f"segmentations/segmentation-{n}" for n in range(12)} <= names
    assert len(names) == 12 + 12 + 1  # and phantom.json


def test_files_hold_the_phantom_in_its_true_orientation(dataset):
    for number in range(12):
        hu, labels, spacing_mm = make_phantom((3, number, 0), _case_shape(3, number, SHAPE))
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
    with pytest.raises(ValueError, match=r"no phantoms.*LITS_SOURCE\) to folder"):
        write_phantom_dataset(tmp_path, cases=1, shape=SHAPE)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"a patient's"]


def test_sizes_that_cannot_be_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"shape=\(4, 40, 48\)"):
        write_phantom_dataset(tmp_path, cases=1, shape=(4, 40, 48))
    with pytest.raises(ValueError, match="cases=0"):
        write_phantom_dataset(tmp_path, cases=0)


def dice(a, b):
    return 2 * (a & b).sum() / max(a.sum() + b.sum(), 1)


def largest_part(mask):
    parts, count = ndimage.label(mask)
    return parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]) if count else mask


def smoothings(hu):
    hu = np.clip(hu, -200, 300).astype(np.float32)
    return hu, ndimage.gaussian_filter(hu, (0, 0.8, 0.8)), ndimage.median_filter(hu, (1, 3, 3))


def test_thresholds_find_neither_liver_nor_tumor():
    """The best of many windows, one for all cases and chosen knowing the answers, is too little."""
    windows = [(low, high) for low in range(20, 110, 15) for high in range(low + 30, 190, 25)]
    cases = [phantom(seed)[:2] for seed in range(20, 26)]
    masks = [
        [
            largest_part((image >= low) & (image < high))
            for image in smoothings(hu)
            for low, high in windows
        ]
        for hu, _ in cases
    ]
    liver_dice = np.mean(
        [
            [dice(mask, labels > 0) for mask in found]
            for found, (_, labels) in zip(masks, cases, strict=True)
        ],
        0,
    )
    assert liver_dice.max() <= 0.70
    tumor_dice = []
    for found, (hu, labels) in zip(masks, cases, strict=True):
        if (labels == 2).any():
            closed = ndimage.binary_closing(found[liver_dice.argmax()], iterations=2)
            liver = ndimage.binary_fill_holes(closed)
            tumor_dice.append(_tumor_scores(hu, liver, labels == 2))
    assert np.mean(tumor_dice, 0).max() <= 0.25


def _tumor_scores(hu, liver, tumor):
    """Return Dice of everything darker by some HU in the liver found, and of its largest part."""
    scores, middle = [], np.median(hu[liver])
    for image in smoothings(hu):
        for darker in range(10, 50, 8):
            for deepest in (60, 200):
                mask = liver & (image < middle - darker) & (image > middle - deepest)
                scores += [dice(mask, tumor), dice(largest_part(mask), tumor)]
    return scores
