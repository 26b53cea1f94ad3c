"""Curves and scatter plots: training history, Dice per case, volumes, recall by lesion size."""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from ..machine import written_whole
from ..metrics import SIZE_CLASSES, size_class_title
from .palette import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION

DPI, VECTOR_DPI = 150, 300  # the second is of the slices within a PDF or SVG
UNDATED = {".png": {"Software": None}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
NAMED, LETTERS = 40, 20  # cases that have a name below the axis, and the longest name's letters
LOSSES = {  # column of the history -> its name and color
    "loss": ("loss", BLUE),
    "g_loss": ("generator", BLUE),
    "pixel_loss": ("pixel", GREEN),
    "feature_loss": ("feature", PURPLE),
    "critic_loss": ("critic", ORANGE),
}
STRUCTURE_COLORS = {"liver": BLUE, "tumor": VERMILION}


class Picture(Figure):
    """A matplotlib figure that notebooks show without pyplot, in the colors of matplotlib's style.

    It is white by default, in every theme of the notebook, and dark after
    ``matplotlib.style.use("dark_background")``.
    """

    def __init__(self, width: float, height: float):
        super().__init__(figsize=(width, height), dpi=100, layout="constrained")

    def _repr_png_(self) -> bytes:
        return figure_bytes(self, ".png", self.dpi)


def figure_bytes(figure: Figure, suffix: str, dpi: float) -> bytes:
    """Return a figure as a file of a suffix in UNDATED; the same figure gives the same bytes."""
    stream = io.BytesIO()
    # Journals want text as text (42); the salt makes the names within an SVG the same each time.
    with rc_context({"pdf.fonttype": 42, "svg.hashsalt": "lits"}):
        figure.savefig(stream, format=suffix[1:], dpi=dpi, metadata=UNDATED[suffix])
    return stream.getvalue()


def save_figure(figure: Figure, path: str | os.PathLike, dpi: float | None = None) -> Path:
    """Write a figure as .png, .pdf or .svg, whole or not at all, and return its path.

    Args:
        dpi: None takes 150 for a PNG and 300 for the slices within a PDF or SVG.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in UNDATED:
        raise ValueError(f"figures are saved as .png, .pdf or .svg, got {path.name}")
    with written_whole(path, lasting=False) as temporary:
        dpi = dpi or (DPI if suffix == ".png" else VECTOR_DPI)
        temporary.write_bytes(figure_bytes(figure, suffix, dpi))
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

    Of more than NAMED cases only the outliers are named.

    Args:
        rows: as `metrics.evaluate_case`, with "case_id". The tumor's mean is over cases that have
            tumor. Cases marked "training_case" are drawn hollow and count in no mean.
    """
    _need_rows(rows)
    rows = sorted(rows, key=lambda row: row["liver_dice"])
    names = [_short(row["case_id"]) for row in rows]
    figure = Picture(max(6.0, min(0.3 * len(rows) + 3, 16)), 4.5)
    axis = figure.subplots()
    seen = np.array([bool(row.get("training_case")) for row in rows])
    for name, marker in (("liver", "o"), ("tumor", "D")):
        values = column(rows, f"{name}_dice")
        if name == "tumor":
            values = np.where(column(rows, "tumor_size_reference") > 0, values, np.nan)
        _draw_points(axis, values, seen, name, marker)
        if len(rows) > NAMED:
            _name(axis, names, np.arange(len(rows)), values, outliers(values))
    axis.set(ylim=(-0.03, 1.03), ylabel="Dice", title=title)
    if len(rows) <= NAMED:
        axis.set_xticks(range(len(rows)), names, rotation=90, fontsize=8)
    else:
        axis.set_xticks([])
    hollow = "; hollow: a model was trained on it" if seen.any() else ""
    axis.set_xlabel(f"{len(rows)} cases, by the Dice of the liver{hollow}")
    _tidy(axis)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def plot_volume_agreement(rows: Sequence[Mapping], *, title: str = "Volume agreement") -> Picture:
    """Draw predicted against reference volume of liver and tumor, a point a case, outliers named.

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
        _name(axis, [_short(row["case_id"]) for row in rows], *sizes, outliers(sizes[1] - sizes[0]))
    equal = Line2D([], [], color="0.5", linewidth=1, linestyle="--", label="equal volumes")
    figure.legend(handles=[equal], loc="outside lower center", frameon=False)
    figure.suptitle(title)
    return figure


def plot_recall_by_size(
    rows: Sequence[Mapping], *, title: str = "Lesions found, by size"
) -> Picture:
    """Draw the share of reference lesions found in each size class, all cases pooled.

    A lesion is found if any of its voxels is predicted.

    Args:
        rows: as `metrics.evaluate_case`; rows without sizes (spacing not trusted) and training
            cases are left out.
    """
    rows = _held_out(rows)
    figure = Picture(6, 4.2)
    axis = figure.subplots()
    for place, name in enumerate(SIZE_CLASSES):
        found, missed = (
            int(np.nansum(column(rows, f"lesion_{name}_{kind}_0"))) for kind in ("tp", "fn")
        )
        total = found + missed
        share = found / total if total else 0.0
        axis.bar(place, share, width=0.6, color=np.array(BLUE) / 255)
        text = f"{found} of {total}" if total else "no lesion"
        axis.text(place, share + 0.02, text, ha="center", fontsize=10)
    axis.set_xticks(range(len(SIZE_CLASSES)), [size_class_title(name) for name in SIZE_CLASSES])
    axis.set(
        ylim=(0, 1.12), ylabel="recall (any voxel)", xlabel="diameter of the lesion", title=title
    )
    _tidy(axis)
    return figure


def column(rows: Sequence[Mapping], key: str) -> np.ndarray:
    """Return a column of rows as float64; a missing or empty value is nan."""
    values = [row.get(key) for row in rows]
    return np.array([np.nan if value in (None, "") else float(value) for value in values])


def outliers(values: np.ndarray, most: int = 3) -> list[int]:
    """Return the indices of values beyond Tukey's fences, the farthest first; of four values none.

    Source: J. W. Tukey, Exploratory Data Analysis, 1977: quartiles and 1.5 times their distance.
    """
    known = values[np.isfinite(values)]
    if len(known) < 5:
        return []
    low, high = np.percentile(known, (25, 75))
    fences = low - 1.5 * (high - low), high + 1.5 * (high - low)
    beyond = np.nan_to_num(np.maximum(fences[0] - values, values - fences[1]))
    return [int(index) for index in np.argsort(-beyond)[:most] if beyond[index] > 0]


def _name(axis: Axes, names: Sequence[str], x, y, chosen: Sequence[int]) -> None:
    """Write the names of chosen points beside them, on the side where there is room."""
    for index in chosen:
        left = axis.transLimits.transform((x[index], y[index]))[0] > 0.7
        axis.annotate(
            names[index],
            (x[index], y[index]),
            (-6 if left else 6, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize=8,
        )


def _short(case_id: object) -> str:
    """Return a name that fits a figure: the middle of a long one is left out."""
    name = str(case_id)
    half = LETTERS // 2
    return name if len(name) <= LETTERS else f"{name[: half - 1]}…{name[-half:]}"


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
    axis.plot([0, top], [0, top], color="0.5", linewidth=1, linestyle="--")
    axis.set(xlim=(-0.03 * top, top), ylim=(-0.03 * top, top), aspect="equal")
    axis.set(xlabel=f"reference {name} volume ({unit})", ylabel=f"predicted {name} volume ({unit})")
    error = np.abs(prediction - reference).mean() if len(reference) else np.nan
    text = f"{name}: mean absolute error {error:.3g} {unit}, {len(reference)} cases"
    axis.set_title(text, fontsize=11)
    _tidy(axis)


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
        _number_log_ticks(axis)
    axis.set(xlabel="epoch", ylabel="loss (mean of the epoch)", title="Training loss")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _tidy(axis)
    if lines:
        axis.legend(frameon=False)


def _number_log_ticks(axis: Axes) -> None:
    """Label a log axis with plain numbers such as 0.4, 0.5, as many as there is room for."""
    low, high = axis.get_ylim()
    decades = np.log10(high / low)
    steps = range(1, 10) if decades < 1 else (1, 2, 5) if decades < 3 else (1,)
    axis.yaxis.set_major_locator(LogLocator(subs=steps, numticks=12))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def _draw_dice(axis: Axes, epochs, values) -> None:
    axis.plot(epochs, values, color=np.array(BLUE) / 255)
    axis.set(xlabel="epoch", ylabel="Dice", title="Validation Dice", ylim=(-0.02, 1.02))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _tidy(axis)
    if np.isfinite(values).any():
        best = int(np.nanargmax(values))
        color = np.array(VERMILION) / 255
        axis.axvline(epochs[best], color=color, linestyle="--", linewidth=1)
        label = f"best: epoch {epochs[best]:g}, {values[best]:.3f}"
        axis.plot(epochs[best], values[best], "o", color=color, label=label)
        axis.legend(frameon=False)


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
