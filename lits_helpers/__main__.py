"""The same steps from a shell: ``python -m lits_helpers <step>``; each has ``--help``."""

import argparse
import logging
import os
import sys
from pathlib import Path

from . import pipeline
from .cases import find_cases
from .folders import find_volumes, own_device, segment_files
from .inference import load_liver_model, load_tumor_model
from .makers import SYSTEMS, read_records
from .metrics import format_summary
from .options import parser
from .postprocess import Postprocessing
from .preprocess import prepare
from .ranks import own_rank, own_share
from .recipes import liver_recipe, tumor_recipe
from .results import save_score_figures
from .settings import Settings, load_settings

logger = logging.getLogger("lits_helpers.shell")

CHANGES = ("epochs", "batch_size", "learning_rate", "width", "pretrained")  # of a recipe

EXPECTED = (ValueError, OSError, KeyError, RuntimeError, MemoryError, ArithmeticError, ImportError)


def main(arguments: list[str] | None = None) -> int:
    """Run one step; return the exit code: 0 done, 1 failed with a sentence, 2 wrong usage."""
    options = parser(STEPS).parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    level = logging.WARNING if own_rank() else logging.INFO  # of torchrun's processes one speaks
    logging.getLogger("lits_helpers").setLevel(level)
    try:
        settings = load_settings(
            ".",
            source=options.source,
            raw=options.raw,
            prepared=options.prepared,
            runs=options.runs,
            device=options.device,
            tiny=options.tiny or None,
            variables_win=False,
        )
        options.step(settings, options)
    except EXPECTED as error:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"{options.name}: {text or type(error).__name__}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        how = " with --resume auto" if getattr(options, "resume", None) == "never" else ""
        print(f"{options.name}: stopped; the same command{how} continues", file=sys.stderr)
        return 130
    return 0


def phantom(settings: Settings, options: argparse.Namespace) -> None:
    """Write generated abdomens as NIfTI in the Kaggle layout."""
    print(pipeline.make_phantoms(settings))


def download(settings: Settings, options: argparse.Namespace) -> None:
    """Fetch LiTS from Kaggle case by case, prepare each and delete its raw files."""
    report = pipeline.download(settings, options.cases, keep_raw=options.keep_raw, png=options.png)
    if report.failed:
        failed = ", ".join(report.failed)
        raise ValueError(f"cases {failed} failed, see above; the same command tries them again")


def prepare_cases(settings: Settings, options: argparse.Namespace) -> None:
    """Check and pack the cases below the raw folder."""
    report = prepare(
        find_cases(settings.raw), settings.prepared, workers=options.workers, png=options.png
    )
    print(report.table())
    if not report.prepared:
        raise ValueError(f"no case under {settings.raw} could be prepared")


def train_liver(settings: Settings, options: argparse.Namespace) -> None:
    """Train the liver GAN (system A)."""
    _train(settings, options, pipeline.train_liver, liver_recipe)


def train_tumor(settings: Settings, options: argparse.Namespace) -> None:
    """Train the tumor RegNet (system B)."""
    _train(settings, options, pipeline.train_tumor, tumor_recipe)


def predict(settings: Settings, options: argparse.Namespace) -> None:
    """Segment CT files or folders of them, or the validation patients; write labels as NIfTI."""
    name = "segmented" if options.volumes else "predictions"  # other CTs may have the same numbers
    out = options.out or settings.runs / "results" / name
    post = Postprocessing(rotation_degrees=options.rotation)
    step = _predict_files if options.volumes else _predict_validation
    step(settings, options, out, post)


def _predict_validation(settings: Settings, options, out: Path, post: Postprocessing) -> None:
    if options.submission:
        raise ValueError("--submission is for the test volumes: name their files or folder")
    data = _open(settings, options.fold)
    wanted = own_share(data.split.validation)
    files = pipeline.segment_cases(
        data,
        data.split.validation,
        out,
        post=post,
        device=settings.device,
        **_chosen_models(settings, options),
    )
    print("\n".join(str(path) for path in files.values()))
    if len(files) < len(wanted):
        raise ValueError(f"{len(wanted) - len(files)} of {len(wanted)} cases failed, see above")


