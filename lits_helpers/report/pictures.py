"""The pictures of a report: slices, large lesions with their diameters, the liver from in front."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

from ..figures import (
    EDGE_LETTERS,
    PALETTE,
    WINDOWS,
    label_layers,
    mask_box,
    montage_image,
    plane_spacing,
    render_slice,
    write_text,
    zoom_to,
)
from ..volumes import Volume

LESION_PIXELS = 300
LESION_MARGIN = 1.0  # of the lesion's longer side, on each side
LEAST_PIXELS = 8  # a shorter lesion gets the room of one that long
STILL_PIXELS = 300
STILL_STEP_MM = 2.0
STILL_LAYERS = ((1, "predicted liver", 1.0), (2, "predicted tumor", 0.75))  # 0.75 shines through


def pictures_of(
    volume: Volume,
    labels: np.ndarray,
    lesions: Sequence[Mapping],
    lengths_mm: Sequence[float] | None = None,
) -> dict:
    """Return the pictures of a page: "slices", "still" where there is liver, and "lesions".

    Args:
        volume: the CT.
        labels: (Z, Y, X).
        lesions: of `measure`, those that are drawn.
        lengths_mm: what each picture has room for; None for its own lesion.
    """
    spacing_mm = volume.geometry.trusted_spacing_mm
    outlined = {"prediction": labels}
    slices = montage_image(volume.hu, outlined, spacing_mm=spacing_mm, count=6, columns=3)
    pictures = {"slices": slices}
    if (labels == 1).any():
        pictures["still"] = still_picture(labels, spacing_mm)
    lengths_mm = lengths_mm or [None] * len(lesions)
    views = [
        lesion_picture(volume.hu, labels, lesion, spacing_mm, length_mm)
        for lesion, length_mm in zip(lesions, lengths_mm, strict=True)
    ]
    return pictures | {"lesions": views}


def lesion_picture(
    hu: np.ndarray, labels: np.ndarray, lesion: Mapping, spacing_mm, length_mm: float | None = None
) -> np.ndarray:
    """Return a lesion (H, W, 3) uint8 in the slice of its longest diameter, both diameters drawn.

    Args:
        hu, labels: (Z, Y, X).
        lesion: of `measure`.
        spacing_mm: (dz, dy, dx), or None if it cannot be trusted: no scale bar then.
        length_mm: what the picture has room for, as for a lesion of that diameter; None for the
            lesion's own, and where the voxel size cannot be trusted.
    """
    k = lesion["slice_index"]
    spacing = plane_spacing(spacing_mm, "axial") if spacing_mm else None
    ends = np.array([lesion["longest"], lesion["perpendicular"]])
    box = _square_around(ends, labels.shape[1:], spacing or (1.0, 1.0), spacing and length_mm)
    picture = render_slice(
        hu[k],
        window=WINDOWS["liver"],
        layers=label_layers("prediction", labels[k]),
        spacing_mm=spacing,
        zoom=zoom_to(LESION_PIXELS, box[2:], spacing),
        box=box,
        scale_bar=True,
        edges=EDGE_LETTERS["axial"],
    )
    scale = np.array(picture.shape[:2]) / box[2:]
    for line in ends:
        start, end = (
            ((point - box[:2]) * scale)[::-1].round().astype(int).tolist() for point in line
        )
        cv2.line(picture, start, end, (0, 0, 0), 4, cv2.LINE_AA)
        cv2.line(picture, start, end, (255, 255, 255), 2, cv2.LINE_AA)
    write_text(picture, f"{lesion['number']}", (picture.shape[1] - 30, 22))
    return picture


def still_picture(labels: np.ndarray, spacing_mm) -> np.ndarray:
    """Return the liver from in front (H, W, 3) uint8 on white, its tumors shining through.

    Args:
        labels: (Z, Y, X), with liver in it.
        spacing_mm: (dz, dy, dx); None takes voxels as cubes.
    """
    spacing_mm = np.array(spacing_mm or (1.0, 1.0, 1.0))
    coarse = max(STILL_STEP_MM, float(spacing_mm[1:].min()))
    for first, color, opacity in STILL_LAYERS:
        mask = np.pad(_in_cubes(labels >= first, spacing_mm, coarse) >= 0.5, 1)
        seen = mask.any(axis=1)  # (z, x), looking along y
        if first == 1:
            picture = np.full((*seen.shape, 3), 255.0)
        shaded = _light(mask.argmax(axis=1), seen)[..., None] * PALETTE[color]
        picture[seen] = (1 - opacity) * picture[seen] + opacity * shaded[seen]
    top, left, height, width = mask_box((picture < 255).any(axis=2), 0.05)
    part = picture[top : top + height, left : left + width][::-1].astype(np.uint8)
    scale = STILL_PIXELS / max(part.shape[:2])
    return cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


def _light(depth: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return the light (z, x) in [0, 1] on a surface `depth` cubes away where it is `seen`."""
    weight = gaussian_filter(seen.astype(float), 1.0) + 1e-9
    smooth = gaussian_filter(np.where(seen, depth, 0).astype(float), 1.0) / weight
    smooth = np.where(seen, smooth, smooth[seen].mean() if seen.any() else 0)
    slope = np.stack([*np.gradient(smooth), np.full(depth.shape, 1.5)])
    slope[:2] *= gaussian_filter(seen.astype(float), 1.0) > 0.75  # no dark rim
    light = np.tensordot([0.35, 0.3, 0.89], slope / np.linalg.norm(slope, axis=0), 1)
    return light.clip(0.3, 1)


def _in_cubes(mask: np.ndarray, spacing_mm: np.ndarray, step_mm: float) -> np.ndarray:
    """Return the share that a mask (Z, Y, X) covers of cubes of `step_mm`, slightly smoothed."""
    rows, columns = (
        max(1, round(n * mm / step_mm))
        for n, mm in zip(mask.shape[1:], spacing_mm[1:], strict=True)
    )
    planes = np.stack([
        cv2.resize(plane.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
        for plane in mask
    ])  # fmt: skip
    depth = max(1, round(len(mask) * spacing_mm[0] / step_mm))
    flat = cv2.resize(planes.reshape(len(mask), -1), (rows * columns, depth))
    return gaussian_filter(flat.reshape(depth, rows, columns), 0.8)


def _square_around(ends: np.ndarray, shape, spacing_mm, length_mm: float | None = None) -> tuple:
    """Return the box (top, left, height, width) around a lesion, within a slice of `shape`.

    It has room for `length_mm`, or for the lesion itself.
    """
    low, high = ends.reshape(-1, 2).min(axis=0), ends.reshape(-1, 2).max(axis=0)
    steps = np.divide(spacing_mm, min(spacing_mm))  # in sides of a pixel
    extent = length_mm / min(spacing_mm) if length_mm else ((high - low) * steps).max()
    side = max(extent, LEAST_PIXELS) * (1 + 2 * LESION_MARGIN)
    sides = [min(int(side / step), length) for step, length in zip(steps, shape, strict=True)]
    starts = [
        int(np.clip((a + b) / 2 - length / 2, 0, whole - length))
        for a, b, length, whole in zip(low, high, sides, shape, strict=True)
    ]
    return (*starts, *sides)
