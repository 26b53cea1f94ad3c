"""Abdomen phantoms: seeded patients in HU, written as NIfTI in the Kaggle folder layout.

They stand in for LiTS where there is no account, no network or no time: the same files and labels,
the same traps (axis orders, scaled integers, patients without tumor). The HU of organs overlap, so
that a model must learn shapes. Results on them say nothing about results on patients.
"""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, ornt_transform
from scipy.ndimage import gaussian_filter
from tqdm.auto import tqdm

from ..machine import (
    available_cores,
    locked_folder,
    read_json,
    remove_leftovers,
    spawned_pool,
    write_json,
    written_whole,
)
from ..settings import hint
from .body import Patient, draw_patient, paint_frame, start_scene
from .liver import draw_lesions, paint_lesions, paint_liver, shape_liver
from .organs import paint_organs, paint_spine, shape_organs
from .shapes import Grid, make_grid, smooth_noise
from .wide import wide_case

VERSION = 1  # of the phantoms: raise this number when a change alters a voxel
LITTLE_WORK = 3e6  # voxels that one process draws before fresh ones have started
THICKNESS_MM = (1.0, 8.0)  # of a slice
VIEW_MM = (300.0, 420.0)  # across the plane's longer side
PARTS = (10, 20, 30, 40, 50, 80, 110)  # last case of Kaggle's volume_pt1, volume_pt2, ...
AXES = ("LPS", "RAS", "LAS", "RPS", "LPI", "PSR", "SLA", "ASL")  # storage orders that files come in
AXES_SHARE = (0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05)
STORED = {  # number format of a file -> type, slope and intercept
    "uint8": (np.uint8, 1.0, 0.0),
    "int16": (np.int16, 1.0, 0.0),
    "uint16": (np.uint16, 1.0, -1024.0),
    "half": (np.int16, 0.5, -1024.0),
}


def write_phantom_dataset(
    root: str | os.PathLike,
    cases: int = 24,
    shape: tuple[int, int, int] = (30, 160, 160),
    seed: int = 0,
    *,
    first: int = 0,
    variety: str = "frozen",
    workers: int | None = None,
) -> Path:
    """Write generated patients as LiTS names its files: volume-N and segmentation-N, as NIfTI.

    A case depends on `seed`, its number, `shape` and `variety` only.
    Cases appear whole or not at all; the next call continues a stopped one and leaves a finished
    one alone. Python starts fresh processes for several workers: call this function from a
    notebook, or in a script below `if __name__ == "__main__":`.

    Args:
        root: folder, made if absent.
        cases: number of patients.
        shape: usual (Z, Y, X), each at least 8; a case has 0.8 to 1.33 times as many slices and 0.9
            to 1.1 times as many pixels along each side (one in five is cut in height).
        seed: random seed.
        first: number of the first case.
        variety: "frozen", the patients that every table of this project rests on; or "wide", far
            more varied than real ones, to train models for patients nobody has seen.
        workers: processes; None takes one per core, or none at all for little work.

    Returns:
        `root` as Path. `phantom.json`, written last, records the settings.

    Raises:
        ValueError: an impossible size, or `root` holds other data or phantoms of other settings.
    """
    root = Path(root)
    if cases < 1 or first < 0 or len(shape) != 3 or min(shape) < 8:
        raise ValueError(
            "phantoms need cases >= 1, first >= 0 and a shape (Z, Y, X) of at least 8 each, "
            f"got cases={cases}, first={first}, shape={shape}"
        )
    settings = {"cases": int(cases), "first": int(first), "seed": int(seed), "version": VERSION}
    settings["shape"] = [int(n) for n in shape]
    if variety not in MAKERS:
        raise ValueError(f"variety must be one of {', '.join(MAKERS)}, got {variety!r}")
    if variety != "frozen":  # whose records name none
        settings["variety"] = variety
    with locked_folder(root):
        if not _is_finished(root, settings):
            _write_missing(root, settings, workers)
    return root


