"""Sound scans damaged at random, in the ways that files of strangers are, and what became of them.

A draw is a list of choices, one a kind. What a sound file may be like is drawn too: it is no
damage, and must make no finding.
"""

import gzip
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from lits_helpers.cases import find_cases, load_case
from lits_helpers.volumes import write_segmentation

from .drawn import FLIPS, ORIENTATIONS, affine_of, stored_as, turned

ORDERS = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
SOUND = {  # kind -> choices, all of them sound
    "orientation": ORIENTATIONS,
    "form": ["both", "qform", "sform", "unusable sform"],
    "values": ["plain", "half", "uint16", "float"],
    "padding": [None, -1500, -2000, -8192],
    "names": [
        "volume-3.nii segmentation-3.nii",
        "volume-3.NII.GZ segmentation-3.nii",
        "volume-3 (1).nii.gz segmentation-3.nii.gz",
        "imagesTr/liver_3.nii.gz labelsTr/liver_3.nii.gz",
        "imagesTr/liver_3_0000.nii.gz labelsTr/liver_3.nii.gz",
        "s3/ct.nii.gz s3/segmentations/liver.nii.gz",
        "scan.nii scan_seg.nii",
        "images/3.nii masks/3.nii.gz",
    ],
    "mask": [True, False],
}
DAMAGE = {  # kind -> choices, all of them damage
    "flips": FLIPS[1:],  # under a header that denies it
    "order": ORDERS[1:],
    "mask flips": FLIPS[1:],  # against the CT
    "form": ["none", "identity", "contradicting sform"],
    "spacing": ["unit", "metres", "thin"],
    "values": ["stored", "normalized", "window"],
    "labels": ["nearly", "bright", "halves"],
    "slices": ["by name"],
    "mask form": ["none", "identity"],
}
SIZES = {  # kind of spacing -> what the header says for the true steps (dz, dy, dx)
    None: lambda steps: steps,
    "unit": np.ones_like,
    "metres": lambda steps: steps / 1000,
    "thin": lambda steps: steps * (0.05, 1, 1),
}
PLACE = {  # codes of findings that doubt where voxels lie
    "axes_doubtful",
    "axes_reordered",
    "head_doubtful",
    "liver_doubtful",
    "lungs_doubtful",
    "mirrored_doubtful",
    "no_body",
    "slices_out_of_order",
    "spine_doubtful",
}
REMARKS = {"no_segmentation", "form_unusable", "liver_only", "extreme_hu"}  # of sound files


@dataclass(frozen=True)
class Truth:
    """A sound scan: (Z, Y, X) HU, labels, and the voxel size in mm."""

    hu: np.ndarray
    labels: np.ndarray
    spacing_mm: tuple[float, float, float]


def draw(rng: np.random.Generator, damages: int) -> dict:
    """Return {kind: choice}: every sound kind, and so many kinds of damage."""
    drawn = {kind: choices[rng.integers(len(choices))] for kind, choices in SOUND.items()}
    for kind in rng.choice(list(DAMAGE), damages, replace=False):
        drawn[str(kind)] = DAMAGE[kind][rng.integers(len(DAMAGE[kind]))]
    return drawn


def outcome(truth: Truth, drawn: dict, root: Path) -> tuple[str, list[str]]:
    """Write a scan, damaged as drawn, read it, and tell what became of it.

    Returns:
        "right", "refused", "doubted" or what is silently wrong; and the codes of the findings.
    """
    hu, labels = _expected(truth, drawn)
    stored = _write(hu, labels, truth.spacing_mm, drawn, root)
    try:
        (case,) = find_cases(root)
        volume, read, findings = load_case(case)
    except (OSError, ValueError) as error:
        return "refused", [str(error)]
    codes = [finding.code for finding in findings]
    if any(finding.harmful for finding in findings):
        return "refused", codes
    if not _lands(volume, stored, root):
        return "labels land elsewhere", codes
    in_place = np.array_equal(volume.hu, hu) and (read is None or np.array_equal(read, labels))
    doubts = PLACE & set(codes)
    turns = [finding.text for finding in findings if finding.code == "turned"]
    doubted = doubts or any("verified" in text or "look at it" in text for text in turns)
    if not in_place and not doubted:
        return "voxels in silence elsewhere", codes
    geometry = volume.geometry
    if in_place and geometry.spacing_trusted and _can_be_told(drawn):
        if not np.allclose(geometry.spacing_mm, truth.spacing_mm, rtol=0.02):
            return "wrong millimetres in silence", codes
    return "right" if in_place else "doubted", codes


def is_sound(drawn: dict) -> bool:
    """Tell whether nothing drawn is damage."""
    return all(drawn[kind] in SOUND[kind] for kind in SOUND) and drawn.keys() == SOUND.keys()


