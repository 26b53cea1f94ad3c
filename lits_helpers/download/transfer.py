"""Bring one file from a source to the disk: resume by Range, prove it whole, then rename it."""

import hashlib
import json
import logging
import shutil
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import urllib3
from tqdm.auto import tqdm

from ..machine import DISK_FULL, TEMPORARY_PREFIX, HostileArchive
from ..settings import in_notebook
from .archives import BrokenFile, settle, unpacked_name
from .source import (
    Answer,
    DownloadError,
    FileUnavailable,
    PassingFailure,
    RemoteFile,
    Source,
    retrying,
)

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 15.0  # where there is no terminal
CHUNK_BYTES = 2**18  # what a kill may lose
BROKEN_TRIES = 3  # a file that arrives damaged this often is damaged at the source


class Meter:
    """Show bytes, rate and time left: as a bar in a terminal or notebook, elsewhere in the log.

    Args:
        total: bytes expected; 0 shows no bar.
        name: what is being fetched.
    """

    def __init__(self, total: int, name: str):
        live = sys.stderr.isatty() or in_notebook()
        self._bar = tqdm(
            total=total or None, desc=name, unit="B", unit_scale=True, disable=not (live and total)
        )
        self._live = live
        self._name = name
        self._total = total
        self._done = 0
        self._fresh = 0
        self._begun = time.monotonic()
        self._spoken = self._begun

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()

    def add(self, count: int, fresh: bool = True) -> None:
        """Count bytes; `fresh=False` for bytes that were here before and tell no rate."""
        self._done += count
        self._fresh += count if fresh else 0
        self._bar.update(count)
        if not self._live and time.monotonic() - self._spoken > SECONDS_BETWEEN_LINES:
            self._spoken = time.monotonic()
            logger.info("%s", self.line())

    def line(self) -> str:
        """Return the state, for example "LiTS: 1.20 of 5.30 GB, 20.1 MB/s, 3 min left"."""
        rate = self._fresh / max(time.monotonic() - self._begun, 1e-3)
        minutes = max(self._total - self._done, 0) / max(rate, 1) / 60
        return (
            f"{self._name}: {self._done / 1e9:.2f} of {self._total / 1e9:.2f} GB, "
            f"{rate / 1e6:.1f} MB/s, {minutes:.0f} min left"
        )


