"""Time one generated patient of the wide kind against one of the frozen kind, in one process.

    python benchmarks/phantom.py [--cases 10]

Seconds of one core (processor time, one thread), a mean over seeds that are taken in turn.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is imported
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from lits_helpers.phantom import make_phantom, wide_case

SHAPE = (48, 256, 256)


def main() -> None:
    """Print seconds a case of both kinds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10)
    cases = parser.parse_args().cases
    cv2.setNumThreads(1)
    seconds = {make_phantom: [], wide_case: []}
    for seed in range(-1, cases):
        for make, found in seconds.items():
            began = time.process_time()
            make(abs(seed), SHAPE)
            if seed >= 0:  # the first warms up
                found.append(time.process_time() - began)
    frozen, wide = (np.array(found) for found in seconds.values())
    for name, found in (("frozen", frozen), ("wide", wide)):
        print(f"{name:7}{found.mean():6.2f} s a case of {SHAPE}, slowest {found.max():.2f}")
    print(f"wide/frozen: {wide.mean() / frozen.mean():.2f}")


if __name__ == "__main__":
    main()
