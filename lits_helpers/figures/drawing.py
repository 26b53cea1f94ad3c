"""One slice as an RGB picture: window, outlines, fills, scale bar. Arrays in, arrays out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from ..machine import require
from ..metrics import FIRST_LABEL
from ..volumes import window_to_uint8
from .palette import Color, color_of, layer_name

PLANES = ("axial", "coronal", "sagittal")
EDGE_LETTERS = {"axial": ("R", "A"), "coronal": ("R", "H"), "sagittal": ("A", "H")}  # left, top
WINDOWS = {  # HU (low, high), the usual radiological presets
    "liver": (-20.0, 180.0),
    "abdomen": (-160.0, 240.0),
    "bone": (-450.0, 1050.0),
    "lung": (-1350.0, 150.0),
}
FONT = cv2.FONT_HERSHEY_SIMPLEX
KEY_LINE, KEY_SIZE = 22, 0.42  # height of a line of the key and size of its letters
CHECK = 4  # pixels of either color where two outlines coincide
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def plane(volume: np.ndarray, name: str, index: int) -> np.ndarray:
    """Return a view of a slice, head up: axial (Y, X), coronal (Z, X), sagittal (Z, Y)."""
    if name == "axial":
        return volume[index]
    if name == "coronal":
        return volume[::-1, index, :]
    if name == "sagittal":
        return volume[::-1, :, index]
    raise ValueError(f"plane must be one of {', '.join(PLANES)}, got {name!r}")


def plane_spacing(spacing_mm: tuple[float, float, float], name: str) -> tuple[float, float]:
    """Return the pixel size (row, column) in mm of a plane; `spacing_mm` is (dz, dy, dx)."""
    dz, dy, dx = spacing_mm
    return {"axial": (dy, dx), "coronal": (dz, dx), "sagittal": (dz, dy)}[name]


def picture_shape(
    shape: tuple[int, int], spacing_mm: tuple[float, float] | None, zoom: float
) -> tuple[int, int]:
    """Return the (rows, columns) of a slice's picture, its aspect true to the spacing."""
    return tuple(max(1, round(size * zoom)) for size in _sizes(shape, spacing_mm))


def zoom_to(longer: float, shape: tuple[int, int], spacing_mm: tuple[float, float] | None) -> float:
    """Return the zoom at which the picture of a slice is `longer` pixels on its longer side."""
    return longer / max(_sizes(shape, spacing_mm))


def _sizes(shape, spacing_mm) -> tuple[float, float]:
    """Return the extents of a slice in pixels of its finer axis."""
    row_mm, column_mm = spacing_mm or (1.0, 1.0)
    unit = min(row_mm, column_mm)
    return shape[0] * row_mm / unit, shape[1] * column_mm / unit


