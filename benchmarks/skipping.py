"""What inference gains where it looks at few slices for the liver, and whether a label changes.

    python benchmarks/skipping.py [--slices 500] [--rounds 2] [--float32] [--peak]

The liver model that comes with the project segments every scan under LITS_REAL and a trunk, file to
file: once looking at all slices, once at as few as the largest component takes (`mark_largest`).
The trunk is the first scan at half its spacing, between repetitions of its slices without liver.
Least wall and processor seconds of the rounds. With --peak the trunk alone, in a process of its
own, with the peak of its resident memory.
"""

import argparse
import multiprocessing
import os
import re
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.contention import machine  # noqa: E402
from lits_helpers.cases import find_cases  # noqa: E402
from lits_helpers.checkpoints import load_liver_model  # noqa: E402
from lits_helpers.inference import ensemble, segment, segment_file  # noqa: E402
from lits_helpers.settings import real_data  # noqa: E402
from lits_helpers.volumes import read_segmentation, read_volume  # noqa: E402

WAYS = {"all": (1,), "few": segment.STEPS}


def without_bfloat16() -> None:
    ensemble.amp_dtype = lambda _: torch.float32


def write_trunk(folder: Path, depth: int) -> Path:
    """Write the first scan at half its spacing, slices without liver repeated around it."""
    case = find_cases(real_data() / "lits")[0]
    volume = read_volume(case.volume)
    holds = read_segmentation(case.segmentation, like=volume).any(axis=(1, 2))
    liver = np.repeat(np.flatnonzero(holds), 2)
    there, back = np.flatnonzero(~holds), np.flatnonzero(~holds)[::-1]
    rest = np.resize([*there, *back], depth - len(liver))
    order = [*rest[: len(rest) // 2], *liver, *rest[len(rest) // 2 :]]
    dz, dy, dx = volume.spacing_mm
    image = nib.Nifti1Image(volume.hu[order].transpose(2, 1, 0), np.diag([-dx, -dy, dz / 2, 1]))
    nib.save(image, folder / "trunk.nii.gz")
    return folder / "trunk.nii.gz"


def compare(name: str, path: Path, folder: Path, rounds: int) -> None:
    """Print seconds of both ways and how many labels differ."""
    model = load_liver_model("synthetic", "cpu")
    took = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, steps in WAYS.items():
            segment.STEPS = steps
            wall, processor = time.perf_counter(), time.process_time()
            segment_file(path, folder / f"{way}.nii.gz", model)
            took[way].append((time.perf_counter() - wall, time.process_time() - processor))
    labels = {way: np.asarray(nib.load(folder / f"{way}.nii.gz").dataobj) for way in WAYS}
    best = {way: np.min(times, axis=0) for way, times in took.items()}
    shown = " ".join(f"{wall:9.2f}{processor:8.2f}" for wall, processor in best.values())
    wall, processor = best["all"] / best["few"]
    differing = np.count_nonzero(labels["all"] != labels["few"])
    print(
        f"{name:12}{labels['all'].shape[2]:5} {shown}{wall:8.2f}{processor:8.2f}{differing:8}",
        flush=True,
    )


def print_peak(path: Path, float32: bool) -> None:
    """Segment a file; print seconds, and the peak resident memory of this process."""
    if float32:
        without_bfloat16()
    started = time.perf_counter(), time.process_time()
    segment_file(path, path.with_name("few.nii.gz"), load_liver_model("synthetic", "cpu"))
    wall, processor = time.perf_counter() - started[0], time.process_time() - started[1]
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(
        f"{path.name}, {read_volume(path).hu.shape}: {wall:.1f} s, {processor:.1f} s of the "
        f"processor, peak {int(peak[1]) / 2**20:.2f} GiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=500, help="of the trunk")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--float32", action="store_true", help="as where bfloat16 is not native")
    parser.add_argument("--peak", action="store_true", help="the trunk alone, and its memory")
    options = parser.parse_args()
    if options.float32:
        without_bfloat16()
    print(machine(), os.environ.get("ATEN_CPU_CAPABILITY", ""))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        trunk = write_trunk(folder, options.slices)
        if options.peak:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
                alone.submit(print_peak, trunk, options.float32).result()
            return
        print(f"{'':17} {'all: wall':>9}{'proc.':>8} {'few: wall':>9}{'proc.':>8}{'wall':>8}")
        for root in ("lits", "lits14"):
            for case in find_cases(real_data() / root):
                compare(f"{root} {case.id}", case.volume, folder, options.rounds)
        compare("trunk", trunk, folder, options.rounds)


if __name__ == "__main__":
    main()
