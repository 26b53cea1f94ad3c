"""One file from Kaggle to the disk: resumed by Range, proven whole, then renamed."""

import base64
import hashlib
import json
import logging
import shutil
import sys
import threading
import time
from pathlib import Path

import requests
import urllib3
from tqdm.auto import tqdm

from ..machine import DISK_FULL, TEMPORARY_PREFIX
from .archives import BrokenFile, HostileArchive, settle, unpacked_name
from .client import FileUnavailable, KaggleClient, KaggleError, PassingFailure, retrying

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 15.0  # where there is no terminal
CHUNK_BYTES = 2**18  # what a kill may lose
BROKEN_TRIES = 3  # a file that arrives damaged this often is damaged at the source


class Meter:
    """A bar with bytes, rate and time left in a terminal or notebook, log lines elsewhere.

    Args:
        total: bytes expected; 0 shows no bar.
        name: what is being fetched.
    """

    def __init__(self, total: int, name: str):
        live = sys.stderr.isatty() or _in_notebook()
        self._bar = tqdm(
            total=total or None, desc=name, unit="B", unit_scale=True, disable=not (live and total)
        )
        self._live, self._name, self._total = live, name, total
        self._done = self._fresh = 0
        self._begun = self._spoken = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()

    def add(self, count: int, fresh: bool = True) -> None:
        """Count bytes; `fresh=False` for those that say nothing about the rate (here before)."""
        self._done += count
        self._fresh += count if fresh else 0
        self._bar.update(count)
        if not self._live and time.monotonic() - self._spoken > SECONDS_BETWEEN_LINES:
            self._spoken = time.monotonic()
            logger.info("%s", self.line())

    def line(self) -> str:
        """Return the state, for example "LiTS: 1.20 of 5.30 GB, 20.1 MB/s, 3 min left"."""
        rate = self._fresh / max(time.monotonic() - self._begun, 1e-3)
        of, left = "", ""
        if self._total:
            of = f" of {self._total / 1e9:.2f}"
            left = f", {max(self._total - self._done, 0) / max(rate, 1) / 60:.0f} min left"
        return f"{self._name}: {self._done / 1e9:.2f}{of} GB, {rate / 1e6:.1f} MB/s{left}"


def _in_notebook() -> bool:
    """Say whether a Jupyter kernel runs this (ipywidgets 7 loads ipykernel outside of one too)."""
    ipython = sys.modules.get("IPython")
    return hasattr(ipython and ipython.get_ipython(), "kernel")


