"""Liver and tumors as surfaces: meshes by marching cubes, and a turntable that needs no GPU."""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.measure import marching_cubes

from .drawing import SKY, VERMILION
from .labels import FIRST_LABEL

STEPS_MM = {"liver": 2.5, "tumor": 1.25}  # mesh width: a lesion of 3 mm must survive
COLORS = {"liver": SKY, "tumor": VERMILION}
LIVER_OPACITY = 0.33
LIGHT = np.array(
    [0.45, -0.8, -0.4]
)  # (z, y, x), towards the light: from the front, above and the right
FINENESS = 2  # the turntable is drawn this much larger and averaged: smooth edges
GAP = 1.8  # pixels between samples of a surface; what lies between is closed afterwards
CLOSING = np.ones((3, 3), np.uint8)
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


def turntable(
    labels: np.ndarray,
    spacing_mm: tuple[float, float, float],
    *,
    frames: int = 36,
    size: int = 320,
    seconds: float = 4.0,
) -> bytes:
    """Return an animated GIF of the translucent liver and its tumors, turning on the body's axis.

    It starts with the view from the front, the patient's right on the left.

    Args:
        labels: (Z, Y, X) 0/1/2.
        frames: pictures in a turn.
        size: side of the square picture, pixels.

    Raises:
        ValueError: the labels are empty.
    """
    turns = np.arange(frames) * 360 / frames
    pictures = [Image.fromarray(it) for it in render_turns(labels, spacing_mm, turns, size)]
    palette = pictures[0].quantize(128)  # one palette for all frames: no flicker
    pictures = [it.quantize(palette=palette, dither=Image.Dither.NONE) for it in pictures]
    stream, pause = io.BytesIO(), round(1000 * seconds / frames)
    rest = {"append_images": pictures[1:], "duration": pause, "loop": 0}
    pictures[0].save(stream, "GIF", save_all=True, **rest)
    return stream.getvalue()


def render_turns(
    labels: np.ndarray, spacing_mm: tuple[float, float, float], degrees, size: int = 320
) -> list[np.ndarray]:
    """Return a picture (size, size, 3) uint8 on white for each angle; 0 is seen from the front."""
    meshes = make_meshes(labels, spacing_mm)
    liver = meshes["liver"].points
    center = (liver.min(axis=0) + liver.max(axis=0)) / 2
    scale = FINENESS * size / (2.1 * np.linalg.norm(liver - center, axis=1).max())
    clouds = {name: _cloud(mesh, center, scale) for name, mesh in meshes.items() if mesh}
    return [_render(clouds, np.deg2rad(angle), FINENESS * size) for angle in degrees]


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
    starts = [int(it[0]) for it in extents]
    box = tuple(slice(int(it[0]), int(it[-1]) + 1) for it in extents)
    part = mask[box].astype(np.float32)
    counts = [max(1, round(n * mm / step_mm)) for n, mm in zip(part.shape, spacing_mm, strict=True)]
    steps = np.array(part.shape) * spacing_mm / counts
    flat = (counts[2], counts[1])
    part = np.stack([cv2.resize(it, flat, interpolation=cv2.INTER_AREA) for it in part])
    columns = part.reshape(len(part), -1)
    way = cv2.INTER_AREA if counts[0] < len(part) else cv2.INTER_LINEAR
    part = cv2.resize(columns, (columns.shape[1], counts[0]), interpolation=way)
    values = np.pad(part.reshape(counts), 2)  # a closed surface, also at the volume's edge
    origin = (np.array(starts) - 0.5) * spacing_mm + 0.5 * steps - 2 * steps
    return values, origin, tuple(steps)


def _cloud(mesh: Mesh, center: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Sample a mesh every GAP pixels or closer: (points, normals), (K, 3) in pixels."""
    corners = (mesh.points[mesh.triangles] - center) * scale  # (M, 3 corners, 3)
    edge = np.linalg.norm(corners[:, 0] - corners[:, 1], axis=1).max()
    parts = max(1, int(np.ceil(edge / GAP)))
    steps = [(i, j, parts - i - j) for i in range(parts + 1) for j in range(parts + 1 - i)]
    weights = np.array(steps, np.float32) / parts  # (S, 3)
    points = np.einsum("sc,mcx->msx", weights, corners).reshape(-1, 3)
    normals = np.einsum("sc,mcx->msx", weights, mesh.normals[mesh.triangles]).reshape(-1, 3)
    return points.astype(np.float32), normals.astype(np.float32)


def _render(clouds, angle: float, size: int) -> np.ndarray:
    picture = np.full((size, size, 3), 255, np.float32)
    for name in ("tumor", "liver"):  # the liver is laid over what is inside it
        if name in clouds:
            shade = _shaded(*clouds[name], angle, size)
            seen = shade > 0
            color = np.float32(COLORS[name]) * shade[seen][:, None]
            opacity = LIVER_OPACITY if name == "liver" else 1.0
            picture[seen] = (1 - opacity) * picture[seen] + opacity * color
    small = cv2.resize(picture, (size // FINENESS,) * 2, interpolation=cv2.INTER_AREA)
    return np.clip(small, 0, 255).astype(np.uint8)


def _shaded(points, normals, angle: float, size: int) -> np.ndarray:
    """Return the brightness (size, size) of each pixel's nearest surface, 0 where there is none."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    away = normals[:, 1:] @ turn[:, 0]  # along y, from the viewer at the front
    facing = away < 0
    y, x = (points[facing, 1:] @ turn).T
    rows = np.round(size / 2 - points[facing, 0]).astype(np.int64)
    columns = np.round(size / 2 + x).astype(np.int64)
    lit = np.column_stack([normals[facing, 0], normals[facing, 1:] @ turn]) @ LIGHT
    bright = (255 * (0.35 + 0.65 * np.clip(lit, 0, 1))).astype(np.int64)
    nearness = (4 * (size - y)).astype(np.int64)
    buffer = np.zeros(size * size, np.int64)
    inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    place = (rows * size + columns)[inside]
    np.maximum.at(buffer, place, (nearness << 8 | bright)[inside])
    # Nearness and brightness together stay below 2**24, so float32 holds them exactly.
    closed = cv2.morphologyEx(
        buffer.reshape(size, size).astype(np.float32), cv2.MORPH_CLOSE, CLOSING
    )
    return (closed.astype(np.int64) & 255).astype(np.float32) / 255
