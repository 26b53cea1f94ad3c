"""Where a patient lies in the scan: a coarse deformed grid for shapes, a fine one for voxels.

A shape is a float32 array (z, y, x) on the coarse grid: positive inside, zero on the surface,
growing by about one per mm. It is brought to the voxels only where it is painted, which is why a
case takes a second instead of a minute.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from ..shapes import bounds, capsule, ellipsoid

COARSE_MM = 3.6  # the widest voxel in which shapes are drawn, in an adult
FAR = -60.0  # what a shape is where it was not computed
MARGIN_MM = 24.0  # how far deformation and tilt may carry a shape out of its box


@dataclass(frozen=True)
class Space:
    """Scan and patient coordinates, mm: z to the head, y to the back, x to the patient's left.

    Attributes:
        axes: voxel centres in the scan, z (Z,), y (Y,), x (X,).
        coarse_axes: the same of the coarse grid.
        factors: voxels in one coarse voxel along z, y, x.
        points: (3, z, y, x) float32, the patient coordinates of the coarse grid, deformed; in
            these z = 0 is the right diaphragm's top and every patient has an adult's size.
        turn: (3, 3), from scan to patient directions.
        size: how large the patient is, 1 for an adult.
    """

    axes: tuple[np.ndarray, np.ndarray, np.ndarray]
    coarse_axes: tuple[np.ndarray, np.ndarray, np.ndarray]
    factors: tuple[int, int, int]
    points: np.ndarray
    turn: np.ndarray
    size: float

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(axis.size for axis in self.axes)

    @property
    def coarse_shape(self) -> tuple[int, ...]:
        return self.points.shape[1:]

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        return tuple(float(axis[1] - axis[0]) for axis in self.axes)

    def noise(self, pitch_mm, rng: np.random.Generator) -> np.ndarray:
        """Return coarse smooth noise of deviation 1 that varies over `pitch_mm`, adult size."""
        steps = list(map(step_of, self.coarse_axes))
        pitches = np.broadcast_to(pitch_mm, 3) * self.size / steps
        return smooth_noise(self.coarse_shape, pitches, rng)

    def locate(self, nodes, rounds: int = 2) -> np.ndarray:
        """Return where patient points (N, 3) lie in the scan, (N, 3) mm, nearer by each round."""
        nodes = np.atleast_2d(np.asarray(nodes, np.float32))
        found = nodes @ self.turn * self.size
        for _ in range(rounds):
            at = [
                np.clip(np.rint((part - axis[0]) / step_of(axis)), 0, axis.size - 1).astype(int)
                for part, axis in zip(found.T, self.coarse_axes, strict=True)
            ]
            grid = np.stack([axis[i] for axis, i in zip(self.coarse_axes, at, strict=True)], 1)
            shift = self.points[:, *at].T - grid @ self.turn.T / self.size
            found = (nodes - shift) @ self.turn * self.size
        return found

    def near(self, nodes, reach_mm) -> tuple[slice, ...]:
        """Return the coarse box around patient points (N, 3) with `reach_mm` to every side."""
        nodes = self.locate(nodes, rounds=1)
        reach = (np.broadcast_to(reach_mm, 3) + MARGIN_MM) * self.size
        return box_between(self.coarse_axes, nodes.min(0) - reach, nodes.max(0) + reach)

    def ellipsoid(self, centre, radii, tilt: float = 0.0) -> np.ndarray:
        """Return an ellipsoid (z, y, x) with centre and radii in the patient's mm."""
        shape = np.full(self.coarse_shape, FAR, np.float32)
        box = self.near([centre], radii)
        points = self.points[:, *box]
        if points.size:
            shape[box] = ellipsoid(points, centre, radii, tilt)
        return shape

    def chain(self, nodes, radii) -> np.ndarray:
        """Return a thick line (z, y, x) through `nodes` (N, 3), a radius at each node."""
        shape = np.full(self.coarse_shape, FAR, np.float32)
        for start, end, r0, r1 in zip(nodes[:-1], nodes[1:], radii[:-1], radii[1:], strict=True):
            box = self.near([start, end], max(r0, r1))
            points = self.points[:, *box]
            if points.size:
                np.maximum(shape[box], capsule(points, start, end, r0, r1), out=shape[box])
        return shape

    def enlarge(self, coarse: np.ndarray, box=None) -> np.ndarray:
        """Return a coarse array, or its part `box`, at the voxels it covers."""
        box = box or tuple(slice(0, n) for n in self.coarse_shape)
        fine = self.voxels(box)
        depth, height, width = (part.stop - part.start for part in fine)
        full = tuple(
            (part.stop - part.start) * f for part, f in zip(box, self.factors, strict=True)
        )
        part, out = coarse[box], np.empty((depth, height, width), np.float32)
        low, weight = _between(full[0], self.factors[0], part.shape[0])
        for k in range(depth):
            plane = part[low[k]]
            if weight[k]:
                plane = plane + weight[k] * (part[low[k] + 1] - plane)
            plane = cv2.resize(np.ascontiguousarray(plane), full[:0:-1])
            out[k] = plane[:height, :width]
        return out

    def voxels(self, box) -> tuple[slice, ...]:
        """Return the voxels that a box of the coarse grid covers."""
        return tuple(
            slice(part.start * f, min(part.stop * f, n))
            for part, f, n in zip(box, self.factors, self.shape, strict=True)
        )

    def cover(self, inside: np.ndarray, softness_mm: float = 0.0):
        """Return a coarse box around a shape and how much of its voxels [0, 1] the shape covers.

        A slice takes in all that lies within its thickness: flat surfaces blur in thick slices.
        """
        box = bounds(inside > -12.0 * max(self.size, 0.5))
        part = inside[box]
        width = np.full(part.shape, 0.3 + softness_mm, np.float32)
        for axis, factor in enumerate(self.factors):
            if part.shape[axis] > 2:
                width += np.abs(np.gradient(part, axis=axis)) / np.float32(factor)
        ratio = np.clip(part / np.minimum(width, 14.0 + softness_mm), -3, 3)
        whole = np.full(self.coarse_shape, -3, np.float32)
        whole[box] = ratio
        fine = self.enlarge(whole, box)
        fine += 0.5
        return box, np.clip(fine, 0, 1, out=fine)


