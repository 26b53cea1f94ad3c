"""Cues for the orientation of a scan, from a coarse copy of it: body, spine, lungs, liver.

All cues are shares of the body's size, so that they need no trusted spacing; where it is trusted,
the copy's pixels are about square. Their sign follows the (Z, Y, X) axes: positive means head,
back, patient's left.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from ..volumes import reversing

COARSE_SIZE = 128  # longer in-plane side, pixels: noise averages out, organs stay
COARSE_SLICES = 36
BODY_HU = -300  # between lung or air and fat
ABOVE_CLIPPED_AIR_HU = 50  # in a CT whose values end above that
GAS_HU = -500
ABOVE_CLIPPED_GAS_HU = 20
BONE_HU = 180  # of area means; contrast-filled vessels near the spine pass too, harmlessly
PARENCHYMA_HU = (20, 200)
FATTY_HU = (-60, 20)  # parenchyma of a liver with severe steatosis; elsewhere 1 % of a body
LIVER_MEDIAN_HU = (-30, 250)  # severe steatosis lies about -20
LIVER_BAND_HU = 40  # area means of parenchyma stay this close to its median
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
SQUARE = np.ones((3, 3), np.uint8)
MIN_BODY_SHARE = 0.05  # of the coarse voxels; less is no abdomen
Flips = tuple[bool, bool, bool]


@dataclass(frozen=True)
class Coarse:
    """A scan at low resolution.

    Attributes:
        hu: (z, y, x) float32 area means of sampled slices.
        body: (z, y, x) bool, filled: gas and lungs inside count.
        liver: (z, y, x) bool, label 1 without its rim (all of a liver too small for that); None
            without a segmentation.
    """

    hu: np.ndarray
    body: np.ndarray
    liver: np.ndarray | None

    @property
    def has_body(self) -> bool:
        """Whether enough of the scan is body to tell anything."""
        return bool(self.body.mean() >= MIN_BODY_SHARE)

    @cached_property
    def ring(self) -> np.ndarray:
        """(z, y, x) bool: the second and third pixel around the liver, slice by slice."""
        planes = self.liver.view(np.uint8)
        near, far = (
            np.stack([cv2.dilate(plane, SQUARE, iterations=reach) for plane in planes])
            for reach in (1, 3)
        )
        return (far > 0) & (near == 0)

    @cached_property
    def bulk(self) -> np.ndarray:
        """(z, y, x) bool: the core of each slice's bulkiest organ, in an abdomen the liver.

        Empty where a fatty and a sound organ on different sides are about as bulky.
        """
        sound, fatty = (_bulkiest(self, limits) for limits in (PARENCHYMA_HU, FATTY_HU))
        thinner, fuller = sorted((sound, fatty), key=np.count_nonzero)
        sides = [_side_of(mask, self.body) or 0.0 for mask in (thinner, fuller)]
        doubtful = 2 * np.count_nonzero(thinner) > np.count_nonzero(fuller)
        return np.zeros_like(fuller) if doubtful and sides[0] * sides[1] < 0 else fuller


def coarse_copy(
    hu: np.ndarray,
    labels: np.ndarray | None,
    pixel_aspect: float = 1.0,
    without_labels: Coarse | None = None,
) -> Coarse:
    """Return the low-resolution copy on which all cues are computed.

    Args:
        hu: (Z, Y, X) int16.
        labels: (Z, Y, X) uint8, or None.
        pixel_aspect: height of a pixel by its width, as `Geometry.pixel_aspect`.
        without_labels: the copy of the same scan, made before; only the liver is added to it.
    """
    depth, height, width = hu.shape
    picked = np.unique(np.linspace(0, depth - 1, min(depth, COARSE_SLICES)).round().astype(int))
    longer = max(height * pixel_aspect, width)  # in widths of a pixel
    # Whole numbers of pixels: area means of them are fast.
    across = max(math.ceil(longer / COARSE_SIZE), round(pixel_aspect))
    down = max(1, round(across / pixel_aspect))
    rows = height // down
    columns = width // across
    liver = None
    if labels is not None:
        middles = slice(down // 2, None, down), slice(across // 2, None, across)
        liver = _without_rim(labels[picked, *middles][:, :rows, :columns])
    if without_labels:
        return replace(without_labels, liver=liver)
    whole = np.ascontiguousarray(hu[picked, : rows * down, : columns * across])
    means = [cv2.resize(plane, (columns, rows), interpolation=cv2.INTER_AREA) for plane in whole]
    small = np.clip(np.stack(means), -1024, 3071).astype(np.float32)  # padding and metal
    return Coarse(small, _filled_body(small), liver)


def body_threshold(hu: np.ndarray) -> float:
    """Return the HU above which a voxel is body, also where air was clipped to a higher value."""
    return max(BODY_HU, float(hu.min()) + ABOVE_CLIPPED_AIR_HU)


def body_sides(coarse: Coarse) -> tuple[float, float]:
    """Return the body's height and width as shares of the slice's; the medians of slices."""
    shares = []
    for across in (2, 1):
        filled = coarse.body.any(axis=across)
        spans = [np.ptp(np.flatnonzero(line)) + 1 for line in filled if line.any()]
        shares.append(float(np.median(spans)) / filled.shape[1] if spans else 0.0)
    return tuple(shares)


def spine_cue(coarse: Coarse) -> float | None:
    """Return how far behind the body's middle the bone near its midline lies, per body height.

    A spine at the back gives 0.1 to 0.25; None without enough bone near the midline.
    """
    places = []
    body_pixels = 0
    for plane, body in zip(coarse.hu > BONE_HU, coarse.body, strict=True):
        rows, columns = np.nonzero(body)
        if rows.size < 50:
            continue
        y, x = np.nonzero(plane & body)
        midline = np.abs(x - columns.mean()) <= 0.15 * np.ptp(columns)
        places.extend((y[midline] - (rows.min() + rows.max()) / 2) / np.ptp(rows))
        body_pixels += rows.size
    if len(places) < max(10, 0.002 * body_pixels):
        return None
    return float(np.median(places))


def back_cue(coarse: Coarse) -> float:
    """Return how clearly table, outline and liver show the back at the image's lower edge.

    Sound scans give 0.02 to 0.3; about 0 says nothing. Independent of `spine_cue`.
    """
    table = (coarse.hu > max(-900.0, float(coarse.hu.min()) + 60)) & ~coarse.body
    cues = []
    for plane, body in zip(table, coarse.body, strict=True):
        rows = np.flatnonzero(body.any(axis=1))
        if len(rows) < 10:
            continue
        middle = (rows[0] + rows[-1] + 1) // 2
        below = np.count_nonzero(plane[middle:]) - np.count_nonzero(plane[:middle])
        edge = max(1, round(0.08 * len(rows)))
        ends = [np.ptp(np.flatnonzero(body[rows[k]])) for k in (edge, -1 - edge)]
        cues.append((below / body.size, (ends[1] - ends[0]) / body.any(axis=0).sum()))
    total = float(np.median(cues, axis=0).sum()) if cues else 0.0
    if coarse.liver is not None and coarse.liver.any():  # it lies more in front
        rows, body_rows = (np.nonzero(mask)[1] for mask in (coarse.liver, coarse.body))
        total -= float((rows.mean() - body_rows.mean()) / max(1, np.ptp(body_rows)))
    return total


def end_shares(body: np.ndarray) -> tuple[float, float, float]:
    """Return for each axis the emptier end plane as a share of the fullest plane, 0 to 1.

    A scan ends within the body along the patient and in air across it: sound scans had 0.5 or more
    along (Z) and 0.03 or less across.

    Args:
        body: (z, y, x) bool.
    """
    shares = []
    for axis in range(3):
        filled = body.sum(axis=tuple({0, 1, 2} - {axis}))
        shares.append(float(min(filled[0], filled[-1]) / max(1, filled.max())))
    return tuple(shares)


def liver_cue(coarse: Coarse) -> float | None:
    """Return how far left of the body's middle the liver mask lies, as a share of the body's width.

    A liver on the patient's right gives -0.15 to -0.25; None without a mask.
    """
    return None if coarse.liver is None else _side_of(coarse.liver, coarse.body)


def bulk_cue(coarse: Coarse) -> float | None:
    """Return `liver_cue` of the bulkiest organ, which in an abdomen is the liver; needs no mask.

    None where nothing is bulky.
    """
    return _side_of(coarse.bulk, coarse.body)


def lung_cue(coarse: Coarse) -> float:
    """Return the share of gas in the body's upper third of slices minus that in the lower third.

    Lungs at the upper end give 0.1 to 0.4; about 0 means that no lung is in the scan.
    """
    gas_hu = max(GAS_HU, float(coarse.hu.min()) + ABOVE_CLIPPED_GAS_HU)
    gas = ((coarse.hu < gas_hu) & coarse.body).sum(axis=(1, 2))
    share = gas / np.maximum(1, coarse.body.sum(axis=(1, 2)))
    third = max(1, len(share) // 3)
    return float(share[-third:].mean() - share[:third].mean())


def head_cue(coarse: Coarse) -> float:
    """Return how much the liver speaks for a head at the scan's upper end; needs no lungs.

    The bulkiest organ lies in the upper half, by a share of the slices, and the mask, where there
    is one, reaches further to the other side in its upper half, by a share of its width. Sound
    scans had 0.02 to 0.19 without a mask and 0.06 to 0.33 with one; about 0 says nothing.
    """
    slices, filled = np.arange(len(coarse.hu)), coarse.bulk.sum(axis=(1, 2))
    total = 0.0
    if filled.any():
        total += float(np.average(slices, weights=filled) / max(1, slices[-1]) - 0.5)
    if coarse.liver is not None and coarse.liver.any():
        total -= _drift(coarse.liver) * np.sign(liver_cue(coarse))
    return total


def liver_fit(coarse: Coarse, flips: Flips = (False, False, False)) -> float:
    """Return how well the liver mask, after `flips`, outlines tissue of one brightness.

    The fit is the share of the mask that is close to its median HU, minus that share of a ring
    around it. Correct pairs had 0.6 to 0.9, with and without contrast; turned pairs at most 0.55,
    or 0.1 less than when correct where a slab of 20 slices was turned upside down.

    Args:
        coarse: with a liver mask.
        flips: which of (Z, Y, X) to reverse in the mask.

    Returns:
        between -1 and 1; -1 where the median is no liver's.
    """
    mask = coarse.liver[reversing(flips)]
    if not mask.any():
        return -1.0
    inside = coarse.hu[mask]
    median = float(np.median(inside))
    if not LIVER_MEDIAN_HU[0] <= median <= LIVER_MEDIAN_HU[1]:
        return -1.0
    around = coarse.hu[coarse.ring[reversing(flips)]]
    close = np.mean(np.abs(inside - median) <= LIVER_BAND_HU)
    close_around = np.mean(np.abs(around - median) <= LIVER_BAND_HU) if around.size else 0.0
    return float(close - close_around)


def _without_rim(labels: np.ndarray) -> np.ndarray:
    """Return the liver without tumors and the rim of both, or all of it if that leaves little."""
    planes = (labels == 1).view(np.uint8)
    parenchyma = np.stack([cv2.erode(plane, CROSS) for plane in planes]) > 0
    whole = labels > 0
    return parenchyma if parenchyma.sum() >= 0.2 * whole.sum() else whole


def _bulkiest(coarse: Coarse, limits: tuple[float, float]) -> np.ndarray:
    """Return the core of each slice's largest part between two HU, (z, y, x) bool."""
    smooth = np.stack([cv2.blur(plane, (3, 3)) for plane in coarse.hu])
    tissue = (smooth > limits[0]) & (smooth < limits[1]) & coarse.body
    core = [cv2.erode(plane, CROSS, iterations=3) for plane in tissue.view(np.uint8)]
    return np.stack([_largest_part(plane) for plane in core])


