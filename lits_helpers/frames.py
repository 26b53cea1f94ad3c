"""What a tumor model is shown of a case whose liver is known: which part, around which HU."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .recipes import InputSpec

MIN_BOX_SHARE = 0.25  # of the slice's longer side: a speck of liver is not blown up without end
MEDIAN_SLICES = 16  # as many slices tell the liver's median as well as all of them


class Box(NamedTuple):
    """A rectangle of a slice, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def area(self) -> tuple[slice, slice]:
        """The index that cuts it out of an (H, W) plane."""
        return (
            slice(self.top, self.top + self.height),
            slice(self.left, self.left + self.width),
        )


class LiverFrame(NamedTuple):
    """What an `InputSpec` that looks at the liver refers to.

    Attributes:
        box: the part of every slice that is shown; None for all of it.
        median_hu: what is added to the window; 0 leaves it absolute.
    """

    box: Box | None = None
    median_hu: int = 0


WHOLE_SLICE = LiverFrame()


def liver_frame(
    hu: Callable[[int], np.ndarray],
    labels: Callable[[int], np.ndarray],
    slice_indices: Sequence[int],
    spec: InputSpec,
) -> LiverFrame:
    """Return the frame that `spec` asks for, from the liver of one case.

    Args:
        hu: slice index -> (H, W) int16.
        labels: slice index -> (H, W) labels; the reference's in training, else the prediction.
        slice_indices: all slices of the case.
        spec: its `liver_margin` and `liver_window`.

    Returns:
        The frame; the whole slice and an absolute window where there is no liver.
    """
    if spec.liver_margin is None and not spec.liver_window:
        return WHOLE_SLICE
    footprint, with_liver = None, []
    for k in slice_indices:
        liver = labels(k) > 0
        if liver.any():
            with_liver.append(k)
            footprint = liver if footprint is None else footprint | liver
    if footprint is None:
        return WHOLE_SLICE
    box = None if spec.liver_margin is None else liver_box(footprint, spec.liver_margin)
    return LiverFrame(box, _median_hu(hu, labels, with_liver) if spec.liver_window else 0)


def _median_hu(hu: Callable, labels: Callable, with_liver: Sequence[int]) -> int:
    places = np.linspace(0, len(with_liver) - 1, min(MEDIAN_SLICES, len(with_liver)))
    chosen = [with_liver[int(place)] for place in places]
    return int(np.median(np.concatenate([hu(k)[labels(k) > 0] for k in chosen])))


def liver_box(footprint: np.ndarray, margin: float) -> Box:
    """Return the bounding box of a liver, widened, within the slice.

    Args:
        footprint: (H, W) bool, true where any slice of the case holds liver; not empty.
        margin: added on each side, as a share of the box's longer side.
    """
    rows, columns = np.flatnonzero(footprint.any(1)), np.flatnonzero(footprint.any(0))
    spans = [(int(s[0]), int(s[-1]) + 1) for s in (rows, columns)]
    longer = max(end - start for start, end in spans)
    wanted = max(longer * (1 + 2 * margin), MIN_BOX_SHARE * max(footprint.shape))
    grow = round((wanted - longer) / 2)
    (top, bottom), (left, right) = (
        (max(start - grow, 0), min(end + grow, side))
        for (start, end), side in zip(spans, footprint.shape, strict=True)
    )
    return Box(top, left, bottom - top, right - left)
