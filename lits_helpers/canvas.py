"""Figures without pyplot, for machines without a display; opaque, so that dark themes show them."""

import io
import os
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from .files import written_whole

DPI = 150


class Picture(Figure):
    """A matplotlib figure that notebooks show without pyplot, opaque in every theme."""

    def __init__(self, width: float, height: float):
        super().__init__(figsize=(width, height), dpi=100, facecolor="white", layout="constrained")

    def _repr_png_(self) -> bytes:
        return figure_png(self, self.dpi)


def figure_png(figure: Figure, dpi: float = DPI) -> bytes:
    """Return a figure as PNG; the same figure gives the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
    return stream.getvalue()


def save_figure(figure: Figure, path: str | os.PathLike, dpi: float = DPI) -> Path:
    """Write a figure as PNG, whole or not at all, and return its path."""
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"figures are saved as .png, got {path.name}")
    with written_whole(path, lasting=False) as temporary:
        temporary.write_bytes(figure_png(figure, dpi))
    return path


def show_image(axis, rgb: np.ndarray, title: str = "") -> None:
    """Put a picture (H, W, 3) uint8 into an axis, without ticks."""
    axis.imshow(rgb, interpolation="lanczos")
    axis.set_title(title, fontsize=11)
    axis.axis("off")
