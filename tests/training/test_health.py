"""A training that goes wrong: told with its cure, and what was saved stays."""

from types import SimpleNamespace

import pytest
import torch
from helpers.logs import logged
from helpers.small_runs import SPLIT, small_liver

from lits_helpers.checkpoints import load_checkpoint
from lits_helpers.training import TrainingDivergedError, engine, health, train_liver_gan
from lits_helpers.training.optimization import Precision
from lits_helpers.training.systems import LiverSystem


def test_nan_stops_within_the_epoch_and_keeps_what_was_saved(slices, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "LOOK_SECONDS", 0.0)
    plain = LiverSystem.step

    def broken(system, images, labels, weight):
        losses = plain(system, images, labels, weight)
        calls.append(1)
        return losses * float("nan") if len(calls) == 4 else losses

    calls = []
    monkeypatch.setattr(LiverSystem, "step", broken)
    with pytest.raises(TrainingDivergedError, match=r"g_loss.*epoch 2.*lower learning_rate"):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")
    assert len(calls) == 4
    best = load_checkpoint(tmp_path / "checkpoints" / "best_model.pth")
    assert all(torch.isfinite(tensor).all() for tensor in best["model"].values())


def test_collapse_of_the_dice_is_told_with_what_to_try(caplog):
    fallen = SimpleNamespace(dice=0.1, predicted_pixels=9)
    silent = SimpleNamespace(dice=0.0, predicted_pixels=0)
    assert health.warn_of_collapse(fallen, 0.8, 5, small_liver())
    assert logged(caplog, "epoch 5", "0.800", "0.100", "try")
    assert health.warn_of_collapse(silent, 0.1, 5, small_liver(name="original"))
    assert logged(caplog, "epoch 5", "nothing", 'try head="sigmoid"')
    assert not health.warn_of_collapse(
        SimpleNamespace(dice=0.75, predicted_pixels=9), 0.8, 5, small_liver()
    )


@pytest.mark.parametrize(("scale", "warns"), [(65536.0, False), (0.5, True)])
def test_steps_that_fp16_leaves_out_are_told(scale, warns, caplog):
    precision = Precision(torch.device("cpu"), "fp16")
    precision.scaler.load_state_dict({**precision.scaler.state_dict(), "scale": scale})
    health.warn_of_skipped_steps(precision, 3)
    assert bool(logged(caplog, "epoch 3", 'precision="fp32"')) is warns
    health.warn_of_skipped_steps(Precision(torch.device("cpu"), "bf16"), 4)
    assert not logged(caplog, "epoch 4")


def test_too_little_memory_names_the_setting_and_a_value(slices, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(LiverSystem, "step", full)
    with pytest.raises(MemoryError, match=r"batch_size=4 at size=32: set batch_size=2"):
        train_liver_gan(slices, tmp_path, SPLIT, small_liver(), device="cpu")


def test_other_errors_are_not_taken_for_too_little_memory():
    with pytest.raises(RuntimeError, match="shapes differ"), health.memory_advice(small_liver()):
        raise RuntimeError("shapes differ")
