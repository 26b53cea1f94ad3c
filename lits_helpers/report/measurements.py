"""Measure a patient on the labels: volumes, burden and every lesion."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..machine import require, written_whole
from ..metrics import axial_diameters, filled_box
from ..recipes import SYSTEMS
from ..volumes import Volume

NO_MM = "the file's voxel size cannot be trusted: no value in mm or ml"
THIRDS = (("lower", "", "upper"), ("front", "", "back"), ("right", "", "left"))  # along Z, Y, X
COLUMNS = (
    "case_id liver_ml tumor_ml burden lesions largest_ml largest_mm liver_hu no_mm "
    "flag score reasons"
).split()


def looked_for(labels: np.ndarray, makers: Mapping | None = None) -> set[str]:
    """Return which of "liver" and "tumor" somebody looked for.

    Args:
        labels: (Z, Y, X) 0, 1, 2.
        makers: system -> the models that made them; without any, tumors outside any liver count as
            drawn alone.
    """
    if makers:
        return {system for system in SYSTEMS if makers.get(system)}
    return {"tumor"} if labels.any() and not (labels == 1).any() else set(SYSTEMS)


def measure(volume: Volume, labels: np.ndarray, makers: Mapping | None = None) -> dict:
    """Measure a patient.

    A lesion is tumor whose voxels touch by their faces. HU are means; the liver's are without its
    tumors. `docs/predicting.md` states every rule.

    Args:
        volume: the CT.
        labels: (Z, Y, X) 0, 1, 2 of that shape.
        makers: of `looked_for`; what nobody looked for has no values.

    Returns:
        Plain values for JSON. ``no_mm`` says why values in mm and ml are None, or is None itself;
        ``liver`` and ``tumor`` {"voxels", "ml", "hu"}; ``burden`` tumor by liver, in [0, 1], None
        without liver; ``liver_sought`` and ``tumors_sought``; ``lesions``, the largest first:
        ``number`` from 1, ``voxels``, ``ml``, ``longest_mm``, ``perpendicular_mm``,
        ``slice_index``, the ends ``longest`` and ``perpendicular`` (see `metrics.Diameters`),
        ``center`` (z, y, x) in voxels, ``hu``, and None without liver ``place`` in it and
        ``hu_difference`` to it.

    Raises:
        TypeError: `volume` is none.
        ValueError: the labels have another shape.
    """
    require(volume, "hu", "volume", "a volume: read_volume(path), or volume_from_array(hu)")
    labels = np.asarray(labels)
    if labels.shape != volume.hu.shape:
        raise ValueError(
            f"the labels have shape {labels.shape}, the CT {volume.hu.shape}: give the labels of "
            "this very CT"
        )
    spacing_mm = volume.geometry.trusted_spacing_mm
    sought = looked_for(labels, makers)
    liver = _structure(volume.hu, labels >= 1, spacing_mm, "liver" in sought)
    liver["hu"] = _mean(volume.hu[labels == 1])
    tumor = _structure(volume.hu, labels == 2, spacing_mm, "tumor" in sought)
    return {
        "no_mm": None if spacing_mm else NO_MM,
        "spacing_mm": spacing_mm and list(spacing_mm),
        "shape": list(labels.shape),
        "liver": liver,
        "tumor": tumor,
        "burden": tumor["voxels"] / liver["voxels"]
        if len(sought) > 1 and liver["voxels"]
        else None,
        "lesions": _lesions(volume.hu, labels, spacing_mm, liver["hu"]),
        "liver_sought": "liver" in sought,
        "tumors_sought": "tumor" in sought,
    }


def row_of(case_id: str, measured: Mapping, judged: Mapping) -> dict:
    """Return a patient's line of the table: what `measure` and `judge` gave, flat."""
    largest = measured["lesions"][0] if measured["lesions"] else {}
    values = {
        "case_id": case_id,
        "liver_ml": measured["liver"]["ml"],
        "tumor_ml": measured["tumor"]["ml"],
        "burden": measured["burden"],
        "lesions": len(measured["lesions"]) if measured["tumors_sought"] else None,
        "largest_ml": largest.get("ml"),
        "largest_mm": longest_mm(measured),
        "liver_hu": measured["liver"]["hu"],
        "no_mm": measured["no_mm"],
        "flag": judged["word"],
        "score": judged["score"],
        "reasons": "; ".join(judged["reasons"]),
    }
    return {name: round(v, 4) if isinstance(v, float) else v for name, v in values.items()}


