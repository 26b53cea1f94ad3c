"""Distances between the surfaces of two masks, in millimetres."""

from collections.abc import Sequence

import numpy as np
from scipy.spatial import KDTree

SURFACE_KEYS = ("assd_mm", "rmsd_mm", "max_surface_mm", "hd95_mm")


def border(mask: np.ndarray) -> np.ndarray:
    """Return the voxels of a mask that lack one of their 6 face and 12 edge neighbours in it.

    Voxels outside the array are background.

    Args:
        mask: (Z, Y, X) bool.

    Returns:
        (Z, Y, X) bool, a subset of `mask`.

    Source: the surface of the LiTS scoring script (face and edge connectivity).
    """
    # The 18-neighbourhood is three crossed squares; eroding by a square is eroding by both sides.
    along_x = _eroded(mask, 2)
    inside = _eroded(along_x, 1)
    inside &= _eroded(along_x, 0)
    del along_x
    inside &= _eroded(_eroded(mask, 1), 0)
    return np.logical_xor(mask, inside, out=inside)


def surface_distances(
    first: np.ndarray,
    second: np.ndarray,
    spacing_mm: tuple[float, float, float],
    *,
    workers: int = -1,
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far each border voxel of one mask lies from the border of the other.

    Args:
        first, second: (Z, Y, X) bool, neither empty.
        spacing_mm: (dz, dy, dx).
        workers: threads; -1 takes all cores.

    Returns:
        Two float64 vectors in mm, one value a border voxel: first to second, second to first.
    """
    borders = border(first).ravel(), border(second).ravel()
    places = tuple(np.flatnonzero(voxels) for voxels in borders)
    points = tuple(_points_mm(flat, first.shape, spacing_mm) for flat in places)
    return (
        _to_nearest(points[0], points[1], borders[1][places[0]], workers),
        _to_nearest(points[1], points[0], borders[0][places[1]], workers),
    )


def surface_metrics(
    first: np.ndarray,
    second: np.ndarray,
    spacing_mm: tuple[float, float, float],
    *,
    empty_mm: float,
    workers: int = -1,
) -> dict[str, float]:
    """Return the four surface figures of two masks; exchanging the masks changes none of them.

    Args:
        first, second: (Z, Y, X) bool.
        spacing_mm: (dz, dy, dx).
        empty_mm: value of all four if exactly one mask is empty; if both are, it is 0.
        workers: threads; -1 takes all cores.

    Returns:
        In mm: ``assd_mm`` mean, ``rmsd_mm`` root mean square and ``max_surface_mm`` maximum of the
        distances of both directions taken together; ``hd95_mm`` the greater of the two directions'
        95th percentiles.
    """
    filled = first.any(), second.any()
    if not all(filled):
        return dict.fromkeys(SURFACE_KEYS, empty_mm if any(filled) else 0.0)
    ways = surface_distances(first, second, spacing_mm, workers=workers)
    both = np.concatenate(ways)
    return {
        "assd_mm": float(both.mean()),
        "rmsd_mm": float(np.sqrt(np.square(both).mean())),
        "max_surface_mm": float(both.max()),
        "hd95_mm": float(max(np.percentile(distances, 95) for distances in ways)),
    }


def _eroded(mask: np.ndarray, axis: int) -> np.ndarray:
    eroded = np.zeros_like(mask)
    if mask.shape[axis] < 3:
        return eroded
    lines = np.moveaxis(mask, axis, 0)
    kept = np.moveaxis(eroded, axis, 0)
    np.logical_and(lines[:-2], lines[2:], out=kept[1:-1])
    kept[1:-1] &= lines[1:-1]
    return eroded


def _points_mm(flat: np.ndarray, shape: tuple[int, ...], spacing_mm: Sequence[float]) -> np.ndarray:
    points = np.empty((len(flat), 3))
    for axis, places in enumerate(np.unravel_index(flat, shape)):
        np.multiply(places, spacing_mm[axis], out=points[:, axis])
    return points


def _to_nearest(
    points: np.ndarray, others: np.ndarray, shared: np.ndarray, workers: int
) -> np.ndarray:
    distances = np.zeros(len(points))
    if not shared.all():  # voxels on both borders are 0 mm apart and need no search
        # None of the options changes a distance; they save more building time than they cost.
        tree = KDTree(others, leafsize=24, balanced_tree=False, compact_nodes=False)
        distances[~shared] = tree.query(points[~shared], workers=workers)[0]
    return distances
