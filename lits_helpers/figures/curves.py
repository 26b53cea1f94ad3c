"""Curves and scatter plots: training history, Dice per case, volumes, recall by lesion size."""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..machine import written_whole
from ..metrics import SIZE_CLASSES, size_class_title
from .palette import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION

DPI = 150
LOSSES = {  # column of the history -> its name and color
    "loss": ("loss", BLUE),
    "g_loss": ("generator", BLUE),
    "pixel_loss": ("pixel", GREEN),
    "feature_loss": ("feature", PURPLE),
    "critic_loss": ("critic", ORANGE),
}
STRUCTURE_COLORS = {"liver": BLUE, "tumor": VERMILION}


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


def plot_history(history: Sequence[Mapping], *, title: str = "") -> Picture:
    """Draw the losses and the validation Dice of a training over its epochs, the best epoch marked.

    Args:
        history: a row an epoch: "epoch", "validation_dice" and any of LOSSES.

    Raises:
        ValueError: the history is empty or has no validation Dice.
    """
    if not history:
        raise ValueError("the history is empty: train for an epoch first")
    if "validation_dice" not in history[0]:
        raise ValueError(f"the history has no validation_dice; it has {', '.join(history[0])}")
    epochs = np.array([row["epoch"] for row in history], float)
    figure = Picture(11, 4)
    losses, scores = figure.subplots(1, 2)
    _draw_losses(losses, epochs, history)
    _draw_dice(scores, epochs, column(history, "validation_dice"))
    figure.suptitle(title)
    return figure


def plot_dice_per_case(rows: Sequence[Mapping], *, title: str = "Dice per case") -> Picture:
    """Draw the liver and tumor Dice of every case as points, sorted by the liver's.

    Args:
        rows: as `metrics.evaluate_case`, with "case_id". The tumor's mean is over cases that have
            tumor. Cases marked "training_case" are drawn hollow and count in no mean.
    """
    _need_rows(rows)
    rows = sorted(rows, key=lambda row: row["liver_dice"])
    names = [str(row["case_id"]) for row in rows]
    figure = Picture(max(6.0, min(0.3 * len(rows) + 3, 16)), 4.5)
    axis = figure.subplots()
    seen = np.array([bool(row.get("training_case")) for row in rows])
    for name, marker in (("liver", "o"), ("tumor", "D")):
        values = column(rows, f"{name}_dice")
        if name == "tumor":
            values = np.where(column(rows, "tumor_size_reference") > 0, values, np.nan)
        _draw_points(axis, values, seen, name, marker)
    axis.set(ylim=(-0.03, 1.03), ylabel="Dice", title=title)
    axis.set_xticks(range(len(rows)), names, rotation=90, fontsize=8)
    axis.set_xlabel("case" + (" (hollow: a model was trained on it)" if seen.any() else ""))
    _tidy(axis)
    axis.legend(loc="lower right", frameon=True)
    return figure


def plot_volume_agreement(rows: Sequence[Mapping], *, title: str = "Volume agreement") -> Picture:
    """Draw predicted against reference volume of liver and tumor, a point a case.

    Args:
        rows: as `metrics.evaluate_case`; training cases are left out. If any has "voxel_mm3"
            (volume of a voxel), volumes are in ml and rows without are left out; else in voxels.
    """
    rows = _held_out(rows)
    voxel_mm3 = column(rows, "voxel_mm3")
    measured = np.isfinite(voxel_mm3).any()
    scale, unit = (voxel_mm3 / 1000, "ml") if measured else (np.ones(len(rows)), "voxels")
    figure = Picture(10, 4.8)
    for axis, name in zip(figure.subplots(1, 2), STRUCTURE_COLORS, strict=True):
        sizes = [
            column(rows, f"{name}_size_{side}") * scale for side in ("reference", "prediction")
        ]
        _draw_agreement(axis, *sizes, name, unit)
    figure.suptitle(title)
    return figure


def plot_recall_by_size(
    rows: Sequence[Mapping], *, overlap: str = "0", title: str = "Lesions found, by size"
) -> Picture:
    """Draw the share of reference lesions found in each size class, all cases pooled.

    Args:
        rows: as `metrics.evaluate_case`; rows without sizes (spacing not trusted) and training
            cases are left out.
        overlap: "0" counts a lesion as found if any of its voxels is predicted, "50" if its overlap
            is above 0.5.
    """
    rows = _held_out(rows)
    figure = Picture(6, 4.2)
    axis = figure.subplots()
    for place, name in enumerate(SIZE_CLASSES):
        found, missed = (
            int(np.nansum(column(rows, f"lesion_{name}_{kind}_{overlap}"))) for kind in ("tp", "fn")
        )
        total = found + missed
        share = found / total if total else 0.0
        axis.bar(place, share, width=0.6, color=np.array(BLUE) / 255)
        text = f"{found} of {total}" if total else "no lesion"
        axis.text(place, share + 0.02, text, ha="center", fontsize=10)
    axis.set_xticks(range(len(SIZE_CLASSES)), [size_class_title(name) for name in SIZE_CLASSES])
    rule = "any voxel" if overlap == "0" else "overlap above 0.5"
    axis.set(
        ylim=(0, 1.12), ylabel=f"recall ({rule})", xlabel="diameter of the lesion", title=title
    )
    _tidy(axis)
    return figure


