"""Reading a DICOM series of 100 slices against what pydicom alone needs for its pixels.

    python benchmarks/dicom.py [--slices 100] [--size 512]

Both are measured in turn, in one process; the ratio of the medians is printed.
"""

import argparse
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pydicom

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

from helpers.drawn_dicom import write_series  # noqa: E402

from lits_helpers.volumes import read_volume  # noqa: E402

ROUNDS = 7


def seconds(work) -> float:
    """Return how long a call took."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Write a series, read it both ways, print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--size", type=int, default=512)
    options = parser.parse_args()
    logging.disable(logging.INFO)
    shape = (options.slices, options.size, options.size)
    hu = np.random.default_rng(0).integers(-1000, 1500, shape).astype(np.int16)
    with tempfile.TemporaryDirectory() as folder:
        files = write_series(Path(folder), hu)
        ways = {
            "pydicom": lambda: [pydicom.dcmread(path).pixel_array for path in files],
            "read_volume": lambda: read_volume(folder),
        }
        times = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, work in ways.items():
                times[name].append(seconds(work))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name:12} {value:.3f} s")
    print(f"ratio        {medians['read_volume'] / medians['pydicom']:.2f} (wanted: at most 1.5)")


if __name__ == "__main__":
    main()
