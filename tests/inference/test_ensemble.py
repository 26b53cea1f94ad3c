"""Several models: their probabilities are averaged, whatever size each sees, and all are named."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.grey_models import bright_model, segment_below, write_ct
from helpers.logs import logged
from torch import nn

from lits_helpers.checkpoints import LiverModel, Origin, TumorModel
from lits_helpers.inference import Postprocessing, segment_volume
from lits_helpers.machine import read_json
from lits_helpers.recipes import InputSpec
from lits_helpers.volumes import volume_from_array

SPEC = InputSpec(size=64, window=(-200, 300))
PLAIN = Postprocessing(largest_liver=False, fill_holes=False, min_lesion_mm3=0)


class Columns(nn.Module):
    """Answers `value` in a share of the columns, 0 elsewhere."""

    def __init__(self, first, last, value):
        super().__init__()
        self.first, self.last, self.value = first, last, value
        self.anchor = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        answer = torch.zeros_like(images[:, :1])
        width = images.shape[-1]
        answer[..., int(self.first * width) : int(self.last * width)] = self.value
        return answer


def liver(first, last, value=1.0, spec=SPEC):
    return LiverModel(Columns(first, last, value), spec, Origin("liver", spec, ()))


def fat(shape=(3, 64, 64)):
    hu = np.full(shape, -100, np.int16)
    hu[0, 0, 0] = -1000
    return volume_from_array(hu, (5.0, 0.7, 0.8))


def marked_columns(labels):
    assert (labels == labels[:1, :1]).all()
    return np.flatnonzero(labels[0, 0]).tolist()


def test_a_voxel_counts_where_the_mean_of_the_models_reaches_the_threshold():
    models = [liver(0, 0.5, 0.9), liver(0.25, 0.75, 0.2)]  # means .45, .55, .1
    assert marked_columns(segment_volume(fat(), models, post=PLAIN)) == list(range(16, 32))
    loose = replace(PLAIN, liver_threshold=0.4)
    assert marked_columns(segment_volume(fat(), models, post=loose)) == list(range(32))


def test_models_of_other_sizes_are_averaged_on_the_slice_itself():
    models = [liver(0, 0.5), liver(0.25, 0.75, spec=replace(SPEC, size=32))]
    both = replace(PLAIN, liver_threshold=0.9)
    assert marked_columns(segment_volume(fat(), models, post=both)) == list(range(17, 32))
    one = replace(PLAIN, liver_threshold=0.3)
    assert marked_columns(segment_volume(fat(), models, post=one)) == list(range(48))


def test_one_model_given_twice_gives_what_it_gives_alone():
    noise = np.random.default_rng(0).integers(-150, 250, (3, 40, 64)).astype(np.int16)
    model, volume = bright_model(), volume_from_array(noise, (5.0, 0.7, 0.8))
    alone = segment_volume(volume, model, post=PLAIN)
    assert 0.1 < alone.mean() < 0.9
    np.testing.assert_array_equal(segment_volume(volume, [model, model], post=PLAIN), alone)


def test_outside_its_own_frame_a_tumor_model_says_no():
    hu = fat().hu.copy()
    hu[:, 8:24, 8:24] = 100
    spec = replace(SPEC, liver_margin=0.1)
    everywhere = [
        TumorModel(Columns(0, 1, 20.0), each, Origin("tumor", each, ())) for each in (SPEC, spec)
    ]
    post = replace(PLAIN, margin_mm=60.0, tumor_threshold=0.9)
    known = (hu == 100).astype(np.uint8)
    volume = volume_from_array(hu, (5.0, 0.7, 0.8))
    labels = segment_volume(volume, None, everywhere, post, known_liver=known)
    assert set(np.flatnonzero((labels[1] == 2).any(axis=0))) == set(range(6, 26))  # 16 + 2 * 2


def test_the_disagreement_is_the_disputed_share_of_what_any_model_marks(caplog):
    with caplog.at_level(logging.INFO, logger="lits_helpers"):
        segment_volume(fat(), liver(0, 0.5), post=PLAIN)
        assert not caplog.records
        segment_volume(fat(), [liver(0, 0.5), liver(0.25, 0.75)], post=PLAIN)
    assert logged(caplog, "liver: models and turned views disagree in 67 %")  # 32 of 48 columns


def test_models_of_two_systems_cannot_be_averaged():
    with pytest.raises(TypeError, match=r"must be a tumor model.*got a liver model"):
        segment_volume(fat(), None, [liver(0, 1)])
    with pytest.raises(ValueError, match="needs a liver model, a tumor model or both"):
        segment_volume(fat(), [], [])


def test_the_record_of_a_prediction_names_every_model(tmp_path):
    write_ct(tmp_path / "raw" / "volume-0.nii")
    models = [bright_model(), bright_model(0.55)]
    segment_below(tmp_path / "raw", tmp_path / "out", models)
    record = read_json(tmp_path / "out" / "prediction-volume-0.nii.gz.json")
    assert len({model["weights"] for model in record["liver"]}) == 2
    again = segment_below(tmp_path / "raw", tmp_path / "out", models[::-1])
    assert (len(again.present), len(again.written)) == (1, 0)
    with pytest.raises(ValueError, match="liver differ"):
        segment_below(tmp_path / "raw", tmp_path / "out", models[0])
