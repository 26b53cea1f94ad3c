"""Prepared cases and checkpoints small enough for tests of the steps around the models."""

from dataclasses import asdict
from functools import cache

import numpy as np
import torch

from helpers.drawn import body, write_case
from helpers.small_runs import small_liver, small_tumor
from lits_helpers.cases import find_cases
from lits_helpers.checkpoints import save_model
from lits_helpers.models import build_generator, build_segmenter
from lits_helpers.preprocess import open_prepared, prepare

VARIABLES = [
    f"LITS_{name}" for name in ("TINY", "SOURCE", "RAW", "LAYOUT", "PREPARED", "RUNS", "DEVICE")
]


def write_raw(root, cases=3, without_tumor=()):
    """Write drawn abdomens in the Kaggle layout, each with noise of its own."""
    for number in range(cases):
        hu, labels = body()
        hu += np.int16(number)
        if number in without_tumor:
            labels = np.minimum(labels, 1)
        write_case(root, number, hu, labels, orientation=("LPS", "RAS", "PSR")[number % 3])
    return root


def write_prepared(root, cases=3, without_tumor=()):
    """Prepare drawn abdomens; return them with a third of the patients validating."""
    raw = write_raw(root / "raw", cases, without_tumor)
    prepare(find_cases(raw), root / "prepared", workers=0, png=False)
    return open_prepared(root / "prepared", validation=0.4)


@cache
def untrained_tumor(recipe):
    """Return random weights, made once for all tests: a RegNet takes long to draw."""
    return build_segmenter(recipe).state_dict()


def write_checkpoint(path, system, training_ids=(), recipe=None, network=True, data=None):
    """Write an untrained model as a training leaves it; without network it only says its origin."""
    recipe = recipe or (small_liver() if system == "liver" else small_tumor())
    model = {}
    if network:
        liver = system == "liver"
        model = build_generator(recipe).state_dict() if liver else untrained_tumor(recipe)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"system": system, "recipe": asdict(recipe), "model": model}
    content |= {"training_ids": list(training_ids), "validation_ids": [], "data": data or {}}
    save_model(path, content | {"epoch": 1, "validation_dice": 0.5})
    return path


def a_model(system="liver"):
    """Return what a checkpoint holds, with one small weight."""
    return {
        "system": system,
        "recipe": {"name": "default"},
        "model": {"weight": torch.arange(6.0).view(2, 3)},
        "training_ids": ["0", "1"],
        "validation_ids": ["2"],
        "epoch": 3,
        "validation_dice": 0.8,
    }
