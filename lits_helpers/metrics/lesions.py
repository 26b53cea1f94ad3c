"""Find which lesions were found, and measure how large each is."""

from collections import defaultdict
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

OVERLAPS = {"0": "overlap > 0", "50": "overlap > 0.5"}  # suffix of the keys -> the rule
# Diameter in mm of the sphere of the lesion's volume: from (included), below (excluded).
SIZE_CLASSES = {"small": (0.0, 10.0), "medium": (10.0, 20.0), "large": (20.0, np.inf)}


def size_class_title(name: str) -> str:
    """Return what a size class spans, for figures and tables: "10 to 20 mm"."""
    low, high = SIZE_CLASSES[name]
    if not low:
        return f"under {high:g} mm"
    return f"{low:g} mm and more" if high == np.inf else f"{low:g} to {high:g} mm"


def list_lesions(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing_mm: tuple[float, float, float] | None,
) -> list[dict]:
    """List every lesion of a case, those in the reference first, and whether each was found.

    A lesion is a component of a tumor mask in which voxels touch by their faces.

    * Overlap > 0: a reference lesion is found if a predicted voxel lies in it; a predicted lesion
      is right if one of its voxels lies in a reference lesion.
    * Overlap > 0.5: reference lesions that the same predicted lesion covers most form a group (one
      prediction may span several), and each predicted lesion joins the group with which it shares
      most voxels. If the intersection of a group with its predictions is more than half of their
      union, the group's reference lesions are found and its predictions are right. Of equal
      choices the first lesion in voxel order is taken.

    Args:
        prediction, reference: (Z, Y, X) tumor masks, bool.
        spacing_mm: (dz, dy, dx), or None if unknown.

    Returns:
        A dict a lesion: ``side`` "reference" or "prediction", ``number`` from 1 within its side in
        voxel order, ``voxels``, ``overlap`` with the other side in voxels, ``found_0`` and
        ``found_50`` (for a prediction: it is right), ``volume_mm3``, ``diameter_mm`` and
        ``size_class`` (None without spacing).
    """
    # by default `label` joins voxels that touch by their faces
    numbered = [ndimage.label(mask)[0] for mask in (reference, prediction)]
    sizes = [np.bincount(numbers[numbers > 0], minlength=1) for numbers in numbered]
    pairs = _overlapping_pairs(*numbered)
    found = _found_by_half(pairs, *sizes)
    lesions = []
    for place, side in enumerate(("reference", "prediction")):
        shared = defaultdict(int)
        for pair in pairs:
            shared[pair[place]] += pair[2]
        for number, voxels in enumerate(sizes[place][1:].tolist(), start=1):
            lesion = {"side": side, "number": number, "voxels": voxels, "overlap": shared[number]}
            lesion |= {"found_0": shared[number] > 0, "found_50": number in found[place]}
            lesions.append(lesion | _size(voxels, spacing_mm))
    return lesions


def lesion_counts(lesions: list[dict]) -> dict[str, int | None]:
    """Count found, false and missed lesions, all and by size class.

    Args:
        lesions: from `list_lesions`.

    Returns:
        ``lesion_tp_0`` reference lesions found, ``lesion_fp_0`` predicted lesions that are wrong,
        ``lesion_fn_0`` reference lesions missed; ``_50`` the same at overlap > 0.5; and for each
        size class ``lesion_small_tp_0`` and so on, which count each lesion by its size and add up
        to the whole; they are None if the size of any lesion is unknown.
    """
    counts = _counted(lesions, "lesion")
    measured = all(lesion["size_class"] is not None for lesion in lesions)
    for name in SIZE_CLASSES:
        members = [lesion for lesion in lesions if lesion["size_class"] == name]
        of_class = _counted(members, f"lesion_{name}")
        counts |= of_class if measured else dict.fromkeys(of_class)
    return counts


def _counted(lesions: list[dict], prefix: str) -> dict[str, int]:
    counts = {}
    for suffix in OVERLAPS:
        found = [(lesion["side"], lesion[f"found_{suffix}"]) for lesion in lesions]
        counts[f"{prefix}_tp_{suffix}"] = found.count(("reference", True))
        counts[f"{prefix}_fp_{suffix}"] = found.count(("prediction", False))
        counts[f"{prefix}_fn_{suffix}"] = found.count(("reference", False))
    return counts


