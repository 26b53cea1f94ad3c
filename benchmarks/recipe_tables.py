"""Tables of the recipe bench, from the runs that `recipes.py` wrote down."""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

RESAMPLES = 10000
START, END = "<!-- tables: made by benchmarks/recipes.py --tables -->", "<!-- end of tables -->"


def read_runs(path: Path) -> list[dict]:
    """Return the runs of a file of one JSON object a line; [] if there is none."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def scored_cases(run: dict) -> list[dict]:
    """Return the cases that count: those that hold what is sought."""
    return [case for case in run["cases"] if case["counts"][2]]


def dice_per_case(runs: Iterable[dict]) -> dict[str, float]:
    """Return each case's Dice, the mean over the runs (random seeds) that scored it."""
    found = defaultdict(list)
    for run in runs:
        for case in scored_cases(run):
            found[case["case_id"]].append(case["dice"])
    return {case_id: float(np.mean(values)) for case_id, values in found.items()}


def worst_tenth(values: Iterable[float]) -> float:
    """Return the mean of the lowest tenth, of one value at least."""
    ordered = np.sort(list(values))
    return float(ordered[: max(1, round(len(ordered) / 10))].mean())


def paired_interval(ours: dict, theirs: dict, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean difference over common cases and its bootstrap 95 % interval.

    Cases are drawn with replacement, each with its pair of scores.
    """
    common = sorted(set(ours) & set(theirs))
    differences = np.array([ours[case_id] - theirs[case_id] for case_id in common])
    draws = np.random.default_rng(seed).integers(len(common), size=(RESAMPLES, len(common)))
    low, high = np.quantile(differences[draws].mean(axis=1), (0.025, 0.975))
    return float(differences.mean()), float(low), float(high)


def global_dice(runs: Iterable[dict]) -> float:
    """Return 2 sum(I) / (sum(P) + sum(R)) over all cases of all runs."""
    shared, predicted, real = np.sum([c["counts"] for run in runs for c in run["cases"]], axis=0)
    return float(2 * shared / (predicted + real))


def lesion_recall(runs: Iterable[dict]) -> float | None:
    """Return the share of lesions found at overlap > 0.5, or None where none were counted."""
    counts = [case["lesions"] for run in runs for case in run["cases"] if "lesions" in case]
    found, missed = np.sum(counts, axis=0) if counts else (0, 0)
    return float(found / (found + missed)) if found + missed else None


def table(runs: list[dict], about: dict[str, str], judge: str | None = "default") -> str:
    """Return a Markdown table, a line for each row and budget of these runs of one task.

    Args:
        runs: of one data set and one target.
        about: what each row is; rows come in this order.
        judge: the row that all are compared with: at the same budget, else at its longest; None
            compares with none.
    """
    groups = defaultdict(list)
    for run in runs:
        groups[run["row"], run["seconds"]].append(run)
    tumor = any("lesions" in case for case in runs[0]["cases"]) and runs[0]["seeks"] == "tumor"
    head = ["row", "core s", "epochs", "folds x seeds", "parameters", "Dice per case"]
    head += ["worst tenth", "global Dice", *(["lesions found"] if tumor else [])]
    head += [f"`{judge}` minus this (95 %)"] if judge else []
    lines = [head, ["--"] * len(head)]
    for row in about:
        for seconds in sorted(seconds for name, seconds in groups if name == row):
            own = groups[row, seconds]
            lines.append(_line(row, about[row], seconds, own, groups, judge, tumor))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _line(row, about, seconds, own, groups, judge, tumor) -> list[str]:
    scores = dice_per_case(own)
    folds = sorted({run["fold"] for run in own})
    seeds = sorted({run["seed"] for run in own})
    cells = [
        f"`{row}`: {about}",
        f"{seconds:g}",
        f"{np.mean([run['epochs'] for run in own]):.0f}",
        f"{len(folds)} x {len(seeds)}",
        f"{own[0]['parameters']:,}",
        f"{np.mean(list(scores.values())):.3f}",
        f"{worst_tenth(scores.values()):.3f}",
        f"{global_dice(own):.3f}",
    ]
    if tumor:
        cells.append(f"{lesion_recall(own):.2f}")
    return [*cells, *([_comparison(row, seconds, own, groups, judge)] if judge else [])]


def _comparison(row, seconds, own, groups, judge) -> str:
    budgets = [budget for name, budget in groups if name == judge]
    if row == judge or not budgets:
        return ""
    budget = seconds if seconds in budgets else max(budgets)
    places = {(run["fold"], run["seed"]) for run in own}
    theirs = [run for run in groups[judge, budget] if (run["fold"], run["seed"]) in places]
    if not theirs:
        return ""
    mean, low, high = paired_interval(dice_per_case(theirs), dice_per_case(own))
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"


def write_tables(page: Path, sections: dict[str, str]) -> None:
    """Put tables, each below its heading, between the two markers of a Markdown page.

    Raises:
        ValueError: the page lacks the markers.
    """
    text = page.read_text(encoding="utf-8")
    if START not in text or END not in text:
        raise ValueError(f"{page} lacks the lines {START!r} and {END!r}")
    body = "\n\n".join(f"### {heading}\n\n{content}" for heading, content in sections.items())
    before, after = text.split(START)[0], text.split(END)[1]
    page.write_text(f"{before}{START}\n\n{body}\n\n{END}{after}", encoding="utf-8")
