"""Static pictures: slices with outlines, panels, montages and curves. Arrays in, figures out."""

from .curves import (
    Picture,
    plot_dice_per_case,
    plot_history,
    plot_recall_by_size,
    plot_volume_agreement,
    save_figure,
)
from .drawing import (
    EDGE_LETTERS,
    PLANES,
    WINDOWS,
    Layer,
    encode,
    encode_frame,
    error_layers,
    label_layers,
    mark_point,
    plane,
    plane_spacing,
    render_slice,
    with_key,
    zoom_to,
)
from .palette import PALETTE, color_of, layer_name
from .panels import montage, montage_image, picture_grid, seven_panels

__all__ = [
    "EDGE_LETTERS",
    "PALETTE",
    "PLANES",
    "WINDOWS",
    "Layer",
    "Picture",
    "color_of",
    "encode",
    "encode_frame",
    "error_layers",
    "label_layers",
    "layer_name",
    "mark_point",
    "montage",
    "montage_image",
    "picture_grid",
    "plane",
    "plane_spacing",
    "plot_dice_per_case",
    "plot_history",
    "plot_recall_by_size",
    "plot_volume_agreement",
    "render_slice",
    "save_figure",
    "seven_panels",
    "with_key",
    "zoom_to",
]