def _overlapping_pairs(reference: np.ndarray, prediction: np.ndarray) -> list[tuple[int, int, int]]:
    """Return (reference number, prediction number, shared voxels), the most shared voxels first."""
    both = (reference > 0) & (prediction > 0)
    base = int(prediction.max(initial=0)) + 1  # a pair is one number: np.unique of rows is slow
    codes, shared = np.unique(
        reference[both].astype(np.int64) * base + prediction[both], return_counts=True
    )
    pairs = zip((codes // base).tolist(), (codes % base).tolist(), shared.tolist(), strict=True)
    return sorted(pairs, key=lambda pair: (-pair[2], pair[:2]))


def _found_by_half(
    pairs: list[tuple[int, int, int]], reference_sizes: np.ndarray, prediction_sizes: np.ndarray
) -> tuple[set[int], set[int]]:
    """Return the numbers of the reference lesions found and of the predictions that are right.

    The rule is the one of `list_lesions` for overlap > 0.5.
    """
    covers = {}  # reference lesion -> the prediction that covers most of it, which names its group
    for reference, prediction, _ in pairs:
        covers.setdefault(reference, prediction)
    shared = defaultdict(int)
    for reference, prediction, count in pairs:
        shared[prediction, covers[reference]] += count
    joins = {}  # prediction -> the group with which it shares most
    for prediction, group in sorted(shared, key=lambda key: (-shared[key], key)):
        joins.setdefault(prediction, group)
    found = set()
    right = set()
    for group in set(covers.values()):
        references = [number for number, cover in covers.items() if cover == group]
        predictions = [number for number, joined in joins.items() if joined == group]
        common = sum(shared[number, group] for number in predictions)
        voxels = reference_sizes[references].sum() + prediction_sizes[predictions].sum()
        if common > 0.5 * (voxels - common):
            found.update(references)
            right.update(predictions)
    return found, right


def _size(voxels: int, spacing_mm: tuple[float, float, float] | None) -> dict:
    if spacing_mm is None:
        return {"volume_mm3": None, "diameter_mm": None, "size_class": None}
    volume = voxels * float(np.prod(spacing_mm))
    diameter = (6 * volume / np.pi) ** (1 / 3)
    name = next(name for name, (low, high) in SIZE_CLASSES.items() if low <= diameter < high)
    return {"volume_mm3": volume, "diameter_mm": diameter, "size_class": name}


@dataclass(frozen=True)
class Diameters:
    """The longest diameter of a lesion within one axial slice, and the longest at right angles.

    Attributes:
        slice_index: where the longest is; of equal ones the lowest slice.
        longest_mm: between two pixel corners of the lesion.
        perpendicular_mm: the longest chord of the lesion's convex outline at right angles to it.
        longest, perpendicular: their ends ((y, x), (y, x)) in pixels; the first pixel reaches from
            0 to 1.
    """

    slice_index: int
    longest_mm: float
    perpendicular_mm: float
    longest: tuple
    perpendicular: tuple


def axial_diameters(mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> Diameters:
    """Measure one lesion as radiologists do (RECIST, WHO), slice by slice.

    Args:
        mask: (Z, Y, X) bool, not empty.
        spacing_mm: (dz, dy, dx).
    """
    pixel_mm = np.asarray(spacing_mm[1:])
    outlines = {int(k): _outline(mask[k]) * pixel_mm for k in np.flatnonzero(mask.any((1, 2)))}
    pairs = {k: _farthest_pair(points) for k, points in outlines.items()}
    k = max(pairs, key=lambda number: (round(_length(pairs[number]), 9), -number))
    across = _chord_across(outlines[k], pairs[k])
    ends = (tuple(map(tuple, (pair / pixel_mm).tolist())) for pair in (pairs[k], across))
    return Diameters(k, _length(pairs[k]), _length(across), *ends)


def _outline(plane: np.ndarray) -> np.ndarray:
    """Return the convex hull (N, 2) of the pixel corners of a mask (H, W), in order."""
    points = np.argwhere(plane)
    corners = np.concatenate([points + shift for shift in ((0, 0), (0, 1), (1, 0), (1, 1))])
    return cv2.convexHull(corners.astype(np.int32))[:, 0]


def _farthest_pair(points: np.ndarray) -> np.ndarray:
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    return points[list(np.unravel_index(distances.argmax(), distances.shape))]


def _length(pair: np.ndarray) -> float:
    return float(np.linalg.norm(pair[1] - pair[0]))


def _chord_across(points: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """Return the ends (2, 2) of the longest chord of a convex polygon at right angles to `pair`.

    The length of such chords is piecewise linear between vertices: the longest meets one.
    """
    along = (pair[1] - pair[0]) / _length(pair)
    axes = np.stack([along, [-along[1], along[0]]])
    s, t = axes @ points.T
    s_next, t_next = np.roll(s, -1), np.roll(t, -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (s[:, None] - s) / (s_next - s)  # (vertex, edge); not finite: an edge across
    crossing = (share >= -1e-9) & (share <= 1 + 1e-9)
    heights = t + np.where(crossing, share, 0) * (t_next - t)
    low = np.where(crossing, heights, np.inf).min(axis=1)
    high = np.where(crossing, heights, -np.inf).max(axis=1)
    best = int((high - low).argmax())
    return np.array([[s[best], low[best]], [s[best], high[best]]]) @ axes