def _drift(mask: np.ndarray) -> float:
    """Return how much further left a mask lies in its upper half than in its lower, by its width.

    Left is the patient's.
    """
    filled = np.flatnonzero(mask.any(axis=(1, 2)))
    if len(filled) < 2:
        return 0.0
    middle = (filled[0] + filled[-1] + 1) // 2
    columns = np.arange(mask.shape[2])
    low, high = (
        np.average(columns, weights=half.sum(axis=(0, 1)))
        for half in (mask[:middle], mask[middle:])
    )
    return float((high - low) / (np.ptp(np.flatnonzero(mask.any(axis=(0, 1)))) + 1))


def _filled_body(hu: np.ndarray) -> np.ndarray:
    tissue = (hu > body_threshold(hu)).view(np.uint8)
    opened = [cv2.morphologyEx(plane, cv2.MORPH_OPEN, CROSS) for plane in tissue]
    return np.stack([_without_holes(_largest_part(plane)) for plane in opened])


def _largest_part(plane: np.ndarray) -> np.ndarray:
    """Return the largest connected part of a uint8 plane, as bool."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(plane, connectivity=4)
    if count < 2:
        return np.zeros(plane.shape, bool)
    return parts == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())


def _without_holes(plane: np.ndarray) -> np.ndarray:
    outside = cv2.copyMakeBorder(plane.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.floodFill(outside, None, (0, 0), 2)
    return outside[1:-1, 1:-1] != 2


def _side_of(mask: np.ndarray, body: np.ndarray) -> float | None:
    in_mask = mask.sum(axis=(0, 1))  # (X,) voxels a column
    in_body = body.sum(axis=(0, 1))
    if not in_mask.any() or not in_body.any():
        return None
    columns = np.arange(len(in_body))
    shift = np.average(columns, weights=in_mask) - np.average(columns, weights=in_body)
    return float(shift / max(1, np.ptp(np.flatnonzero(in_body))))
