"""The same steps from a shell: ``python -m lits_helpers <step>``; each has ``--help``."""

import argparse
import logging
import sys
from pathlib import Path

from . import __version__, pipeline
from .cases import find_cases
from .folders import find_volumes, own_device, segment_files
from .inference import load_liver_model, load_tumor_model
from .metrics import format_summary
from .postprocess import Postprocessing
from .preprocess import prepare
from .settings import SOURCES, Settings, liver_recipe, load_settings, tumor_recipe

logger = logging.getLogger("lits_helpers.predict")

EXPECTED = (ValueError, OSError, KeyError, RuntimeError, MemoryError, ArithmeticError)


def main(arguments: list[str] | None = None) -> int:
    """Run one step; return the exit code: 0 done, 1 failed with a sentence, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("lits_helpers").setLevel(logging.INFO)
    try:
        settings = load_settings(
            ".",
            source=options.source,
            raw=options.raw,
            prepared=options.prepared,
            runs=options.runs,
            device=options.device,
            tiny=options.tiny,
        )
        options.step(settings, options)
    except EXPECTED as error:
        print(f"{options.name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{options.name}: stopped; the same command continues", file=sys.stderr)
        return 130
    return 0


def phantom(settings: Settings, options: argparse.Namespace) -> None:
    """Write generated abdomens as NIfTI in the Kaggle layout."""
    print(pipeline.make_phantoms(settings))


def download(settings: Settings, options: argparse.Namespace) -> None:
    """Fetch LiTS from Kaggle case by case, prepare each and delete its raw files."""
    pipeline.download(settings, options.cases, keep_raw=options.keep_raw, png=options.png)


def prepare_cases(settings: Settings, options: argparse.Namespace) -> None:
    """Check and pack the cases below the raw folder."""
    report = prepare(
        find_cases(settings.raw), settings.prepared, workers=options.workers, png=options.png
    )
    print(report.table())


def train_liver(settings: Settings, options: argparse.Namespace) -> None:
    """Train the liver GAN (system A)."""
    _train(settings, options, pipeline.train_liver, liver_recipe)


def train_tumor(settings: Settings, options: argparse.Namespace) -> None:
    """Train the tumor RegNet (system B)."""
    _train(settings, options, pipeline.train_tumor, tumor_recipe)


def predict(settings: Settings, options: argparse.Namespace) -> None:
    """Segment CT files or folders of them, or the validation patients; write labels as NIfTI."""
    models = {
        "liver": options.liver or pipeline.checkpoint_path(settings, "liver"),
        "tumor": options.tumor or pipeline.checkpoint_path(settings, "tumor"),
    }
    out = options.out or settings.runs / "results" / "predictions"
    post = Postprocessing(flips=options.flips)
    if not options.volumes:
        data = _open(settings)
        files = pipeline.segment_cases(
            data, data.split.validation, out, post=post, device=settings.device, **models
        )
        print("\n".join(str(path) for path in files.values()))
        return
    device = own_device(settings.device)
    files = [path for given in options.volumes for path in find_volumes(given, out)]
    report = segment_files(
        files,
        out,
        load_liver_model(models["liver"], device),
        load_tumor_model(models["tumor"], device),
        post,
        submission=options.submission,
    )
    print("\n".join(str(path) for path in {**report.present, **report.written}.values()))
    if report.failed:
        raise ValueError(report.text())
    logger.info("%s", report.text())


def evaluate(settings: Settings, options: argparse.Namespace) -> None:
    """Compare predictions with the references: metrics.csv, summary.json and a table."""
    folder = options.predictions or settings.runs / "results" / "predictions"
    predictions = pipeline.find_predictions(folder)
    checkpoints = [pipeline.checkpoint_path(settings, system) for system in ("liver", "tumor")]
    models = [path for path in checkpoints if path.exists()]
    _, summary = pipeline.evaluate(
        _open(settings), predictions, settings.runs / "results", models=models
    )
    print(format_summary(summary))


def _train(settings: Settings, options: argparse.Namespace, train, make_recipe) -> None:
    changes = {"epochs": options.epochs} if options.epochs else {}
    if options.width:
        changes["width"] = options.width
    if options.no_pretrained:
        changes["pretrained"] = False
    recipe = make_recipe(options.recipe, tiny=settings.tiny, **changes)
    history = train(
        settings,
        _open(settings, options.fold),
        recipe,
        resume=options.resume,
        seed=options.seed,
        max_minutes=options.max_minutes,
        tensorboard=options.tensorboard,
    )
    best = max(history, key=lambda row: row["validation_dice"])
    print(f"best validation Dice per case {best['validation_dice']:.3f} in epoch {best['epoch']}")


def _open(settings: Settings, fold: int | None = None) -> pipeline.Prepared:
    share = pipeline.VALIDATION_SHARE[settings.tiny]
    return pipeline.open_prepared(settings.prepared, validation=share, fold=fold)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lits_helpers",
        description="Liver and liver-tumor segmentation in CT, step by step. Not a medical device.",
        epilog="Every folder and switch can also be given as LITS_... variable (see README.md); "
        "a variable wins.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    steps = parser.add_subparsers(title="steps", required=True, metavar="STEP")
    _step(steps, "phantom", phantom)
    step = _step(steps, "download", download)
    step.add_argument("--cases", default="", metavar="LIST", help="e.g. 0-9,27; default all 131")
    step.add_argument("--keep-raw", action="store_true", help="keep the raw files (54 GB in all)")
    step.add_argument("--png", action="store_true", help="also export 8-bit slices")
    step = _step(steps, "prepare", prepare_cases)
    step.add_argument("--workers", type=int, metavar="N", help="processes; default one a core")
    step.add_argument("--png", action="store_true", help="also export 8-bit slices")
    _training_step(steps, "train-liver", train_liver).add_argument(
        "--width", type=int, metavar="N", help="channels of the generator's first layer"
    )
    _training_step(steps, "train-tumor", train_tumor).add_argument(
        "--no-pretrained", action="store_true", help="start from random weights, not ImageNet's"
    )
    step = _step(steps, "predict", predict)
    step.add_argument(
        "volumes", nargs="*", type=Path, help="CT files or folders; default: validation patients"
    )
    step.add_argument("--liver", type=Path, metavar="FILE", help="checkpoint of system A")
    step.add_argument("--tumor", type=Path, metavar="FILE", help="checkpoint of system B")
    step.add_argument("--out", type=Path, metavar="DIR", help="default RUNS/results/predictions")
    step.add_argument("--flips", action="store_true", help="average with mirrored slices")
    step.add_argument(
        "--submission", action="store_true", help="test-segmentation-N.nii in one zip, as for LiTS"
    )
    step = _step(steps, "evaluate", evaluate)
    step.add_argument("--predictions", type=Path, metavar="DIR", help="as predict wrote them")
    return parser


def _step(steps, name: str, run) -> argparse.ArgumentParser:
    step = steps.add_parser(name, help=run.__doc__, description=run.__doc__)
    step.set_defaults(step=run, name=name)
    step.add_argument("--source", choices=SOURCES, help="default phantom")
    step.add_argument("--raw", metavar="DIR", help="NIfTI files, in any layout")
    step.add_argument("--prepared", metavar="DIR", help="packed cases")
    step.add_argument("--runs", metavar="DIR", help="checkpoints and results")
    step.add_argument("--device", help="cpu, cuda, cuda:1 ...; default the best there is")
    step.add_argument("--tiny", action="store_true", help="small and short, to try things out")
    return step


def _training_step(steps, name: str, run) -> argparse.ArgumentParser:
    step = _step(steps, name, run)
    step.set_defaults(width=None, no_pretrained=False)
    step.add_argument("--recipe", default="default", help="default or original")
    step.add_argument("--epochs", type=int, metavar="N", help="default: the recipe's")
    step.add_argument("--fold", type=int, metavar="N", help="validate on this fold of patients")
    step.add_argument("--seed", type=int, default=0, metavar="N", help="random seed")
    step.add_argument("--resume", default="auto", help="auto, never or a checkpoint")
    step.add_argument("--max-minutes", type=float, metavar="M", help="stop cleanly before then")
    step.add_argument("--tensorboard", action="store_true", help="also write TensorBoard events")
    return step


if __name__ == "__main__":
    sys.exit(main())
