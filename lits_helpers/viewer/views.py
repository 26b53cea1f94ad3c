"""Where a voxel lies in a plane, and where a plane's slice lies in the viewer's picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .browsing import Voxel

GAP = 4  # pixels between the slices of a picture


@dataclass(frozen=True)
class Panel:
    """A slice, or a part of it, within the picture.

    Attributes:
        plane: "axial", "coronal" or "sagittal".
        box: part of the slice that is shown (top, left, height, width), pixels of the slice.
        corner: (row, column) of the panel's upper left in the picture.
        shape: (rows, columns) of the panel in the picture.
    """

    plane: str
    box: tuple[int, int, int, int]
    corner: tuple[int, int]
    shape: tuple[int, int]

    def holds(self, y: float, x: float) -> bool:
        """Whether a place in the picture lies in this panel."""
        (top, left), (rows, columns) = self.corner, self.shape
        return top <= y < top + rows and left <= x < left + columns

    def pixel(self, y: float, x: float) -> tuple[float, float]:
        """Return the (row, column) of the slice at a place in the picture; 0.5 is a pixel's middle.

        It is kept inside the part that is shown.
        """
        top, left, height, width = self.box
        row = (y - self.corner[0]) / self.shape[0] * height
        column = (x - self.corner[1]) / self.shape[1] * width
        limits = height - 1e-6, width - 1e-6
        return top + min(max(row, 0.0), limits[0]), left + min(max(column, 0.0), limits[1])


def in_plane(voxel: Voxel, name: str, depth: int) -> tuple[int, int, int]:
    """Return (slice, row, column) of a voxel in a plane; coronal and sagittal show the head up."""
    z, y, x = voxel
    if name == "axial":
        return z, y, x
    return (y, depth - 1 - z, x) if name == "coronal" else (x, depth - 1 - z, y)


def from_plane(place: tuple[int, int, int], name: str, depth: int) -> Voxel:
    """Return the voxel (z, y, x) of a (slice, row, column): undo `in_plane`."""
    index, row, column = place
    if name == "axial":
        return index, row, column
    z = depth - 1 - row
    return (z, index, column) if name == "coronal" else (z, column, index)


def box_around(
    center: tuple[float, float], shape: tuple[int, int], zoom: float
) -> tuple[int, int, int, int]:
    """Return the box of a slice that fits the zoom, as near around a place as the slice allows."""
    sizes = [max(1, round(length / zoom)) for length in shape]
    starts = [
        min(max(int(middle) - size // 2, 0), length - size)
        for middle, size, length in zip(center, sizes, shape, strict=True)
    ]
    return (*starts, *sizes)


def side_by_side(shapes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the corners of equally large pictures, in two rows if more than three."""
    rows, columns = (length + GAP for length in shapes[0])
    across = len(shapes) if len(shapes) <= 3 else -(-len(shapes) // 2)
    return [(n // across * rows, n % across * columns) for n in range(len(shapes))]


def first_large(shapes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the corners of three pictures: one, and to its right two, one above the other."""
    left = shapes[0][1] + GAP
    return [(0, 0), (0, left), (shapes[1][0] + GAP, left)]


def joined(pictures: Sequence[np.ndarray], corners: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return one picture, black between the parts, (rows, columns, 3) uint8."""
    if len(pictures) == 1:
        return pictures[0]
    places = list(zip(pictures, corners, strict=True))
    rows = max(top + part.shape[0] for part, (top, _) in places)
    columns = max(left + part.shape[1] for part, (_, left) in places)
    whole = np.zeros((rows, columns, 3), np.uint8)
    for part, (top, left) in places:
        whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    return whole
