"""Kill a training with SIGKILL at random moments, restart it each time, and compare the bits.

    python benchmarks/kill_training.py --kills 20

A small liver GAN is trained on generated slices: once undisturbed, then again in a process that is
killed and restarted. It saves after every step, so that many kills hit a write. On the CPU the
final weights, the best model and the history (its clock columns aside) must agree to the bit.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lits_helpers.recipes import InputSpec, liver_recipe
from lits_helpers.training import stopping, train_liver_gan
from lits_helpers.training.engine import Trainer
from lits_helpers.training.run_folder import CLOCK_COLUMNS, RunFolder, read_history

CASES, SLICES = 6, 4
SPLIT = SimpleNamespace(training=("0", "1", "2", "3"), validation=("4", "5"), test=())


def write_slices(root: Path) -> None:
    """Write images/<case>/<k>.png of noise with a brighter ellipse, and masks/<case>/<k>.png."""
    generator = np.random.default_rng(0)
    for case in range(CASES):
        for kind in ("images", "masks"):
            (root / kind / str(case)).mkdir(parents=True)
        for k in range(SLICES):
            mask = np.zeros((40, 48), np.uint8)
            cv2.ellipse(mask, (16 + case, 18 + k), (9, 6), 20 * k, 0, 360, 255, -1)
            image = generator.integers(40, 90, mask.shape) + mask // 3
            cv2.imwrite(str(root / "images" / str(case) / f"{k}.png"), image.astype(np.uint8))
            cv2.imwrite(str(root / "masks" / str(case) / f"{k}.png"), mask)


def train(root: Path, run: Path, epochs: int) -> list[dict]:
    """Train, or go on training, with a checkpoint after every step."""
    stopping.SAVE_SECONDS = 0.0
    torch.set_num_threads(1)
    recipe = liver_recipe(
        spec=InputSpec(size=32, window=(-200, 300)),
        width=4,
        critic_width=4,
        epochs=epochs,
        batch_size=3,
        ema=0.9,
    )
    return train_liver_gan(root, run, SPLIT, recipe, device="cpu")


def live(
    root: Path, run: Path, epochs: int, kill_at: int | None = None, delay: float = 0.0
) -> bool:
    """Train in a forked process; return whether it came to its end.

    Args:
        kill_at: send SIGKILL `delay` seconds after this step of the whole training began.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _train_and_exit(root, run, epochs, writer)
    os.close(writer)
    with open(reader, "rb") as steps:
        while kill_at is not None and (step := steps.read(2)):
            if int.from_bytes(step, "big") >= kill_at:
                time.sleep(delay)
                os.kill(child, signal.SIGKILL)
                break
        _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("the training failed, see above")
    return os.WIFEXITED(status)


def _train_and_exit(root: Path, run: Path, epochs: int, writer: int) -> None:
    plain_step = Trainer._step

    def told_step(trainer, *arguments):
        os.write(writer, trainer.at.steps.to_bytes(2, "big"))
        plain_step(trainer, *arguments)

    Trainer._step = told_step
    RunFolder.draw_curve = lambda *_: None  # takes longer than the steps, and is not compared
    try:
        train(root, run, epochs)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def differences(one: Path, other: Path) -> list[str]:
    """Return what differs between two runs: tensors of the state and the best model, history."""
    found = []
    for name in ("last.pth", "best_model.pth"):
        states = [torch.load(run / "checkpoints" / name, weights_only=True) for run in (one, other)]
        found += [f"{name}: {path}" for path in _unequal(*states)]
    rows = [read_history(run / "history.csv") for run in (one, other)]
    return found + [f"history.csv: {path}" for path in _unequal(*rows)]


def _unequal(a, b, path: str = ""):
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(set(a) | set(b), key=str):
            if key not in CLOCK_COLUMNS:
                yield from _unequal(a.get(key), b.get(key), f"{path}/{key}")
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        for position, pair in enumerate(zip(a, b, strict=True)):
            yield from _unequal(*pair, f"{path}/{position}")
    elif isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if not torch.equal(a, b):
            yield path
    elif a != b:
        yield path


def main(kills: int, epochs: int, seed: int) -> int:
    """Return 0 if both trainings agree to the bit."""
    with tempfile.TemporaryDirectory() as folder:
        root, calm, stormy = (Path(folder) / name for name in ("slices", "calm", "stormy"))
        write_slices(root)
        torch.optim.Adam([torch.zeros(1)])  # imports what each forked training would import anew
        live(root, calm, epochs)
        steps = read_history(calm / "history.csv")[-1]["steps"]
        moments = random.Random(seed)
        targets = sorted(moments.randrange(3 * steps // 4) for _ in range(kills))
        # A step with its checkpoint takes about 30 ms, the end of an epoch about 100.
        lives = [live(root, stormy, epochs, step, moments.uniform(0, 0.1)) for step in targets]
        live(root, stormy, epochs)
        found = differences(calm, stormy)
    killed = lives.count(False)
    print(f"{killed} kills in a training of {steps} steps")
    print("bit-identical" if not found else "DIFFERENT: " + ", ".join(found[:10]))
    return 1 if found or not killed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.exit(main(options.kills, options.epochs, options.seed))