def mask_box(
    mask: np.ndarray, margin: float = 0.15, spacing_mm: tuple[float, float] | None = None
) -> tuple[int, int, int, int]:
    """Return the box (top, left, height, width) of a mask, widened by a share of its longer side.

    Of an empty mask it is the whole picture. `spacing_mm`, of a pixel (row, column), makes the
    margin as wide in mm on all sides.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, 0, *mask.shape
    extra = margin * max(_sizes((np.ptp(rows) + 1, np.ptp(columns) + 1), spacing_mm))
    down, across = (int(np.ceil(extra / step)) for step in _sizes((1, 1), spacing_mm))
    top = max(rows[0] - down, 0)
    left = max(columns[0] - across, 0)
    bottom = min(rows[-1] + 1 + down, mask.shape[0])
    right = min(columns[-1] + 1 + across, mask.shape[1])
    return int(top), int(left), int(bottom - top), int(right - left)


@dataclass(frozen=True)
class Layer:
    """A mask to be drawn over a slice.

    Attributes:
        mask: (H, W) bool or integer, not zero inside.
        color: (red, green, blue), 0..255.
        style: "outline" draws the outermost pixels of the mask, "fill" all of them.
        opacity: 0 (invisible) to 1, of a fill.
        thickness: of an outline, pixels of the picture, counted inwards.
    """

    mask: np.ndarray
    color: Color
    style: str = "outline"
    opacity: float = 0.4
    thickness: int = 1

    def __post_init__(self):
        if self.style not in ("outline", "fill"):
            raise ValueError(f'Layer.style must be "outline" or "fill", got {self.style!r}')
        if not 0 <= self.opacity <= 1:
            raise ValueError(f"Layer.opacity must lie in 0..1, got {self.opacity}")


def render_slice(
    hu: np.ndarray,
    *,
    window: tuple[float, float] = WINDOWS["abdomen"],
    layers: Mapping[str, np.ndarray | Layer] | None = None,
    spacing_mm: tuple[float, float] | None = None,
    zoom: float = 1.0,
    box: tuple[int, int, int, int] | None = None,
    scale_bar: bool = False,
    edges: tuple[str, str] | None = None,
    lettering: float = 1.0,
) -> np.ndarray:
    """Draw one slice with its layers: every figure and the viewer draw with this function.

    Outlines are taken after enlarging, so they are the outermost pixels of the mask at any zoom.
    Where an outline coincides with an earlier one, both colors alternate. Where a mask leaves the
    picture no line is drawn.

    Args:
        hu: (H, W) HU, or any image and its `window`, such as floats in [0, 1] and (0, 1).
        window: value (low, high) shown as black and white.
        layers: name -> `Layer`, or a mask (H, W) to outline in the name's color (`color_of`); drawn
            in this order.
        spacing_mm: size of a pixel (row, column), for the true aspect; None takes square pixels.
        zoom: picture pixels per pixel of the finer axis.
        box: (top, left, height, width) to show, in pixels of `hu`; None shows all.
        scale_bar: draw a bar labeled in mm; needs `spacing_mm`.
        edges: letters at the left and top edge, see EDGE_LETTERS.
        lettering: size of all letters, 1 on a screen; more for a picture that is shown smaller.

    Returns:
        (rows, columns, 3) uint8 RGB.

    Raises:
        ValueError: a shape, window or box that does not fit.
    """
    require(hu, "ndim", "hu", "a slice (H, W): volume.hu[k]")
    layers = {
        name: layer if isinstance(layer, Layer) else Layer(np.asarray(layer), color_of(name))
        for name, layer in (layers or {}).items()
    }
    _check(hu, window, layers)
    top, left, height, width = _checked_box(box, hu.shape)
    shape = picture_shape((height, width), spacing_mm, zoom)
    part = np.s_[top : top + height, left : left + width]
    picture = cv2.cvtColor(_resized(_to_grey(hu[part], window), shape), cv2.COLOR_GRAY2RGB)
    outlined = np.zeros(shape, np.uint8)
    for layer in layers.values():
        _paint(picture, _resized_mask(layer.mask[part], shape), layer, outlined)
    if scale_bar and spacing_mm is not None:
        _draw_scale_bar(picture, spacing_mm[1] * width / shape[1], lettering)
    if edges is not None:
        _draw_edges(picture, edges, lettering)
    return picture


def label_layers(source: str, labels: np.ndarray, **style) -> dict[str, Layer]:
    """Turn labels (H, W) of a source, such as "reference", into its liver and its tumor layer.

    Args:
        style: fields of `Layer` other than mask and color.
    """
    names = {layer_name(source, structure): first for structure, first in FIRST_LABEL.items()}
    return {name: Layer(labels >= first, color_of(name), **style) for name, first in names.items()}


def error_layers(prediction: np.ndarray, reference: np.ndarray) -> dict[str, Layer]:
    """Return the fills "false positive" and "false negative" of two masks (H, W)."""
    prediction = np.asarray(prediction, bool)
    reference = np.asarray(reference, bool)
    masks = {"false positive": prediction & ~reference, "false negative": reference & ~prediction}
    return {name: Layer(mask, color_of(name), "fill", 0.7) for name, mask in masks.items()}


def mark_point(
    picture: np.ndarray,
    place: tuple[int, int],
    box: tuple[int, int, int, int],
    *,
    across: bool = False,
) -> None:
    """Draw a cross with an open middle at the pixel (row, column) of a slice shown in `box`.

    Args:
        across: lines through the whole picture, as linked planes have them.
    """
    x, y = _place_of((place[0] + 0.5, place[1] + 0.5), picture, box)
    reach = max(picture.shape) if across else 16
    for color, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        for dy, dx in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            ends = (x + 6 * dx, y + 6 * dy), (x + reach * dx, y + reach * dy)
            cv2.line(picture, *ends, color, thickness)


def draw_ruler(
    picture: np.ndarray,
    ends: tuple[tuple[float, float], tuple[float, float]],
    box: tuple[int, int, int, int],
    text: str,
) -> None:
    """Draw a line between two places (row, column) of a slice shown in `box`, with its length."""
    start, end = (_place_of(place, picture, box) for place in ends)
    for color, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.line(picture, start, end, color, thickness, cv2.LINE_AA)
        for place in (start, end):
            cv2.circle(picture, place, 2, color, thickness, cv2.LINE_AA)
    (width, height), _ = cv2.getTextSize(text, FONT, _text_size(picture), 1)
    rows, columns = picture.shape[:2]
    left = min(max(end[0] + 8, 2), columns - width - 2)
    write_text(picture, text, (left, min(max(end[1] - 8, height + 2), rows - 4)))


def _place_of(place: tuple[float, float], picture, box) -> tuple[int, int]:
    """Return the (x, y) in a picture of a place (row, column) of the slice; 0.5 is a middle."""
    top, left, height, width = box
    rows, columns = picture.shape[:2]
    return int((place[1] - left) * columns / width), int((place[0] - top) * rows / height)


def write_text(
    picture: np.ndarray, text: str, place: tuple[int, int], lettering: float = 1.0
) -> None:
    """Write over a picture, in place; `place` is the (column, row) of the text's lower left.

    White on a black rim reads on any tissue. The rim is the text itself, moved: OpenCV 5 spaces
    thicker letters wider, so thicker text would lie beside its letters.
    """
    size = lettering * _text_size(picture)
    rim = 1 if size < 0.6 else 2
    moves = [(x, y) for x in (-rim, 0, rim) for y in (-rim, 0, rim)]
    for color, moved in ((0, moves), (255, [(0, 0)])):
        for x, y in moved:
            corner = (place[0] + x, place[1] + y)
            cv2.putText(picture, text, corner, FONT, size, (color,) * 3, 1, cv2.LINE_AA)


def with_key(picture: np.ndarray, names: Iterable[str]) -> np.ndarray:
    """Return a picture with a line below it that names its colors, as many lines as they need."""
    lines, right = [], picture.shape[1]
    for name in names:
        width = cv2.getTextSize(name, FONT, KEY_SIZE, 1)[0][0] + 3 * KEY_LINE // 2
        if right + width > picture.shape[1]:
            lines.append(np.zeros((KEY_LINE, picture.shape[1], 3), np.uint8))
            right = 4
        square = np.s_[6 : KEY_LINE - 6, right : right + KEY_LINE - 12]
        lines[-1][square] = color_of(name)
        place = (right + KEY_LINE - 7, KEY_LINE - 7)
        cv2.putText(lines[-1], name, place, FONT, KEY_SIZE, (255,) * 3, 1, cv2.LINE_AA)
        right += width
    return np.vstack([picture, *lines])


def encode(rgb: np.ndarray, kind: str = "jpeg", quality: int = 88) -> bytes:
    """Compress a picture (H, W, 3) or (H, W) uint8 RGB to "jpeg" (small, quick) or "png" (exact).

    JPEG keeps full color resolution; otherwise thin outlines smear.
    """
    if kind not in ("jpeg", "png"):
        raise ValueError(f'kind must be "jpeg" or "png", got {kind!r}')
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, *sampling] if kind == "jpeg" else []
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR) if rgb.ndim == 3 else rgb
    done, data = cv2.imencode(f".{kind}", bgr, options)
    assert done, "OpenCV was built without this format"
    return data.tobytes()


def encode_frame(rgb: np.ndarray, bytes_per_pixel: float = 0.3) -> bytes:
    """Compress a picture (H, W, 3) to JPEG, a noisy one harder: 512x512 stays below 80 KB."""
    limit = bytes_per_pixel * rgb.shape[0] * rgb.shape[1]
    for quality in (88, 78, 60):
        data = encode(rgb, quality=quality)
        if len(data) <= limit:
            break
    return data


def _check(hu, window, layers: dict[str, Layer]) -> None:
    if hu.ndim != 2 or not hu.size:
        raise ValueError(f"a slice must be (H, W) and not empty, got shape {hu.shape}")
    if not window[0] < window[1]:
        raise ValueError(f"window must be (low, high) with low < high, got {tuple(window)}")
    for name, layer in layers.items():
        if layer.mask.shape != hu.shape:
            raise ValueError(
                f"layer {name!r} must have the slice's shape {hu.shape}, got {layer.mask.shape}"
            )


def _checked_box(box, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    if box is None:
        return 0, 0, *shape
    top, left, height, width = box
    inside = top >= 0 and left >= 0 and top + height <= shape[0] and left + width <= shape[1]
    if not inside or height < 1 or width < 1:
        raise ValueError(f"box (top, left, height, width) {box} must lie in a slice of {shape}")
    return box


def _to_grey(image: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Map `window` (low, high) to 0..255, clipping the rest; (H, W) of any number type -> uint8."""
    if image.dtype == np.int16:
        return window_to_uint8(image, window)
    low, high = window
    scale = 255.0 / (high - low)
    clipped = np.clip(image.astype(np.float32), low, high)
    return cv2.convertScaleAbs(clipped, alpha=scale, beta=-low * scale)


