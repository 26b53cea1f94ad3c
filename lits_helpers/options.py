"""What each step of ``python -m lits_helpers`` can be told."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from . import __version__
from .acceleration import PRECISIONS
from .makers import SYSTEMS
from .recipes import LIVER_RECIPES
from .settings import SOURCES


def parser(runs: Mapping[str, Callable]) -> argparse.ArgumentParser:
    """Return what understands the command line.

    Args:
        runs: step -> what runs it, whose docstring is its help. Each step's options come with
            ``step``, what runs it, and ``name``.
    """
    made = argparse.ArgumentParser(
        prog="python -m lits_helpers",
        description="Liver and liver-tumor segmentation in CT, step by step. Not a medical device.",
        epilog="Folders and switches can also be given as LITS_... variables (see README.md); "
        "an option wins over its variable.",
    )
    made.add_argument("--version", action="version", version=__version__)
    steps = made.add_subparsers(title="steps", required=True, metavar="STEP")
    _step(steps, "phantom", runs["phantom"], ["phantom"])
    step = _step(steps, "download", runs["download"], ["kaggle"])
    step.add_argument(
        "--cases", default="", metavar="LIST", help="e.g. 0-9,27; default all 131, --tiny 0-5"
    )
    step.add_argument("--keep-raw", action="store_true", help="keep the raw files (54 GB in all)")
    step.add_argument("--png", action="store_true", help="also export 8-bit slices")
    step = _step(steps, "prepare", runs["prepare"])
    step.add_argument("--workers", type=_from_zero, metavar="N", help="default one a core")
    step.add_argument("--png", action="store_true", help="also export 8-bit slices")
    _training_step(steps, "train-liver", runs["train-liver"]).add_argument(
        "--width", type=_count, metavar="N", help="channels of the generator's first layer"
    )
    _training_step(steps, "train-tumor", runs["train-tumor"]).add_argument(
        "--no-pretrained",
        action="store_const",
        const=False,
        dest="pretrained",
        help="start from random weights, not ImageNet's",
    )
    step = _step(steps, "predict", runs["predict"])
    step.add_argument(
        "volumes", nargs="*", type=Path, help="CT files or folders; default: validation patients"
    )
    _model_options(step)
    step.add_argument("--only", choices=SYSTEMS, help="use one model; default both")
    step.add_argument(
        "--fold", type=int, metavar="N", help="the fold that the models were trained with"
    )
    step.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="default RUNS/results/predictions, for named CTs RUNS/results/segmented",
    )
    step.add_argument(
        "--rotation",
        type=float,
        default=0.0,
        metavar="DEGREES",
        help="average with slices turned by so much to either side, at thrice the time",
    )
    step.add_argument(
        "--submission", action="store_true", help="test-segmentation-N.nii in one zip, as for LiTS"
    )
    step = _step(steps, "evaluate", runs["evaluate"])
    step.add_argument(
        "--predictions", type=Path, metavar="DIR", help="default RUNS/results/predictions"
    )
    _model_options(step)
    step.add_argument("--out", type=Path, metavar="DIR", help="default RUNS/results")
    return made


def _model_options(step: argparse.ArgumentParser) -> None:
    for name in SYSTEMS:
        where = f"default RUNS/{name}/checkpoints/best_model.pth"
        step.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"{name} model; {where}")


def _count(text: str, lowest: int = 1) -> int:
    number = int(text)
    if number < lowest:
        raise argparse.ArgumentTypeError(f"must be {lowest} or more, got {text}")
    return number


def _from_zero(text: str) -> int:
    return _count(text, lowest=0)


def _step(steps, name: str, run, sources: Sequence[str] = SOURCES) -> argparse.ArgumentParser:
    step = steps.add_parser(name, help=run.__doc__, description=run.__doc__)
    step.set_defaults(step=run, name=name)
    only = sources[0] if len(sources) == 1 else None
    step.add_argument("--source", choices=sources, default=only, help=f"default {sources[0]}")
    step.add_argument(
        "--raw", metavar="DIR", help="NIfTI files, in any layout; default data/SOURCE[-tiny]/raw"
    )
    step.add_argument(
        "--prepared", metavar="DIR", help="packed cases; default data/SOURCE[-tiny]/prepared"
    )
    step.add_argument(
        "--runs", metavar="DIR", help="checkpoints and results; default runs/SOURCE[-tiny]"
    )
    step.add_argument(
        "--device", metavar="NAME", help="cpu, cuda, cuda:1 ...; default the best there is"
    )
    step.add_argument(
        "--tiny", action="store_true", help="small and short, in folders of its own: for every step"
    )
    return step


def _training_step(steps, name: str, run) -> argparse.ArgumentParser:
    step = _step(steps, name, run)
    step.set_defaults(width=None, pretrained=None)
    step.add_argument(
        "--recipe", default="default", choices=LIVER_RECIPES, help="original is as published"
    )
    step.add_argument("--epochs", type=_count, metavar="N", help="default: the recipe's")
    step.add_argument("--batch-size", type=_count, metavar="N", help="default: the recipe's")
    step.add_argument("--learning-rate", type=float, metavar="RATE", help="default: the recipe's")
    step.add_argument(
        "--precision", default="auto", choices=["auto", *PRECISIONS], help="default: the fastest"
    )
    step.add_argument("--fold", type=int, metavar="N", help="validate on this fold of patients")
    step.add_argument("--seed", type=_from_zero, default=0, metavar="N", help="random seed")
    step.add_argument("--resume", default="auto", metavar="HOW", help="auto, never or a checkpoint")
    step.add_argument("--max-minutes", type=float, metavar="M", help="stop cleanly before then")
    step.add_argument(
        "--tensorboard", action="store_true", help="write events too (pip install tensorboard)"
    )
    return step
