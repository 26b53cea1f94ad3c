"""Rules that turn thresholded slices into a plausible liver with lesions, each optional."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from ..metrics import filled_box

COUNTED_AT_ONCE = 2**23  # voxels
MOST_DEGREES = 45.0  # networks know upright slices


@dataclass(frozen=True)
class Postprocessing:
    """What happens to probabilities after the networks.

    Attributes:
        liver_threshold, tumor_threshold: probability from which a voxel counts, in (0, 1).
        largest_liver: keep only the liver's largest face-connected component.
        fill_holes: cavities wholly inside the liver become liver.
        margin_mm: tumor counts up to this far from the liver (in the slice and across slices).
        tumor_peak: face-connected lesions whose highest probability is lower are dropped, in
            [0, 1]; None takes what the tumor model came with, mostly 0, which keeps all.
        min_lesion_mm3: smaller face-connected lesions are dropped; 0 keeps all.
        rotation_degrees: average the probabilities of each slice, as it is and turned by this angle
            to either side (test-time augmentation, three times as slow). 0 turns nothing.
    """

    liver_threshold: float = 0.5
    tumor_threshold: float = 0.5
    largest_liver: bool = True
    fill_holes: bool = True
    margin_mm: float = 5.0
    tumor_peak: float | None = None
    min_lesion_mm3: float = 30.0  # a ball of about 4 mm: below it two readers do not agree either
    rotation_degrees: float = 0.0

    def __post_init__(self):
        for name in ("liver_threshold", "tumor_threshold"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"Postprocessing.{name} must lie in (0, 1), got {getattr(self, name)}"
                )
        if self.tumor_peak is not None and not 0 <= self.tumor_peak <= 1:
            raise ValueError(
                f"Postprocessing.tumor_peak must lie in [0, 1] or be None, got {self.tumor_peak}"
            )
        if self.rotation_degrees > MOST_DEGREES:
            raise ValueError(
                f"Postprocessing.rotation_degrees must be {MOST_DEGREES:g} or less, "
                f"got {self.rotation_degrees}"
            )
        for name in ("margin_mm", "min_lesion_mm3", "rotation_degrees"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"Postprocessing.{name} must be finite and not negative, "
                    f"got {getattr(self, name)}"
                )


def clean_liver(labels: np.ndarray, post: Postprocessing) -> None:
    """Apply `largest_liver` and `fill_holes` to labels (Z, Y, X) uint8 of 0 and 1, in place."""
    if post.largest_liver:
        keep_largest(labels)
    if post.fill_holes:
        _fill_cavities(labels)


def keep_largest(labels: np.ndarray) -> int:
    """Clear all but the largest face-connected component, in place; return its voxels."""
    box = filled_box(labels)
    if box is None:
        return 0
    components, count = ndimage.label(labels[box])
    sizes = _sizes(components, count)
    sizes[0] = 0
    if count > 1:
        np.equal(components, sizes.argmax(), out=labels[box].view(bool))
    return int(sizes.max())


def _fill_cavities(labels: np.ndarray) -> None:
    box = filled_box(labels)
    if box is None:
        return
    outside, count = ndimage.label(np.pad(labels[box] == 0, 1, constant_values=True))
    # The padding joins all open background in one component, the first.
    if count > 1:
        labels[box][outside[1:-1, 1:-1, 1:-1] > 1] = 1


def liver_reach(labels: np.ndarray, spacing_mm: tuple, post: Postprocessing) -> np.ndarray:
    """Return the indices of slices with liver, and of those within `margin_mm` of one."""
    holds = labels.any(axis=(1, 2)).astype(np.uint8)
    return np.flatnonzero(ndimage.maximum_filter1d(holds, 2 * _steps(post, spacing_mm) + 1))


def keep_near_liver(
    tumor: np.ndarray, labels: np.ndarray, spacing_mm: tuple, post: Postprocessing
) -> None:
    """Clear tumor (Z, Y, X) uint8 farther than `margin_mm` from the liver in `labels`, in place.

    The margin is a cylinder: `margin_mm` between voxel centres within the slice, and as many whole
    slices as fit into `margin_mm` across.
    """
    disc = _disc(post.margin_mm, spacing_mm)
    steps = _steps(post, spacing_mm)
    for k in np.flatnonzero(tumor.any(axis=(1, 2))):
        near = labels[max(k - steps, 0) : k + steps + 1].max(axis=0)
        tumor[k] &= cv2.dilate(near, disc)


def _disc(radius_mm: float, spacing_mm: tuple) -> np.ndarray:
    """Return the pixels within `radius_mm` of the central one as uint8, odd sides."""
    rows, columns = (int(radius_mm / step + 1e-6) for step in spacing_mm[1:])
    y, x = np.ogrid[-rows : rows + 1, -columns : columns + 1]
    distance_mm = np.hypot(y * spacing_mm[1], x * spacing_mm[2])
    return (distance_mm <= radius_mm + 1e-6).astype(np.uint8)


def _steps(post: Postprocessing, spacing_mm: tuple) -> int:
    return int(post.margin_mm / spacing_mm[0] + 1e-6)


def drop_small_lesions(tumor: np.ndarray, spacing_mm: tuple, post: Postprocessing) -> None:
    """Clear face-connected lesions below `min_lesion_mm3` from tumor (Z, Y, X) uint8, in place."""
    box = filled_box(tumor)
    if box is None or post.min_lesion_mm3 == 0:
        return
    lesions, count = ndimage.label(tumor[box])
    small = _sizes(lesions, count) * float(np.prod(spacing_mm)) < post.min_lesion_mm3
    tumor[box][small[lesions]] = 0


def drop_faint_lesions(tumor: np.ndarray, probability: np.ndarray, peak: float) -> None:
    """Clear face-connected lesions that nowhere reach a probability, in place.

    Args:
        tumor: (Z, Y, X) uint8 of 0 and 1.
        probability: (Z, Y, X) uint8, times 255.
        peak: in [0, 1].
    """
    box = filled_box(tumor)
    if box is None:
        return
    lesions, count = ndimage.label(tumor[box])
    reached = np.zeros(count + 1, bool)
    reached[np.unique(lesions[probability[box] >= 255 * peak])] = True
    reached[0] = True
    tumor[box][~reached[lesions]] = 0


def _sizes(components: np.ndarray, count: int) -> np.ndarray:
    """Return the voxels of each component, background first."""
    flat = components.ravel()
    # In parts: bincount copies what it counts to eight bytes a voxel.
    parts = [
        flat[start : start + COUNTED_AT_ONCE] for start in range(0, flat.size, COUNTED_AT_ONCE)
    ]
    return sum(np.bincount(part, minlength=count + 1) for part in parts)
