"""A case as the slice viewer shows it: labels, scores, lesions and where to look first."""

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter

import numpy as np
from scipy import ndimage

from ..figures import layer_name
from ..machine import require
from ..metrics import FIRST_LABEL, axial_diameters, dice_of, filled_box

Voxel = tuple[int, int, int]  # (z, y, x)
LISTED = 100  # largest lesions, measured and listed: a bad prediction has tens of thousands


@dataclass(frozen=True)
class Lesion:
    """A tumor whose voxels touch by their faces.

    Attributes:
        center: voxel (z, y, x) of the lesion in its largest axial slice, nearest to its middle.
        voxels: size.
        box: the extent, slices of z, y and x.
        longest_mm: longest distance of two pixel corners within one axial slice; None for others
            than the LISTED largest of a case.
    """

    center: Voxel
    voxels: int
    box: tuple[slice, slice, slice]
    longest_mm: float | None


@dataclass
class BrowsedCase:
    """A volume with any number of segmentations, as views.

    Attributes:
        hu: (Z, Y, X) HU.
        spacing_mm: (dz, dy, dx), gives pictures their aspect.
        layers: source, such as "reference" -> labels (Z, Y, X) 0/1/2, or a mask.
        trusted: False if the file's spacing cannot be trusted; then nothing is given in mm.
        uncertainty: (Z, Y, X), 0 certain to 1, or None.
        has_ct: False if `hu` only stands for a CT that is not there.
        notes: what to know about the case, such as reasons to distrust its labels.
    """

    hu: np.ndarray
    spacing_mm: tuple[float, float, float]
    layers: Mapping[str, np.ndarray] = field(default_factory=dict)
    trusted: bool = True
    uncertainty: np.ndarray | None = None
    has_ct: bool = True
    notes: Sequence[str] = ()

    def __post_init__(self):
        if self.hu.ndim != 3 or not self.hu.size:
            raise ValueError(f"volume must be (Z, Y, X) and not empty, got shape {self.hu.shape}")
        self.layers = {
            name: _as_labels(name, labels, self.hu.shape) for name, labels in self.layers.items()
        }
        if self.uncertainty is not None and self.uncertainty.shape != self.hu.shape:
            raise ValueError(
                f"uncertainty must have the volume's shape {self.hu.shape}, "
                f"got {self.uncertainty.shape}"
            )

    @property
    def compared(self) -> bool:
        """Whether there are a prediction and a reference to compare."""
        return "prediction" in self.layers and "reference" in self.layers

    @property
    def layer_names(self) -> list[str]:
        """Names of the pictures' layers, as `figures.label_layers` gives them."""
        names = [layer_name(source, organ) for source in self.layers for organ in FIRST_LABEL]
        return names + ["uncertain"] * (self.uncertainty is not None)

    @cached_property
    def confusion(self) -> np.ndarray:
        """Voxels by slice, predicted and reference label, (Z, 3, 3) int64."""
        pairs = zip(self.layers["prediction"], self.layers["reference"], strict=True)
        return np.stack([_confusion(*pair) for pair in pairs])

    @cached_property
    def lesions(self) -> list[Lesion]:
        """Lesions of the reference, else of the first segmentation that has any, largest first."""
        for name in sorted(self.layers, key=lambda name: name != "reference"):
            found = find_lesions(self.layers[name], self.spacing_mm)
            if found:
                return found
        return []

    @property
    def start(self) -> Voxel:
        """The largest lesion, else the largest liver slice, else the middle: where to begin."""
        if self.lesions:
            return self.lesions[0].center
        livers = [labels for labels in self.layers.values() if labels.any()]
        if not livers:
            return tuple(length // 2 for length in self.hu.shape)
        z = int(np.count_nonzero(livers[0], axis=(1, 2)).argmax())
        return z, *_middle(np.argwhere(livers[0][z]))

    def lesion_at(self, voxel: Voxel) -> int | None:
        """Return the index of the smallest listed lesion around a tumor voxel, None elsewhere."""
        if not any(labels[voxel] == 2 for labels in self.layers.values()):
            return None
        around = [
            index
            for index, lesion in enumerate(self.lesions[:LISTED])
            if all(s.start <= at < s.stop for s, at in zip(lesion.box, voxel, strict=True))
        ]
        return around[-1] if around else None

    def nearest_lesion(self, voxel: Voxel) -> Lesion:
        """Return the lesion whose center is nearest to a voxel.

        Raises:
            ValueError: there is none.
        """
        centers = np.array([lesion.center for lesion in self._tumors()])
        away = (centers - voxel) * self.spacing_mm
        return self.lesions[int(np.square(away).sum(axis=1).argmin())]

    def largest_lesion(self) -> Lesion:
        """Return the largest lesion.

        Raises:
            ValueError: there is none.
        """
        return self._tumors()[0]

    def next_lesion(self, voxel: Voxel, step: int = 1) -> Lesion:
        """Return the lesion after (`step` 1) or before (-1) a voxel, in voxel order and around."""
        center = attrgetter("center")
        ordered = sorted(self._tumors(), key=center)
        if step > 0:
            return ordered[bisect.bisect_right(ordered, voxel, key=center) % len(ordered)]
        return ordered[bisect.bisect_left(ordered, voxel, key=center) - 1]

    def _tumors(self) -> list[Lesion]:
        if not self.lesions:
            raise ValueError("this case has no tumor to jump to")
        return self.lesions

    def worst_slice(self, structure: str) -> int:
        """Return the axial slice in which most voxels of the structure are wrong.

        Raises:
            ValueError: none is wrong anywhere, or nothing can be compared.
        """
        if not self.compared:
            raise ValueError("this case has no prediction with a reference to compare it with")
        first = FIRST_LABEL[structure]
        wrong = self.confusion[:, first:, :first].sum((1, 2))
        wrong += self.confusion[:, :first, first:].sum((1, 2))
        if not wrong.any():
            raise ValueError(f"no voxel of the {structure} is wrong in this case")
        return int(wrong.argmax())


def browse(volume, layers: Mapping | None = None, uncertainty=None, notes=()) -> BrowsedCase:
    """Return a case of a `volumes.Volume`, or of None where there are labels only.

    Raises:
        TypeError: what is no volume.
        ValueError: shapes that do not fit; neither a volume nor labels.
    """
    layers = layers or {}
    if volume is None:
        if not layers:
            raise ValueError("nothing to show: give a volume, or layers of labels")
        shape = np.shape(next(iter(layers.values())))
        blank = np.broadcast_to(np.int16(0), shape)
        return BrowsedCase(blank, (1.0, 1.0, 1.0), layers, False, uncertainty, False, notes)
    require(volume, "hu", "volume", "a volume: read_volume(path), or volume_from_array(hu)")
    trusted = getattr(getattr(volume, "geometry", None), "spacing_trusted", True)
    spacing_mm = getattr(volume, "spacing_mm", None)
    trusted = trusted and spacing_mm is not None
    spacing_mm = spacing_mm or (1.0, 1.0, 1.0)
    told = list(dict.fromkeys([*notes, *getattr(volume, "remarks", ())]))  # each once
    return BrowsedCase(volume.hu, spacing_mm, layers, trusted, uncertainty, notes=told)


def uncertainty_of(probabilities: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Return how unsure the models are of each voxel, the least sure one counts; None of no model.

    Args:
        probabilities: system -> (Z, Y, X) uint8, 255 times what its models say, as
            `inference.read_probabilities` returns them.

    Returns:
        1 - |2p - 1|, (Z, Y, X) float16: 0 certain, 1 at a probability of a half.
    """
    table = (1 - np.abs(2 * np.arange(256) / 255 - 1)).astype(np.float16)
    unsure = [table[part] for part in probabilities.values()]
    return np.maximum.reduce(unsure) if unsure else None


def case_summary(case: BrowsedCase, listed: int = 12) -> str:
    """Return a line about a case: Dice, lesions, their longest axial diameters."""
    parts = []
    if case.compared:
        counts = case.confusion.sum(axis=0)
        scores = [f"{name} {dice_of(counts, name):.3f}" for name in FIRST_LABEL]
        parts.append("Dice of the case: " + ", ".join(scores))
    if case.layers:
        # 0 would say that somebody looked
        parts.append(f"lesions: {len(case.lesions) or 'none in the labels'}")
    if case.lesions and case.trusted:
        sizes = ", ".join(f"{lesion.longest_mm:.0f}" for lesion in case.lesions[:listed])
        more = " ..." if len(case.lesions) > listed else ""
        parts.append(f"longest axial diameters {sizes}{more} mm")
    if not case.trusted:
        parts.append("spacing not trusted: nothing in mm")
    return " · ".join(parts)


def lesion_lines(case: BrowsedCase) -> list[str]:
    """Return a line for each listed lesion, the largest first: size and slice."""
    return [
        f"{number}: {_size(lesion, case.trusted)}, slice {lesion.center[0]}"
        for number, lesion in enumerate(case.lesions[:LISTED], start=1)
    ]


def _size(lesion: Lesion, trusted: bool) -> str:
    if trusted:
        return f"{lesion.longest_mm:.0f} mm"
    return f"{lesion.voxels} voxel{'s' * (lesion.voxels != 1)}"


def find_lesions(labels: np.ndarray, spacing_mm: tuple[float, float, float]) -> list[Lesion]:
    """Return the lesions of labels (Z, Y, X), the largest first."""
    box = filled_box(labels)
    components, count = (None, 0) if box is None else ndimage.label(labels[box] == 2)
    if not count:
        return []
    origin = [part.start for part in box]
    points = np.argwhere(components)  # in voxel order
    numbers = components[tuple(points.T)] - 1
    sizes = np.bincount(numbers)
    centers = (_centers_of(points, numbers) + origin).tolist()
    extents = ndimage.find_objects(components)
    lesions = []
    for rank, n in enumerate(np.argsort(-sizes, kind="stable").tolist()):
        part = extents[n]
        longest = (
            axial_diameters(components[part] == n + 1, spacing_mm).longest_mm
            if rank < LISTED
            else None
        )
        whole = tuple(
            slice(s.start + first, s.stop + first) for s, first in zip(part, origin, strict=True)
        )
        lesions.append(Lesion(tuple(centers[n]), int(sizes[n]), whole, longest))
    return lesions


def _centers_of(points: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return for each component its point in its largest slice that is nearest to the middle there.

    Args:
        points: (N, 3) in voxel order.
        numbers: (N,) component of each, from 0, none missing.

    Returns:
        (components, 3).
    """
    depth = int(points[:, 0].max()) + 1
    keys, areas = np.unique(numbers.astype(np.int64) * depth + points[:, 0], return_counts=True)
    largest = keys[_first_by(keys // depth, -areas)] % depth
    inside = points[:, 0] == largest[numbers]
    points, numbers = points[inside], numbers[inside]
    areas = np.bincount(numbers)
    middles = [np.bincount(numbers, points[:, axis]) / areas for axis in (1, 2)]
    away = np.square(points[:, 1:] - np.stack(middles, axis=1)[numbers]).sum(axis=1)
    return points[_first_by(numbers, away)]


def _first_by(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the index of each group's smallest value, the first of equal ones, by group."""
    order = np.lexsort((values, groups))
    return order[np.flatnonzero(np.diff(groups[order], prepend=-1))]


def _middle(points: np.ndarray) -> tuple[int, ...]:
    """Return the point of (N, D) that is nearest to their mean."""
    nearest = np.square(points - points.mean(axis=0)).sum(axis=1).argmin()
    return tuple(points[nearest].tolist())


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