def longest_mm(measured: Mapping) -> float | None:
    """Return the longest diameter of any lesion; None without lesions or without mm."""
    return max((lesion["longest_mm"] or 0 for lesion in measured["lesions"]), default=0) or None


def write_table(rows: Iterable[Mapping], path: Path | str) -> Path:
    """Write rows of `row_of` as CSV, a line a patient; unknown values are empty."""
    with (
        written_whole(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as stream,
    ):
        table = csv.DictWriter(stream, COLUMNS)
        table.writeheader()
        table.writerows(rows)
    return Path(path)


def _structure(hu: np.ndarray, mask: np.ndarray, spacing_mm, sought: bool) -> dict:
    if not sought:
        return dict.fromkeys(("voxels", "ml", "hu"))
    voxels = int(np.count_nonzero(mask))
    return {"voxels": voxels, "ml": _ml(voxels, spacing_mm), "hu": _mean(hu[mask])}


def _ml(voxels: int, spacing_mm) -> float | None:
    return voxels * float(np.prod(spacing_mm)) / 1000 if spacing_mm else None


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def lesion_parts(labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the lesions of labels (Z, Y, X), the largest first.

    Returns:
        (mask, start) each: the lesion's own box (z, y, x) bool, and its first voxel in the scan.
    """
    box = filled_box(labels)
    if box is None:
        return []
    origin = np.array([extent.start for extent in box])
    components, _ = ndimage.label(labels[box] == 2)
    found = [
        (components[part] == number, origin + [extent.start for extent in part])
        for number, part in enumerate(ndimage.find_objects(components), start=1)
    ]
    return sorted(found, key=lambda lesion: -np.count_nonzero(lesion[0]))


def _lesions(hu, labels, spacing_mm, liver_hu: float | None) -> list[dict]:
    box = filled_box(labels)
    found = []
    for number, (mask, start) in enumerate(lesion_parts(labels), start=1):
        part = tuple(slice(a, a + n) for a, n in zip(start, mask.shape, strict=True))
        lesion = _lesion(mask, hu[part][mask], start, spacing_mm)
        lesion["place"] = None if liver_hu is None else place_of(lesion["center"], box)
        lesion["hu_difference"] = None if liver_hu is None else lesion["hu"] - liver_hu
        found.append({"number": number} | lesion)
    return found


def _lesion(mask: np.ndarray, hu: np.ndarray, start: np.ndarray, spacing_mm) -> dict:
    """Measure a lesion of its own box, whose first voxel is `start` of the scan."""
    drawn = axial_diameters(mask, spacing_mm or (1.0, 1.0, 1.0))
    shift = start[1:]
    return {
        "voxels": int(mask.sum()),
        "ml": _ml(int(mask.sum()), spacing_mm),
        "longest_mm": drawn.longest_mm if spacing_mm else None,
        "perpendicular_mm": drawn.perpendicular_mm if spacing_mm else None,
        "slice_index": int(start[0]) + drawn.slice_index,
        "longest": (np.array(drawn.longest) + shift).tolist(),
        "perpendicular": (np.array(drawn.perpendicular) + shift).tolist(),
        "center": (start + np.argwhere(mask).mean(axis=0)).tolist(),
        "hu": _mean(hu),
    }


def place_of(center, box: tuple[slice, slice, slice]) -> str:
    """Return in which thirds of the liver's box (Z, Y, X) a point lies: "upper right back"."""
    words = []
    for value, extent, names in zip(center, box, THIRDS, strict=True):
        share = (value + 0.5 - extent.start) / (extent.stop - extent.start)
        words.append(names[min(max(int(3 * share), 0), 2)])
    height, depth, side = words
    return " ".join(word for word in (height, side, depth) if word) or "middle"
