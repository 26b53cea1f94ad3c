"""Planes of a volume for display: which way is up, how large a pixel is, which part to show."""

import numpy as np

PLANES = ("axial", "coronal", "sagittal")
EDGE_LETTERS = {"axial": ("R", "A"), "coronal": ("R", "H"), "sagittal": ("A", "H")}  # left, top


def plane(volume: np.ndarray, name: str, index: int) -> np.ndarray:
    """Return a view of a slice, head up: axial (Y, X), coronal (Z, X), sagittal (Z, Y)."""
    if name == "axial":
        return volume[index]
    if name == "coronal":
        return volume[::-1, index, :]
    if name == "sagittal":
        return volume[::-1, :, index]
    raise ValueError(f"plane must be one of {', '.join(PLANES)}, got {name!r}")


def plane_spacing(spacing_mm: tuple[float, float, float], name: str) -> tuple[float, float]:
    """Return the pixel size (row, column) in mm of a plane; `spacing_mm` is (dz, dy, dx)."""
    dz, dy, dx = spacing_mm
    return {"axial": (dy, dx), "coronal": (dz, dx), "sagittal": (dz, dy)}[name]


def picture_shape(
    shape: tuple[int, int], spacing_mm: tuple[float, float] | None, zoom: float
) -> tuple[int, int]:
    """Return the (rows, columns) of a slice's picture, its aspect true to the spacing."""
    return tuple(max(1, round(size * zoom)) for size in _sizes(shape, spacing_mm))


def zoom_to(longer: float, shape: tuple[int, int], spacing_mm: tuple[float, float] | None) -> float:
    """Return the zoom at which the picture of a slice is `longer` pixels on its longer side."""
    return longer / max(_sizes(shape, spacing_mm))


def _sizes(shape, spacing_mm) -> tuple[float, float]:
    """Return the extents of a slice in pixels of its finer axis."""
    row_mm, column_mm = spacing_mm or (1.0, 1.0)
    unit = min(row_mm, column_mm)
    return shape[0] * row_mm / unit, shape[1] * column_mm / unit


def mask_box(mask: np.ndarray, margin: float = 0.15) -> tuple[int, int, int, int]:
    """Return the box (top, left, height, width) of a mask and a margin; all if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, 0, *mask.shape
    extra = int(np.ceil(margin * max(np.ptp(rows) + 1, np.ptp(columns) + 1)))
    top, left = max(rows[0] - extra, 0), max(columns[0] - extra, 0)
    bottom = min(rows[-1] + 1 + extra, mask.shape[0])
    right = min(columns[-1] + 1 + extra, mask.shape[1])
    return int(top), int(left), int(bottom - top), int(right - left)