def _can_be_told(drawn: dict) -> bool:
    """Tell whether something in the file shows that its millimetres are wrong."""
    if drawn.get("spacing") == "thin":
        return drawn["mask"]  # by the liver's volume
    return not (drawn.get("spacing") == "unit" and drawn["form"] == "contradicting sform")


def _expected(truth: Truth, drawn: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return HU and labels that are to be read, padding included."""
    hu = truth.hu & ~1 if drawn["values"] == "half" else truth.hu  # what halves can store
    hu = np.clip(hu, -1024, 3071)
    if drawn["padding"]:
        y, x = np.indices(hu.shape[1:])
        y, x = (2 * (y + 0.5) / hu.shape[1] - 1, 2 * (x + 0.5) / hu.shape[2] - 1)
        hu = np.where((np.hypot(y, x) > 1.2) & (hu < -900), np.int16(drawn["padding"]), hu)
    return hu, truth.labels


def _write(hu, labels, spacing_mm, drawn: dict, root: Path) -> np.ndarray:
    """Write CT and mask as drawn; return HU as the CT's file stores them."""
    flips, order = drawn.get("flips", FLIPS[0]), drawn.get("order", ORDERS[0])
    mask = turned(labels, drawn.get("mask flips", FLIPS[0]))
    if "slices" in drawn:
        by_name = sorted(range(len(hu)), key=str)
        hu, mask = hu[by_name], mask[by_name]
    hu, mask = (turned(array, flips).transpose(order) for array in (hu, mask))
    steps = tuple(spacing_mm[axis] for axis in order)
    steps = SIZES[drawn.get("spacing")](np.array(steps))
    volume_name, mask_name = drawn["names"].split(" " if "(" not in drawn["names"] else ".gz ")
    volume_name += ".gz" * (" (1)" in volume_name)
    ct = _stored_values(hu, drawn["values"])
    form = drawn["form"]
    _save(ct, root / volume_name, drawn["orientation"], steps, form)
    if drawn["mask"]:
        values = {"nearly": 0.9999999998, "bright": 255, "halves": 0.5}.get(drawn.get("labels"), 1)
        scaled = mask if values == 1 else mask * np.float64(values)
        numbers = (scaled, 1.0, 0.0)
        _save(numbers, root / mask_name, drawn["orientation"], steps, drawn.get("mask form", form))
    return stored_as(hu, drawn["orientation"])


def _stored_values(hu: np.ndarray, how: str) -> tuple[np.ndarray, float, float]:
    """Return the numbers of a file, its slope and its intercept."""
    if how == "half":
        return (hu.astype(np.int32) * 2 + 2048).astype(np.int16), 0.5, -1024.0
    if how == "uint16":
        return (hu.astype(np.int32) + 8192).astype(np.uint16), 1.0, -8192.0
    if how == "float":
        return hu.astype(np.float32), 1.0, 0.0
    if how == "stored":
        return hu + np.int16(1024), 1.0, 0.0
    if how == "normalized":
        return ((np.clip(hu, -200, 300) + 200) / 500).astype(np.float32), 1.0, 0.0
    if how == "window":
        return ((np.clip(hu, -200, 300) + 200) * 0.51).astype(np.uint8), 1.0, 0.0
    return hu, 1.0, 0.0


def _save(numbers, path: Path, orientation: str, steps, form: str) -> None:
    array, slope, intercept = numbers
    affine = affine_of(array.shape, orientation, steps)
    header = nib.Nifti1Header()
    image = nib.Nifti1Image(stored_as(array, orientation), np.eye(4), header)
    codes = {"none": (0, 0), "qform": (0, 1), "sform": (1, 0)}.get(form, (1, 1))
    affine = np.eye(4) if form == "identity" else affine
    image.set_qform(affine, code=codes[1])
    image.set_sform(affine, code=codes[0])
    image.header.set_data_dtype(array.dtype)
    block = bytearray(image.to_bytes())
    fields = np.frombuffer(block, dtype=nib.Nifti1Header.template_dtype, count=1)[0]
    fields["scl_slope"], fields["scl_inter"] = slope, intercept
    if form == "unusable sform":
        for row in ("srow_x", "srow_y", "srow_z"):
            fields[row] = 0
    if form == "contradicting sform":
        for row in ("srow_x", "srow_y", "srow_z"):
            fields[row][:3] *= 3
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = path.name.lower().endswith(".gz")
    path.write_bytes(gzip.compress(bytes(block), 1) if packed else bytes(block))


def _lands(volume, stored: np.ndarray, root: Path) -> bool:
    """Tell whether labels drawn on what was read lie on the same voxels of the file."""
    dense = 150
    path = write_segmentation((volume.hu > dense).astype(np.uint8), volume, root / "out" / "l.nii")
    written = np.asarray(nib.load(path).dataobj)
    return np.array_equal(written > 0, stored > dense)