def column(rows: Sequence[Mapping], key: str) -> np.ndarray:
    """Return a column of rows as float64; a missing or empty value is nan."""
    values = [row.get(key) for row in rows]
    return np.array([np.nan if value in (None, "") else float(value) for value in values])


def _draw_points(axis: Axes, values, seen, name: str, marker: str) -> None:
    color = np.array(STRUCTURE_COLORS[name]) / 255
    places = np.arange(len(values))
    style = {"color": color, "markersize": 6, "linestyle": "none"}
    known = values[np.isfinite(values) & ~seen]
    mean = f"mean {known.mean():.3f} of {len(known)}" if len(known) else "no case"
    axis.plot(places[~seen], values[~seen], marker, label=f"{name}, {mean}", **style)
    axis.plot(places[seen], values[seen], marker, markerfacecolor="none", **style)
    if len(known):
        axis.axhline(known.mean(), color=color, linewidth=1, linestyle="--", alpha=0.7)


def _draw_agreement(axis: Axes, reference, prediction, name: str, unit: str) -> None:
    known = np.isfinite(reference) & np.isfinite(prediction)
    reference, prediction = reference[known], prediction[known]
    axis.plot(reference, prediction, "o", color=np.array(STRUCTURE_COLORS[name]) / 255, alpha=0.8)
    top = max(reference.max(initial=0), prediction.max(initial=0), 1e-9) * 1.06
    axis.plot([0, top], [0, top], color="0.4", linewidth=1, linestyle="--", label="equal")
    axis.set(xlim=(-0.03 * top, top), ylim=(-0.03 * top, top), aspect="equal")
    axis.set(xlabel=f"reference {name} volume ({unit})", ylabel=f"predicted {name} volume ({unit})")
    error = np.abs(prediction - reference).mean() if len(reference) else np.nan
    axis.set_title(f"{name}: mean error {error:.3g} {unit}, {len(reference)} cases", fontsize=11)
    _tidy(axis)
    axis.legend(loc="upper left", frameon=False)


def _draw_losses(axis: Axes, epochs, history) -> None:
    dot = "o" if len(epochs) < 12 else None  # a line through a single epoch is invisible
    for key, (name, color) in LOSSES.items():
        values = column(history, key)
        if np.isfinite(values).any():
            axis.plot(
                epochs, values, color=np.array(color) / 255, marker=dot, markersize=4, label=name
            )
    lines = [line.get_ydata() for line in axis.lines]
    positive = [values[np.isfinite(values)] for values in lines]
    if positive and all((values > 0).all() for values in positive):
        axis.set_yscale("log")
    axis.set(xlabel="epoch", ylabel="loss (mean of the epoch)", title="Training loss")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    _tidy(axis)
    if lines:
        axis.legend(frameon=False)


def _draw_dice(axis: Axes, epochs, values) -> None:
    axis.plot(epochs, values, color=np.array(BLUE) / 255)
    axis.set(xlabel="epoch", ylabel="Dice", title="Validation Dice", ylim=(-0.02, 1.02))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    _tidy(axis)
    if np.isfinite(values).any():
        best = int(np.nanargmax(values))
        color = np.array(VERMILION) / 255
        axis.axvline(epochs[best], color=color, linestyle="--", linewidth=1)
        label = f"best: epoch {epochs[best]:g}, {values[best]:.3f}"
        axis.plot(epochs[best], values[best], "o", color=color, label=label)
        axis.legend(loc="lower right", frameon=True)


def _need_rows(rows) -> None:
    if not rows:
        raise ValueError("no rows: evaluate at least one case first")


def _held_out(rows: Sequence[Mapping]) -> list[Mapping]:
    """Return the rows of cases that no model was trained on."""
    _need_rows(rows)
    return [row for row in rows if not row.get("training_case")]


def _tidy(axis: Axes) -> None:
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color=np.array(SKY) / 255, alpha=0.25, linewidth=0.6)