def _write_missing(root: Path, settings: dict, workers: int | None) -> None:
    first, cases, seed = (settings[name] for name in ("first", "cases", "seed"))
    shape = tuple(settings["shape"])
    remove_leftovers(root)
    write_json(root / "phantom-unfinished.json", settings)
    numbers = range(first, first + cases)
    variety = settings.get("variety", "frozen")
    missing = [n for n in numbers if not _volume_path(root, seed, n).exists()]
    tasks = [(root, seed, number, shape, variety) for number in missing]
    if workers is None:
        workers = available_cores() if len(tasks) * np.prod(shape) > LITTLE_WORK else 1
    parallel = min(workers, len(tasks))
    with spawned_pool(parallel) if parallel > 1 else nullcontext() as pool:
        written = pool.map(_write_case, tasks) if pool else map(_write_case, tasks)
        for _ in tqdm(written, total=len(tasks), desc="phantoms", leave=False):
            pass
    write_json(root / "phantom.json", settings)
    (root / "phantom-unfinished.json").unlink(missing_ok=True)


def make_phantom(
    seed: int | Sequence[int], shape: tuple[int, int, int] = (30, 160, 160)
) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Make one patient.

    Args:
        seed: random seed, or several numbers that together are one.
        shape: (Z, Y, X). The slices reach from the lungs to below the liver; if too few for that,
            at 8 mm each, they hold the liver's middle.

    Returns:
        hu (Z, Y, X) int16, -1024 to 3071; labels (Z, Y, X) uint8, 0 background, 1 liver, 2 tumor;
        spacing_mm (dz, dy, dx), dz between 1 and 8.
    """
    plan, drawing, noise = np.random.default_rng(seed).spawn(3)
    patient = draw_patient(plan)
    lesions = draw_lesions(plan)
    spacing_mm, top_mm, shift_mm = _plan_scan(patient, shape, plan)
    grid = make_grid(shape, spacing_mm, top_mm, shift_mm, drawing)
    hu, labels = _draw(grid, patient, lesions, drawing)
    return _acquire(hu, grid, spacing_mm, patient.noise_hu, noise), labels, spacing_mm


def _plan_scan(patient: Patient, shape, rng: np.random.Generator):
    """Return spacing_mm, the height of the last slice, and the plane's middle (y, x), mm.

    The scan begins above the liver and ends below it; thickness follows from the number of slices.
    """
    top = rng.uniform(12, 40)
    bottom = -patient.liver_height - rng.uniform(12, 45)
    thickness = round(float(np.clip((top - bottom) / shape[0], *THICKNESS_MM)), 2)
    missing = max(0.0, top - bottom - thickness * shape[0])  # too few slices: keep the middle
    view = float(np.clip(2 * patient.half_width * rng.uniform(1.03, 1.18), *VIEW_MM))
    pixel = round(view / max(shape[1:]), 4)
    shift = (rng.uniform(2, 22), rng.uniform(-8, 8))
    return (thickness, pixel, pixel), top - 0.4 * missing, shift


def _draw(grid: Grid, patient: Patient, lesions, rng: np.random.Generator):
    """Return hu (Z, Y, X) float32 without noise and the labels (Z, Y, X) uint8."""
    scene = start_scene(grid, patient, rng)
    paint_frame(scene)
    organs = shape_organs(scene)
    liver = shape_liver(scene, organs)
    paint_organs(scene, organs)
    liver = paint_liver(scene, organs, liver)
    paint_spine(scene)
    tumor = paint_lesions(scene, liver, lesions)
    # what the scanner's correction leaves of scattered radiation
    shading = rng.uniform(0, 5) * smooth_noise(grid, 120.0, rng)
    return scene.hu + shading * (scene.hu > -500), (liver >= 0).astype(np.uint8) + tumor


def _acquire(hu, grid: Grid, spacing_mm, noise_hu: float, rng: np.random.Generator) -> np.ndarray:
    """Blur like a scanner, add grain, blank what lies out of view, round to whole HU."""
    blur = rng.uniform(0.5, 0.9) / spacing_mm[1]
    grain_size = rng.uniform(0.5, 0.8)
    white = rng.standard_normal(grid.shape, dtype=np.float32)
    grain = gaussian_filter(white, (0, grain_size, grain_size))
    # reconstruction suppresses low frequencies
    grain -= 0.5 * gaussian_filter(white, (0, 2.5, 2.5))
    grain *= noise_hu / grain.std()
    hu = gaussian_filter(hu, (0, blur, blur)) + grain * np.where(hu < -500, 0.6, 1.0)
    if rng.random() < 0.4:
        y, x = grid.y - grid.y.mean(), grid.x - grid.x.mean()
        hu[:, np.hypot(y[:, None], x) > max(-y[0], -x[0])] = -1024
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


MAKERS = {"frozen": make_phantom, "wide": wide_case}  # variety -> what makes a case


def _case_shape(seed: int, number: int, shape) -> tuple[int, int, int]:
    rng = np.random.default_rng((seed, number, 1))
    depth = max(8, round(shape[0] * rng.uniform(0.8, 1.33)))
    scale = rng.choice((0.9, 1.0, 1.0, 1.1))
    height, width = (max(8, round(n * scale)) for n in shape[1:])
    if rng.random() < 0.2:  # some scanners' exports are cut to the patient
        height = max(8, round(height * 0.85))
    return depth, height, width


def _storage(seed: int, number: int) -> tuple[str, str, str, str]:
    """Return a case's axis codes, number format, and suffixes of volume and segmentation."""
    rng = np.random.default_rng((seed, number, 2))
    axes = str(rng.choice(AXES, p=AXES_SHARE))
    numbers = str(rng.choice(("int16", "uint16", "half"), p=(0.6, 0.25, 0.15)))
    volume, segmentation = (".nii.gz" if rng.random() < 0.5 else ".nii" for _ in range(2))
    return axes, numbers, volume, segmentation


