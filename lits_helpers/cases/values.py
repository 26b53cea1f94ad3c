"""What the numbers of a CT say: Hounsfield units or not, millimetres or not, slices in order."""

from hashlib import blake2b

import cv2
import numpy as np

from ..volumes import Volume, is_unit, size_text
from .anatomy import Coarse, body_sides

PADDING_HU = -1500  # below lie what scanners write outside the field of view: -2000, -8192
DENSE_HU = 800
MAX_DENSE_SHARE = 0.15  # a pelvis with metal has 3 %; a trunk shifted by 1024 has 30 % and more
NARROWEST_RANGE = 100  # of values; normalized grey levels have less
BODY_MM = (100, 800)  # width; a newborn's and a very stout adult's
UNIT_BODY_MM = (200, 480)  # where 1 mm is claimed: twice as strict, a stand-in must not pass
BODY_SHAPE = (0.85, 2.3)  # width by height, believed of pixels that are not square; mostly 1.3
UNIT_STEP = 1.3  # change from slice to slice by that from pixel to pixel; 0.6 in cubes of 1 mm
LIVER_ML = (300, 6000)
PREVIEW = 32  # pixels a side of the slices that are compared
MUCH_SHORTER = 0.95  # of the way: sound scans had 1.1 and more, shuffled ones 0.9 and less
MUCH_NEARER = 0.8  # sound scans had 0.97 and more
MOST_BREAKS = 2  # where something dense begins and ends
CURE = "apply the rescale slope and intercept (often: subtract 1024)"


def not_hounsfield(hu: np.ndarray) -> str | None:
    """Return why values are no Hounsfield units, one clause; None where they may be.

    Args:
        hu: (Z, Y, X) int16. Padding below `PADDING_HU` counts as no value.
    """
    low = int(hu.min())
    high = int(hu.max())
    if low == high:
        return f"every voxel of the volume is {low}"
    if low <= PADDING_HU < high:
        low = int(hu.min(where=hu > PADDING_HU, initial=high))
    if low >= -2 and high <= 2:
        return (
            f"values {low}..{high} look like a segmentation or normalized grey levels; give the "
            "CT (volume-N.nii) in Hounsfield units"
        )
    if low >= 0 or 0 < high < low + NARROWEST_RANGE:
        return (
            f"values {low}..{high} are not Hounsfield units: air lies at {low}, expected about "
            f"-1000; {CURE}"
        )
    dense = float(np.mean(hu[::4, ::8, ::8] > DENSE_HU))
    if dense > MAX_DENSE_SHARE:  # air may be padded below 0, but tissue shows the shift
        return (
            f"not Hounsfield units: {dense:.0%} of it above {DENSE_HU} HU, where only bone and "
            f"metal lie; {CURE}"
        )
    return None


def voxel_hash(hu: np.ndarray) -> str:
    """Return a hash of three slices and the shape, the same however a file stores these voxels.

    Args:
        hu: (Z, Y, X) int16.
    """
    digest = blake2b(repr(hu.shape).encode(), digest_size=16)
    for k in (len(hu) // 4, len(hu) // 2, 3 * len(hu) // 4):
        digest.update(hu[k].tobytes())
    return digest.hexdigest()


def doubt_about_size(volume: Volume, coarse: Coarse) -> str:
    """Return why the body speaks against the header's voxel size, one clause; empty if it does not.

    A voxel of 1 mm in each direction is often a stand-in: it is doubted unless the body fits it.
    """
    dz, dy, dx = volume.spacing_mm
    geometry = volume.geometry
    unit = is_unit((dz, dy, dx))
    if not geometry.spacing_trusted and not (unit and geometry.orientation_trusted):
        return geometry.remark
    rows, columns = body_sides(coarse)
    height, width = rows * volume.hu.shape[1] * dy, columns * volume.hu.shape[2] * dx
    low, high = UNIT_BODY_MM if unit else BODY_MM
    if not low <= width <= high:
        return f"the body would be {width:.0f} mm wide"
    low, high = BODY_SHAPE
    if geometry.pixel_aspect != 1 and not low * height <= width <= high * height:
        return f"the body would be {width:.0f} mm wide and {height:.0f} mm high"
    if unit and _step_between_slices(volume.hu) > UNIT_STEP:
        return "slices differ too much for neighbours at 1 mm"
    return ""


def doubt_about_liver(volume: Volume, labels: np.ndarray) -> str:
    """Return why the liver's volume speaks against the voxel size, one clause; mostly empty."""
    low, high = LIVER_ML
    milliliters = np.count_nonzero(labels) * float(np.prod(volume.spacing_mm)) / 1000
    if low <= milliliters <= high:
        return ""
    size = size_text(volume.spacing_mm)
    return (
        f"the liver measures {milliliters:.0f} ml by voxels of {size} mm, where livers have "
        f"{low} to {high} ml"
    )


def are_shuffled(hu: np.ndarray) -> bool:
    """Tell whether slices lie in another order than that of their positions.

    They do if the way from slice to slice is shorter in the order that names have (1, 10, 2), or if
    many neighbours resemble slices farther off more than each other.

    Args:
        hu: (Z, Y, X) int16.
    """
    distance = _distances(hu)
    count = len(distance)
    way = np.diagonal(distance, 1)
    for numbers in (range(count), range(1, count + 1)):
        place = np.argsort(np.argsort([str(number) for number in numbers]))
        for order in (place, count - 1 - place):
            if distance[order[:-1], order[1:]].sum() < MUCH_SHORTER * way.sum():
                return True
    apart = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    nearest = np.where(apart > 2, distance, np.inf).min(axis=1)
    breaks = np.maximum(nearest[:-1], nearest[1:]) < MUCH_NEARER * way
    return int(np.count_nonzero(breaks)) > max(MOST_BREAKS, count // 10)


def _distances(hu: np.ndarray) -> np.ndarray:
    """Return how much each slice differs from each, (Z, Z)."""
    step = max(1, max(hu.shape[1:]) // (4 * PREVIEW))
    planes = [
        cv2.resize(np.ascontiguousarray(plane), (PREVIEW, PREVIEW), interpolation=cv2.INTER_AREA)
        for plane in np.clip(hu[:, ::step, ::step], -200, 300).astype(np.float32)
    ]
    flat = np.stack(planes).reshape(len(planes), -1)
    squares = (flat**2).sum(axis=1)
    return np.sqrt(np.maximum(squares[:, None] + squares - 2 * flat @ flat.T, 0))


def _step_between_slices(hu: np.ndarray) -> float:
    """Return the change from slice to slice divided by the change from pixel to pixel."""
    between = within = 0.0
    for k in np.unique(np.linspace(0, len(hu) - 2, min(len(hu) - 1, 16)).round().astype(int)):
        here, there = (
            cv2.GaussianBlur(np.clip(plane, -200, 300).astype(np.float32), (0, 0), 1.5)
            for plane in hu[k : k + 2]
        )
        between += 2 * np.abs(here - there).mean()
        within += np.abs(np.diff(here, axis=0)).mean() + np.abs(np.diff(here, axis=1)).mean()
    return between / within if within else 0.0
