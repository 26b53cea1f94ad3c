"""Metrics as people and spreadsheets read them: the text table and metrics.csv."""

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from .files import written_whole
from .lesions import SIZE_CLASSES, size_class_title

TEXT_COLUMNS = ("case_id", "patient", "note")  # never read as numbers: a case may be called 007
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


def format_summary(summary: Mapping, *, worst: int = 3) -> str:
    """Return a summary of `evaluate_dataset` as a short text table.

    Args:
        summary: from `evaluate_dataset`.
        worst: cases to name, worst first, for liver and tumor each.
    """
    lines = [_heading(summary), "", _line("", "cases", "mean", "sd", "median", "95 % interval")]
    for key, title in _TITLES.items():
        if summary[key]["cases"] or not key.endswith("ceiling"):
            lines.append(_statistics_line(title, summary[key]))
    lines += ["", *_detection_lines(summary), "", *_closing_lines(summary, worst)]
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
    for suffix, title in (("0", "overlap > 0"), ("50", "overlap > 0.5")):
        labels = {"lesion": title}
        labels |= {f"lesion_{name}": f"{title}, {size_class_title(name)}" for name in SIZE_CLASSES}
        for name, label in labels.items():
            values = [summary[f"{name}_{part}_{suffix}"] for part in ("precision", "recall", "f1")]
            lines.append(_line(label, "", *map(_number, values), ""))
    return lines


def _closing_lines(summary: Mapping, worst: int) -> list[str]:
    dices = (f"{name} {_number(summary[f'{name}_dice_global'])}" for name in ("liver", "tumor"))
    burden = (_number(summary[f"burden_{part}"]) for part in ("rmse", "max"))
    lines = [
        "Dice global: {}, {}".format(*dices),
        "tumor burden error: RMSE {}, max {}".format(*burden),
    ]
    for name in ("liver", "tumor"):
        cases = ", ".join(
            f"{case} {_number(value)}" for case, value in summary[f"worst_{name}"][:worst]
        )
        lines.append(f"worst {name} Dice: {cases or 'no case'}")
    return lines


def _heading(summary: Mapping) -> str:
    text = f"{summary['cases']} cases, {summary['cases_with_tumor']} with tumor"
    if summary["cases_without_tumor"]:
        clean, free = summary["cases_without_tumor_clean"], summary["cases_without_tumor"]
        text += f" (of the {free} without, {clean} had none predicted)"
    if summary["training_cases"]:
        text += f"; {summary['training_cases']} training cases left out"
    untrusted = summary["cases"] - summary["cases_with_mm"]
    if untrusted:
        text += f"; {untrusted} without mm figures, as their spacing cannot be trusted"
    return text


def _statistics_line(title: str, found: Mapping) -> str:
    interval = "-"
    if found["cases"]:
        interval = f"{_number(found['low'])} to {_number(found['high'])}"
    numbers = (_number(found[key]) for key in ("mean", "sd", "median"))
    return _line(title, str(found["cases"]), *numbers, interval)


def _line(title: str, *cells: str) -> str:
    widths = (5, 9, 8, 8, 18)
    row = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
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
