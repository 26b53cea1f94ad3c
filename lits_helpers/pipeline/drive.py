"""What Google Drive keeps of a run and of prepared cases, so that the next machine finds it.

Training states live in the two slots of `training.states.MirrorSlots`. Beside them lie recipe,
history, curve and pictures of the last epoch, the models for others to use, and the results. Raw
volumes and slices never go to Drive: many small files time out there.
"""

import errno
import filecmp
import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm.auto import tqdm

from ..download import INDEX
from ..environment import mount_drive
from ..machine import TEMPORARY_PREFIX, copy_whole, file_hash, remove_leftovers, write_json
from ..preprocess import CaseFiles
from ..settings import Settings
from ..training import TUMOR_WEIGHTS, RunFolder, newest_state

logger = logging.getLogger(__name__)

ROOM_FOR_RUNS = 2e9  # bytes that cases leave free for checkpoints, which no download brings back
HASHES = "file_hashes"
TRIALS = 3  # cases in a row that fail to come back before Drive is given up
REFUSED = "refused.json"  # which cases cannot be used; see `acquisition.download`
KEPT_BESIDE = (REFUSED, INDEX)  # small files that spare the next machine requests
PICTURES = Path("checkpoints") / "val_predictions"
BARE = Path(TUMOR_WEIGHTS)
MODEL_FILES = (Path("checkpoints") / "best_model.pth", BARE, BARE.with_suffix(".json"))
HISTORY = "history.csv"
RUN_FILES = ("recipe.json", HISTORY, "checkpoints/loss_curve.png")
PREDICTIONS = ("predictions/*.nii.gz", "predictions/*.json")
RESULT_FILES = ("*.csv", "*.json", "figures/*.png", *PREDICTIONS, "report*/*.*", "segmented/*.*")
CROSSVAL_FILES = ("metrics.csv", "summary.json", "table.txt")


class KeptCases:
    """The prepared cases that Drive keeps. A failure of Drive is logged once and ends no run.

    Args:
        folder: laid out as prepared/; None keeps nothing.
    """

    def __init__(self, folder: Path | None):
        self.folder = folder

    def ids(self) -> list[str]:
        """Return the ids of the cases that Drive seems to hold."""
        if self.folder is None:
            return []
        try:
            records = os.listdir(self.folder / "cases")
        except FileNotFoundError:
            return []
        except OSError as error:
            logger.warning("the prepared cases on Google Drive cannot be listed (%s)", error)
            return []
        names = [name for name in records if not name.startswith(".")]
        return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))

    def restore(self, case_ids: Iterable[str], prepared: Path) -> None:
        """Copy back the cases that Drive holds whole and that `prepared` lacks."""
        kept = set(self.ids())
        wanted = [name for name in case_ids if name in kept]
        missing = [name for name in wanted if CaseFiles(prepared, name).known() is None]
        for name in KEPT_BESIDE if self.folder is not None else ():
            if not (prepared / name).exists():
                self._trying("restored", _copy_if_there, self.folder / name, prepared / name)
        lost = {}
        failures = 0  # only those in a row count
        for name in tqdm(missing, desc="from Drive", unit="case", disable=not missing):
            try:
                _restore_case(CaseFiles(self.folder, name), CaseFiles(prepared, name))
                failures = 0
            except OSError as error:  # a single file may fail; or Drive is gone, or this disk full
                lost[name] = error
                failures += 1
            if failures == TRIALS:
                break
        if lost:
            logger.warning(
                "cases %s did not come back from Google Drive (%s)",
                ", ".join(lost),
                next(iter(lost.values())),
            )

    def keep(self, case_ids: Sequence[str], prepared: Path) -> None:
        """Copy prepared cases to Drive unless Drive has them, and what is kept beside them."""
        if self.folder is None:
            return
        pairs = [(CaseFiles(prepared, name), CaseFiles(self.folder, name)) for name in case_ids]
        tasks = [(_keep_case, *pair) for pair in pairs]
        tasks += [(_copy_if_there, prepared / name, self.folder / name) for name in KEPT_BESIDE]
        if not all(self._trying("kept", *task) for task in tasks):
            self.folder = None  # logged once, not for each case

    def remove_leftovers(self) -> None:
        """Remove what a killed run left half copied."""
        if self.folder is not None:
            self._trying("tidied", remove_leftovers, self.folder)

    def _trying(self, done: str, work, *arguments) -> bool:
        try:
            work(*arguments)
        except OSError as error:  # Drive is full or was unmounted, or this disk is full
            logger.warning(
                "no more prepared cases are %s on Google Drive (%s); the run goes on without: "
                "free space there, or untick USE_DRIVE to keep none",
                done,
                error,
            )
            return False
        return True


def _keep_case(local: CaseFiles, kept: CaseFiles) -> None:
    record = local.known()
    if record is None:
        return
    record = {**record, "png_window": None}
    before = kept.known()
    if before and {**before, HASHES: None} == {**record, HASHES: None}:
        return
    kept.root.mkdir(parents=True, exist_ok=True)
    needed = sum(path.stat().st_size for path in _arrays(local, record))
    if shutil.disk_usage(kept.root).free < needed + ROOM_FOR_RUNS:
        reason = f"{os.strerror(errno.ENOSPC)}; {ROOM_FOR_RUNS / 1e9:g} GB are left for checkpoints"
        raise OSError(errno.ENOSPC, reason)
    kept.record.unlink(missing_ok=True)
    for path in _arrays(local, record):
        copy_whole(path, kept.record.with_name(path.name))
    hashes = {path.name: file_hash(path) for path in _arrays(local, record)}
    write_json(kept.record, {**record, HASHES: hashes})


def _restore_case(kept: CaseFiles, local: CaseFiles) -> None:
    record = kept.known()
    hashes = record.pop(HASHES, None) if record else None
    if hashes is None:
        return
    for path in _arrays(kept, record):
        copy_whole(path, local.record.with_name(path.name))
    if any(file_hash(path) != hashes.get(path.name) for path in _arrays(local, record)):
        logger.warning("case %s did not arrive whole on Drive: made again", local.case_id)
        local.remove()
        kept.record.unlink()  # otherwise the next whole case is never copied to Drive
        return
    write_json(local.record, record)


def _arrays(files: CaseFiles, record: dict) -> list[Path]:
    return [files.volume, files.labels] if record["has_segmentation"] else [files.volume]


def _copy_if_there(source: Path, target: Path) -> None:
    if source.is_file() and not (target.is_file() and file_hash(source) == file_hash(target)):
        copy_whole(source, target)


def drive_folder(settings: Settings, part: str) -> Path | None:
    """Return the folder on Drive of a part of the run: "liver", "tumor", "results", "prepared".

    Returns:
        The folder (Drive is mounted first), or None where Drive is not wanted or not available.
    """
    drive = mount_drive() if settings.drive else None
    return drive / settings.runs.name / part if drive else None


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
