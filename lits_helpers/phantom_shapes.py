"""What the phantom is built with: a grid in mm, smooth noise, implicit shapes and partial volume.

A shape is a float32 array `inside`: positive inside, negative outside, zero on the surface, growing by roughly one
per mm. `coverage` turns it into the part of each voxel that lies inside.
"""

from dataclasses import dataclass

import numpy as np

LATTICE_MM = (
    (-340.0, 140.0),
    (-260.0, 260.0),
    (-260.0, 260.0),
)  # noise is defined here; no scan reaches further


@dataclass(frozen=True)
class Grid:
    """Voxel centres in mm: x to the patient's left, y to the back, z to the head; z = 0 at the right diaphragm.

    Attributes:
        z, y, x: voxel centres (Z,), (Y,), (X,) float32, mm.
        warped: (3, Z, Y, X) float32, the same centres (z, y, x) after a smooth deformation, mm. Organs are drawn in
            these, so that nothing is exactly an ellipsoid.
    """

    z: np.ndarray
    y: np.ndarray
    x: np.ndarray
    warped: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.z.size, self.y.size, self.x.size

    def near(self, centre_mm, reach_mm, margin_mm: float = 15.0) -> tuple[slice, slice, slice]:
        """Return the box of voxels that holds `centre_mm` +- `reach_mm` (z, y, x) and what the warp can bring in."""
        box = []
        reach_mm = np.broadcast_to(reach_mm, 3)
        for axis, centre, reach in zip((self.z, self.y, self.x), centre_mm, reach_mm, strict=True):
            low, high = np.searchsorted(
                axis, (centre - reach - margin_mm, centre + reach + margin_mm)
            )
            box.append(slice(int(low), int(high)))
        return tuple(box)


def make_grid(shape, spacing_mm, top_mm: float, shift_mm, rng: np.random.Generator) -> Grid:
    """Lay a grid whose last slice is at `top_mm`, centred in the plane at `shift_mm` (y, x), and deform it."""
    depth, height, width = shape
    z = top_mm - spacing_mm[0] * np.arange(depth - 1, -1, -1, dtype=np.float32)
    y = shift_mm[0] + spacing_mm[1] * (np.arange(height, dtype=np.float32) - (height - 1) / 2)
    x = shift_mm[1] + spacing_mm[2] * (np.arange(width, dtype=np.float32) - (width - 1) / 2)
    plain = Grid(z, y, x, np.empty(0))
    warped = np.stack(np.broadcast_arrays(z[:, None, None], y[:, None], x)).astype(np.float32)
    for axis in warped:
        axis += 4.0 * smooth_noise(plain, 80.0, rng) + 1.6 * smooth_noise(plain, 28.0, rng)
    return Grid(z, y, x, warped)


def smooth_noise(
    grid: Grid, pitch_mm, rng: np.random.Generator, box=(slice(None),) * 3
) -> np.ndarray:
    """Return noise (Z, Y, X) float32, mean 0, deviation about 1, that varies over about `pitch_mm`.

    Random numbers at the nodes of a lattice fixed in mm are interpolated by a cubic B-spline, so that the same
    generator gives the same noise in space on every grid.

    Args:
        pitch_mm: distance of the lattice's nodes, one number or (z, y, x).
        box: the part of the grid that is wanted.
    """
    pitches = np.broadcast_to(pitch_mm, 3)
    axes = [axis[part] for axis, part in zip((grid.z, grid.y, grid.x), box, strict=True)]
    counts = [
        int((high - low) / pitch) + 4
        for (low, high), pitch in zip(LATTICE_MM, pitches, strict=True)
    ]
    nodes = rng.standard_normal(counts, dtype=np.float32)
    for axis, (low, _), pitch in zip(axes, LATTICE_MM, pitches, strict=True):
        weights = _spline_weights((axis - low) / pitch + 1, nodes.shape[0])
        nodes = np.moveaxis(
            np.tensordot(weights, nodes, axes=(1, 0)), 0, -1
        )  # axes rotate: (z,y,x) in the end
    return np.ascontiguousarray(nodes, dtype=np.float32) * np.float32(
        3.0
    )  # the spline averages: deviation 1/3


