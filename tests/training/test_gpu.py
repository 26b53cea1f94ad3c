"""What only a CUDA device shows; by hand: ``python -m pytest -m gpu``."""

import gc
import logging

import numpy as np
import pytest
import torch
from helpers.logs import logged
from helpers.small_runs import CPU, SPLIT, TUMOR_SPLIT, small_liver, small_tumor, stopping_after

from lits_helpers.cases import find_cases
from lits_helpers.checkpoints import load_liver_model, load_tumor_model
from lits_helpers.datasets import Augmentation, SliceCache
from lits_helpers.inference import segment_volume
from lits_helpers.training import train_liver_gan, train_tumor_regnet
from lits_helpers.training.optimization import Precision
from lits_helpers.training.systems import LiverSystem, TumorSystem
from lits_helpers.volumes import read_volume

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
GPU = torch.device("cuda")


@pytest.fixture(scope="module")
def precise():
    """Convolutions in float32 proper, so that both devices can be compared."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield
    torch.backends.cudnn.allow_tf32 = before


def trained(system, slices, volumes, run, **options):
    """Train a small recipe of a system on the GPU; return its history."""
    name, epochs = options.pop("name", "default"), options.pop("epochs", 3)
    changes = options.pop("changes", {})
    if system == "liver":
        recipe = small_liver(name=name, epochs=epochs, **changes)
        return train_liver_gan(slices, run, SPLIT, recipe, device=GPU, **options)
    recipe = small_tumor(epochs=epochs, **changes)
    return train_tumor_regnet(volumes, run, TUMOR_SPLIT, recipe, device=GPU, **options)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("system", ["liver", "tumor"])
def test_losses_fall_in_every_precision(system, precision, slices, volumes, tmp_path):
    history = trained(system, slices, volumes, tmp_path, precision=precision, epochs=6)
    loss = "pixel_loss" if system == "liver" else "loss"
    assert history[-1][loss] < history[0][loss]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(
    ("system", "name"), [("liver", "default"), ("liver", "original"), ("tumor", "default")]
)
def test_compiled_training_is_the_plain_one(
    system, name, precision, slices, volumes, tmp_path, caplog
):
    """The third training finds compiled code in torch's cache, as a resumed one does."""
    plain, *compiled = (
        trained(
            system, slices, volumes, tmp_path / str(n), name=name, compiled=how, precision=precision
        )
        for n, how in enumerate(("never", "always", "always"))
    )
    assert not logged(caplog, "torch.compile")
    loss = "pixel_loss" if system == "liver" else "loss"
    for history in compiled:
        for row, plain_row in zip(history, plain, strict=True):
            assert row[loss] == pytest.approx(plain_row[loss], rel=0.05)


def test_resumed_training_agrees_within_a_hundredth(slices, tmp_path, monkeypatch):
    whole = trained("liver", slices, None, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stopping_after(patch, 4)
        trained("liver", slices, None, tmp_path / "parts")
    parts = trained("liver", slices, None, tmp_path / "parts")
    assert parts[-1]["g_loss"] == pytest.approx(whole[-1]["g_loss"], rel=0.01)


def test_both_devices_make_the_same_batch(volumes):
    spec = small_tumor().spec
    limits = Augmentation(fatty_liver=0.4, bright_lesions=0.5)
    batches = []
    for device in (CPU, GPU):
        cache = SliceCache(volumes, ("0", "1"), spec, device=device)
        random = torch.Generator().manual_seed(0)
        batches.append(cache.batch(range(len(cache)), augment=limits, generator=random))
    (images, labels), (others, other_labels) = batches
    assert others.device.type == other_labels.device.type == "cuda"
    assert (images - others.cpu()).abs().quantile(0.999) < 1e-3
    assert (labels == other_labels.cpu()).float().mean() > 0.999


@pytest.mark.parametrize("system", ["liver", "tumor"])
def test_both_devices_take_the_same_steps(system, precise):
    """Three steps in float32; the weights started from are the same."""
    make, recipe = (
        (LiverSystem, small_liver()) if system == "liver" else (TumorSystem, small_tumor())
    )
    random = torch.Generator().manual_seed(0)
    images = torch.rand(8, 3, 64, 64, generator=random)
    labels = torch.randint(3, (8, 64, 64), generator=random).to(torch.uint8)
    losses = []
    for device in (CPU, GPU):
        torch.manual_seed(0)
        system = make(recipe, device, Precision(device, "fp32"))
        system.train()
        losses.append([system.step(images.to(device), labels.to(device)).cpu() for _ in range(3)])
    assert torch.allclose(torch.stack(losses[0]), torch.stack(losses[1]), rtol=0.01, atol=1e-4)


def test_both_devices_segment_alike(slices, volumes, tmp_path):
    trained("liver", slices, volumes, tmp_path / "liver", epochs=8)
    trained("tumor", slices, volumes, tmp_path / "tumor", epochs=8)
    volume = read_volume(find_cases(volumes)[2].volume)
    labels = []
    for device in (CPU, GPU):
        models = (
            load(tmp_path / name / "checkpoints" / "best_model.pth", device)
            for name, load in (("liver", load_liver_model), ("tumor", load_tumor_model))
        )
        labels.append(segment_volume(volume, *models))
    assert labels[0].any()
    assert np.mean(labels[0] != labels[1]) < 0.01


def test_too_little_memory_is_answered_with_a_cure(slices, tmp_path):
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.002)
    recipe = small_liver(width=256, critic_width=64)
    try:
        with pytest.raises(MemoryError, match="set batch_size=2 "):
            train_liver_gan(slices, tmp_path, SPLIT, recipe, device=GPU)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_training_leaves_no_memory_taken(slices, volumes, tmp_path, caplog):
    caplog.set_level(logging.INFO, "lits_helpers")
    options = {"epochs": 1, "changes": {"width": 32}}
    trained("liver", slices, volumes, tmp_path / "first", **options)
    gc.collect()
    before = torch.cuda.memory_allocated()
    trained("liver", slices, volumes, tmp_path / "second", **options)
    gc.collect()
    assert logged(caplog, "cached", "cuda")
    assert torch.cuda.memory_allocated() <= before + 2**20