@dataclass(eq=False)
class Transfer:
    """One file on its way to `target`: `.part-NAME` holds its bytes, a note beside it their source.

    After a kill at any moment the next call continues; in the end nothing temporary is left.

    Attributes:
        source: who is asked.
        file: the file there; `meter` shows its size in the end, whatever was received.
        target: final path.
        meter: counts every byte.
        stop: ends the transfer early when set.
    """

    source: Source
    file: RemoteFile
    target: Path
    meter: Meter
    stop: threading.Event
    _counted: int = 0  # bytes that the meter knows
    _farthest: int = 0  # bytes that the longest attempt reached

    def __post_init__(self):
        self.part = part_name(self.target)
        self.note = note_name(self.target)

    def fetch(self) -> Path:
        """Bring the file to its final name and return the path.

        Raises:
            DownloadError: it is not there, it is damaged each time, or the disk is full.
        """
        name = self.target.name
        for _ in range(BROKEN_TRIES):
            self.receive()
            try:
                return self.put_in_place()
            except BrokenFile as error:
                problem = error
                logger.warning("%s arrived damaged (%s), fetching it again", name, error)
        raise FileUnavailable(
            f"{name} from {self.file.place} arrived damaged {BROKEN_TRIES} times"
            f" ({problem}): run again later, or leave this case out"
        )

    def put_in_place(self) -> Path:
        """Check, unpack and rename a completely received file, and remove everything temporary.

        Raises:
            BrokenFile: it is damaged; its bytes are gone, so that the next `receive` starts afresh.
            DownloadError: a hostile archive or a full disk.
        """
        try:
            self._check_sum()
            path = settle(self.part, self.target)
        except HostileArchive as error:
            self.discard()
            raise FileUnavailable(
                f"{self.target.name} from {self.file.place} was refused: {error}; report it at"
                f" {self.source.page(self.file.place)}"
            ) from None
        except OSError as error:
            raise disk_error(error, self.target.parent) from error
        except BrokenFile:
            self.discard()
            raise
        self.discard()
        return path

    def discard(self) -> None:
        """Remove everything temporary of this file."""
        discard_temporaries(self.target)

    def receive(self) -> Path:
        """Fetch the bytes that the temporary file still lacks, and return its path."""
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            retrying(self._attempt, self.source.patience, self.stop)
        except OSError as error:
            raise disk_error(error, self.target.parent) from error
        self._count_to(max(self.file.size_bytes, self._counted), fresh=True)  # a zip is shorter
        return self.part

    def _attempt(self) -> None:
        known = self._known()
        have = self._have()
        if have > (known.get("bytes") or have):  # more than the file has: it is another file's
            self.discard()
            have = 0
        if known.get("bytes") == have > 0:
            self._count_to(max(have, self._counted))
            return
        self._count_to(have)
        try:
            with self.source.open(self.file, have, known.get("identity")) as answer:
                self._take(answer, have, known)
        except PassingFailure as failure:
            if failure.restart:
                self.discard()
            raise

    def _take(self, answer: Answer, have: int, known: dict) -> None:
        if answer.start == 0:
            have = 0
            known = self._begin(answer)
        elif answer.start != have or not _same(answer.size_bytes, known.get("bytes")):
            raise PassingFailure(
                f"{self.target.name} changed on the server", "run again", restart=True
            )
        self._count_to(have)
        try:
            have = self._append(answer, have)
        except urllib3.exceptions.HTTPError as error:
            raise self._cut(known["bytes"], type(error).__name__) from None
        if known["bytes"] is None:
            self.note.write_text(json.dumps({**known, "bytes": have}), encoding="utf-8")
        elif have != known["bytes"]:
            raise self._cut(known["bytes"], "wrong length")

    def _append(self, answer: Answer, have: int) -> int:
        with open(self.part, "ab" if have else "wb", buffering=0) as out:
            for chunk in answer.raw.stream(CHUNK_BYTES, decode_content=False):
                if self.stop.is_set():
                    raise DownloadError("the download was stopped")
                rest = memoryview(chunk)
                while rest:  # near a full disk only a part may be taken
                    rest = rest[out.write(rest) :]
                have += len(chunk)
                self._count_to(have, fresh=True)
        return have

    def _count_to(self, count: int, fresh: bool = False) -> None:
        self.meter.add(count - self._counted, fresh)
        self._counted = count

    def _begin(self, answer: Answer) -> dict:
        """Note which object the coming bytes belong to."""
        self.part.unlink(missing_ok=True)  # before the note, so that a kill never mixes two objects
        known = {"identity": answer.identity, "bytes": answer.size_bytes, "md5": answer.md5}
        free = shutil.disk_usage(self.part.parent).free
        if (known["bytes"] or 0) > free:
            raise DownloadError(
                f"{self.target.name} needs {known['bytes'] / 1e9:.2f} GB in {self.part.parent} but"
                f" {free / 1e9:.2f} GB are free: free some or choose a larger disk and run again"
            )
        self.note.write_text(json.dumps(known), encoding="utf-8")
        return known

    def _cut(self, total: int | None, why: str) -> PassingFailure:
        have = self._have()
        gained = max(have - self._farthest, 0)
        self._farthest += gained
        of = f" of {total}" if total is not None else ""
        return PassingFailure(
            f"{self.target.name}: the transfer ended after {have}{of} bytes ({why})",
            "check the network and run again to go on from there",
            gained=gained,
        )

    def _known(self) -> dict:
        try:
            return json.loads(self.note.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none, or torn by a kill
            return {}

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _check_sum(self) -> None:
        announced = self._known().get("md5")
        if announced:
            with open(self.part, "rb") as stream:
                found = hashlib.file_digest(stream, "md5").hexdigest()
            if found != announced:
                raise BrokenFile(
                    "its content does not match the checksum that the server announced"
                )


def _same(size: int | None, known: int | None) -> bool:
    return None in (size, known) or size == known


def discard_temporaries(target: Path) -> None:
    """Remove everything temporary that a transfer to `target` may have left."""
    bare = target.with_name(target.name.removesuffix(".gz"))
    for arriving in (bare, bare.with_name(f"{bare.name}.gz")):
        for path in (part_name(arriving), note_name(arriving), unpacked_name(arriving)):
            if path.exists():  # on a read-only disk even removing nothing fails
                path.unlink()


def part_name(target: Path) -> Path:
    """Return where the bytes of `target` are collected."""
    return target.with_name(f"{TEMPORARY_PREFIX}{target.name}")


def note_name(target: Path) -> Path:
    """Return where a note tells which object the bytes of `target` belong to."""
    return target.with_name(f"{TEMPORARY_PREFIX}{target.name}.json")


def disk_error(error: OSError, folder: Path) -> DownloadError:
    """Return what to do about a write that failed."""
    if error.errno in DISK_FULL:
        return DownloadError(
            f"no space left in {folder}: free some or choose a larger disk and run again;"
            " what is whole stays valid"
        )
    return DownloadError(
        f"cannot write in {folder} ({error.strerror or error}): choose a folder you may write to"
    )
