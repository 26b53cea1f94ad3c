"""The prepared cases that Google Drive keeps, and where a run's parts lie there.

Raw volumes and slices never go to Drive: many small files time out there.
"""

import errno
import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm.auto import tqdm

from ..download import INDEX
from ..environment import mount_drive
from ..machine import copy_whole, file_hash, remove_leftovers, write_json
from ..preprocess import CaseFiles
from ..settings import Settings

logger = logging.getLogger(__name__)

ROOM_FOR_RUNS = 2e9  # bytes that cases leave free for checkpoints, which no download brings back
HASHES = "file_hashes"
TRIALS = 3  # cases in a row that fail to come back before Drive is given up
REFUSED = "refused.json"  # which cases cannot be used; see `acquisition.download`
KEPT_BESIDE = (REFUSED, INDEX)  # small files that spare the next machine requests


def drive_folder(settings: Settings, part: str) -> Path | None:
    """Return the folder on Drive of a part of the run: "liver", "tumor", "results", "prepared".

    Returns:
        The folder (Drive is mounted first), or None where Drive is not wanted or not available.
    """
    drive = mount_drive() if settings.drive else None
    return drive / settings.runs.name / part if drive else None


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
