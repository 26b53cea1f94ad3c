"""Bench of recipes: cross-validated by patient, at equal training time and beyond.

    python benchmarks/recipes.py --slices DIR                a PNG folder: liver
    python benchmarks/recipes.py --cases DIR                 a prepared folder: liver and tumor
    python benchmarks/recipes.py --cases DIR --rows default smp_unet --seconds 300 --fold 0
    python benchmarks/recipes.py --tables docs/results/ablations.md    the runs so far

Every run trains one row for `--seconds` (of one core, or of a GPU's wall clock) on all folds but
one and is scored on the patients of that fold (`recipe_runs.py`). Runs are appended to `--out`; one
that is there already is not run again, so a stopped bench goes on. Several runs at once: `--jobs`.
The reference networks want monai, segmentation-models-pytorch and timm (requirements-dev.txt).
"""

import argparse
import hashlib
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: a run is one core's

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks.recipe_rows import ROWS, Row, for_slices, scaled  # noqa: E402
from benchmarks.recipe_runs import (  # noqa: E402
    TURNED,
    as_model,
    end_with_parent,
    known_liver_scores,
    one_thread,
    slice_scores,
    trained,
    volume_scores,
)
from benchmarks.recipe_tables import (  # noqa: E402
    dice_per_case,
    read_runs,
    table,
    worst_tenth,
    write_tables,
)
from lits_helpers.cases import split_cases  # noqa: E402
from lits_helpers.checkpoints import LiverModel  # noqa: E402
from lits_helpers.environment import choose_device  # noqa: E402
from lits_helpers.machine import written_whole  # noqa: E402
from lits_helpers.models import build_generator  # noqa: E402
from lits_helpers.preprocess import prepared_cases  # noqa: E402
from lits_helpers.recipes import Recipe  # noqa: E402

LIVER_SECONDS = 240.0  # for the liver model that goes before all tumor rows of a fold


def rows_by_name(seeks: str) -> dict[str, Row]:
    """Return the rows that seek the liver, or tumors."""
    return {row.name: row for row in ROWS[seeks]}


def holds_volumes(root: Path) -> bool:
    """Say whether a folder is a prepared one rather than a PNG folder."""
    return (root / "cases").is_dir()


def row_for(root: Path, row: Row, options: dict) -> Row:
    """Return a row as it runs on a folder, at the width and size of the options."""
    row = row if holds_volumes(root) else for_slices(row)
    return scaled(row, options["width"], options["size"])


def fingerprint(recipe: Recipe) -> str:
    """Return eight digits that differ when anything in a recipe does."""
    return hashlib.sha256(json.dumps(asdict(recipe)).encode()).hexdigest()[:8]


def job(seeks: str, name: str, root: Path, options: dict) -> dict:
    """Train and score one run; what a process does.

    Args:
        seeks: "liver" or "tumor".
        name: the row's.
        root: PNG folder or prepared folder.
        options: data, device, fold, folds, seed, seconds, width, size, recipe (fingerprint), liver
            (file of the liver model's weights), also (folder of further scans for tumor models, or
            None).
    """
    row = row_for(root, rows_by_name(seeks)[name], options)
    split = split_cases(prepared_cases(root), validation=1 / options["folds"], fold=options["fold"])
    system, said = trained(row, root, split.training, options["seconds"], options["seed"])
    model = as_model(row, system)
    if holds_volumes(root):
        liver = None if row.seeks == "liver" else loaded_liver(Path(options["liver"]))
        score = partial(volume_scores, row, model, liver, root, split.validation)
    else:
        score = partial(slice_scores, model, root, split.validation)
    named = {key: value for key, value in options.items() if key not in ("liver", "also")}
    run = {"row": row.name, "seeks": row.seeks, **named, **said, "cases": score()}
    run["turned"] = score(degrees=TURNED)
    if row.seeks == "tumor" and options["also"]:
        run["also"] = known_liver_scores(model, options["also"])
    return run


def liver_row() -> Row:
    """Return the liver row that goes before all tumor rows, those recorded and those to come."""
    return scaled(rows_by_name("liver")["thin_batch_norm"], width=16, size=None)


def make_liver(root: Path, fold: int, folds: int, path: Path) -> None:
    """Train a liver model on a fold and keep its weights for the tumor rows."""
    row = liver_row()
    split = split_cases(prepared_cases(root), validation=1 / folds, fold=fold)
    system, _ = trained(row, root, split.training, LIVER_SECONDS, seed=0)
    with written_whole(path) as temporary:
        torch.save(as_model(row, system).network.state_dict(), temporary)


def loaded_liver(path: Path) -> LiverModel:
    """Return the model that `make_liver` wrote."""
    row = liver_row()
    network = build_generator(row.recipe)
    network.load_state_dict(torch.load(path, weights_only=True))
    return LiverModel(network.eval(), row.recipe.spec, None)


def key(run: dict) -> tuple:
    """What makes a run the same run."""
    same = "data seeks row fold folds seed seconds width size recipe device"
    return tuple(run.get(name) for name in same.split())