def _predict_files(settings: Settings, options, out: Path, post: Postprocessing) -> None:
    if options.fold is not None:
        raise ValueError("--fold is for the validation patients: leave it out for named CTs")
    device, models = own_device(settings.device), _chosen_models(settings, options)
    found = [path for given in options.volumes for path in find_volumes(given, out)]
    files = list({os.path.abspath(path): path for path in found}.values())  # each once
    report = segment_files(
        files,
        out,
        models["liver"] and load_liver_model(models["liver"], device),
        models["tumor"] and load_tumor_model(models["tumor"], device),
        post,
        submission=options.submission,
    )
    print("\n".join(str(path) for path in {**report.present, **report.written}.values()))
    if report.failed:
        raise ValueError(report.text())
    logger.info("%s", report.text())


def _chosen_models(settings: Settings, options: argparse.Namespace) -> dict[str, Path | None]:
    """Return {system: checkpoint}, None where `--only` leaves a system out."""
    paths = _model_paths(settings, options)
    return {name: path if options.only in (None, name) else None for name, path in paths.items()}


def _model_paths(settings: Settings, options: argparse.Namespace) -> dict[str, Path]:
    return {
        name: getattr(options, name) or pipeline.checkpoint_path(settings, name) for name in SYSTEMS
    }


def evaluate(settings: Settings, options: argparse.Namespace) -> None:
    """Compare predictions with the references: a table, metrics.csv, summary.json, figures."""
    results = options.out or settings.runs / "results"
    folder = options.predictions or settings.runs / "results" / "predictions"
    predictions = pipeline.find_predictions(folder)
    rows, summary = pipeline.evaluate(
        _open(settings), predictions, results, models=_makers(settings, options, folder)
    )
    save_score_figures(rows, results / "figures")
    print(format_summary(summary))
    print(f"metrics.csv, summary.json and figures are in {results}")
    if summary["without_reference"]:
        logger.info("without a reference: %s", ", ".join(summary["without_reference"]))
    if summary["failed"]:
        raise ValueError(f"not compared, see above: {', '.join(summary['failed'])}")


def _makers(settings: Settings, options: argparse.Namespace, folder: Path) -> list[Path]:
    """Return the checkpoints that made the predictions, as far as no record there names them."""
    if read_records(folder):
        return [path for path in (options.liver, options.tumor) if path]
    models = []
    for name, path in _model_paths(settings, options).items():
        if path.exists() or getattr(options, name):
            models.append(path)
        else:
            logger.warning("no %s model at %s: its training cases cannot be marked", name, path)
    return models


def _train(settings: Settings, options: argparse.Namespace, train, make_recipe) -> None:
    changes = {name: getattr(options, name) for name in CHANGES}
    changes = {name: value for name, value in changes.items() if value is not None}
    recipe = make_recipe(options.recipe, tiny=settings.tiny, **changes)
    history = train(
        settings,
        _open(settings, options.fold),
        recipe,
        resume=options.resume,
        seed=options.seed,
        max_minutes=options.max_minutes,
        tensorboard=options.tensorboard,
        precision=options.precision,
    )
    if own_rank() == 0:
        print(pipeline.best_epoch_text(history))


def _open(settings: Settings, fold: int | None = None) -> pipeline.Prepared:
    share = pipeline.VALIDATION_SHARE[settings.tiny]
    return pipeline.open_prepared(settings.prepared, validation=share, fold=fold)


STEPS = {
    "phantom": phantom,
    "download": download,
    "prepare": prepare_cases,
    "train-liver": train_liver,
    "train-tumor": train_tumor,
    "predict": predict,
    "evaluate": evaluate,
}


if __name__ == "__main__":
    sys.exit(main())
