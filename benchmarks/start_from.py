"""What starting weights are worth: the same training from them and from random weights.

    python benchmarks/start_from.py --slices DIR                     livers, a PNG folder
    python benchmarks/start_from.py --cases DIR --start FILE         tumors, a prepared folder
    python benchmarks/start_from.py --table                          the runs so far

A run trains the default recipe, with the network of the starting weights, for `--seconds` of one
core on `--patients` of the training patients (0: all of them) and is scored on the patients of the
fold. Tumors are sought in the known liver, and every person is a fold. A run that is in `--out`
already is not run again, so a stopped benchmark goes on.
"""

import argparse
import json
import os
import sys
from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: a run's seconds are one core's

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from benchmarks.recipe_rows import Row, for_slices  # noqa: E402
from benchmarks.recipe_runs import (  # noqa: E402
    as_model,
    one_thread,
    slice_scores,
    trained,
    volume_scores,
)
from benchmarks.recipe_tables import read_runs  # noqa: E402
from lits_helpers.cases import split_cases  # noqa: E402
from lits_helpers.checkpoints import load_checkpoint, recipe_of  # noqa: E402
from lits_helpers.preprocess import prepared_cases  # noqa: E402
from lits_helpers.recipes import liver_recipe, tumor_recipe, with_network_of  # noqa: E402
from lits_helpers.training.systems import LiverSystem, TumorSystem  # noqa: E402

PERSONS = (  # cases of one person: known or likely, among the slices; among LiTS's volumes
    ("10001", "10002"),
    ("10003", "10084", "10095", "10106", "10115"),
    ("10037", "10038"),
    ("10043", "10044"),
    ("10047", "10048"),
    ("0", "1"),
)
KEY = ("system", "start", "seconds", "patients", "fold", "seed")


def cases_by_person(root: Path) -> list:
    """Return the cases of a folder; several cases of one person share its name."""
    person = {case: names[0] for names in PERSONS for case in names}
    return [replace(case, patient=person.get(case.id, case.id)) for case in prepared_cases(root)]


def parts(cases: list, fold: int, folds: int, patients: int) -> tuple[list[str], list[str]]:
    """Return the case ids of training and of scoring; fewer patients are part of more.

    Args:
        cases: all of them.
        fold, folds: which part is scored; 0 folds leave one person out.
        patients: how many to train on; 0 for all.
    """
    people = sorted({case.patient for case in cases})
    if folds:
        split = split_cases(cases, validation=1 / folds, fold=fold)
        held_out = {case.patient for case in cases if case.id in split.validation}
    else:
        held_out = {people[fold]}
    rest = [name for name in people if name not in held_out]
    chosen = np.random.default_rng(fold).permutation(rest)[: patients or len(rest)]
    training = [case.id for case in cases if case.patient in chosen]
    return training, [case.id for case in cases if case.patient in held_out]


def row_of(system: str, start: str, weights: str) -> Row:
    """Return the row of the bench that trains a system, from weights or from random ones."""
    checkpoint = load_checkpoint(weights, system)
    recipe = liver_recipe() if system == "liver" else tumor_recipe(pretrained=False)
    recipe = with_network_of(recipe, recipe_of(weights, checkpoint))
    kind = LiverSystem if system == "liver" else TumorSystem

    def make(*arguments):
        made = kind(*arguments)
        if start != "random":
            made.best_module().load_state_dict(checkpoint["model"])
        return made

    return Row(start, "", recipe, make)


def run(root: Path, system: str, weights: str, wanted: dict, folds: int) -> dict:
    """Train and score once; return the run with a Dice a case."""
    row = row_of(system, wanted["start"], weights)
    cases = cases_by_person(root)
    training, scoring = parts(cases, wanted["fold"], folds, wanted["patients"])
    if system == "liver":
        row, score = for_slices(row), partial(slice_scores, root=root, case_ids=scoring)
    else:
        score = partial(volume_scores, row, liver=None, root=root, case_ids=scoring)
    network, said = trained(row, root, training, wanted["seconds"], wanted["seed"])
    scored = score(model=as_model(row, network))
    person = {case.id: case.patient for case in cases}
    dice = [[person[each["case_id"]], round(each["dice"], 4)] for each in scored]
    return {**wanted, **said, "dice": dice}


def table(runs: list[dict]) -> str:
    """Return the mean Dice per person, a row for each number of patients and seconds."""
    scores = defaultdict(list)
    for each in runs:
        by_person = defaultdict(list)
        for person, dice in each["dice"]:
            by_person[person].append(dice)
        group = tuple(each[name] for name in ("system", "patients", "seconds", "start"))
        scores[group] += [(each["fold"], np.mean(values)) for values in by_person.values()]
    starts = sorted({group[-1] for group in scores})
    lines = [f"| system | patients | seconds | {' | '.join(starts)} | folds |"]
    lines += ["|--|--|--|" + "--|" * len(starts) + "--|"]
    for system, patients, seconds in sorted({group[:-1] for group in scores}):
        groups = [scores.get((system, patients, seconds, start), []) for start in starts]
        shared = set.intersection(*({fold for fold, _ in group} for group in groups))
        means = [
            f"{np.mean([dice for fold, dice in group if fold in shared]):.3f}" if shared else "-"
            for group in groups
        ]
        row = [system, str(patients or "all"), f"{seconds:g}", *means, str(len(shared))]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--slices", type=Path, help="folder with images/ and masks/: livers")
    where.add_argument("--cases", type=Path, help="prepared folder: tumors")
    where.add_argument("--table", action="store_true", help="print the table of the runs so far")
    parser.add_argument("--start", default="synthetic", help="checkpoint, or 'synthetic'")
    parser.add_argument("--seconds", type=float, nargs="*", default=[60.0, 300.0, 600.0])
    parser.add_argument("--patients", type=int, nargs="*", default=[5, 10, 20, 0])
    parser.add_argument("--fold", type=int, nargs="*", help="only these; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/start_from_runs.jsonl")
    options = parser.parse_args()
    if options.table:
        print(table(read_runs(options.out)))
        return
    one_thread()
    root, system = options.slices or options.cases, "liver" if options.slices else "tumor"
    folds = 4 if options.slices else 0
    count = folds or len({case.patient for case in cases_by_person(root)})
    done = {tuple(each[name] for name in KEY) for each in read_runs(options.out)}
    for seconds in options.seconds:
        for fold in range(count) if options.fold is None else options.fold:
            for patients in options.patients:
                for start in ("random", Path(options.start).name):
                    values = (system, start, seconds, patients, fold, options.seed)
                    if values in done:
                        continue
                    wanted = dict(zip(KEY, values, strict=True))
                    made = run(root, system, options.start, wanted, folds)
                    with open(options.out, "a", encoding="utf-8") as stream:
                        stream.write(json.dumps(made) + "\n")
                    mean = np.mean([dice for _, dice in made["dice"]])
                    print(*values, f"{mean:.3f}", flush=True)


if __name__ == "__main__":
    main()