def accelerator() -> str | None:
    """Return the name of the GPU that runs go to, None for a CPU."""
    return torch.cuda.get_device_name() if choose_device().type == "cuda" else None


def plan(options: argparse.Namespace, seeks: str, root: Path) -> list[tuple[Row, dict]]:
    """Return the runs asked for that are not there yet, fold by fold."""
    done = {key(run) for run in read_runs(options.out)}
    size = {"width": options.width, "size": options.size}
    where = {"data": options.data or root.name, "device": accelerator()}
    rows = {}  # the first of those that are the same on this folder
    for row in ROWS[seeks]:
        rows.setdefault((row.make, fingerprint(row_for(root, row, size).recipe)), row)
    runs = []
    for fold in options.fold if options.fold is not None else range(options.folds):
        for (_, recipe), row in rows.items():
            for seed in options.seeds:
                if options.rows and row.name not in options.rows:
                    continue
                run = {**where, "fold": fold, "folds": options.folds}
                run |= {"seed": seed, "seconds": options.seconds, **size, "recipe": recipe}
                run["width"] = options.width if row.has_width else None
                if key({**run, "row": row.name, "seeks": seeks}) not in done:
                    before = fingerprint(liver_row().recipe)
                    liver = root / f"bench-liver-{before}-{options.folds}-{fold}.pth"
                    runs.append((row, {**run, "liver": str(liver), "also": options.also}))
    return runs


def start_worker() -> None:
    """What each process does first."""
    one_thread()
    end_with_parent()


def bench(options: argparse.Namespace) -> None:
    """Run what is missing, several runs at once, each written down as it ends."""
    root = (options.slices or options.cases).absolute()
    context = get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context, initializer=start_worker) as pool:
        for seeks in options.seek or (["liver"] if options.slices else ["liver", "tumor"]):
            runs = plan(options, seeks, root)
            if seeks == "tumor":
                wanted = {run["liver"]: run["fold"] for _, run in runs}
                made = [
                    pool.submit(make_liver, root, fold, options.folds, Path(path))
                    for path, fold in wanted.items()
                    if not Path(path).exists()
                ]
                for future in made:
                    future.result()
            futures = [pool.submit(job, seeks, row.name, root, run) for row, run in runs]
            for future in as_completed(futures):
                write_down(future.result(), options.out)


def write_down(run: dict, path: Path) -> None:
    """Append a run and say how it went."""
    with open(path, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(run) + "\n")
    scores = dice_per_case([run]).values()
    print(
        f"{run['seeks']} {run['row']}, fold {run['fold']}, seed {run['seed']}: "
        f"Dice per case {sum(scores) / len(scores):.4f}, worst tenth {worst_tenth(scores):.3f} "
        f"({run['epochs']} epochs)",
        flush=True,
    )


def tables(path: Path, out: Path) -> None:
    """Write all runs into the page: tables for each data set, target and way of scoring."""
    runs = read_runs(out)
    sections = {}
    for data, seeks in dict.fromkeys((_data(run), run["seeks"]) for run in runs):
        own = [run for run in runs if (_data(run), run["seeks"]) == (data, seeks)]
        about = {row.name: row.about for row in ROWS[seeks]}
        bases = {row.name: row.base for row in ROWS[seeks]}
        sections[f"{seeks.capitalize()}, {data}"] = table(own, about, judges=bases)
        further = {
            f"{seeks.capitalize()}, {data}, mean of views turned by {TURNED:g} degrees": "turned",
            f"{seeks.capitalize()}, learnt on {data}, in the known livers of other scans": "also",
        }
        for title, scored in further.items():
            rescored = [
                {**run, "cases": run[scored]}
                for run in own
                if scored in run and run["row"] in about
            ]
            if rescored:
                judge = "default" if scored == "turned" else None
                sections[title] = table(rescored, about, judge, bases)
    write_tables(path, sections)


def _data(run: dict) -> str:
    """Return what a run's table is called: its data, and the GPU, whose seconds are its own."""
    return ", ".join(filter(None, (run["data"], run.get("device"))))


def command_line(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--slices", type=Path, help="folder with images/ and masks/")
    where.add_argument("--cases", type=Path, help="prepared folder")
    where.add_argument("--tables", type=Path, help="page to write the tables into")
    parser.add_argument("--data", help="what the tables call the data; default: the folder's name")
    parser.add_argument("--rows", nargs="*", help="which rows; default: all")
    parser.add_argument("--seek", nargs="*", choices=list(ROWS), help="default: what there is")
    parser.add_argument("--seconds", type=float, default=240.0, help="of one core or a GPU, a run")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--fold", type=int, nargs="*", help="only these; default: all")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--width", type=int, help="of the generator; default: the recipes'")
    parser.add_argument("--also", type=Path, help="NIfTI pairs, scored by tumor models too")
    parser.add_argument("--size", type=int, help="of slices for tumors; default: the recipes'")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, a core each")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "recipe_runs.jsonl")
    return parser.parse_args(arguments)


def main() -> None:
    """Run the bench, or write its tables."""
    options = command_line()
    if options.tables:
        tables(options.tables, options.out)
    else:
        bench(options)


if __name__ == "__main__":
    main()
