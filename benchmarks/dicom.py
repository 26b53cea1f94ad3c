"""Reading a DICOM series of 100 slices against what pydicom alone needs for its pixels.

    python benchmarks/dicom.py [--slices 100] [--size 512]

Both are measured in turn, in one process. The ratios of the medians are printed, of elapsed time
and of the processor's, which other programs disturb less.
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


def seconds(work) -> tuple[float, float]:
    """Return how long a call took: elapsed, and of the processor."""
    start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start[0], time.process_time() - start[1]


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
    for kind, place in (("elapsed", 0), ("processor", 1)):
        medians = {n: statistics.median(value[place] for value in times[n]) for n in times}
        named = ", ".join(f"{name} {value:.3f} s" for name, value in medians.items())
        ratio = medians["read_volume"] / medians["pydicom"]
        print(f"{kind:9}  {named}, ratio {ratio:.2f} (wanted: at most 1.5)")


if __name__ == "__main__":
    main()
