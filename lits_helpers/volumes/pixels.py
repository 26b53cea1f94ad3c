"""Turn HU into the grey levels and size that a model sees, and its plane back into a slice."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from ..recipes import InputSpec

MIN_BOX_SHARE = 0.25  # of the slice's longer side, so that a speck of liver is not blown up
MEDIAN_SLICES = 16  # give the liver's median as well as all slices do
SQUARE_WITHIN = 0.01  # height and width of a pixel may differ so far and count as equal
OPENCV_LOOKS_UP = int(cv2.__version__.partition(".")[0]) >= 5  # 16-bit values, twice as fast


class Box(NamedTuple):
    """A rectangle of a slice, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def area(self) -> tuple[slice, slice]:
        """The index that cuts it out of an (H, W) plane."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


class Frame(NamedTuple):
    """What must be known of a case to bring its slices to a model's input.

    Attributes:
        pixel_aspect: height of a pixel by its width.
        box: the part of every slice that is shown; None for the whole slice.
        median_hu: added to both ends of the window; 0 leaves the window absolute.
    """

    pixel_aspect: float = 1.0
    box: Box | None = None
    median_hu: int = 0

    def shown(self, planes: np.ndarray) -> np.ndarray:
        """Return a view of the part of (..., H, W) that is shown."""
        return planes if self.box is None else planes[..., *self.box.area]


def aspect_of_pixel(height_mm: float, width_mm: float) -> float:
    """Return the height of a pixel by its width; 1 where they are equal to `SQUARE_WITHIN`."""
    aspect = height_mm / width_mm
    return 1.0 if max(aspect, 1 / aspect) <= 1 + SQUARE_WITHIN else aspect


def liver_frame(
    hu: Callable[[int], np.ndarray],
    labels: Callable[[int], np.ndarray],
    slice_indices: Sequence[int],
    spec: InputSpec,
    pixel_aspect: float,
) -> Frame:
    """Return the frame that `spec` asks for, from the liver of one case.

    Args:
        hu: slice index -> (H, W) int16.
        labels: slice index -> (H, W) labels; the reference's in training, else the prediction.
        slice_indices: all slices of the case.
        spec: its `liver_margin` and `liver_window`.
        pixel_aspect: height of a pixel by its width, as `Geometry.pixel_aspect`.

    Returns:
        The frame; the whole slice and an absolute window where there is no liver.
    """
    whole = Frame(pixel_aspect)
    if spec.liver_margin is None and not spec.liver_window:
        return whole
    footprint = None
    with_liver = []
    for k in slice_indices:
        liver = labels(k) > 0
        if liver.any():
            with_liver.append(k)
            footprint = liver if footprint is None else footprint | liver
    if footprint is None:
        return whole
    if spec.liver_margin is not None:
        whole = whole._replace(box=liver_box(footprint, spec.liver_margin, pixel_aspect))
    median_hu = _median_hu(hu, labels, with_liver) if spec.liver_window else 0
    return whole._replace(median_hu=median_hu)


def _median_hu(hu: Callable, labels: Callable, with_liver: Sequence[int]) -> int:
    places = np.linspace(0, len(with_liver) - 1, min(MEDIAN_SLICES, len(with_liver)))
    chosen = [with_liver[int(place)] for place in places]
    return int(np.median(np.concatenate([hu(k)[labels(k) > 0] for k in chosen])))


def liver_box(footprint: np.ndarray, margin: float, pixel_aspect: float = 1.0) -> Box:
    """Return the bounding box of a liver, widened, within the slice.

    Args:
        footprint: (H, W) bool, true where any slice of the case holds liver; not empty.
        margin: added on each side, as a share of the box's longer side.
        pixel_aspect: height of a pixel by its width.
    """
    steps = (pixel_aspect, 1.0)  # of a row and a column, in widths of a pixel
    filled = [np.flatnonzero(footprint.any(axis)) for axis in (1, 0)]  # rows, columns
    spans = [(int(places[0]), int(places[-1]) + 1) for places in filled]
    longer = max((end - start) * step for (start, end), step in zip(spans, steps, strict=True))
    sides = _true_sides(footprint.shape, pixel_aspect)
    wanted = max(longer * (1 + 2 * margin), MIN_BOX_SHARE * max(sides))
    grown = (round((wanted - longer) / 2 / step) for step in steps)
    (top, bottom), (left, right) = (
        (max(start - grow, 0), min(end + grow, side))
        for (start, end), side, grow in zip(spans, footprint.shape, grown, strict=True)
    )
    return Box(top, left, bottom - top, right - left)


def window_to_uint8(hu: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Map HU [low, high] to grey levels [0, 255], clipped, rounded half up.

    Args:
        hu: int16, any shape.
        window: (low, high) in HU.

    Returns:
        uint8, the shape of `hu`; the same values as in the exported PNG slices.

    Raises:
        ValueError: `hu` is not int16, or the window is empty.
    """
    hu = np.asarray(hu)
    if hu.dtype != np.int16:
        raise ValueError(f"hu must be int16, got {hu.dtype}")
    index = hu.view(np.uint16)
    table = _window_table(float(window[0]), float(window[1]))
    if OPENCV_LOOKS_UP and hu.size:
        return cv2.LUT(np.ascontiguousarray(index).reshape(1, -1), table).reshape(hu.shape)
    return table.take(index)


