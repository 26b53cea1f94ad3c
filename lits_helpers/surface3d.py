"""Liver and tumors as surfaces: meshes by marching cubes."""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.measure import marching_cubes

from .drawing import SKY, VERMILION
from .labels import FIRST_LABEL

STEPS_MM = {"liver": 2.5, "tumor": 1.25}  # mesh width: a lesion of 3 mm must survive
COLORS = {"liver": SKY, "tumor": VERMILION}
LIVER_OPACITY = 0.33
SMOOTHING = 0.8  # cubes: hides the steps between slices


@dataclass(frozen=True)
class Mesh:
    """A closed surface.

    Attributes:
        points: (N, 3) float32, mm, (z, y, x) from the first voxel's center.
        triangles: (M, 3) int32 indices into `points`.
        normals: (N, 3) float32, outwards, of length 1.
    """

    points: np.ndarray
    triangles: np.ndarray
    normals: np.ndarray


def make_mesh(
    mask: np.ndarray, spacing_mm: tuple[float, float, float], step_mm: float = 2.5
) -> Mesh | None:
    """Return the surface of a mask (Z, Y, X), or None if it is empty.

    The mask is averaged to cubes of about `step_mm` first, so a finer scan makes no larger mesh.
    """
    grid = _resampled(mask, spacing_mm, step_mm)
    if grid is None:
        return None
    values, origin, steps = grid
    values = gaussian_filter(values, SMOOTHING)
    level = min(0.5, 0.5 * float(values.max()))  # a single small lesion must not vanish
    points, triangles, normals, _ = marching_cubes(values, level, spacing=steps)
    return Mesh((points + origin).astype(np.float32), triangles.astype(np.int32), normals)


def make_meshes(
    labels: np.ndarray,
    spacing_mm: tuple[float, float, float],
    steps_mm: Mapping[str, float] = STEPS_MM,
) -> dict[str, Mesh | None]:
    """Return the meshes of "liver" and "tumor" of labels (Z, Y, X); the tumor's may be None.

    Raises:
        ValueError: there is no liver to show.
    """
    if not labels.any():
        raise ValueError("no surface: the labels hold neither liver nor tumor")
    return {
        name: make_mesh(labels >= first, spacing_mm, steps_mm[name])
        for name, first in FIRST_LABEL.items()
    }


def _resampled(mask: np.ndarray, spacing_mm, step_mm: float):
    """Return (values, origin_mm, steps_mm) of the mask's box in cubes of `step_mm`, or None."""
    extents = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not len(extents[0]):
        return None
    starts = [int(extent[0]) for extent in extents]
    box = tuple(slice(int(extent[0]), int(extent[-1]) + 1) for extent in extents)
    part = mask[box].astype(np.float32)
    counts = [max(1, round(n * mm / step_mm)) for n, mm in zip(part.shape, spacing_mm, strict=True)]
    steps = np.array(part.shape) * spacing_mm / counts
    flat = (counts[2], counts[1])
    part = np.stack([cv2.resize(plane, flat, interpolation=cv2.INTER_AREA) for plane in part])
    columns = part.reshape(len(part), -1)
    way = cv2.INTER_AREA if counts[0] < len(part) else cv2.INTER_LINEAR
    part = cv2.resize(columns, (columns.shape[1], counts[0]), interpolation=way)
    values = np.pad(part.reshape(counts), 2)  # a closed surface, also at the volume's edge
    origin = (np.array(starts) - 0.5) * spacing_mm + 0.5 * steps - 2 * steps
    return values, origin, tuple(steps)
