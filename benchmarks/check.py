"""Seconds of one core that `lits check` takes for a case of 512x512x300, beside plain reading.

    python benchmarks/check.py [FOLDER]

FOLDER holds cases in any layout; without it a phantom is generated. The slices of its longest case
are repeated, with noise, up to 300.
"""

import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lits_helpers.cases import find_cases
from lits_helpers.phantom import write_phantom_dataset
from lits_helpers.preprocess.checking import check_one

SLICES = 300
ROUNDS = 5


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        named = sys.argv[1:]
        source = named[0] if named else write_phantom_dataset(folder / "raw", 1, (60, 512, 512))
        cases = [case for case in find_cases(source) if case.segmentation]
        longest = max(cases, key=lambda case: nib.load(case.volume).shape[2])
        for suffix in (".nii", ".nii.gz"):
            stretch(longest, folder / suffix[1:], suffix)
            (case,) = find_cases(folder / suffix[1:])
            checked = median_seconds(lambda case=case: check_one(case, "lits", True))
            read = median_seconds(lambda case=case: read_plainly(case))
            print(
                f"{suffix:<7} check with thumbnail {checked:.2f} s, reading with nibabel alone "
                f"{read:.2f} s, ratio {checked / read:.2f}"
            )


def stretch(case, folder: Path, suffix: str) -> None:
    """Write a case with its slices repeated up to SLICES."""
    folder.mkdir()
    for path, name in ((case.volume, "volume-0"), (case.segmentation, "segmentation-0")):
        image = nib.load(path)
        stored = np.asarray(image.dataobj).astype(np.int16)
        repeated = stored[..., np.linspace(0, stored.shape[2] - 1, SLICES).round().astype(int)]
        if name.startswith("volume"):
            repeated += np.random.default_rng(0).integers(-3, 4, repeated.shape, dtype=np.int16)
        else:
            repeated = repeated.astype(np.uint8)
        affine = image.affine.copy()
        affine[:3, 2] *= stored.shape[2] / SLICES
        nib.save(nib.Nifti1Image(repeated, affine), folder / f"{name}{suffix}")


def read_plainly(case) -> None:
    for path in (case.volume, case.segmentation):
        np.asarray(nib.load(path).dataobj).max()


def median_seconds(call) -> float:
    """Return the median seconds of processor time."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return float(np.median(times))


if __name__ == "__main__":
    main()
