"""Probabilities: what the models say of each voxel, in the CT's own grid, and never out of date."""

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers.drawn import ORIENTATIONS, stored_as, write_nifti
from helpers.grey_models import SPEC, bright_model, segment_below, tumor_model, write_ct
from torch import nn

import lits_helpers
from lits_helpers.cases import label_id
from lits_helpers.checkpoints import LiverModel, Origin
from lits_helpers.inference import Postprocessing, find_volumes, read_probabilities, segment_volume
from lits_helpers.pipeline import find_predictions
from lits_helpers.volumes import (
    probability_path,
    read_probability,
    read_volume,
    volume_from_array,
    write_probability,
)

NAMES = {f"prediction-volume-0_{system}_probability.nii.gz" for system in ("liver", "tumor")}


class Grey(nn.Module):
    """Answers the grey level itself."""

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return images[:, :1]


def liver_model():
    return LiverModel(Grey(), SPEC, Origin("liver", SPEC, ())).eval()


def grey_steps():
    """Air with a liver whose columns have the grey levels 100 to 131 of 255."""
    hu = np.full((4, 32, 32), -1000, np.int16)
    hu[1] = np.round(np.arange(100, 132) * 500 / 255 - 200)
    return volume_from_array(hu, (5.0, 0.7, 0.8))


def test_a_voxel_is_marked_exactly_where_the_kept_probability_is_128_or_more():
    kept = {}
    labels = segment_volume(grey_steps(), liver_model(), probabilities=kept)
    assert list(kept) == ["liver"]
    np.testing.assert_array_equal(kept["liver"][1], np.tile(np.arange(100, 132), (32, 1)))
    assert not kept["liver"][[0, 2, 3]].any()
    np.testing.assert_array_equal(labels == 1, kept["liver"] >= 128)


def test_the_mean_of_several_models_is_kept_before_any_rule_on_labels():
    kept = {}
    known = np.zeros((4, 32, 32), np.uint8)
    known[1, 8:20, 4:16] = 1
    models = [tumor_model(0.2), tumor_model(0.6)]
    post = Postprocessing(min_lesion_mm3=1e6)
    labels = segment_volume(grey_steps(), None, models, post, known_liver=known, probabilities=kept)
    assert not (labels == 2).any()
    assert list(kept) == ["tumor"]
    assert set(np.unique(kept["tumor"][:3])) == {102}  # 0.4 of 255, in the slices in reach
    assert not kept["tumor"][3].any()  # nobody looked there


def test_labels_are_the_same_whether_or_not_probabilities_are_kept():
    given = grey_steps(), liver_model(), tumor_model(0.7), Postprocessing(margin_mm=0)
    plain = segment_volume(*given)
    assert plain.max() == 2
    np.testing.assert_array_equal(segment_volume(*given, probabilities={}), plain)


@pytest.mark.parametrize("orientation", ORIENTATIONS[::9])
def test_a_file_lies_on_the_ct_and_other_programs_read_0_to_1(tmp_path, orientation):
    shape = (5, 6, 7)
    values = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    ct = read_volume(write_nifti(np.zeros(shape, np.int16), tmp_path / "ct.nii", orientation))
    path = write_probability(values, ct, tmp_path / "p.nii.gz")
    image = nib.load(path)
    assert image.header.get_data_dtype() == np.uint8
    assert image.header["descrip"].tobytes().startswith(b"probability: stored / 255")
    np.testing.assert_array_equal(image.affine, nib.load(tmp_path / "ct.nii").affine)
    np.testing.assert_allclose(image.get_fdata(), stored_as(values, orientation) / 255, atol=1e-6)
    np.testing.assert_array_equal(read_probability(path, ct), values)


