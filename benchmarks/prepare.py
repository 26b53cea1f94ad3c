"""Time the preparation against the straightforward loop and against the floor, side by side.

    python benchmarks/prepare.py [--copies 24] [--rounds 3]

Takes the largest real scan under LITS_REAL, or a generated phantom without one, as .nii and as
.nii.gz:

* loop: one process, get_fdata, numpy window of the whole volume, cv2.imwrite slice by slice;
* lean loop: the same, but the window is applied slice by slice, which spares the memory;
* floor: two processes that do nothing but decompress (or read) the files and encode and write PNG;
* PNG: what the module does to make the same PNG, hashing and checks included, two processes;
* PNG + packed: `prepare`, two processes.

Best of the rounds, processes started anew each time; the processor's seconds beside the clock's, as
other work on the machine blurs the latter. All sides must write the same pixels.
"""

import argparse
import gzip
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np

os.environ["TQDM_DISABLE"] = "1"  # before tqdm is imported
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lits_helpers.cases import (  # noqa: E402
    Case,
    find_cases,
    load_case,
)
from lits_helpers.machine import (  # noqa: E402
    file_hash,
    run_jobs,
)
from lits_helpers.preprocess import (  # noqa: E402
    CaseFiles,
    prepare,
)
from lits_helpers.preprocess.packing import write_png  # noqa: E402
from lits_helpers.settings import real_data  # noqa: E402
from lits_helpers.volumes import read_segmentation, read_volume  # noqa: E402

WINDOW = (-200, 300)


def grey_levels(hu: np.ndarray) -> np.ndarray:
    """The window as one writes it in numpy, rounded half up."""
    grey = (np.clip(hu, *WINDOW) - WINDOW[0]) / (WINDOW[1] - WINDOW[0]) * 255
    return np.floor(grey + 0.5).astype(np.uint8)


def loop(cases: list[Case], out: Path, lean: bool = False) -> None:
    """The straightforward way, for files stored as LPS."""
    for case in cases:
        volume = nib.load(case.volume).get_fdata()
        labels = nib.load(case.segmentation).get_fdata()
        for kind in ("images", "masks"):
            (out / kind / case.id).mkdir(parents=True)
        images = volume if lean else grey_levels(volume)
        masks = labels if lean else (labels > 0).astype(np.uint8) * 255
        for k in range(volume.shape[2]):
            image, mask = images[:, :, k], masks[:, :, k]
            if lean:
                image, mask = grey_levels(image), (mask > 0).astype(np.uint8) * 255
            cv2.imwrite(str(out / "images" / case.id / f"{k}.png"), image.T)
            cv2.imwrite(str(out / "masks" / case.id / f"{k}.png"), mask.T)


def floor_case(case: Case, out: Path, levels: Path) -> None:
    """Only what cannot be avoided: the bytes in, encoded pictures out."""
    cv2.setNumThreads(0)
    for path in (case.volume, case.segmentation):
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as stream:
            while stream.read(1 << 20):
                pass
    for kind in ("images", "masks"):
        folder = out / kind / case.id
        folder.mkdir(parents=True)
        for k, plane in enumerate(np.load(levels / f"{kind}.npy", mmap_mode="r")):
            (folder / f"{k}.png").write_bytes(cv2.imencode(".png", plane)[1])


def png_case(case: Case, out: Path) -> str:
    """`prepare` without packing: hash, read, check, turn, window, encode."""
    cv2.setNumThreads(0)
    volume, labels, _ = load_case(case)
    write_png(CaseFiles(out, case.id), volume.hu, labels, WINDOW)
    return file_hash(case.volume) + file_hash(case.segmentation)