def _spline_weights(position: np.ndarray, nodes: int) -> np.ndarray:
    distance = np.abs(position[:, None] - np.arange(nodes)).astype(np.float32)
    near = 2 / 3 - distance**2 + distance**3 / 2
    return np.where(distance < 1, near, np.clip(2 - distance, 0, None) ** 3 / 6).astype(np.float32)


def coverage(inside: np.ndarray) -> np.ndarray:
    """Return which part [0, 1] of each voxel a shape covers, from its values at the voxel centres.

    The change of `inside` from one voxel to the next is the width of a voxel in the shape's own units; a flat
    surface then gives exact partial volumes along the axes.
    """
    width = np.zeros_like(inside)
    for axis in range(inside.ndim):
        if inside.shape[axis] > 2:
            width += np.abs(_slope(inside, axis))
    return np.clip(0.5 + inside / np.clip(width, 1e-3, 20.0), 0, 1)


def _slope(values: np.ndarray, axis: int) -> np.ndarray:
    slope = np.empty_like(values)
    view, out = np.moveaxis(values, axis, 0), np.moveaxis(slope, axis, 0)
    np.subtract(view[2:], view[:-2], out=out[1:-1])
    out[1:-1] *= 0.5
    out[0], out[-1] = view[1] - view[0], view[-1] - view[-2]
    return slope


def paint(hu: np.ndarray, cover: np.ndarray, value) -> None:
    """Mix `value` (HU, one number or an array) into `hu` in place where `cover` [0, 1] says."""
    hu += cover * (value - hu)


def smooth_min(a: np.ndarray, b: np.ndarray, blend_mm: float) -> np.ndarray:
    """Return the intersection of two shapes with an edge rounded over `blend_mm`.

    Source: polynomial smooth minimum, I. Quilez, "Smooth minimum".
    """
    mix = np.clip(0.5 + 0.5 * (b - a) / blend_mm, 0, 1)
    return b + (a - b) * mix - blend_mm * mix * (1 - mix)


def smooth_max(a: np.ndarray, b: np.ndarray, blend_mm: float) -> np.ndarray:
    """Return the union of two shapes, joined smoothly over `blend_mm`."""
    return -smooth_min(-a, -b, blend_mm)


def ellipsoid(points: np.ndarray, centre_mm, radii_mm, tilt: float = 0.0) -> np.ndarray:
    """Return an ellipsoid at `points` (3, Z, Y, X); centre and radii are (z, y, x) in mm.

    Args:
        tilt: turn about the z axis, radians; positive turns the x axis towards the back.
    """
    z, y, x = (axis - np.float32(middle) for axis, middle in zip(points, centre_mm, strict=True))
    if tilt:
        cos, sin = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
        x, y = cos * x + sin * y, cos * y - sin * x
    rz, ry, rx = (np.float32(radius) for radius in radii_mm)
    norm = np.sqrt((z / rz) ** 2 + (y / ry) ** 2 + (x / rx) ** 2)
    return (1 - norm) * min(rz, ry, rx)


def capsule(
    points: np.ndarray, start_mm, end_mm, start_radius: float, end_radius: float
) -> np.ndarray:
    """Return a tube from `start_mm` to `end_mm` (z, y, x) at `points` (3, Z, Y, X), tapering between its radii."""
    start = np.asarray(start_mm, np.float32)[:, None, None, None]
    along = np.asarray(end_mm, np.float32)[:, None, None, None] - start
    offset = points - start
    part = np.clip((offset * along).sum(0) / max(float((along**2).sum()), 1e-6), 0, 1)
    distance = np.sqrt(((offset - part * along) ** 2).sum(0))
    return np.float32(start_radius) + np.float32(end_radius - start_radius) * part - distance
