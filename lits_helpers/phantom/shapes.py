"""What the phantom is built with: a grid in mm, smooth noise, implicit shapes and partial volume.

A shape is a float32 array `inside`: positive inside, negative outside, zero on the surface, growing
by roughly one per mm. `coverage` turns it into the part of each voxel that lies inside.
"""

from dataclasses import dataclass

import numpy as np

LATTICE_MM = ((-250.0, 45.0), (-235.0, 235.0), (-235.0, 235.0))  # noise repeats its edge beyond
WIDEST = 20.0  # mm across a voxel


@dataclass(frozen=True)
class Grid:
    """Voxel centres in mm: x to the patient's left, y to the back, z to the head.

    z = 0 is the top of the right diaphragm, y = x = 0 the middle of the trunk.

    Attributes:
        z, y, x: voxel centres (Z,), (Y,), (X,) float32, mm.
        warped: (3, Z, Y, X) float32, the same centres (z, y, x) after a smooth deformation, mm.
            Organs are drawn in these, so that nothing is exactly an ellipsoid.
    """

    z: np.ndarray
    y: np.ndarray
    x: np.ndarray
    warped: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.z.size, self.y.size, self.x.size

    def near(self, centre_mm, reach_mm, margin_mm: float = 15.0) -> tuple[slice, slice, slice]:
        """Return the box that holds `centre_mm` +- `reach_mm` (z, y, x), with room for the warp."""
        reach_mm = np.broadcast_to(reach_mm, 3) + margin_mm
        box = []
        for axis, centre, reach in zip((self.z, self.y, self.x), centre_mm, reach_mm, strict=True):
            low, high = np.searchsorted(axis, (centre - reach, centre + reach))
            box.append(slice(int(low), int(high)))
        return tuple(box)


def make_grid(shape, spacing_mm, top_mm: float, shift_mm, rng: np.random.Generator) -> Grid:
    """Lay a deformed grid whose last slice is at `top_mm`, centred in the plane at `shift_mm`."""
    depth, height, width = shape
    z = top_mm - spacing_mm[0] * np.arange(depth - 1, -1, -1, dtype=np.float32)
    y = shift_mm[0] + spacing_mm[1] * (np.arange(height, dtype=np.float32) - (height - 1) / 2)
    x = shift_mm[1] + spacing_mm[2] * (np.arange(width, dtype=np.float32) - (width - 1) / 2)
    z, y, x = (axis.astype(np.float32) for axis in (z, y, x))
    plain = Grid(z, y, x, np.empty(0))
    warped = np.stack(np.broadcast_arrays(z[:, None, None], y[:, None], x))
    for axis in warped:
        axis += 4.0 * smooth_noise(plain, 80.0, rng) + 1.6 * smooth_noise(plain, 28.0, rng)
    return Grid(z, y, x, warped)


def smooth_noise(grid: Grid, pitch_mm, rng: np.random.Generator) -> np.ndarray:
    """Return noise (Z, Y, X) float32, mean 0, deviation about 1, that varies over `pitch_mm`.

    Random numbers at the nodes of a lattice fixed in mm are interpolated by a cubic B-spline, so
    that the same generator gives the same noise in space on every grid.

    Args:
        pitch_mm: distance of the lattice's nodes, one number or (z, y, x).
    """
    return _interpolate((grid.z, grid.y, grid.x), LATTICE_MM, pitch_mm, rng)


