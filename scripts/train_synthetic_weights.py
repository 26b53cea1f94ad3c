"""Train a system on generated patients alone, from nothing, and measure it on real scans.

    python scripts/train_synthetic_weights.py liver --work runs/synthetic
    python scripts/train_synthetic_weights.py tumor --work runs/synthetic
    python scripts/train_synthetic_weights.py liver --work runs/synthetic --measure
    python scripts/train_synthetic_weights.py liver --work runs/synthetic --ship NOTES.json

Stopped anywhere, the same command goes on. No real image is trained on; with LITS_REAL, --measure
prints Dice and surface distance of each real scan, at native size, and adds them as a line of JSON
to scores.jsonl in the work folder. --ship puts the model and its card, NOTES.json with the last
scores, into lits_helpers/weights/; it is for the authors.
"""

import argparse
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lits_helpers as lits
from lits_helpers.checkpoints import load_checkpoint, save_synthetic
from lits_helpers.preprocess import open_prepared
from lits_helpers.settings import real_data

SHAPE = (48, 256, 256)  # usual slices and pixels of a generated patient
VALIDATION = 0.05  # share of the generated patients that choose the epoch
FROZEN_FROM = 100_000  # number of the first frozen phantom, behind all wide ones
TUMORS_UNKNOWN = {"lits14 11"}  # its reference shows the liver alone
MAKERS = {"liver": lits.liver_recipe, "tumor": lits.tumor_recipe}
CHANGES = {  # of the default recipe
    "liver": {"size": 160, "width": 24},
    "tumor": {
        "size": 192,
        "pretrained": False,
        "bright_lesions": 0.0,  # vessels are bright
        "drawn_lesions": 0.65,
        "ema": 0.998,
    },
}


def train(system: str, work: Path, options: argparse.Namespace) -> Path:
    """Generate, prepare and train what is missing; return the best checkpoint."""
    kinds = {"wide": (options.cases, 0)}
    if system == "tumor":
        kinds["frozen"] = options.frozen, FROZEN_FROM
    cases = []
    for variety, (count, first) in kinds.items():
        if count:
            raw = lits.write_phantom_dataset(
                work / f"raw-{variety}", count, SHAPE, options.seed, first=first, variety=variety
            )
            cases += lits.find_cases(raw)
    lits.prepare(cases, work / "prepared", png=False)
    split = open_prepared(work / "prepared", validation=VALIDATION).split
    changes = {"epochs": options.epochs, "learning_rate": options.rate}
    recipe = MAKERS[system](**CHANGES[system] | changes)
    training = lits.train_liver_gan if system == "liver" else lits.train_tumor_regnet
    training(
        work / "prepared",
        work / system,
        split,
        recipe,
        start_from=options.start,
        max_minutes=options.max_minutes,
    )
    return work / system / "checkpoints" / "best_model.pth"


def measure(system: str, checkpoint: Path, real: Path, peak: float) -> list[dict]:
    """Score a model on every real volume with a reference.

    A tumor model is scored in the known liver, which holds all of its tumors, and behind the liver
    weights that come with the project.
    """
    load = lits.load_liver_model if system == "liver" else lits.load_tumor_model
    model, rows = load(checkpoint), []
    for case in real_cases(real):
        volume = lits.read_volume(case.volume)
        reference = lits.read_segmentation(case.segmentation, like=volume)
        if system == "liver":
            labels = lits.segment_volume(volume, model)
            rows.append(scores(system, case, labels, reference, volume))
        elif case.id not in TUMORS_UNKNOWN:
            post = lits.Postprocessing(margin_mm=0.0, tumor_peak=peak)
            labels = lits.segment_volume(volume, None, model, post, known_liver=reference)
            row = scores(system, case, labels, reference, volume)
            post = lits.Postprocessing(tumor_peak=peak)
            labels = lits.segment_volume(volume, lits.load_liver_model("synthetic"), model, post)
            cascade = scores(system, case, labels, reference, volume)
            wanted = "dice", "found", "false"
            rows.append(row | {f"cascade_{name}": cascade[name] for name in wanted})
        else:
            continue
        print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    mean = np.mean([row["dice"] for row in rows if row["dice"] is not None])
    print(f"mean Dice of {len(rows)} scans: {mean:.3f}")
    return rows


def real_cases(real: Path) -> list[lits.Case]:
    """Return the cases of the folders lits and lits14, named by both."""
    found = []
    for folder in ("lits", "lits14"):
        for case in lits.find_cases(real / folder):
            found.append(replace(case, id=f"{folder} {case.id}"))
    return found


def scores(system: str, case: lits.Case, labels, reference, volume) -> dict:
    """Return what a table of real scans shows of one case."""
    row = lits.evaluate_case(labels, reference, volume.geometry.trusted_spacing_mm)
    found, missed, false = (row[f"lesion_{kind}_0"] for kind in ("tp", "fn", "fp"))
    there, assd_mm = bool(row[f"{system}_size_reference"]), row[f"{system}_assd_mm"]
    return {
        "case": case.id,
        "dice": round(row[f"{system}_dice"], 3) if there else None,
        "assd_mm": round(assd_mm, 2) if there and assd_mm is not None else None,
        **({"found": found, "missed": missed, "false": false} if system == "tumor" else {}),
    }


def main() -> None:
    """Train, or measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("system", choices=MAKERS)
    parser.add_argument("--work", type=Path, required=True, help="folder for data and runs")
    parser.add_argument("--cases", type=int, default=300, help="generated patients, wide")
    parser.add_argument("--frozen", type=int, default=120, help="and frozen ones, tumor only")
    parser.add_argument("--seed", type=int, default=2026, help="of the generated patients")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate at the start")
    parser.add_argument("--from", dest="start", help="begin with these weights, see start_from")
    parser.add_argument("--max-minutes", type=float, help="stop cleanly before then")
    parser.add_argument("--peak", type=float, default=0.97, help="of a lesion, see TumorModel")
    parser.add_argument("--measure", action="store_true", help="score the model on LITS_REAL")
    parser.add_argument("--ship", type=Path, metavar="NOTES.json", help="put it into the project")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    checkpoint = options.work / options.system / "checkpoints" / "best_model.pth"
    if options.ship:
        lines = (options.work / "scores.jsonl").read_text(encoding="utf-8").splitlines()
        measured = [line for line in map(json.loads, lines) if line["system"] == options.system]
        card = json.loads(options.ship.read_text(encoding="utf-8"))
        card["real scans"] = measured[-1]["scores"]
        trained = load_checkpoint(checkpoint, options.system)
        if options.system == "tumor":
            trained["peak"] = measured[-1]["peak"]
        print(save_synthetic(trained, card))
        return
    if not options.measure:
        print(train(options.system, options.work, options))
        return
    real = real_data()
    if real is None:
        parser.error("--measure needs LITS_REAL, a folder with real scans")
    line = {"system": options.system, "peak": options.peak}
    line["scores"] = measure(options.system, checkpoint, real, options.peak)
    with open(options.work / "scores.jsonl", "a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
