"""From prepared data to trained models; each step does only what is missing."""

import logging
import math
from dataclasses import replace
from pathlib import Path

from ..cases import Split
from ..checkpoints import SYNTHETIC, has_synthetic, load_checkpoint, recipe_of
from ..machine import few
from ..preprocess import Prepared
from ..recipes import liver_recipe, tumor_recipe, with_network_of
from ..settings import Settings, hint
from ..training import TrainingDivergedError, train_liver_gan, train_tumor_regnet
from .drive import keep_run, restore_model, restore_run
from .kept_cases import drive_folder

logger = logging.getLogger(__name__)


def ensure_liver_model(settings: Settings, data: Prepared) -> Path:
    """Return the best liver checkpoint, here or on Drive; on phantoms one is trained if need be.

    Raises:
        FileNotFoundError: there is none, and the data are no phantoms; says how to train one.
    """
    return _ensure_model(settings, data, "liver", train_liver)


def ensure_tumor_model(settings: Settings, data: Prepared) -> Path:
    """Return the best tumor checkpoint, as `ensure_liver_model` does."""
    return _ensure_model(settings, data, "tumor", train_tumor)


def _ensure_model(settings, data, system, train) -> Path:
    path = checkpoint_path(settings, system)
    if path.exists() or restore_model(settings, system):
        return path
    if settings.source != "phantom":
        raise FileNotFoundError(f"no {system} model at {path}: {hint(system)}")
    logger.info("no %s model at %s: training a small one on the phantoms", system, path)
    if not settings.tiny:  # beside the place of a full run, which may still come
        settings = replace(settings, tiny=True, drive=False, runs=settings.runs / "small")
    train(settings, data)
    return checkpoint_path(settings, system)


def checkpoint_path(settings: Settings, system: str) -> Path:
    """Return where a training leaves its best model; `system` is "liver" or "tumor"."""
    return settings.runs / system / "checkpoints" / "best_model.pth"


def default_model(settings: Settings, system: str) -> Path | None:
    """Return the run's own best model, else "synthetic" where such weights exist, else None."""
    own = checkpoint_path(settings, system)
    if own.exists():
        return own
    return Path(SYNTHETIC) if has_synthetic(system) else None


def train_liver(settings: Settings, data: Prepared, recipe=None, **options) -> list[dict]:
    """Train system A on the prepared data; options as of `training.start.TrainingOptions`.

    With `start_from` the weights give network and InputSpec, the recipe everything else.
    """
    recipe = recipe or liver_recipe(tiny=settings.tiny)
    return _train(train_liver_gan, "liver", settings, data, recipe, options)


def train_tumor(settings: Settings, data: Prepared, recipe=None, **options) -> list[dict]:
    """Train system B on the prepared data; options as of `training.start.TrainingOptions`."""
    recipe = recipe or tumor_recipe(tiny=settings.tiny)
    data = replace(data, split=_with_tumors_known(data))
    return _train(train_tumor_regnet, "tumor", settings, data, recipe, options)


def _with_tumors_known(data: Prepared) -> Split:
    """Return the split without cases whose reference shows the liver alone."""
    liver_only = {case.id for case in data.cases if case.liver_only}
    if liver_only:
        logger.info("their references show the liver alone, left out: %s", few(liver_only))
    parts = {part: getattr(data.split, part) for part in ("training", "validation", "test")}
    kept = {part: tuple(i for i in ids if i not in liver_only) for part, ids in parts.items()}
    if parts["training"] and not kept["training"]:
        raise ValueError(
            f"no case to train on in {data.root}: all references show the liver alone, as "
            "TotalSegmentator's do; prepare cases with labels 2 for tumors"
        )
    return Split(**kept)


def _train(train, system: str, settings: Settings, data: Prepared, recipe, options) -> list[dict]:
    run = settings.runs / system
    if options.get("start_from"):
        start = load_checkpoint(options["start_from"], system)
        recipe = with_network_of(recipe, recipe_of(options["start_from"], start))
    kept = drive_folder(settings, system)
    restore_run(kept, run)
    options = {"device": settings.device, "mirror": kept, **options}
    try:
        history = train(data.root, run, data.split, recipe, **options)
    except (KeyboardInterrupt, SystemExit, TrainingDivergedError):  # what came before is saved
        keep_run(run, kept)
        raise
    keep_run(run, kept)
    return history


def best_epoch(history: list[dict]) -> dict | None:
    """Return the row of the highest validation Dice: its model was kept.

    Without a Dice, because no validation case holds the target, it is the last row; None while no
    epoch has ended. Exception: after resuming from a named file whose best model is missing, only
    later epochs count.
    """
    scored = [row for row in history if not math.isnan(row["validation_dice"])]
    if scored:
        return max(scored, key=lambda row: row["validation_dice"])
    return history[-1] if history else None


def best_epoch_text(history: list[dict]) -> str:
    """Say in a line what `best_epoch` found."""
    row = best_epoch(history)
    if row is None:
        return "stopped before the first epoch ended; the same training again continues"
    if math.isnan(row["validation_dice"]):
        return "no validation patient holds the target: the model of the last epoch was kept"
    return f"best validation Dice per case {row['validation_dice']:.3f} in epoch {row['epoch']}"
