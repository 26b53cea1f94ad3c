"""Measure how soon a liver GAN reaches a validation Dice of 0.80: published against default.

    python benchmarks/time_to_dice.py --slices DIR

DIR holds images/<case>/<k>.png and masks/<case>/<k>.png. Both recipes train at width 16 on the same
patient split in the same run, validated once an epoch over whole patients. The clock runs from the
first line, so compilation, decoding and validation count; it stops when the mean of three
consecutive validations reaches 0.80 Dice per case. The published form takes the published step
(`step.py`); slices come from the cache for both, which favours the published form.
"""

import argparse
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.step import PublishedStep
from lits_helpers.cases import split_cases
from lits_helpers.datasets import SliceCache, augmentation_of, epoch_order
from lits_helpers.environment import choose_device
from lits_helpers.preprocess import prepared_cases
from lits_helpers.recipes import liver_recipe
from lits_helpers.training.optimization import Precision, learning_rate
from lits_helpers.training.systems import LiverSystem
from lits_helpers.training.validation import validation_score

GOAL, RUNNING = 0.80, 3


class Published(PublishedStep):
    """The published step with what the loop below asks of a system."""

    def train(self):
        self.generator.train()

    def best_module(self):
        return self.generator

    def predict(self, images, labels):
        return self.generator(images) >= 0.5

    def target(self, labels):
        return (labels >= 1).unsqueeze(1)


def validations(make_system, recipe, split, root, device, limit_s: float):
    """Train and yield (seconds since the start, validation Dice per case) after each epoch."""
    began = time.perf_counter()
    precision = Precision(device)
    caches = [SliceCache(root, ids, recipe.spec, device=device) for ids in split]
    torch.manual_seed(0)
    system = make_system(recipe, device, precision)
    for epoch in range(1, recipe.epochs + 1):
        system.train()
        batches = epoch_order(caches[0], recipe, seed=0, epoch=epoch).split(recipe.batch_size)
        for number, batch in enumerate(batches):
            rate = learning_rate(recipe, epoch - 1 + number / len(batches))
            for optimizer in system.optimizers:
                optimizer.param_groups[0]["lr"] = rate
            random = torch.Generator().manual_seed(1000 * epoch + number)
            system.step(*caches[0].batch(batch, augment=augmentation_of(recipe), generator=random))
        system.best_module().eval()
        with torch.inference_mode(), precision.autocast():
            score = validation_score(system.predict, system.target, caches[1])
        seconds = time.perf_counter() - began
        yield seconds, score.dice
        if seconds > limit_s:
            return


def seconds_to_goal(name: str, rows) -> float | None:
    """Print the validations; return the seconds until the goal, or None if it was not reached."""
    scores = []
    for seconds, dice in rows:
        scores.append(dice)
        mean = sum(scores[-RUNNING:]) / RUNNING
        print(f"{name}: epoch {len(scores)}, {seconds:.0f} s, Dice {dice:.3f}", flush=True)
        if len(scores) >= RUNNING and mean >= GOAL:
            return seconds
    return None


def main(root: Path, limit_s: float, compiled: bool, forms: list[str], epochs: int) -> None:
    """Print the seconds of both forms and their ratio."""
    device = choose_device()
    split = split_cases(prepared_cases(root), validation=0.25)
    parts = (split.training, split.validation)
    recipes = {
        "default": (LiverSystem, liver_recipe("default", width=16, epochs=epochs)),
        "published": (
            lambda recipe, device, precision: Published(recipe, device, precision, compiled),
            liver_recipe("original", width=16, epochs=100000),
        ),
    }
    taken = SimpleNamespace()
    for name in forms:
        rows = validations(*recipes[name], parts, root, device, limit_s)
        setattr(taken, name, seconds_to_goal(name, rows))
    for name, seconds in vars(taken).items():
        reached = f"{seconds:.0f} s" if seconds else f"not within {limit_s:.0f} s"
        print(f"{name}: {GOAL} Dice per case in {reached}")
    if len(forms) == 2 and taken.default:
        print(f"ratio: {(taken.published or limit_s) / taken.default:.1f}, at least")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=Path, required=True)
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds for each form")
    parser.add_argument("--epochs", type=int, default=20, help="of the default recipe's schedule")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--only", choices=("default", "published"))
    options = parser.parse_args()
    chosen = [options.only] if options.only else ["default", "published"]
    main(options.slices, options.limit, not options.no_compile, chosen, options.epochs)
