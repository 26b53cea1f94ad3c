"""What the slice viewer knows of a case: its labels, scores, lesions and where to look first."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np
from scipy import ndimage

from ..figures import layer_name
from ..metrics import FIRST_LABEL, dice_of, filled_box


@dataclass(frozen=True)
class Lesion:
    """A tumor whose voxels touch by their faces.

    Attributes:
        center: voxel (z, y, x) of the lesion in its largest axial slice, nearest to its middle.
        voxels: size.
        longest_mm: longest distance of two pixel corners within one axial slice.
    """

    center: tuple[int, int, int]
    voxels: int
    longest_mm: float


@dataclass
class BrowsedCase:
    """A volume with any number of segmentations, as views.

    Attributes:
        hu: (Z, Y, X) HU.
        spacing_mm: (dz, dy, dx), gives pictures their aspect.
        layers: source, such as "reference" -> labels (Z, Y, X) 0/1/2, or a mask.
        trusted: False if the file's spacing cannot be trusted; then nothing is given in mm.
    """

    hu: np.ndarray
    spacing_mm: tuple[float, float, float]
    layers: Mapping[str, np.ndarray] = field(default_factory=dict)
    trusted: bool = True

    def __post_init__(self):
        if self.hu.ndim != 3 or not self.hu.size:
            raise ValueError(f"volume must be (Z, Y, X) and not empty, got shape {self.hu.shape}")
        self.layers = {
            name: _as_labels(name, labels, self.hu.shape) for name, labels in self.layers.items()
        }

    @property
    def compared(self) -> bool:
        """Whether there are a prediction and a reference to compare."""
        return "prediction" in self.layers and "reference" in self.layers

    @property
    def layer_names(self) -> list[str]:
        """Names of the pictures' layers, as `figures.label_layers` gives them."""
        return [layer_name(source, organ) for source in self.layers for organ in FIRST_LABEL]

    @cached_property
    def confusion(self) -> np.ndarray:
        """Voxels by slice, predicted and reference label, (Z, 3, 3) int64."""
        pairs = zip(self.layers["prediction"], self.layers["reference"], strict=True)
        return np.stack([_confusion(*pair) for pair in pairs])

    @cached_property
    def lesions(self) -> list[Lesion]:
        """Lesions of the reference (of the first segmentation without one), the largest first."""
        if not self.layers:
            return []
        name = "reference" if "reference" in self.layers else next(iter(self.layers))
        return find_lesions(self.layers[name], self.spacing_mm)

    def worst_slice(self, structure: str) -> int:
        """Return the axial slice in which most voxels of the structure are wrong.

        Raises:
            ValueError: none is wrong anywhere.
        """
        first = FIRST_LABEL[structure]
        wrong = self.confusion[:, first:, :first].sum((1, 2))
        wrong += self.confusion[:, :first, first:].sum((1, 2))
        if not wrong.any():
            raise ValueError(f"no voxel of the {structure} is wrong in this case")
        return int(wrong.argmax())


def case_summary(case: BrowsedCase, listed: int = 12) -> str:
    """Return a line about a case: Dice, number of lesions, their longest axial diameters."""
    parts = []
    if case.compared:
        counts = case.confusion.sum(axis=0)
        scores = [f"{name} {dice_of(counts, name):.3f}" for name in FIRST_LABEL]
        parts.append("Dice of the case: " + ", ".join(scores))
    if case.layers:
        parts.append(f"lesions: {len(case.lesions)}")
    if case.lesions and case.trusted:
        sizes = ", ".join(f"{lesion.longest_mm:.0f}" for lesion in case.lesions[:listed])
        more = " ..." if len(case.lesions) > listed else ""
        parts.append(f"longest axial diameters {sizes}{more} mm")
    if not case.trusted:
        parts.append("spacing not trusted: nothing in mm")
    return " · ".join(parts)


def find_lesions(labels: np.ndarray, spacing_mm: tuple[float, float, float]) -> list[Lesion]:
    """Return the lesions of labels (Z, Y, X), the largest first."""
    box = filled_box(labels)
    if box is None:
        return []
    components, _ = ndimage.label(labels[box] == 2)
    found = []
    for number, part in enumerate(ndimage.find_objects(components), start=1):
        origin = [whole.start + inner.start for whole, inner in zip(box, part, strict=True)]
        found.append(_measure(components[part] == number, origin, spacing_mm))
    return sorted(found, key=lambda lesion: -lesion.voxels)


def _measure(mask: np.ndarray, origin, spacing_mm) -> Lesion:
    areas = mask.sum(axis=(1, 2))
    largest = int(areas.argmax())
    points = np.argwhere(mask[largest])
    nearest = points[np.square(points - points.mean(axis=0)).sum(axis=1).argmin()]
    center = np.add(origin, (largest, *nearest))
    diameter = max(_diameter(part, spacing_mm[1:]) for part in mask[areas > 0])
    return Lesion(tuple(center.tolist()), int(areas.sum()), diameter)


def _diameter(mask: np.ndarray, pixel_mm) -> float:
    """Return the longest distance in mm between two pixel corners of a mask (H, W)."""
    points = np.argwhere(mask)
    corners = np.concatenate([points + shift for shift in ((0, 0), (0, 1), (1, 0), (1, 1))])
    hull = cv2.convexHull(corners.astype(np.int32))[:, 0] * np.asarray(pixel_mm)
    return float(np.linalg.norm(hull[:, None] - hull[None], axis=2).max())


def _confusion(prediction: np.ndarray, reference: np.ndarray) -> np.ndarray:
    pairs = 3 * prediction + reference
    # Most is background: counting the rest is ten times quicker.
    counts = np.bincount(pairs[pairs > 0], minlength=9)
    counts[0] = pairs.size - counts.sum()
    return counts.reshape(3, 3)


def _as_labels(name: str, labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return labels as uint8, a view where they are bool or uint8 already."""
    labels = np.asarray(labels)
    if labels.shape != shape:
        raise ValueError(f"layer {name!r} must have the volume's shape {shape}, got {labels.shape}")
    if labels.dtype.kind not in "bui" or (labels.size and labels.max() > 2) or labels.min() < 0:
        raise ValueError(f"layer {name!r} must hold labels 0, 1, 2, got {labels.dtype} values")
    return labels.view(np.uint8) if labels.dtype == bool else labels.astype(np.uint8, copy=False)
