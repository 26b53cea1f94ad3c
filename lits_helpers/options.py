"""What the shell accepts: every step's options, read before anything large is imported."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from . import __version__
from .recipes import LIVER_RECIPES, PRECISIONS, SYSTEMS
from .settings import DOWNLOADED, SOURCES

FORMATS = {"nifti": ("nifti",), "dicom-seg": ("dicom-seg",), "both": ("dicom-seg", "nifti")}
PLACES = {  # options that every step has
    "--raw": ("DIR", "NIfTI files, in any layout; default data/SOURCE[-tiny]/raw"),
    "--prepared": ("DIR", "packed cases; default data/SOURCE[-tiny]/prepared"),
    "--runs": ("DIR", "checkpoints and results; default runs/SOURCE[-tiny]"),
    "--layout": ("NAME", "how raw files are named, see docs/data.md; default auto"),
    "--device": ("NAME", "cpu, cuda, cuda:1 ...; default the best there is"),
}


def program() -> str:
    """Return how this program was called, for its help and its hints."""
    return "lits" if Path(sys.argv[0]).stem == "lits" else "python -m lits_helpers"


def parser(runs: Mapping[str, Callable]) -> argparse.ArgumentParser:
    """Return what reads the command line; `runs` names what runs each step, documented for help."""
    made = argparse.ArgumentParser(
        prog=program(),
        description="Liver and liver-tumor segmentation in CT, step by step. Not a medical device.",
        epilog="Folders and switches can also be given as LITS_... variables (see docs/start.md); "
        "an option wins over its variable.",
    )
    made.add_argument("--version", action="version", version=__version__)
    steps = made.add_subparsers(title="steps", required=True, metavar="STEP")
    _step(steps, "phantom", runs["phantom"], ["phantom"])
    add = _step(steps, "download", runs["download"], DOWNLOADED).add_argument
    add("--cases", default="", metavar="LIST", help="e.g. 0-9,27; default all 131, --tiny 0-5")
    add("--keep-raw", action="store_true", help="keep the raw files (up to 54 GB)")
    add("--png", action="store_true", help="also export 8-bit slices")
    add = _step(steps, "check", runs["check"]).add_argument
    add("folder", nargs="?", metavar="FOLDER", help="default: as --raw")
    add("--csv", type=Path, metavar="FILE", help="write the table there too")
    add("--sheet", type=Path, metavar="FILE.png", help="write a thumbnail of every case")
    add("--workers", type=_from_zero, metavar="N", help="default one a core")
    add = _step(steps, "prepare", runs["prepare"]).add_argument
    _add_decisions(add)
    add("--workers", type=_from_zero, metavar="N", help="default one a core")
    add("--png", action="store_true", help="also export 8-bit slices")
    add = _training_step(steps, "train-liver", runs["train-liver"])
    add("--width", type=_count, metavar="N", help="channels of the generator's first layer")
    add = _training_step(steps, "train-tumor", runs["train-tumor"])
    kept = {"action": "store_const", "const": False, "dest": "pretrained"}
    add("--no-pretrained", **kept, help="start from random weights, not ImageNet's")
    add = _step(steps, "predict", runs["predict"]).add_argument
    volumes = "CT files or folders, NIfTI or DICOM, or zips of DICOM; default: validation patients"
    add("volumes", nargs="*", type=Path, help=volumes)
    _add_models(add)
    _add_decisions(add)
    add("--only", choices=SYSTEMS, help="use one model; default both")
    add("--fold", type=int, metavar="N", help="the fold that the models were trained with")
    out = "default RUNS/results/predictions, for named CTs RUNS/results/segmented"
    add("-o", "--out", type=Path, metavar="DIR", help=out)
    turned = "average with slices turned by so much to either side; three times as slow"
    add("--rotation", type=float, default=0.0, metavar="DEGREES", help=turned)
    kept = "write liver and tumor probability too, 8-bit NIfTI of the CT's grid"
    add("--probabilities", action="store_true", help=kept)
    formats = "what is written; dicom-seg is for CTs that come as DICOM; default nifti"
    add("--format", default="nifti", choices=FORMATS, help=formats)
    add("--series", metavar="N", help="number or UID of a DICOM series; default: the longest")
    add("--submission", action="store_true", help="test-segmentation-N.nii in one zip, for LiTS")
    add = _step(steps, "report", runs["report"]).add_argument
    predictions = "a file of labels or a folder of them; default RUNS/results/predictions"
    add("labels", nargs="?", type=Path, help=predictions)
    add("--ct", type=Path, metavar="PATH", help="CT or folder of CTs; default: the prepared cases")
    two = "two cases that are dates of one patient: one page on what changed, and nothing else"
    add("--compare", nargs=2, metavar=("EARLIER", "LATER"), help=two)
    add("--meshes", action="store_true", help="liver and each lesion as STL too")
    out = "default RUNS/results/reports, of named labels RUNS/results/reported"
    add("-o", "--out", type=Path, metavar="DIR", help=out)
    add = _step(steps, "evaluate", runs["evaluate"]).add_argument
    compared = "label files to compare: two files or two folders, of any CTs, not prepared"
    add("compared", nargs="*", type=Path, metavar="PREDICTED REFERENCE", help=compared)
    add("--predictions", type=Path, metavar="DIR", help="default RUNS/results/predictions")
    _add_models(add)
    out = "default RUNS/results, of other predictions their folder"
    add("-o", "--out", type=Path, metavar="DIR", help=out)
    add = _step(steps, "crossval", runs["crossval"]).add_argument
    add("--folds", type=partial(_count, lowest=2), default=5, metavar="N", help="default 5")
    same = "write the cases and the folds in nnU-Net's layout there, and train nothing"
    add("--nnunet", type=Path, metavar="DIR", help=same)
    add("--recipe", default="default", choices=LIVER_RECIPES, help="original is as published")
    add("--epochs", type=_count, metavar="N", help="default: the recipes'")
    add("--seed", type=_from_zero, default=0, metavar="N", help="random seed")
    add = _step(steps, "export", runs["export"]).add_argument
    _add_models(add)
    add("--only", choices=SYSTEMS, help="export one model; default both")
    add("-o", "--out", type=Path, metavar="DIR", help="default RUNS/export")
    return made


def _add_models(add: Callable) -> None:
    for name in SYSTEMS:
        where = f"default RUNS/{name}/checkpoints/best_model.pth, else synthetic for named CTs"
        several = f"{name} model, or several to average; {where}"
        add(f"--{name}", type=Path, nargs="+", metavar="FILE", help=several)


def _add_decisions(add: Callable) -> None:
    way = "overrules the headers: where the stored axes grow to, such as LPS"
    add("--orientation", metavar="CODE", help=way)
    add("--accept", action="append", metavar="CODE", help="overrule this finding; may be repeated")


def _count(text: str, lowest: int = 1) -> int:
    if not text.isdecimal() or int(text) < lowest:
        raise argparse.ArgumentTypeError(f"must be a whole number from {lowest} on, got {text}")
    return int(text)


_from_zero = partial(_count, lowest=0)


def _step(steps, name: str, run, sources: Sequence[str] = SOURCES) -> argparse.ArgumentParser:
    step = steps.add_parser(name, help=run.__doc__, description=run.__doc__)
    step.set_defaults(step=run, name=name, sources=sources)
    step.add_argument("--source", choices=sources, help=f"default {sources[0]}")
    for option, (metavar, text) in PLACES.items():
        step.add_argument(option, metavar=metavar, help=text)
    tiny = "small and short, in folders of its own; give it to every step"
    step.add_argument("--tiny", action="store_true", help=tiny)
    return step


def _training_step(steps, name: str, run) -> Callable:
    """Add a step that trains; return what adds further options to it."""
    step = _step(steps, name, run)
    step.set_defaults(width=None, pretrained=None)
    add = step.add_argument
    add("--recipe", default="default", choices=LIVER_RECIPES, help="original is as published")
    add("--epochs", type=_count, metavar="N", help="default: the recipe's")
    add("--batch-size", type=_count, metavar="N", help="default: the recipe's")
    add("--learning-rate", type=float, metavar="RATE", help="default: the recipe's")
    precisions = ["auto", *PRECISIONS]
    add("--precision", default="auto", choices=precisions, help="default: the fastest")
    add("--fold", type=int, metavar="N", help="validate on this fold of patients")
    add("--seed", type=_from_zero, default=0, metavar="N", help="random seed")
    begun = "begin with these weights: a checkpoint, or synthetic for those that come with lits"
    add("--from", dest="start_from", metavar="FILE", help=begun)
    add("--resume", default="auto", metavar="HOW", help="auto, never or a checkpoint")
    add("--max-minutes", type=float, metavar="M", help="stop cleanly after so long")
    add("--tensorboard", action="store_true", help="write events too (pip install tensorboard)")
    return add
