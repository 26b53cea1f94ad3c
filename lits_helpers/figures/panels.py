"""Static pictures: panels of a slice and a montage of a case. Arrays in, matplotlib figures out.

A figure as the last line of a notebook's cell shows itself.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..metrics import FIRST_LABEL, slice_dice
from ..volumes import read_picture
from .curves import Picture, show_image
from .drawing import (
    EDGE_LETTERS,
    WINDOWS,
    Layer,
    error_layers,
    label_layers,
    mask_box,
    picture_shape,
    plane_spacing,
    render_slice,
    write_text,
    zoom_to,
)
from .palette import PALETTE, Color, color_of, layer_name

PANEL_PIXELS = 480  # longer side of a panel's picture: sharp at the size it is printed
LETTERING = 1.7  # of the letters in a panel: it is printed small
TILE_PIXELS = 280
TILE_GAP = 4


def picture_grid(paths: Sequence[Path], *, columns: int = 2) -> Picture:
    """Show picture files side by side under their names, for example validation pictures.

    Raises:
        FileNotFoundError: no path, or one that is no picture.
    """
    pictures = [read_picture(path, cv2.IMREAD_COLOR_RGB) for path in paths]
    missing = [str(path) for path, rgb in zip(paths, pictures, strict=True) if rgb is None]
    if missing or not pictures:
        raise FileNotFoundError(f"no pictures to show: {', '.join(missing) or 'an empty list'}")
    rows = math.ceil(len(pictures) / columns)
    height, width = pictures[0].shape[:2]
    figure = Picture(13, 13 * rows / columns * height / width + 0.3 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, path, rgb in zip(axes, paths, pictures, strict=False):
        show_image(axis, rgb, path.stem)
    return figure


def seven_panels(
    hu: np.ndarray,
    prediction: np.ndarray,
    reference: np.ndarray,
    *,
    spacing_mm: tuple[float, float] | None = None,
    window: tuple[float, float] = WINDOWS["abdomen"],
    title: str = "",
) -> Picture:
    """Show the tumor in a slice: CT, both masks, overlay, contours, errors, within the liver.

    All panels show the same part: the liver of both segmentations and a margin.

    Args:
        hu: (H, W) HU, or any image together with its `window`.
        prediction, reference: (H, W) labels 0/1/2.
        spacing_mm: size of a pixel (row, column); None draws no scale bar.
    """
    for name, labels in (("prediction", prediction), ("reference", reference)):
        if labels.shape != hu.shape:
            raise ValueError(f"{name} must have the slice's shape {hu.shape}, got {labels.shape}")
    panels = _panels(prediction, reference)
    box = mask_box((prediction > 0) | (reference > 0), spacing_mm=spacing_mm)
    zoom = zoom_to(PANEL_PIXELS, box[2:], spacing_mm)
    options = {"spacing_mm": spacing_mm, "zoom": zoom, "box": box, "lettering": LETTERING}
    blank = np.zeros(hu.shape, np.uint8)
    figure = Picture(13, 1.0 + 2 * 13 / 4 * _box_aspect(box, spacing_mm))
    axes = figure.subplots(2, 4).ravel()
    for axis, (name, on_ct, layers) in zip(axes, panels, strict=False):
        drawn = render_slice(
            hu if on_ct else blank,
            window=window if on_ct else (0, 255),
            layers=layers,
            scale_bar=on_ct,
            edges=EDGE_LETTERS["axial"],
            **options,
        )
        show_image(axis, drawn, name)
    _write_key(axes[7], panels, prediction, reference)
    figure.suptitle(title, fontsize=13)
    return figure


def montage(
    hu: np.ndarray,
    layers: Mapping[str, np.ndarray] | None = None,
    *,
    title: str = "",
    **options,
) -> Picture:
    """Show axial slices of a case, feet to head, with outlines; options as of `montage_image`."""
    width = 13.0
    figure = Picture(width, width)
    paper = tuple(round(255 * share) for share in to_rgb(figure.get_facecolor()))
    rgb = montage_image(hu, layers, paper=paper, **options)
    figure.set_size_inches(width, width * rgb.shape[0] / rgb.shape[1] + 0.7)
    show_image(figure.subplots(), rgb, title)
    names = [layer_name(source, structure) for source in layers or {} for structure in FIRST_LABEL]
    if names:
        color_key(figure, names)
    return figure


def color_key(figure: Figure, names: Sequence[str]) -> None:
    """Write a legend of layer names below a figure."""
    handles = [_swatch(name) for name in names]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def montage_image(
    hu: np.ndarray,
    layers: Mapping[str, np.ndarray] | None = None,
    *,
    spacing_mm: tuple[float, float, float] | None = None,
    window: tuple[float, float] = WINDOWS["abdomen"],
    slices: Sequence[int] | None = None,
    count: int = 12,
    columns: int = 6,
    paper: Color = (255, 255, 255),
) -> np.ndarray:
    """Tile axial slices of a case into one picture, each with its index, cut to what is labeled.

    Args:
        hu: (Z, Y, X) HU.
        layers: name -> labels (Z, Y, X) 0/1/2, drawn as outlines of liver and tumor.
        spacing_mm: (dz, dy, dx); None draws no scale bar.
        window: HU (low, high) shown as black and white.
        slices: their indices; None spreads `count` over the slices that have labels.
        columns: tiles in a row.
        paper: color between the tiles.

    Returns:
        (rows, columns, 3) uint8.
    """
    layers = layers or {}
    slices = spread_slices(hu, layers, count) if slices is None else list(slices)
    spacing = plane_spacing(spacing_mm, "axial") if spacing_mm else None
    labeled = np.zeros(hu.shape[1:], bool)
    for labels in layers.values():
        labeled |= labels.any(axis=0)
    box = mask_box(labeled, spacing_mm=spacing)
    zoom = zoom_to(TILE_PIXELS, box[2:], spacing)
    options = {"window": window, "spacing_mm": spacing, "zoom": zoom, "box": box}
    tiles = [_tile(hu, layers, k, options | {"scale_bar": k == slices[0]}) for k in slices]
    columns = min(columns, len(tiles))
    high, wide = (length + TILE_GAP for length in tiles[0].shape[:2])
    rows = -(-len(tiles) // columns)
    whole = np.full((rows * high, columns * wide, 3), paper, np.uint8)
    for n, tile in enumerate(tiles):
        top, left = n // columns * high, n % columns * wide
        whole[top : top + high - TILE_GAP, left : left + wide - TILE_GAP] = tile
    return whole[:-TILE_GAP, :-TILE_GAP]


def spread_slices(hu: np.ndarray, layers: Mapping[str, np.ndarray] | None, count: int) -> list[int]:
    """Spread `count` slice indices evenly over the labeled slices, else over all."""
    labeled = np.zeros(len(hu), bool)
    for labels in (layers or {}).values():
        labeled |= labels.any(axis=(1, 2))
    candidates = np.flatnonzero(labeled) if labeled.any() else np.arange(len(hu))
    chosen = np.linspace(0, len(candidates) - 1, min(count, len(candidates)))
    return candidates[np.round(chosen).astype(int)].tolist()


def _tile(hu, layers, k: int, options: dict) -> np.ndarray:
    drawn = {}
    for source, labels in layers.items():
        drawn |= label_layers(source, labels[k])
    tile = render_slice(hu[k], layers=drawn, **options)
    write_text(tile, str(k), (5, 16))
    return tile


def _panels(prediction, reference) -> list[tuple[str, bool, dict[str, Layer]]]:
    """Return (title, drawn on the CT, layers) of the seven panels."""
    predicted, referred = "predicted tumor", "reference tumor"
    masks = {referred: reference == 2, predicted: prediction == 2}

    def layers(style: str, **options) -> dict[str, Layer]:
        return {name: Layer(mask, color_of(name), style, **options) for name, mask in masks.items()}

    solid = layers("fill", opacity=1.0)
    within = {
        "reference liver": Layer(reference >= 1, PALETTE["reference liver"], thickness=2),
        predicted: Layer(masks[predicted], PALETTE[predicted], "fill", 0.6),
    }
    return [
        ("CT", True, {}),
        ("Predicted tumor", False, {predicted: solid[predicted]}),
        ("Reference tumor", False, {referred: solid[referred]}),
        ("Overlay", True, layers("fill", opacity=0.45)),
        ("Contours", True, layers("outline", thickness=2)),
        ("Errors", True, error_layers(masks[predicted], masks[referred])),
        ("Predicted tumor within the liver", True, within),
    ]


def _write_key(axis, panels, prediction, reference) -> None:
    """Fill the eighth cell with the legend, a line a color, and this slice's Dice."""
    axis.axis("off")
    names = dict.fromkeys(name for _, _, layers in panels for name in layers)
    handles = [_swatch(name) for name in names]
    scores = [(name, slice_dice(prediction, reference, name)) for name in FIRST_LABEL]
    lines = ["Dice in this slice"]
    lines += [f"{n}: {'neither has it' if dice is None else f'{dice:.3f}'}" for n, dice in scores]
    legend = axis.legend(
        handles=handles,
        title="\n".join(lines),
        loc="upper left",
        frameon=False,
        fontsize=10.5,
        title_fontsize=10.5,
        alignment="left",
    )
    legend.set_in_layout(False)  # long names may pass the cell; the panels keep their places


def _box_aspect(box: tuple[int, int, int, int], spacing_mm) -> float:
    """Return height by width of a part of a slice, kept between 0.6 and 1.2 to fit the page."""
    height, width = picture_shape(box[2:], spacing_mm, 1.0)
    return min(max(height / width, 0.6), 1.2)


def _swatch(name: str) -> Patch:
    return Patch(color=np.array(color_of(name)) / 255, label=name)
