"""Closed surfaces of the liver and of each lesion as binary STL, in the patient's millimetres.

Coordinates are those of the file's world, as NIfTI has them (RAS+: x to the patient's left is
negative, y grows to the front, z to the head). So a mesh lies on its CT in viewers that read both.
"""

from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.measure import marching_cubes

from ..machine import written_whole
from ..metrics import filled_box
from ..volumes import Volume

SMOOTHING = 0.7  # voxels: hides the steps of the voxels
TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")])


def surface(mask: np.ndarray) -> np.ndarray:
    """Return the closed surface of a mask as triangles (N, 3, 3), corners (z, y, x) in voxels.

    Its level is chosen so that it encloses as much as the mask's voxels.

    Args:
        mask: (Z, Y, X) bool, not empty.
    """
    box = filled_box(mask)
    values = gaussian_filter(np.pad(mask[box].astype(np.float32), 3), SMOOTHING)
    wanted = np.count_nonzero(mask)
    low, high = 0.0, float(values.max())
    for _ in range(20):
        level = (low + high) / 2
        points, faces, _, _ = marching_cubes(values, level)
        corners = points[faces]
        excess = enclosed(corners) / wanted - 1
        if abs(excess) < 0.002:
            break
        low, high = (level, high) if excess > 0 else (low, level)
    return corners + [extent.start - 3 for extent in box]


def enclosed(triangles: np.ndarray) -> float:
    """Return the volume that triangles (N, 3, 3) enclose, in the cube of their unit."""
    a, b, c = np.moveaxis(triangles.astype(np.float64), 1, 0)
    return abs(float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum())) / 6


def write_stl(mask: np.ndarray, like: Volume, path: Path | str) -> Path:
    """Write the surface of a mask as binary STL, outward normals, in mm of the file's world.

    Args:
        mask: (Z, Y, X) bool of the CT's shape.
        like: the CT.

    Raises:
        ValueError: the mask is empty, or the CT's voxel size cannot be trusted.
    """
    if like.geometry.trusted_spacing_mm is None:
        raise ValueError(f"{like.path or 'the CT'}: no mesh, its voxel size cannot be trusted")
    if not mask.any():
        raise ValueError(f"no mesh for {Path(path).name}: the labels hold none of it")
    points = _in_world(surface(mask), like.geometry)
    normals = np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])
    if np.einsum("ij,ij->i", points.mean(axis=1) - points.mean(axis=(0, 1)), normals).sum() < 0:
        points, normals = points[:, ::-1], -normals
    content = np.zeros(len(points), TRIANGLE)
    content["corners"] = points
    content["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1), 1e-12)[:, None]
    with written_whole(path) as temporary, open(temporary, "wb") as stream:
        stream.write(b"millimetres, RAS+ world of the CT's file".ljust(80))
        stream.write(np.uint32(len(content)).tobytes())
        stream.write(content.tobytes())
    return Path(path)


def _in_world(triangles: np.ndarray, geometry) -> np.ndarray:
    """Turn corners (z, y, x) in voxels into mm (x, y, z) of the file's world."""
    stored = np.empty_like(triangles)
    places = zip(geometry.axes, geometry.flips, geometry.shape, strict=True)
    for internal, (axis, flip, length) in enumerate(places):
        values = triangles[..., internal]
        stored[..., axis] = length - 1 - values if flip else values
    affine = np.array(geometry.affine)
    return stored @ affine[:3, :3].T + affine[:3, 3]