class Transfer:
    """One file on its way to `target`: `.part-NAME` holds its bytes, a note says of which object.

    Killed at any moment, the next call goes on from there; nothing temporary is left in the end.

    Args:
        client: whom to ask.
        dataset: "owner/name".
        name: the file's name in the data set.
        target: final path.
        size: bytes that the listing names, which the meter is brought to in the end; 0 = unknown.
        meter: told of every byte.
        stop: ends the transfer early when set.
    """

    def __init__(
        self,
        client: KaggleClient,
        dataset: str,
        name: str,
        target: Path,
        size: int = 0,
        meter: Meter | None = None,
        stop: threading.Event | None = None,
    ):
        self.client = client
        self.dataset = dataset
        self.name = name
        self.target = target
        self.size = size
        self.meter = meter
        self.stop = stop or threading.Event()
        self.part = part_name(target)
        self.note = note_name(target)
        self._counted = 0
        self._farthest = 0

    def fetch(self) -> Path:
        """Bring the file to its final name and return the path.

        Raises:
            KaggleError: it cannot be had, is damaged each time, or the disk is full.
        """
        for _ in range(BROKEN_TRIES):
            self.receive()
            try:
                return self.put_in_place()
            except BrokenFile as error:
                problem = error
                logger.warning(
                    "%s arrived damaged (%s), fetching it again", self.target.name, error
                )
        raise FileUnavailable(
            f"{self.target.name} from {self.dataset} arrived damaged {BROKEN_TRIES} times"
            f" ({problem}): run again later, or leave this case out"
        )

    def put_in_place(self) -> Path:
        """Check, unpack and rename a completely received file, and remove everything temporary.

        Raises:
            BrokenFile: it is damaged; its bytes are gone, so that the next `receive` starts afresh.
            KaggleError: a hostile archive or a full disk.
        """
        try:
            self._check_sum()
            path = settle(self.part, self.target)
        except HostileArchive as error:
            self.discard()
            raise FileUnavailable(
                f"{self.target.name} from {self.dataset} was refused: {error}; report it at"
                f" https://www.kaggle.com/datasets/{self.dataset}"
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
        """Fetch all bytes into the temporary file, from where an earlier call ended; return it."""
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            retrying(self._attempt, self.client.patience, self.stop)
        except OSError as error:
            raise disk_error(error, self.target.parent) from error
        if self.size:
            self._count_to(max(self.size, self._counted), fresh=True)  # a zip is shorter
        return self.part

    def _attempt(self) -> None:
        known, have = self._known(), self._have()
        if known.get("bytes") == have > 0:
            self._count_to(max(have, self._counted))
            return
        self._count_to(have)
        headers = {}
        if have and known.get("identity"):
            headers = {"Range": f"bytes={have}-", "If-Range": known["identity"]}
        try:
            with self.client.open(self.dataset, self.name, headers) as response:
                self._take(response, have, known)
        except PassingFailure as failure:
            if failure.restart:
                self.discard()
            raise

    def _take(self, response: requests.Response, have: int, known: dict) -> None:
        if response.status_code != 206:
            have, known = 0, self._begin(response)
        elif not _continues(response, have, known):
            raise PassingFailure(
                f"{self.target.name} changed on the server", "run again", restart=True
            )
        self._count_to(have)
        try:
            have = self._append(response, have)
        except urllib3.exceptions.HTTPError as error:
            raise self._cut(known["bytes"], type(error).__name__) from None
        if known["bytes"] is None:
            self.note.write_text(json.dumps({**known, "bytes": have}), encoding="utf-8")
        elif have != known["bytes"]:
            raise self._cut(known["bytes"], "wrong length")

    def _append(self, response: requests.Response, have: int) -> int:
        with open(self.part, "ab" if have else "wb", buffering=0) as out:
            for chunk in response.raw.stream(CHUNK_BYTES, decode_content=False):
                if self.stop.is_set():
                    raise KaggleError("the download was stopped")
                rest = memoryview(chunk)
                while rest:  # near a full disk only a part may be taken
                    rest = rest[out.write(rest) :]
                have += len(chunk)
                self._count_to(have, fresh=True)
        return have

    def _count_to(self, count: int, fresh: bool = False) -> None:
        if self.meter:
            self.meter.add(count - self._counted, fresh)
        self._counted = count

    def _begin(self, response: requests.Response) -> dict:
        """Note whose bytes are coming."""
        self.part.unlink(missing_ok=True)  # first: a kill in between must not mix two objects
        length = response.headers.get("Content-Length", "")
        known = {
            "identity": response.headers.get("ETag") or response.headers.get("Last-Modified"),
            "bytes": int(length) if length.isdigit() else None,
            "md5": _announced_md5(response),
        }
        free = shutil.disk_usage(self.part.parent).free
        if (known["bytes"] or 0) > free:
            raise KaggleError(
                f"{self.target.name} needs {known['bytes'] / 1e9:.2f} GB in {self.part.parent} but"
                f" {free / 1e9:.2f} GB are free: free some or choose a larger disk and run again"
            )
        self.note.write_text(json.dumps(known), encoding="utf-8")
        return known

    def _cut(self, total: int | None, why: str) -> PassingFailure:
        have = self._have()
        gained, self._farthest = have - self._farthest, max(have, self._farthest)
        of = f" of {total}" if total is not None else ""
        return PassingFailure(
            f"{self.target.name}: the transfer ended after {have}{of} bytes ({why})",
            "check the network and run again to go on from there",
            gained=max(gained, 0),
        )

    def _known(self) -> dict:
        try:
            known = json.loads(self.note.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none, or torn by a kill
            return {}
        return known if isinstance(known, dict) else {}

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


def _continues(response: requests.Response, have: int, known: dict) -> bool:
    """Say whether a 206 answer goes on exactly where the temporary file ends."""
    unit, _, span = response.headers.get("Content-Range", "").partition(" ")
    reach, _, total = span.partition("/")
    start = reach.partition("-")[0]
    same_length = known.get("bytes") is None or total in ("*", str(known["bytes"]))
    return unit == "bytes" and start == str(have) and same_length


def _announced_md5(response: requests.Response) -> str | None:
    """Return the MD5 (hex) that the storage announces.

    Source: the header x-goog-hash of Google Cloud Storage's XML API.
    """
    for item in response.headers.get("x-goog-hash", "").split(","):
        kind, _, value = item.strip().partition("=")
        if kind == "md5":
            try:
                return base64.b64decode(value).hex()
            except ValueError:
                return None
    return None


def discard_temporaries(target: Path) -> None:
    """Remove everything temporary that a transfer to `target` may have left."""
    bare = target.with_name(target.name.removesuffix(".gz"))
    names = {
        name_of(path)
        for path in (target, bare)
        for name_of in (part_name, note_name, unpacked_name)
    }
    for path in names:
        if path.exists():  # on a read-only disk even removing nothing fails
            path.unlink()


def part_name(target: Path) -> Path:
    """Return where the bytes of `target` are collected."""
    return target.with_name(f"{TEMPORARY_PREFIX}{target.name}")


def note_name(target: Path) -> Path:
    """Return where it is noted which object those bytes belong to."""
    return target.with_name(f"{TEMPORARY_PREFIX}{target.name}.json")


def disk_error(error: OSError, folder: Path) -> KaggleError:
    """Return what to do about a write that failed."""
    if error.errno in DISK_FULL:
        return KaggleError(
            f"no space left in {folder}: free some or choose a larger disk and run again;"
            " what is whole stays valid"
        )
    return KaggleError(
        f"cannot write in {folder} ({error.strerror or error}): choose a folder you may write to"
    )
