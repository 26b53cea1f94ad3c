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


def table(
    runs: list[dict],
    about: dict[str, str],
    judge: str | None = "default",
    judges: dict[str, str] | None = None,
) -> str:
    """Return a Markdown table, a line for each row, width and budget of these runs of one task.

    Args:
        runs: of one data set and one target.
        about: what each row is; rows come in this order.
        judge: the row that all are compared with, at the same budget, else at its longest of the
            same width, else at its longest; None compares with none.
        judges: rows that are compared with another one, and with which.

    Raises:
        ValueError: runs that would share a line differ in recipe, number of folds or size.
    """
    groups = defaultdict(list)
    for run in runs:
        groups[run["row"], run.get("width") or 0, run["seconds"]].append(run)
    for (row, _, seconds), own in groups.items():
        if len({(run.get("recipe"), run["folds"], run.get("size")) for run in own}) > 1:
            raise ValueError(
                f"the runs of {row} for {seconds:g} s are of several recipes or splits"
            )
    tumor = any("lesions" in case for case in runs[0]["cases"]) and runs[0]["seeks"] == "tumor"
    clock = "GPU s" if runs[0].get("device") else "core s"
    head = ["row", clock, "epochs", "folds x seeds", "parameters", "Dice per case"]
    head += ["worst tenth", "global Dice", *(["lesions found"] if tumor else [])]
    head += [f"`{judge}` minus this (95 %)"] if judge else []
    lines = [head, ["--"] * len(head)]
    for row in about:
        keys = sorted(key for key in groups if key[0] == row)
        several = len({run["parameters"] for key in keys for run in groups[key]}) > 1
        for key in keys:
            name = f"`{row}`: {about[row]}" + (f", width {key[1]}" if several else "")
            lines.append(_line(name, key[2], groups[key], tumor))
            if judge:
                own_judge = (judges or {}).get(row, judge)
                other = _opponent(key, groups, own_judge)
                said = _comparison(groups[key], groups[other]) if other else ""
                named = f", against `{own_judge}`" if said and own_judge != judge else ""
                lines[-1].append(said + named)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _line(name: str, seconds: float, own: list[dict], tumor: bool) -> list[str]:
    scores = dice_per_case(own)
    folds = sorted({run["fold"] for run in own})
    seeds = sorted({run["seed"] for run in own})
    cells = [
        name,
        f"{seconds:g}",
        f"{np.mean([run['epochs'] for run in own]):.0f}",
        f"{len(folds)} x {len(seeds)}" if len(own) == len(folds) * len(seeds) else _ragged(own),
        f"{own[0]['parameters']:,}",
        f"{np.mean(list(scores.values())):.3f}",
        f"{worst_tenth(scores.values()):.3f}",
        f"{global_dice(own):.3f}",
    ]
    if tumor:
        cells.append(f"{lesion_recall(own):.2f}")
    return cells


def _ragged(runs: list[dict]) -> str:
    return f"{len(runs)} runs of {len({run['fold'] for run in runs})} folds"


def _opponent(key: tuple, groups: dict, judge: str | None) -> tuple | None:
    """Return which of the judge's groups a group is compared with; None: none."""
    row, width, seconds = key
    keys = [other for other in groups if other[0] == judge != row]
    return max(keys, key=lambda k: (k[2] == seconds, k[1] == width, k[2]), default=None)


def _comparison(own: list[dict], theirs: list[dict]) -> str:
    places = {_place(run) for run in own} & {_place(run) for run in theirs}
    if not places:
        return ""
    ours, others = (
        dice_per_case(run for run in runs if _place(run) in places) for runs in (theirs, own)
    )
    mean, low, high = paired_interval(ours, others)
    budget = theirs[0]["seconds"]
    elsewhere = "" if budget == own[0]["seconds"] else f", at {budget:g} s"
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f}){elsewhere}"


def _place(run: dict) -> tuple[int, int]:
    return run["fold"], run["seed"]


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
