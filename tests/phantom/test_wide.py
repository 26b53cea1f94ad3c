"""The wide phantom's promises: seeds, labels, and tissues where they belong."""

import numpy as np
import pytest

from lits_helpers.phantom import wide_case, write_phantom_dataset
from lits_helpers.volumes import read_segmentation, read_volume

SHAPE = (14, 72, 88)
SEEDS = range(12)


@pytest.fixture(scope="module")
def cases():
    return [wide_case(seed, SHAPE) for seed in SEEDS]


def test_same_seed_gives_the_same_bits(cases):
    hu, labels, spacing_mm, facts = wide_case(3, SHAPE)
    np.testing.assert_array_equal(hu, cases[3][0])
    np.testing.assert_array_equal(labels, cases[3][1])
    assert (spacing_mm, facts) == cases[3][2:]


def test_different_seeds_differ(cases):
    assert len({hu.tobytes() for hu, _, _, _ in cases}) == len(cases)


def test_types_and_ranges(cases):
    for hu, labels, spacing_mm, _ in cases:
        assert hu.shape == labels.shape == SHAPE
        assert hu.dtype == np.int16
        assert labels.dtype == np.uint8
        assert set(np.unique(labels)) <= {0, 1, 2}
        assert -1024 <= hu.min() < -500 < 100 < hu.max() <= 3071
        assert 0.5 <= spacing_mm[0] <= 10
        assert spacing_mm[1] == spacing_mm[2] > 0


def test_a_whole_liver_has_a_livers_volume(cases):
    whole = 0
    for _, labels, _, facts in cases:
        area = (labels > 0).sum((1, 2))
        if area.max() and max(area[0], area[-1]) < 0.3 * area.max():
            assert 250 < facts["liver_ml"] / facts["size"] ** 3 < 4500
            whole += 1
    assert whole > 0


def test_tumors_lie_in_the_liver_and_some_patients_have_none(cases):
    tumors = [int((labels == 2).sum()) for _, labels, _, _ in cases]
    assert min(tumors) == 0 < max(tumors)
    for (_, labels, _, facts), tumor in zip(cases, tumors, strict=True):
        assert tumor < (labels > 0).sum()
        assert (tumor > 0) <= bool(facts["lesions"])


def test_the_liver_has_the_hu_of_its_phase(cases):
    for hu, labels, _, facts in cases:
        if (labels == 1).sum() > 300:
            assert abs(np.median(hu[labels == 1]) - facts["tissue_hu"]["liver"]) < 30


def test_the_liver_lies_on_the_patients_right(cases):
    middles = [np.argwhere(labels > 0)[:, 2].mean() for _, labels, _, _ in cases if labels.any()]
    assert np.mean(np.array(middles) < SHAPE[2] / 2) > 0.8


def test_a_shape_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="at least 8 each"):
        wide_case(0, (4, 64, 64))


def test_a_wide_dataset_holds_wide_cases_and_is_continued_as_such_only(tmp_path):
    wide = {"cases": 2, "shape": (10, 40, 48), "workers": 1, "variety": "wide"}
    root = write_phantom_dataset(tmp_path, **wide)
    (path,) = root.rglob("volume-1.nii*")
    volume = read_volume(path)
    hu, labels, spacing_mm, _ = wide_case((0, 1, 0), volume.hu.shape)
    (mask,) = root.rglob("segmentation-1.nii*")
    np.testing.assert_array_equal(read_segmentation(mask, like=volume), labels)
    np.testing.assert_allclose(volume.spacing_mm, spacing_mm, rtol=1e-4)
    assert np.abs(volume.hu - hu).max() <= 1  # a file may store every other HU
    assert write_phantom_dataset(tmp_path, **wide) == root
    with pytest.raises(ValueError, match="phantoms of other settings"):
        write_phantom_dataset(tmp_path, **(wide | {"variety": "frozen"}))
    with pytest.raises(ValueError, match="variety must be one of frozen, wide, got 'real'"):
        write_phantom_dataset(tmp_path, **(wide | {"variety": "real"}))