def _volume_path(root: Path, seed: int, number: int) -> Path:
    part = 1 + sum(number > last for last in PARTS)
    return root / f"volume_pt{part}" / f"volume-{number}{_storage(seed, number)[2]}"


def _write_case(task: tuple[Path, int, int, tuple[int, int, int], str]) -> None:
    """Write one case, its segmentation first: a case whose volume exists is complete."""
    root, seed, number, shape, variety = task
    made = MAKERS[variety]((seed, number, 0), _case_shape(seed, number, shape))
    hu, labels, spacing_mm = made[:3]
    axes, numbers, _, suffix = _storage(seed, number)
    affine = np.diag((-spacing_mm[2], -spacing_mm[1], spacing_mm[0], 1.0))  # LPS
    affine[:3, 3] = np.random.default_rng((seed, number, 3)).uniform(-300, 300, 3).round(2)
    path = root / "segmentations" / f"segmentation-{number}{suffix}"
    _save(path, labels, affine, axes, "uint8")
    _save(_volume_path(root, seed, number), hu, affine, axes, numbers)


def _save(path: Path, array: np.ndarray, affine: np.ndarray, axes: str, numbers: str) -> None:
    """Write an array (Z, Y, X) whose voxels run to left, back and head, stored along `axes`.

    Args:
        numbers: a key of `STORED`; read with its scaling, all give the same values.
    """
    turn = ornt_transform(axcodes2ornt("LPS"), axcodes2ornt(axes))
    image = nib.Nifti1Image(array.transpose(2, 1, 0), affine).as_reoriented(turn)  # (X, Y, Z)
    kind, slope, intercept = STORED[numbers]
    stored = ((np.asarray(image.dataobj) - intercept) / slope).astype(kind)
    out = nib.Nifti1Image(stored, image.affine)
    out.header.set_xyzt_units("mm")
    out.header.set_slope_inter(slope, intercept)
    with written_whole(path) as temporary:
        out.to_filename(temporary)


def _is_finished(root: Path, settings: dict) -> bool:
    """Tell whether `root` already holds exactly these phantoms; raise if it holds others."""
    for name in ("phantom.json", "phantom-unfinished.json"):
        if (root / name).exists():
            found = read_json(root / name)
            if found != settings:
                raise ValueError(
                    f"{root} holds phantoms of other settings: {found}, wanted {settings}; "
                    "choose another folder or delete this one"
                )
            return name == "phantom.json"
    if root.is_dir() and any(not path.name.startswith(".") for path in root.iterdir()):
        raise ValueError(
            f"{root} holds files that are no phantoms; choose an empty folder, or, to use the "
            f"scans there, choose {hint('folder source')}"
        )
    return False