def local_noise(grid: Grid, box, pitch_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Return noise as `smooth_noise` does, for a box that is small against the whole grid."""
    axes = [axis[part] for axis, part in zip((grid.z, grid.y, grid.x), box, strict=True)]
    return _interpolate(axes, [(axis[0], axis[-1]) for axis in axes], pitch_mm, rng)


def _interpolate(axes, ranges_mm, pitch_mm, rng: np.random.Generator) -> np.ndarray:
    pitches = np.broadcast_to(pitch_mm, 3)
    counts = [int((b - a) / pitch) + 5 for (a, b), pitch in zip(ranges_mm, pitches, strict=True)]
    nodes = rng.standard_normal(counts, dtype=np.float32)
    nodes *= 3.0  # the spline averages: it leaves a third of the deviation
    (z, z_weights), (y, y_weights), (x, x_weights) = (
        _spline((axis - low) / pitch + 1, count)
        for axis, (low, _), pitch, count in zip(axes, ranges_mm, pitches, counts, strict=True)
    )
    noise = np.empty([axis.size for axis in axes], np.float32)
    wide, taken = np.empty((2, counts[1], x.size), np.float32)
    tall = np.empty(noise.shape[1:], np.float32)
    for k, plane in enumerate(noise):  # plane by plane: what is worked on stays in the cache
        part = sum(nodes[z[k] + step] * z_weights[step, k] for step in range(4))
        _weighted(part, x, x_weights, 1, wide, taken)
        _weighted(wide, y, y_weights[..., None], 0, plane, tall)
    return noise


def _weighted(nodes, first, weights, axis: int, out: np.ndarray, taken: np.ndarray) -> None:
    """Sum the four nodes from `first` on along an axis with their weights; `taken` is scratch."""
    for step in range(4):
        target = taken if step else out
        np.take(nodes, first + step, axis, out=target, mode="clip")  # else numpy buffers
        target *= weights[step]
        if step:
            out += taken


def _spline(position: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first of the four nodes around each position, and their weights (4, N).

    Source: uniform cubic B-spline. Summed term by term rather than as a matrix product, whose
    rounding may depend on the number of threads.
    """
    position = np.clip(position, 1, nodes - 2.001)
    first = np.floor(position).astype(int) - 1
    t = position - first - 1
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    return first, (np.stack(weights) / 6).astype(np.float32)


def coverage(inside: np.ndarray) -> np.ndarray:
    """Return which part [0, 1] of each voxel a shape covers, from its values at voxel centres.

    The change of `inside` from one voxel to the next is the width of a voxel in the shape's own
    units, which gives exact partial volumes for flat surfaces along the axes.
    """
    width = np.zeros_like(inside)
    for axis in range(inside.ndim):
        if inside.shape[axis] > 2:
            width += np.abs(_slope(inside, axis))
    np.clip(width, 1e-3, WIDEST, out=width)  # no voxel is wider: a jump is no surface
    width = np.divide(inside, width, out=width)
    width += 0.5
    return np.clip(width, 0, 1, out=width)


def bounds(near: np.ndarray) -> tuple[slice, ...]:
    """Return the box of a mask (Z, Y, X), a voxel wider where there is room; empty for nothing."""
    box = []
    for axis, length in enumerate(near.shape):
        where = np.flatnonzero(near.any(tuple({0, 1, 2} - {axis})))
        ends = (max(where[0] - 1, 0), min(where[-1] + 2, length)) if where.size else (0, 0)
        box.append(slice(*ends))
    return tuple(box)


def _slope(values: np.ndarray, axis: int) -> np.ndarray:
    slope = np.empty_like(values)
    view = np.moveaxis(values, axis, 0)
    out = np.moveaxis(slope, axis, 0)
    np.subtract(view[2:], view[:-2], out=out[1:-1])
    out[1:-1] *= 0.5
    out[0] = view[1] - view[0]
    out[-1] = view[-1] - view[-2]
    return slope


def paint(hu: np.ndarray, cover: np.ndarray, value) -> None:
    """Mix `value` (HU, one number or an array) into `hu` in place where `cover` [0, 1] says."""
    change = value - hu
    change *= cover
    hu += change


def smooth_min(a: np.ndarray, b: np.ndarray, blend_mm: float) -> np.ndarray:
    """Return the intersection of two shapes with an edge rounded over `blend_mm`.

    Source: polynomial smooth minimum, I. Quilez, "Smooth minimum".
    """
    mix = np.clip(0.5 + 0.5 * (b - a) / blend_mm, 0, 1)
    return b + (a - b) * mix - blend_mm * mix * (1 - mix)


def smooth_max(a: np.ndarray, b: np.ndarray, blend_mm: float) -> np.ndarray:
    """Return the union of two shapes, joined smoothly over `blend_mm`."""
    return -smooth_min(-a, -b, blend_mm)


def ellipsoid(points, centre_mm, radii_mm, tilt: float = 0.0) -> np.ndarray:
    """Return an ellipsoid at `points` (3, Z, Y, X); centre and radii are (z, y, x) in mm.

    Args:
        tilt: turn about the z axis, radians; positive turns the x axis towards the back.
    """
    z, y, x = (axis - np.float32(middle) for axis, middle in zip(points, centre_mm, strict=True))
    if tilt:
        cos, sin = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
        x, y = cos * x + sin * y, cos * y - sin * x
    norm = np.zeros_like(z)
    for axis, radius in zip((z, y, x), radii_mm, strict=True):
        axis *= np.float32(1 / radius)
        axis *= axis
        norm += axis
    return (1 - np.sqrt(norm, out=norm)) * np.float32(min(radii_mm))


def capsule(points, start_mm, end_mm, start_radius: float, end_radius: float) -> np.ndarray:
    """Return a tapering tube from `start_mm` to `end_mm` (z, y, x) at `points` (3, Z, Y, X)."""
    start = np.asarray(start_mm, np.float32)
    along = np.asarray(end_mm, np.float32) - start
    offsets = [axis - at for axis, at in zip(points, start, strict=True)]
    length = max(float(along @ along), 1e-6)
    part = sum(offset * (step / length) for offset, step in zip(offsets, along, strict=True))
    np.clip(part, 0, 1, out=part)
    distance = np.zeros_like(part)
    for offset, step in zip(offsets, along, strict=True):
        offset -= part * step
        offset *= offset
        distance += offset
    return start_radius + part * np.float32(end_radius - start_radius) - np.sqrt(distance)
