"""What Google Drive keeps of a run, so that the next machine finds it.

Training states live in the two slots of `training.states.MirrorSlots`. Beside them lie recipe,
history, curve and pictures of the last epoch, the models for others to use, and the results.
"""

import filecmp
import logging
import shutil
from pathlib import Path

from ..machine import TEMPORARY_PREFIX, copy_whole, remove_leftovers
from ..settings import Settings
from ..training import TUMOR_WEIGHTS, RunFolder, newest_state
from .kept_cases import drive_folder

logger = logging.getLogger(__name__)

PICTURES = Path("checkpoints") / "val_predictions"
BARE = Path(TUMOR_WEIGHTS)
MODEL_FILES = (Path("checkpoints") / "best_model.pth", BARE, BARE.with_suffix(".json"))
HISTORY = "history.csv"
RUN_FILES = ("recipe.json", HISTORY, "checkpoints/loss_curve.png")
PREDICTIONS = ("predictions/*.nii.gz", "predictions/*.json")
RESULT_FILES = ("*.csv", "*.json", "figures/*.png", *PREDICTIONS, "report*/*.*", "segmented/*.*")
CROSSVAL_FILES = ("metrics.csv", "summary.json", "table.txt")


def keep_run(run: Path, kept: Path | None) -> None:
    """Copy a training's files, with the last epoch's pictures, to its folder on Drive.

    The models are copies for others: a later machine takes its model from the newer slot.
    """
    if kept is None:
        return
    epochs = sorted((run / PICTURES).glob("epoch_*"))
    pictures = [path.relative_to(run) for path in (epochs[-1].iterdir() if epochs else ())]
    _copy([*map(Path, (*RUN_FILES, *MODEL_FILES)), *pictures], run, kept)
    try:
        before = list((kept / PICTURES).glob("epoch_*")) if epochs else []
    except OSError:  # Drive is gone, as `_copy` has said
        return
    for old in before:
        if old.name != epochs[-1].name:
            shutil.rmtree(old, ignore_errors=True)


def restore_run(kept: Path | None, run: Path) -> None:
    """Copy back what `keep_run` kept of a run, except the models, if this machine lacks it."""
    if kept is not None and not (run / HISTORY).exists():
        pictures = [path.relative_to(kept) for path in (kept / PICTURES).glob("epoch_*/*.png")]
        others = [Path(name) for name in RUN_FILES if name != HISTORY]
        _copy([*others, *pictures, Path(HISTORY)], kept, run)  # the history says that all is there


def restore_model(settings: Settings, system: str) -> bool:
    """Bring the best model of a system back from Drive; say whether there was one."""
    run = settings.runs / system
    kept = drive_folder(settings, system)
    found = newest_state(run / "checkpoints", kept) if kept else None
    if not found or not found[0].get("best_model"):
        return False
    restore_run(kept, run)
    RunFolder(run, system).restore_finished(found[0])
    logger.info("%s model brought back from %s", system, kept)
    return True


def keep_results(settings: Settings) -> Path | None:
    """Copy scores, pictures, labels, reports and tables to Drive; return the results' folder there.

    Without Drive it is None.
    """
    kept = drive_folder(settings, "results")
    results = settings.runs / "results"
    if kept is not None:
        files = [path for pattern in RESULT_FILES for path in results.glob(pattern)]
        _copy([path.relative_to(results) for path in files], results, kept)
        tables = settings.runs / "crossval"
        _copy([*map(Path, CROSSVAL_FILES)], tables, kept.with_name(tables.name))
    return kept


def _copy(names: list[Path], source: Path, target: Path) -> None:
    """Copy the files that exist and differ; a new file appears whole or not at all.

    A former file is written over: a replaced file goes to Drive's bin and counts there.
    """
    try:
        for name in names:
            if not (source / name).is_file() or name.name.startswith(TEMPORARY_PREFIX):
                continue
            if not (target / name).exists():
                remove_leftovers((target / name).parent, f"*-{name.name}")
                copy_whole(source / name, target / name)
            elif not filecmp.cmp(source / name, target / name, False):
                shutil.copyfile(source / name, target / name)
    except OSError as error:  # Drive is full or was unmounted: what is here is whole
        logger.warning("not everything was copied from %s to %s: %s", source, target, error)
