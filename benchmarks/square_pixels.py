"""Dice of the liver where only every third column or row of a CT is left, so pixels are 3:1.

    python benchmarks/square_pixels.py [FOLDER ...] [--liver synthetic] [--cases 8]

Each FOLDER holds cases in any layout; without one, phantoms are generated. Each case is segmented
as it is and thinned in both ways: with its millimetres, and as if nobody knew them (pixels taken
for square ones).
"""

import argparse
import logging
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lits_helpers.cases import find_cases, load_case
from lits_helpers.checkpoints import load_liver_model
from lits_helpers.inference import segment_volume
from lits_helpers.phantom import write_phantom_dataset
from lits_helpers.volumes import Volume, volume_from_array

EVERY = 3
COLUMNS = ("square", "columns unknown", "columns", "rows unknown", "rows")


def main() -> None:
    """Print a line for each case, and the means."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--liver", default="synthetic")
    parser.add_argument("--cases", type=int, default=8, help="of generated ones")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    model = load_liver_model(options.liver, "cpu")
    print(" " * 16, *(f"{name:>16}" for name in COLUMNS))
    rows = []
    with tempfile.TemporaryDirectory() as made:
        if not options.folders:
            write_phantom_dataset(made, cases=options.cases, shape=(48, 256, 256), variety="wide")
        for folder in options.folders or [Path(made)]:
            for case in find_cases(folder):
                volume, labels, _ = load_case(case)
                rows.append(scores(volume, labels > 0, model))
                show(f"{folder.name} {case.id}", rows[-1])
    show("mean", [statistics.mean(column) for column in zip(*rows, strict=True)])


def scores(volume: Volume, liver: np.ndarray, model) -> list[float]:
    """Return Dice in the order of COLUMNS."""
    found = [score(volume, liver, model)]
    for axis in (2, 1):
        thin = tuple(slice(None, None, EVERY if n == axis else 1) for n in range(3))
        spacing_mm = tuple(
            mm * (part.step or 1) for mm, part in zip(volume.spacing_mm, thin, strict=True)
        )
        known = volume_from_array(volume.hu[thin], spacing_mm)
        unknown = replace(known, geometry=replace(known.geometry, spacing_trusted=False))
        found += [score(each, liver[thin], model) for each in (unknown, known)]
    return found


def score(volume: Volume, liver: np.ndarray, model) -> float:
    """Return the Dice of the liver that the model finds."""
    found = segment_volume(volume, model) > 0
    return float(2 * np.count_nonzero(found & liver) / (found.sum() + liver.sum()))


def show(name: str, values) -> None:
    """Print a line of the table."""
    print(f"{name:16}", *(f"{value:16.3f}" for value in values), flush=True)


if __name__ == "__main__":
    main()