def make_space(shape, spacing_mm, middle_mm, turn, size: float, warp, rng) -> Space:
    """Lay the grids around `middle_mm` (z, y, x), scan mm, and deform the patient.

    Args:
        warp: deformation (coarse, fine, breathing) in mm: over 90 mm, over 32 mm, and the jump
            from slice to slice of a patient who breathes.
    """
    factors = tuple(max(1, round(COARSE_MM * size / step)) for step in spacing_mm)
    axes, coarse_axes = [], []
    for count, step, middle, factor in zip(shape, spacing_mm, middle_mm, factors, strict=True):
        axis = middle + step * (np.arange(count) - (count - 1) / 2)
        coarse = axis[0] + step * ((factor - 1) / 2 + factor * np.arange(-(-count // factor)))
        axes.append(axis.astype(np.float32))
        coarse_axes.append(coarse.astype(np.float32))
    z, y, x = coarse_axes
    grid = np.stack(np.broadcast_arrays(z[:, None, None], y[:, None], x)).astype(np.float32)
    points = np.einsum("ij,jzyx->izyx", turn.astype(np.float32), grid) / np.float32(size)
    space = Space(tuple(axes), tuple(coarse_axes), factors, points, turn, size)
    for axis in points:
        axis += warp[0] * space.noise(90.0, rng) + warp[1] * space.noise(32.0, rng)
    jumps = rng.normal(0, 1, (3, z.size, 1, 1)) * np.array((1, 0.5, 0.3))[:, None, None, None]
    points += (warp[2] * jumps).astype(np.float32)
    return space


def smooth_noise(shape, pitches, rng: np.random.Generator) -> np.ndarray:
    """Return noise (z, y, x) float32 of deviation 1 that varies over `pitches` voxels."""
    counts = [max(2, int(n / pitch) + 2) for n, pitch in zip(shape, pitches, strict=True)]
    lattice = rng.standard_normal((counts[0] + 3, *counts[1:]), dtype=np.float32)
    lattice *= 1.75  # what interpolation along three axes takes of the deviation
    out = np.empty(shape, np.float32)
    position = rng.random() + np.arange(shape[0]) * min(1 / pitches[0], 1.0)
    for k, at in enumerate(position):
        first = min(int(at), counts[0] - 1)
        t = min(at - first, 1.0)
        weights = (1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3
        a, b, c, d = (np.float32(weight / 6) for weight in weights)
        part = lattice[first : first + 4]
        plane = (a * part[0] + b * part[1]) + (c * part[2] + d * part[3])
        out[k] = cv2.resize(plane, shape[:0:-1], interpolation=cv2.INTER_CUBIC)
    return out


def line(z, y, x) -> np.ndarray:
    """Return points (N, 3) from their coordinates, each a number or N of them."""
    return np.stack(np.broadcast_arrays(z, y, x), axis=-1).astype(float)


def segment(axes, start, end, radius: float):
    """Return the box of voxels around a line in scan mm, and its depth below the tube's surface.

    The radius counts at both ends; the depth is (z, y, x) float32 mm at the voxel centres.
    """
    start, end = np.asarray(start, float), np.asarray(end, float)
    pad = radius + np.array(list(map(step_of, axes)))
    box = box_between(axes, np.minimum(start, end) - pad, np.maximum(start, end) + pad)
    z, y, x = (
        (axis[part] - at).astype(np.float32)
        for axis, part, at in zip(axes, box, start, strict=True)
    )
    along = end - start
    length = max(float(along @ along), 1e-6)
    z, y = z[:, None, None], y[:, None]
    forward = (z * along[0] + y * along[1]) + x * np.float32(along[2])
    part = np.clip(forward / np.float32(length), 0, 1)
    squared = (z * z + y * y) + x * x + part * (part * np.float32(length) - 2 * forward)
    return box, np.float32(radius) - np.sqrt(np.maximum(squared, 0))


def step_of(axis: np.ndarray) -> float:
    """Return the distance in mm of voxel centres (N,); 1 of a single one."""
    return float(axis[1] - axis[0]) if axis.size > 1 else 1.0


def box_between(axes, low, high) -> tuple[slice, ...]:
    """Return the box of the voxel centres `axes` (z, y, x) between two corners, mm."""
    ends = (np.searchsorted(axis, (a, b)) for axis, a, b in zip(axes, low, high, strict=True))
    return tuple(slice(int(a), int(b)) for a, b in ends)


def _between(count: int, factor: int, planes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the plane below each of `count` slices, and the weight of the next one."""
    position = np.clip((np.arange(count) + 0.5) / factor - 0.5, 0, max(planes - 1, 0))
    low = np.minimum(position.astype(int), max(planes - 2, 0))
    return low, (position - low).astype(np.float32)