def to_levels(hu: np.ndarray, spec: InputSpec) -> np.ndarray:
    """Return a slice's grey levels as `spec` asks.

    Args:
        hu: int16 (..., H, W).
        spec: a window gives uint8 in [0, 255]; None gives uint16, each slice's minimum at 0 and
            maximum at 65535 (a constant slice is 0).
    """
    if spec.window is not None:
        return window_to_uint8(hu, spec.window)
    values = hu.astype(np.float64)
    low = values.min(axis=(-2, -1), keepdims=True)
    extent = np.maximum(values.max(axis=(-2, -1), keepdims=True) - low, 1.0)
    return np.floor((values - low) * spec.levels / extent + 0.5).astype(np.uint16)


def content_box(shape: tuple[int, int], size: int, pixel_aspect: float = 1.0) -> Box:
    """Return where a slice's content lies, centred in the (size, size) plane.

    Args:
        shape: (H, W) of the slice; its side that is truly longer becomes `size`.
        size: side of the plane, pixels; they are square.
        pixel_aspect: height of the slice's pixels by their width.
    """
    sides = _true_sides(shape, pixel_aspect)
    scale = size / max(sides)
    height, width = (max(1, round(side * scale)) for side in sides)
    return Box((size - height) // 2, (size - width) // 2, height, width)


def _true_sides(shape: tuple[int, int], pixel_aspect: float) -> tuple[float, float]:
    """Return height and width of a slice in widths of its pixels."""
    return shape[0] * pixel_aspect, shape[1]


def resize_image(image: np.ndarray, size: int, pixel_aspect: float = 1.0) -> np.ndarray:
    """Resize a slice to (size, size) square pixels, true to its shape, padded with 0.

    Args:
        image: (H, W) uint8, uint16 or float32.
        size: side of the result, pixels.
        pixel_aspect: height of the slice's pixels by their width.

    Returns:
        (size, size), the dtype of `image`; shrunk by area means, enlarged bilinearly.
    """
    box = content_box(image.shape, size, pixel_aspect)
    plane = np.zeros((size, size), dtype=image.dtype)
    plane[box.area] = _resized(np.ascontiguousarray(image), box.height, box.width)
    return plane


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Shrink first what shrinks: where one side grows, OpenCV takes no area means of the other."""
    shrunk = min(width, image.shape[1]), min(height, image.shape[0])
    image = cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def resize_mask(mask: np.ndarray, size: int, pixel_aspect: float = 1.0) -> np.ndarray:
    """Resize labels as `resize_image` does, each pixel taken where its centre falls.

    Args:
        mask: (H, W) bool or uint8.
        size: side of the result, pixels.
        pixel_aspect: height of the slice's pixels by their width.
    """
    box = content_box(mask.shape, size, pixel_aspect)
    rows = _centres(mask.shape[0], box.height)
    columns = _centres(mask.shape[1], box.width)
    plane = np.zeros((size, size), dtype=mask.dtype)
    plane[box.area] = mask[rows[:, None], columns]
    return plane


def restore(plane: np.ndarray, shape: tuple[int, int], pixel_aspect: float = 1.0) -> np.ndarray:
    """Undo the geometry of `resize_image`: crop the padding and resize bilinearly.

    Args:
        plane: (size, size), for example probabilities.
        shape: (H, W) of the slice it came from.
        pixel_aspect: height of that slice's pixels by their width.

    Returns:
        (H, W) float32.

    Raises:
        ValueError: `plane` is not square.
    """
    if plane.ndim != 2 or plane.shape[0] != plane.shape[1]:
        raise ValueError(f"plane must be (size, size), got shape {plane.shape}")
    box = content_box(shape, plane.shape[0], pixel_aspect)
    content = np.ascontiguousarray(plane[box.area], dtype=np.float32)
    return cv2.resize(content, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)


def slice_levels(hu_slice: np.ndarray, spec: InputSpec, frame: Frame) -> np.ndarray:
    """Return one slice (H, W) int16 as the (size, size) grey levels that `spec` asks for.

    Args:
        hu_slice: the whole slice; a min-max spec looks at all of it.
        spec: window and size.
        frame: of the case, from `liver_frame`.
    """
    if spec.window is not None and frame.median_hu:
        low, high = spec.window
        levels = window_to_uint8(hu_slice, (low + frame.median_hu, high + frame.median_hu))
    else:
        levels = to_levels(hu_slice, spec)
    return resize_image(frame.shown(levels), spec.size, frame.pixel_aspect)


@lru_cache(maxsize=256)  # as many windows as cases, where the window follows the liver
def _window_table(low: float, high: float) -> np.ndarray:
    """Grey level of each int16 value, indexed by its bits as uint16."""
    if not low < high:
        raise ValueError(
            f"window must be (low, high) in HU with low < high, got ({low:g}, {high:g})"
        )
    hu = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.float64)
    levels = np.floor((hu - low) * 255 / (high - low) + 0.5)
    return np.clip(levels, 0, 255).astype(np.uint8)


def _centres(source: int, target: int) -> np.ndarray:
    """Source index under the centre of each target pixel."""
    return ((2 * np.arange(target) + 1) * source) // (2 * target)
