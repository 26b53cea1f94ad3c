"""Time and memory of all LiTS metrics of one 512x512x300 case, beside MONAI's for the same ones.

Run it from the repository root: ``python -m benchmarks.metrics``; MONAI comes with
requirements-dev.txt. Both sides get the same pair, each in a process of its own; reading it and
importing are not timed. MONAI has no RMSD, no lesion counts and no burden: it does less. Its border
is the 6-neighbourhood's, so its distances differ slightly; tests/metrics/test_surface.py compares
them exactly, on equal borders.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lits_helpers.metrics import evaluate_case

SPACING_MM = (1.0, 0.75, 0.75)
COMPARED = ("dice", "voe", "assd_mm", "max_surface_mm", "hd95_mm")


def main() -> None:
    """Measure both sides and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3, help="of ours; MONAI runs once")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pair = Path(folder) / "pair.npy"
        in_own_process(save_pair, pair, chosen.slices)
        ours = in_own_process(run_ours, pair, chosen.repeats)
        monai = in_own_process(run_monai, pair, 1)
    print(f"{os.cpu_count()} cores, one case of {chosen.slices} slices of 512x512, {SPACING_MM} mm")
    print(f"{'':<24}{'ours':>12}{'MONAI':>12}")
    for part in ("liver", "tumor"):
        for quantity in COMPARED:
            key = f"{part}_{quantity}"
            print(f"{key:<24}{ours['values'][key]:>12.4f}{monai['values'][key]:>12.4f}")
    print(f"{'seconds':<24}{ours['seconds']:>12.2f}{monai['seconds']:>12.2f}")
    print(f"{'memory above the pair':<24}{ours['mib']:>8.0f} MiB{monai['mib']:>8.0f} MiB")
    print(f"ours is {monai['seconds'] / ours['seconds']:.1f} times as fast")


def synthetic_pair(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """Return a liver with a dozen lesions and a plausible prediction of it.

    The prediction's surfaces wander some millimetres from the reference's, it misses some lesions,
    invents others, and has a speck outside the liver.

    Returns:
        (2, Z, Y, X) uint8 labels: prediction, reference.
    """
    generator = np.random.default_rng(seed)
    body = np.zeros((2, *shape), np.uint8)
    box = tuple(slice(int(0.2 * n), int(0.8 * n)) for n in shape)  # the liver's surroundings
    inner = tuple(place.stop - place.start for place in box)
    depth = _distance_inside(inner, (0.5, 0.5, 0.45), 0.36, generator, roughness=0.12)
    wander = _smooth_noise(inner, 12, generator) * 0.02
    for labels, field in zip(body, (depth + wander, depth), strict=True):
        labels[box][field > 0] = 1
    for number in range(14):
        centre = generator.uniform(0.3, 0.7, 3)
        radius_mm = float(np.exp(generator.uniform(np.log(3), np.log(25))))
        lesion = _ball(inner, centre, radius_mm)
        if number > 2:  # the first ones are inventions of the prediction
            body[1][box][lesion & (depth > 0)] = 2
        if number < 11:  # the last ones are missed
            moved = _ball(inner, centre + generator.normal(0, 0.006, 3), 0.93 * radius_mm)
            body[0][box][moved & (depth + wander > 0)] = 2
    body[0, 10:14, 40:60, 40:60] = 1
    return body


def _distance_inside(shape, centre, radius, generator, *, roughness) -> np.ndarray:
    axes = np.ogrid[tuple(slice(0, 1, complex(n)) for n in shape)]
    squares = sum(((axis - c) / radius) ** 2 for axis, c in zip(axes, centre, strict=True))
    field = _smooth_noise(shape, 4, generator) * roughness
    return (1 - np.sqrt(squares, dtype=np.float32)) + field


def _smooth_noise(shape, knots, generator) -> np.ndarray:
    coarse = generator.standard_normal((knots, knots, knots), dtype=np.float32)
    return ndimage.zoom(coarse, [n / knots for n in shape], order=1, grid_mode=True, mode="nearest")


def _ball(shape, centre, radius_mm) -> np.ndarray:
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    places = zip(axes, shape, centre, SPACING_MM, strict=True)
    return sum(((axis - n * c) * step) ** 2 for axis, n, c, step in places) < radius_mm**2


def in_own_process(function: Callable, *arguments):
    """Return `function(*arguments)`, run where its peak memory is its own."""
    # A child's peak starts at what its parent holds, so the parent holds nothing.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def save_pair(path: Path, slices: int) -> None:
    """Write the pair that both sides measure."""
    np.save(path, synthetic_pair((slices, 512, 512), seed=0))


def run_ours(pair: Path, repeats: int) -> dict:
    """Measure `evaluate_case` (everything it gives), the fastest of some repeats."""
    prediction, reference = np.load(pair)
    return _timed(lambda: evaluate_case(prediction, reference, SPACING_MM), repeats)


def run_monai(pair: Path, repeats: int) -> dict:
    """Measure MONAI's functions for Dice, IoU, mean, maximum and 95 % surface distance."""
    import torch
    from monai import metrics as monai

    prediction, reference = torch.from_numpy(np.load(pair))
    distances = {
        "assd_mm": (monai.compute_average_surface_distance, {"symmetric": True}),
        "max_surface_mm": (monai.compute_hausdorff_distance, {}),
        "hd95_mm": (monai.compute_hausdorff_distance, {"percentile": 95}),
    }

    def evaluate() -> dict:
        values = {}
        for part, label in (("liver", 1), ("tumor", 2)):
            masks = [(labels >= label)[None, None] for labels in (prediction, reference)]
            values[f"{part}_dice"] = monai.compute_dice(*masks).item()
            values[f"{part}_voe"] = 1 - monai.compute_iou(*masks).item()
            for key, (function, extra) in distances.items():
                found = function(*masks, include_background=True, spacing=SPACING_MM, **extra)
                values[f"{part}_{key}"] = found.item()
        return values

    return _timed(evaluate, repeats)


def _timed(evaluate, repeats: int) -> dict:
    before = _peak_mib()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        values = evaluate()
        seconds.append(time.perf_counter() - start)
    return {"values": values, "seconds": min(seconds), "mib": _peak_mib() - before}


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux


if __name__ == "__main__":
    main()
