"""What the steps of the tiny liver training cost: the former recipe's against today's, in one run.

    python benchmarks/tiny.py [--rounds 5] [--precision fp32]
    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/tiny.py --precision fp32

Both take steps in turn, on one thread; seconds are those of the processor, the median of the
rounds. The phantoms of the tiny run have about 900 slices to train on.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lits_helpers.recipes import liver_recipe
from lits_helpers.training.optimization import Precision
from lits_helpers.training.systems import LiverSystem

FORMER = {"size": 160, "batch_size": 16, "learning_rate": 0.001, "epochs": 10}
SLICES = 900


def step_of(recipe, precision: Precision):
    """Return a call that takes a training step on a random batch."""
    system = LiverSystem(recipe, precision.device, precision)
    system.train()
    side = recipe.spec.size
    images = torch.rand(recipe.batch_size, recipe.spec.channels, side, side)
    labels = (images[:, 0] > 0.8).to(torch.uint8)
    return lambda: system.step(images, labels)


def main() -> None:
    """Print processor time an image and a training, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    torch.set_num_threads(1)
    precision = Precision(torch.device("cpu"), options.precision)
    recipes = {"former": liver_recipe(tiny=True, **FORMER), "today": liver_recipe(tiny=True)}
    steps = {name: step_of(recipe, precision) for name, recipe in recipes.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(options.rounds + 1):
        for name, step in steps.items():
            began = time.process_time()
            step()
            if number:  # the first warms up
                times[name].append(time.process_time() - began)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{torch.backends.cpu.get_cpu_capability()}, {precision.name}, one thread{load}")
    whole = {}
    for name, recipe in recipes.items():
        image = statistics.median(times[name]) / recipe.batch_size
        whole[name] = image * SLICES * recipe.epochs
        print(f"{name:<8}{1000 * image:7.1f} ms an image {whole[name]:7.0f} s in all steps")
    print(f"today's steps take {whole['today'] / whole['former']:.2f} of the former's time")


if __name__ == "__main__":
    main()
