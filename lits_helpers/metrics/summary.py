"""Join the metrics of many cases: means and pooled counts, as dict, text and CSV."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..machine import require_each, written_whole
from .lesions import OVERLAPS, SIZE_CLASSES, size_class_title
from .overlap import dice
from .surface import SURFACE_KEYS

QUANTITIES = ("dice", "voe", "rvd_reference", "rvd_prediction", *SURFACE_KEYS, "dice_ceiling")
NAMED = 3  # of the worst cases, of liver and tumor each
STATISTICS = ("mean", "sd", "median", "low", "high")
# Never read as numbers: a case may be called 007.
TEXT_COLUMNS = ("case_id", "patient", "note", "flag", "flag_reasons")
_TITLES = {
    "liver_dice": "liver Dice per case",
    "liver_dice_ceiling": "  a perfect model at this size",
    "liver_voe": "liver VOE",
    "liver_rvd_reference": "liver RVD (reference)",
    "liver_assd_mm": "liver ASSD, mm",
    "liver_rmsd_mm": "liver RMSD, mm",
    "liver_hd95_mm": "liver HD95, mm",
    "liver_max_surface_mm": "liver maximum distance, mm",
    "tumor_dice": "tumor Dice, cases with tumor",
    "tumor_dice_ceiling": "  a perfect model at this size",
    "tumor_dice_all_cases": "tumor Dice, all cases",
    "tumor_voe": "tumor VOE",
    "tumor_rvd_reference": "tumor RVD (reference)",
    "tumor_assd_mm": "tumor ASSD, mm",
    "tumor_rmsd_mm": "tumor RMSD, mm",
    "tumor_hd95_mm": "tumor HD95, mm",
    "tumor_max_surface_mm": "tumor maximum distance, mm",
}


def evaluate_dataset(results: Iterable[Mapping], *, seed: int = 0, resamples: int = 2000) -> dict:
    """Join the rows of many cases: means with intervals, and pooled counts.

    Args:
        results: `case.evaluate_case` dicts; a row may also hold ``case_id``, ``patient``,
            ``training_case`` (true for a case that a model was trained on: it is left out of
            everything here), ``liver_only`` (true where the reference shows no tumors: left out of
            everything about tumors), ``liver_dice_ceiling`` and ``tumor_dice_ceiling``
            (`pipeline.results.resize_ceiling`).
        seed: random seed of the bootstrap; the same rows and seed give the same intervals.
        resamples: bootstrap samples of the patients, each with all its cases; a row without
            ``patient`` is a patient of its own.

    Returns:
        JSON-able; docs/metrics.md states each rule. Counts: ``cases``, ``training_cases`` left out,
        ``cases_with_tumor`` in the reference, ``cases_without_tumor``,
        ``cases_without_tumor_clean`` where none was predicted either, ``cases_with_mm``.

        Of ``liver_dice`` ... ``liver_hd95_mm`` and ``liver_dice_ceiling`` over all cases, the same
        of ``tumor_`` over the cases with tumor, and ``tumor_dice_all_cases``:
        ``{"cases", "mean", "sd", "median", "low", "high"}``, where ``cases`` counts the values and
        ``low`` to ``high`` is the bootstrap 95 % interval of the mean. Without values all but
        ``cases`` are None; of a single value ``sd`` is None.

        ``liver_dice_global`` and ``tumor_dice_global``, None without cases; ``lesion_precision_0``,
        ``lesion_recall_0``, ``lesion_f1_0``, the same with ``_50``, and by size class
        ``lesion_small_precision_0`` and so on, where 0 / 0 is None; ``burden_rmse`` and
        ``burden_max``; ``worst_liver`` and ``worst_tumor``, ``[case_id, dice]`` pairs, worst first.
    """
    rows = require_each(results, "get", "each result", "a dict, as evaluate_case returns it")
    kept = [row for row in rows if not row.get("training_case")]
    told = [row for row in kept if not row.get("liver_only")]  # whose tumors are known
    with_tumor = [row for row in told if row["tumor_size_reference"]]
    free = [row for row in told if not row["tumor_size_reference"]]
    summary = {
        "cases": len(kept),
        "training_cases": len(rows) - len(kept),
        "cases_with_tumor": len(with_tumor),
        "cases_without_tumor": len(free),
        "cases_without_tumor_clean": sum(not row["tumor_size_prediction"] for row in free),
        "cases_with_mm": sum(row["liver_assd_mm"] is not None for row in kept),
    }
    for name, group in (("liver", kept), ("tumor", with_tumor)):
        for quantity in QUANTITIES:
            key = f"{name}_{quantity}"
            summary[key] = mean_and_interval(group, key, seed, resamples)
        summary[f"{name}_dice_global"] = _global_dice(kept if name == "liver" else told, name)
        dices = [[row.get("case_id", k), row[f"{name}_dice"]] for k, row in enumerate(group)]
        summary[f"worst_{name}"] = sorted(dices, key=lambda pair: pair[1])
    summary["tumor_dice_all_cases"] = mean_and_interval(told, "tumor_dice", seed, resamples)
    return summary | _detection(told) | _burden(told)


def mean_and_interval(
    rows: Sequence[Mapping], key: str, seed: int = 0, resamples: int = 2000
) -> dict:
    """Return the statistics of one column, as `evaluate_dataset` has them; None is left out."""
    rows = [row for row in rows if row.get(key) is not None]
    known = np.array([row[key] for row in rows], dtype=np.float64)
    if not len(known):
        return {"cases": 0, **dict.fromkeys(STATISTICS)}
    sd = None
    if len(known) > 1:
        sd = float(known.std(ddof=1)) if np.isfinite(known).all() else np.inf
    low, high = _bootstrap_interval(known, _patient_numbers(rows), seed, resamples)
    found = (float(known.mean()), sd, float(np.median(known)), low, high)
    return {"cases": len(known), **dict(zip(STATISTICS, found, strict=True))}


def _patient_numbers(rows: Sequence[Mapping]) -> np.ndarray:
    """Return (n,) int: rows of one patient share a number; in order of appearance from 0."""
    numbers = {}
    patients = [row.get("patient") for row in rows]
    # A tuple is no patient's name: a patient 0 or 1 is not the row of that number.
    patients = [(n,) if name in (None, "") else name for n, name in enumerate(patients)]
    return np.array([numbers.setdefault(patient, len(numbers)) for patient in patients], int)


def _bootstrap_interval(
    values: np.ndarray, patients: np.ndarray, seed: int, resamples: int
) -> tuple[float, float]:
    """Return the percentile 95 % interval of the mean, patients drawn with all their values.

    Source: Efron & Tibshirani 1993; Davison & Hinkley 1997, 3.8, for drawing whole clusters.
    """
    sums = np.bincount(patients, values)
    counts = np.bincount(patients)
    draws = np.random.default_rng(seed).integers(len(sums), size=(resamples, len(sums)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    # A measured mean at each end: interpolating towards an infinite one would give NaN.
    low, high = np.quantile(means, (0.025, 0.975), method="inverted_cdf")
    return float(low), float(high)


def _global_dice(rows: Sequence[Mapping], name: str) -> float | None:
    if not rows:
        return None
    shared, real, predicted = (
        sum(row[f"{name}_{part}"] for row in rows)
        for part in ("intersection", "size_reference", "size_prediction")
    )
    return dice(shared, predicted, real)


def _detection(rows: Sequence[Mapping]) -> dict[str, float | None]:
    pooled = {}
    for name in ("lesion", *(f"lesion_{size}" for size in SIZE_CLASSES)):
        for suffix in OVERLAPS:
            tp, fp, fn = (
                sum(row[f"{name}_{count}_{suffix}"] or 0 for row in rows)
                for count in ("tp", "fp", "fn")
            )
            pooled[f"{name}_precision_{suffix}"] = _share(tp, tp + fp)
            pooled[f"{name}_recall_{suffix}"] = _share(tp, tp + fn)
            pooled[f"{name}_f1_{suffix}"] = _share(2 * tp, 2 * tp + fp + fn)
    return pooled


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _burden(rows: Sequence[Mapping]) -> dict[str, float | None]:
    errors = np.array([row["burden_prediction"] - row["burden_reference"] for row in rows])
    if not len(errors):
        return {"burden_rmse": None, "burden_max": None}
    rmse = float(np.sqrt(np.square(errors).mean()))
    return {"burden_rmse": rmse, "burden_max": float(np.abs(errors).max())}


def format_summary(summary: Mapping, *, more: Mapping[str, str] | None = None) -> str:
    """Return a summary of `evaluate_dataset` as a short text table.

    Args:
        summary: from `evaluate_dataset`.
        more: {key: title} of further statistics in the summary.
    """
    lines = [_heading(summary), "", _line("", "cases", "mean", "sd", "median", "95 % interval")]
    for key, title in (_TITLES | dict(more or {})).items():
        if summary[key]["cases"] or not key.endswith("ceiling"):
            lines.append(_statistics_line(title, summary[key]))
    lines += ["", *_detection_lines(summary), "", *_closing_lines(summary)]
    return "\n".join(lines)


def write_metrics_csv(rows: Iterable[Mapping], path: str | os.PathLike) -> Path:
    """Write one row a case; `read_metrics_csv` gives the same rows back.

    Columns stand in the order in which the rows first name them; None is an empty cell, and numbers
    are written so that reading restores them exactly.
    """
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (
        written_whole(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return Path(path)


def read_metrics_csv(path: str | os.PathLike) -> list[dict]:
    """Read what `write_metrics_csv` wrote: numbers, True and False as they were, empty as None.

    Raises:
        FileNotFoundError: no such file.
    """
    with open(path, newline="", encoding="utf-8") as stream:
        return [
            {
                key: cell or None if key in TEXT_COLUMNS else _parsed(cell)
                for key, cell in row.items()
            }
            for row in csv.DictReader(stream)
        ]


def _detection_lines(summary: Mapping) -> list[str]:
    lines = [_line("lesions found", "", "precision", "recall", "F1", "")]
    for suffix, title in OVERLAPS.items():
        labels = {"lesion": title}
        labels |= {f"lesion_{name}": f"{title}, {size_class_title(name)}" for name in SIZE_CLASSES}
        for name, label in labels.items():
            values = [summary[f"{name}_{part}_{suffix}"] for part in ("precision", "recall", "f1")]
            lines.append(_line(label, "", *map(_number, values), ""))
    return lines


def _closing_lines(summary: Mapping) -> list[str]:
    keys = ("liver_dice_global", "tumor_dice_global", "burden_rmse", "burden_max")
    liver, tumor, rmse, largest = (_number(summary[key]) for key in keys)
    lines = [
        f"Dice global: liver {liver}, tumor {tumor}",
        f"tumor burden error: RMSE {rmse}, max {largest}",
    ]
    for name in ("liver", "tumor"):
        cases = ", ".join(
            f"{case} {_number(value)}" for case, value in summary[f"worst_{name}"][:NAMED]
        )
        lines.append(f"worst {name} Dice: {cases or 'no case'}")
    return lines


def _heading(summary: Mapping) -> str:
    text = f"{summary['cases']} cases, {summary['cases_with_tumor']} with tumor"
    if summary["cases_without_tumor"]:
        clean = summary["cases_without_tumor_clean"]
        text += f" (of the {summary['cases_without_tumor']} without, {clean} had none predicted)"
    if summary["training_cases"]:
        text += f"; {summary['training_cases']} training cases left out"
    untrusted = summary["cases"] - summary["cases_with_mm"]
    if untrusted:
        text += f"; {untrusted} without mm figures, as their spacing cannot be trusted"
    return text


def _statistics_line(title: str, found: Mapping) -> str:
    mean, sd, median, low, high = (_number(found[key]) for key in STATISTICS)
    interval = f"{low} to {high}" if found["cases"] else "-"
    return _line(title, str(found["cases"]), mean, sd, median, interval)


def _line(title: str, *cells: str) -> str:
    widths = (4, 8, 7, 7, 17)
    row = "".join(f" {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    return f"{title:<34}{row}".rstrip()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _parsed(cell: str) -> int | float | bool | str | None:
    if cell in ("", "True", "False"):
        return {"": None, "True": True, "False": False}[cell]
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell
