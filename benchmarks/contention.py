"""How much slower training, inference and preparation become beside processes that want the cores.

    python benchmarks/contention.py [--seconds 8] [--rounds 3]

Each of three jobs runs alone, beside one and beside two processes that compute without end, in two
ways taken in turn: as torch comes (it is imported before `lits_helpers`, no variable is set) and as
this project starts it (`lits_helpers` first, so that threads soon sleep). The best round counts.

* step: a training step of the tiny liver network, 16 slices of 160x160, two threads;
* inference: 64 slices through the same network, a thread a core;
* preparation: four small phantoms, a process a core.
"""

import argparse
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WAYS = {"torch": "import torch", "ours": "import lits_helpers"}
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
JOBS = ("step", "inference", "preparation")
FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
BUSY = "while True: pass"


def measure(job: str, seconds: float) -> float:
    """Return the mean seconds of one repetition of a job, the first left out; in this process."""
    repeat = {"step": _step, "inference": _inference, "preparation": _preparation}[job]()
    repeat()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds or count < 2:
        repeat()
        count += 1
    return (time.perf_counter() - began) / count


def _step():
    import torch

    from lits_helpers.environment import choose_device
    from lits_helpers.recipes import liver_recipe
    from lits_helpers.training.optimization import Precision
    from lits_helpers.training.systems import LiverSystem

    recipe = liver_recipe(tiny=True)
    device = choose_device("cpu")
    system = LiverSystem(recipe, device, Precision(device))
    system.train()
    images = torch.rand(16, recipe.spec.channels, 160, 160)
    labels = (images[:, 0] > 0.5).to(torch.uint8)
    return lambda: system.step(images, labels, 1.0)


def _inference():
    import numpy as np

    from lits_helpers import volume_from_array
    from lits_helpers.checkpoints import LiverModel, Origin
    from lits_helpers.inference import segment_volume
    from lits_helpers.models import build_generator
    from lits_helpers.recipes import liver_recipe

    recipe = liver_recipe(tiny=True)
    origin = Origin("liver", recipe.spec, ())
    model = LiverModel(build_generator(recipe), recipe.spec, origin).eval()
    noise = np.random.default_rng(0).integers(-200, 300, (64, 160, 160))
    volume = volume_from_array(noise.astype(np.int16), (5.0, 2.0, 2.0))
    return lambda: segment_volume(volume, model)


def _preparation():
    import shutil
    import tempfile

    from lits_helpers import find_cases, prepare, write_phantom_dataset

    folder = Path(tempfile.mkdtemp(prefix="lits-contention-"))
    write_phantom_dataset(folder / "raw", cases=4, shape=(24, 128, 128), seed=0)

    def repeat():
        shutil.rmtree(folder / "out", ignore_errors=True)
        prepare(find_cases(folder / "raw"), folder / "out")

    return repeat


def run(way: str, job: str, busy: int, seconds: float) -> float:
    """Measure a job in a process of its own beside `busy` others."""
    code = f"{WAYS[way]}\nimport contention\nprint(contention.measure({job!r}, {seconds}))"
    inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    paths = os.pathsep.join((str(ROOT), str(ROOT / "benchmarks")))
    environment = {**inherited, "PYTHONPATH": paths, "TQDM_DISABLE": "1"}
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        for other in others:
            other.kill()
            other.wait()
    return float(done.stdout.split()[-1])


def machine() -> str:
    """Return the processor's features that matter here, its cores and its load."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        flags = set()
    known = ", ".join(name for name in FEATURES if name in flags) or "features unknown"
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    return f"{os.cpu_count()} cores, {known}; {load} when this began"


def main() -> None:
    """Print seconds of both ways, alone and beside others, and what the others cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", nargs="*", default=JOBS, choices=JOBS)
    options = parser.parse_args()
    print(machine())
    print(f"{'':24}{'alone':>9}{'beside 1':>10}{'beside 2':>10}{'1/alone':>9}{'2/alone':>9}")
    for job in options.jobs:
        found = defaultdict(list)
        for _ in range(options.rounds):
            for busy in (0, 1, 2):
                for way in WAYS:
                    found[way, busy].append(run(way, job, busy, options.seconds))
        best = {key: min(values) for key, values in found.items()}
        for way in WAYS:
            alone, one, two = (best[way, busy] for busy in (0, 1, 2))
            times = f"{alone:9.3f}{one:10.3f}{two:10.3f}{one / alone:9.2f}{two / alone:9.2f}"
            print(f"{job + ', ' + way:24}{times}", flush=True)
        ratios = [best["ours", busy] / best["torch", busy] for busy in (0, 1, 2)]
        print(f"{job + ', ours/torch':24}{ratios[0]:9.2f}{ratios[1]:10.2f}{ratios[2]:10.2f}")


if __name__ == "__main__":
    main()
