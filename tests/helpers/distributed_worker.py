"""What the processes of test_distributed.py do."""

import json
import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import torch

from lits_helpers.datasets import SliceCache, cache
from lits_helpers.recipes import InputSpec, liver_recipe
from lits_helpers.training import engine, train_liver_gan
from lits_helpers.training.distributed import Ranks, joined_ranks
from lits_helpers.training.optimization import Precision
from lits_helpers.training.stopping import Stopwatch
from lits_helpers.training.systems import LiverSystem

CPU = torch.device("cpu")
SPLIT = SimpleNamespace(training=("0", "1", "2"), validation=("3", "4", "5"), test=())
torch.set_num_threads(1)
logging.basicConfig(level=logging.INFO, stream=sys.stdout)


def recipe(**changes):
    """A recipe without augmentation: what a slice becomes must not depend on its rank."""
    small = {"width": 4, "critic_width": 4, "epochs": 2, "batch_size": 4, "augment": False}
    spec = InputSpec(size=32, window=(-200, 300))
    return liver_recipe(spec=spec, learning_rate=0.01, **(small | changes))


def write_slices(folder: Path) -> Path:
    """Three training cases of three slices, three validation cases of 3, 3 and 4."""
    root, rank = folder / "slices", int(os.environ.get("RANK", "0"))
    if rank == 0 and not (root / "ready").exists():
        generator = np.random.default_rng(0)
        for case, slices in enumerate((3, 3, 3, 3, 3, 4)):
            for kind in ("images", "masks"):
                (root / kind / str(case)).mkdir(parents=True)
            for k in range(slices):
                mask = np.zeros((40, 48), np.uint8)
                cv2.ellipse(mask, (16 + 2 * case, 18 + k), (11, 8), 0, 0, 360, 255, -1)
                image = (generator.integers(40, 80, mask.shape) + mask // 2).astype(np.uint8)
                cv2.imwrite(str(root / "images" / str(case) / f"{k}.png"), image)
                cv2.imwrite(str(root / "masks" / str(case) / f"{k}.png"), mask)
        (root / "ready").touch()
    while not (root / "ready").exists():
        pass
    return root


def gradients(folder: Path) -> None:
    """Save the gradients of one step on a global batch of five.

    Batch norm runs with its stored statistics and Dice, which is taken over a whole batch, is left
    out: each process knows its own part only.
    """
    setting = recipe(dice_weight=0.0)
    with joined_ranks(CPU) as (ranks, device):
        torch.manual_seed(0)
        system = LiverSystem(setting, device, Precision(device, "fp32"), ranks)
        system.generator.eval()
        slices = SliceCache(write_slices(folder), SPLIT.training, setting.spec)
        part, weight = ranks.share(torch.arange(5))
        system.step(*slices.batch(part), weight)
        found = {}
        for part_name in ("generator", "critic"):
            for name, parameter in getattr(system, part_name).named_parameters():
                found[f"{part_name}.{name}"] = parameter.grad
        if ranks.writes:
            torch.save(found, folder / f"gradients_{ranks.world}.pth")


def whole_training(folder: Path) -> None:
    """Train two epochs; write which slices this process saw, and two validations.

    The second process has no memory for its slices, so all of them map what the first decodes.
    """
    rank, seen = int(os.environ["RANK"]), []
    plain_batch, plain_step = SliceCache.batch, LiverSystem.step
    plain_score = engine.validation_score
    asked = []

    def noted_batch(cache, indices, **options):
        asked.append(indices)
        return plain_batch(cache, indices, **options)

    def noted_step(system, images, labels, weight=1.0):
        seen.append([asked[-1].tolist(), weight])
        return plain_step(system, images, labels, weight)

    def checked_score(predict, target, validation, ranks):
        scores = {"two": plain_score(predict, target, validation, ranks)}
        scores["one"] = plain_score(predict, target, validation, Ranks())
        if rank == 0:
            dice = {name: score.dice for name, score in scores.items()}
            (folder / "validation.json").write_text(json.dumps(dice))
        return scores["two"]

    if rank == 1:
        cache.free_memory_bytes = lambda: 1000
    SliceCache.batch, LiverSystem.step = noted_batch, noted_step
    engine.validation_score = checked_score
    train_liver_gan(write_slices(folder), folder / "run", SPLIT, recipe(), device="cpu")
    (folder / f"seen_{rank}.json").write_text(json.dumps(seen))


def first_half(folder: Path) -> None:
    """Train until the first epoch is over, then stop."""
    calls = []

    def over(_watch):
        calls.append(1)
        return len(calls) > 4

    Stopwatch.over = over
    train_liver_gan(write_slices(folder), folder / "run", SPLIT, recipe(), device="cpu")


def endless_training(folder: Path) -> None:
    """Train until killed."""
    root = write_slices(folder)
    (folder / f"pid_{os.environ['RANK']}").write_text(str(os.getpid()))
    train_liver_gan(root, folder / "run", SPLIT, recipe(epochs=100000), device="cpu")