def sample(folder: Path, copies: int) -> Path:
    """A folder with the same .nii pair `copies` times, stored as LPS, and its grey levels."""
    if real_data():
        source = find_cases(real_data() / "lits")[0]
    else:
        from lits_helpers.phantom import write_phantom_dataset  # not by every worker

        write_phantom_dataset(folder / "phantom", cases=1, shape=(78, 512, 512))
        source = find_cases(folder / "phantom")[0]
    volume = read_volume(source.volume)
    labels = read_segmentation(source.segmentation, like=volume)
    affine = np.diag([-volume.spacing_mm[2], -volume.spacing_mm[1], volume.spacing_mm[0], 1])
    for name, array in (("volume", volume.hu), ("segmentation", labels)):
        for n in range(copies):
            for suffix in ("nii", "nii.gz"):
                path = folder / suffix / f"{name}-{n}.{suffix}"
                path.parent.mkdir(exist_ok=True)
                first = path.with_name(f"{name}-0.{suffix}")
                if n:
                    shutil.copy(first, path)
                    with open(path, "r+b") as stream:  # CTs of equal bytes would be one case
                        stream.seek(148 if suffix == "nii" else 4)  # a text; gzip's time
                        stream.write(bytes([n]))
                else:
                    nib.save(nib.Nifti1Image(array.transpose(2, 1, 0), affine), path)
    np.save(folder / "images.npy", grey_levels(volume.hu))
    np.save(folder / "masks.npy", (labels > 0).astype(np.uint8) * 255)
    return folder


def same_pixels(one: Path, other: Path) -> bool:
    """Compare the pictures of two folders."""
    names = sorted(str(path.relative_to(one)) for path in one.rglob("*.png"))
    theirs = sorted(str(path.relative_to(other)) for path in other.rglob("*.png"))
    return names == theirs and all(same_picture(one / name, other / name) for name in names)


def same_picture(one: Path, other: Path) -> bool:
    """Equal files hold equal pixels; others are decoded."""
    if one.read_bytes() == other.read_bytes():
        return True
    return np.array_equal(*(cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (one, other)))


def timed(work: Callable[[Path], object], out: Path) -> tuple[float, float]:
    """Seconds by the clock, and of processors (children included)."""
    shutil.rmtree(out, ignore_errors=True)
    started, used = time.perf_counter(), sum(os.times()[:4])
    work(out)
    return time.perf_counter() - started, sum(os.times()[:4]) - used


def measure(folder: Path, suffix: str, rounds: int) -> None:
    """Print a table for one file format."""
    cases = find_cases(folder / suffix)
    sides = {
        "loop, 1 process": lambda out: loop(cases, out),
        "lean loop, 1 process": lambda out: loop(cases, out, lean=True),
        "floor, 2 processes": lambda out: run_jobs(
            floor_case, [(case, out, folder) for case in cases], workers=2
        ),
        "PNG, 2 processes": lambda out: run_jobs(
            png_case, [(case, out) for case in cases], workers=2
        ),
        "PNG + packed, 2 processes": lambda out: prepare(cases, out, workers=2),
        "packed, 2 processes": lambda out: prepare(cases, out, workers=2, png=False),
    }
    best = dict.fromkeys(sides, (float("inf"), float("inf")))
    for _ in range(rounds):  # interleaved, so that a busy moment hits all sides alike
        for name, work in sides.items():
            taken = timed(work, folder / "out" / name)
            best[name] = tuple(min(pair) for pair in zip(best[name], taken, strict=True))
    base, floor = best["loop, 1 process"][0], best["floor, 2 processes"][0]
    print(f"\n{len(cases)} cases as .{suffix}")
    print(f"{'':26s} seconds  faster than loop  of floor  processor seconds")
    for name, (seconds, used) in best.items():
        print(
            f"{name:26s} {seconds:7.2f} {base / seconds:17.1f} {seconds / floor:9.2f} {used:18.2f}"
        )
    for name in list(sides)[1:5]:
        if not same_pixels(folder / "out" / "loop, 1 process", folder / "out" / name):
            raise SystemExit(f"{name} wrote other pixels than the loop")
    print("same pixels on all sides")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--copies", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sample(Path(folder), options.copies)
        for suffix in ("nii", "nii.gz"):
            measure(Path(folder), suffix, options.rounds)


if __name__ == "__main__":
    main()