def test_a_probability_of_another_grid_or_type_is_refused(tmp_path):
    ct = read_volume(write_nifti(np.zeros((5, 6, 7), np.int16), tmp_path / "ct.nii"))
    with pytest.raises(ValueError, match=r"must be \(5, 6, 7\) uint8 .* got \(5, 6, 7\) float64"):
        write_probability(np.zeros((5, 6, 7)), ct, tmp_path / "p.nii.gz")
    other = write_nifti(np.zeros((5, 6, 7), np.uint8), tmp_path / "o.nii", spacing_mm=(5, 1, 1))
    with pytest.raises(ValueError, match=r"o\.nii is no probability on the grid of .*ct\.nii"):
        read_probability(other, ct)


def test_files_lie_beside_the_prediction_and_are_no_prediction_and_no_ct(tmp_path):
    write_ct(tmp_path / "raw" / "volume-0.nii", slice_index=1)
    models = bright_model(), tumor_model(0.7)
    out = tmp_path / "raw" / "out"
    report = segment_below(tmp_path / "raw", out, *models, probabilities=True)
    assert NAMES < {path.name for path in out.iterdir()}
    (prediction,) = report.written.values()
    assert list(find_predictions(out).values()) == [prediction]
    assert [case.id for case in find_volumes(tmp_path / "raw")] == ["0"]
    assert label_id(probability_path(tmp_path / "labels.nii.gz", "liver")) is None
    found = read_probabilities(prediction, read_volume(tmp_path / "raw" / "volume-0.nii"))
    assert found["liver"].max() == 255
    assert found["tumor"].max() in (178, 179)  # 0.7 of 255 is 178.5


def test_predictions_without_their_probabilities_are_made_again_and_old_ones_removed(tmp_path):
    write_ct(tmp_path / "raw" / "volume-0.nii", slice_index=1)
    out = tmp_path / "out"

    def segment(half=0.5, **options):
        return len(segment_below(tmp_path / "raw", out, bright_model(half), **options).written)

    assert segment() == 1
    assert segment(probabilities=True) == 1
    assert segment(probabilities=True) == segment() == 0
    path = out / "prediction-volume-0_liver_probability.nii.gz"
    path.write_bytes(b"cut")
    assert segment(probabilities=True) == 1
    assert segment(0.55, take_over=True) == 1
    assert not path.exists()  # they were another model's


def test_a_file_that_no_record_lists_is_never_removed(tmp_path):
    ct = write_ct(tmp_path / "raw" / "volume-0.nii", slice_index=1)
    foreign = [
        tmp_path / "labels_liver_probability.nii.gz",
        tmp_path / "out" / "prediction-volume-0_tumor_probability.nii.gz",
    ]
    (tmp_path / "out").mkdir()
    for path in foreign:
        path.write_bytes(b"mine")
    lits_helpers.segment(ct, bright_model(), None, tmp_path / "labels.nii.gz")
    for probabilities in (True, False):
        write_ct(ct, slice_index=1 + probabilities)
        report = segment_below(
            ct.parent, tmp_path / "out", bright_model(), probabilities=probabilities
        )
        assert report.written
    assert [path.read_bytes() for path in foreign] == [b"mine", b"mine"]
    assert not (tmp_path / "out" / "prediction-volume-0_liver_probability.nii.gz").exists()


def test_the_front_door_carries_and_saves_them_on_request(tmp_path):
    ct = write_ct(tmp_path / "ct.nii.gz", slice_index=1)
    assert lits_helpers.segment(ct, bright_model(), None).probabilities == {}
    out = tmp_path / "mine.nii.gz"
    made = lits_helpers.segment(ct, bright_model(), None, out, probabilities=True)
    saved = read_probability(tmp_path / "mine_liver_probability.nii.gz", made.volume)
    np.testing.assert_array_equal(saved, made.probabilities["liver"])
    np.testing.assert_array_equal(saved >= 128, made.labels == 1)
    mine = tmp_path / "mine_tumor_probability.nii.gz"
    mine.write_bytes(b"of another program")
    lits_helpers.segment(ct, bright_model(0.55), None, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct.nii.gz", out.name, mine.name]