def _resized(grey: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    if grey.shape == shape:
        return grey
    shrinks = shape[0] < grey.shape[0] or shape[1] < grey.shape[1]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(grey, shape[::-1], interpolation=way)


def _resized_mask(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a mask as uint8 {0, 1} of `shape`, sampled at pixel centers."""
    mask = np.ascontiguousarray(mask if mask.dtype == bool else mask != 0).view(np.uint8)
    if mask.shape == shape:
        return mask
    return cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def _paint(picture: np.ndarray, mask: np.ndarray, layer: Layer, outlined: np.ndarray) -> None:
    """Paint a mask in place; `outlined` (rows, columns) uint8 collects the outlines."""
    left, top, width, height = cv2.boundingRect(mask)
    if not width:
        return
    part = np.s_[top : top + height, left : left + width]
    solid = np.full((height, width, 3), layer.color, np.uint8)
    if layer.style == "fill":
        mixed = cv2.addWeighted(picture[part], 1 - layer.opacity, solid, layer.opacity, 0)
        cv2.copyTo(mixed, mask[part], picture[part])
        return
    inner = cv2.erode(mask, CROSS, iterations=layer.thickness)
    outline = mask[part] - inner[part]
    shared = outline & outlined[part]
    if shared.any():
        rows, columns = np.ogrid[top : top + height, left : left + width]
        outline &= ~(shared & ((rows // CHECK + columns // CHECK) % 2).astype(np.uint8))
    outlined[part] |= outline
    cv2.copyTo(solid, outline, picture[part])


def _draw_scale_bar(picture: np.ndarray, mm_per_pixel: float, lettering: float) -> None:
    """Draw the longest round length that fits into a third of the width."""
    rows, columns = picture.shape[:2]
    fitting = [mm for mm in (100, 50, 20, 10, 5, 2, 1) if mm / mm_per_pixel <= columns / 3]
    if not fitting:
        return
    length = round(fitting[0] / mm_per_pixel)
    left = max(columns // 40, 2)
    bottom = rows - max(rows // 40, 3)
    for color, grow in ((0, 1), (255, 0)):
        corners = (left - grow, bottom - 2 - grow), (left + length - 1 + grow, bottom + grow)
        cv2.rectangle(picture, *corners, (color,) * 3, cv2.FILLED)
    write_text(picture, f"{fitting[0]} mm", (left, bottom - 7), lettering)


def _draw_edges(picture: np.ndarray, letters: tuple[str, str], lettering: float) -> None:
    rows, columns = picture.shape[:2]
    write_text(picture, letters[0], (4, rows // 2), lettering)
    size = lettering * _text_size(picture)
    (width, height), _ = cv2.getTextSize(letters[1], FONT, size, 1)
    write_text(picture, letters[1], ((columns - width) // 2, height + 6), lettering)


def _text_size(picture: np.ndarray) -> float:
    return min(max(picture.shape[0] / 1000, 0.4), 0.9)
