"""What every source of LiTS cases shares: its interface, its failures, and how long to try."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import PurePath
from typing import Protocol, TypeVar

import requests
import urllib3

logger = logging.getLogger(__name__)

KEPT = "what is already here is kept"
T = TypeVar("T")


class DownloadError(RuntimeError):
    """A download that cannot go on; says what to do, never a credential or a signed address."""


class FileUnavailable(DownloadError):
    """One file is not available; others may be."""


class PassingFailure(DownloadError):
    """A failure that may pass by waiting.

    Attributes:
        what: the failure without its cure, for the log while another attempt is made.
        wait_s: seconds the server asked to wait, or None.
        gained: bytes received beyond what any earlier attempt reached.
        restart: the next attempt must not use the bytes that are on the disk.
    """

    def __init__(
        self,
        what: str,
        cure: str,
        *,
        wait_s: float | None = None,
        gained: int = 0,
        restart: bool = False,
    ):
        super().__init__(f"{what}: {cure}")
        self.what = what
        self.wait_s = wait_s
        self.gained = gained
        self.restart = restart


@dataclass(frozen=True)
class Patience:
    """How long to try. Waits double from `first_wait_s`; attempts that gained bytes do not count.

    Attributes:
        tries: failures in a row before giving up.
        first_wait_s, longest_wait_s: seconds between attempts.
        timeout_s: seconds without a single byte that count as a cut connection.
    """

    tries: int = 8
    first_wait_s: float = 1.0
    longest_wait_s: float = 120.0
    timeout_s: float = 60.0

    def wait_s(self, failures: int, asked_s: float | None = None) -> float:
        """Return the seconds before the next try: what the server asked, or the doubled wait."""
        doubled_s = self.first_wait_s * 2 ** min(failures, 20)
        return min(max(doubled_s, asked_s or 0.0), self.longest_wait_s)


def retrying(action: Callable[[], T], patience: Patience, stop: threading.Event | None = None) -> T:
    """Return `action()`, repeated with back-off while it fails in a way that may pass.

    Args:
        stop: ends the waiting when set.

    Raises:
        DownloadError: it failed `patience.tries` times without gaining a byte, or for good.
    """
    stop = stop or threading.Event()
    failures = 0
    while True:
        try:
            return action()
        except PassingFailure as error:
            failures = 0 if error.gained else failures + 1
            if failures >= patience.tries:
                raise
            wait_s = patience.wait_s(failures, error.wait_s)
            logger.info("%s: trying again in %.0f s", error.what, wait_s)
            if stop.wait(wait_s):
                raise DownloadError("the download was stopped") from None


def asked_wait(response: requests.Response) -> float | None:
    """Return the seconds in Retry-After, which holds a number or a date.

    Source: RFC 9110, 10.2.3.
    """
    text = response.headers.get("Retry-After")
    if not text:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(text))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    return None


def connection_failure(error: Exception, host: str, about: str) -> PassingFailure:
    """Return what to say where no answer came.

    Args:
        error: its text may hold a signed address and is not repeated.
        host: who was asked.
        about: what was asked for.
    """
    what = f"no connection to {host} for {about} ({type(error).__name__})"
    return PassingFailure(what, f"check the network and run again; {KEPT}")


def passing_status(response: requests.Response, status: int, answer: str) -> PassingFailure | None:
    """Return the failure of an error status that may pass by waiting, None for another status.

    Args:
        answer: how the sentence begins: who answered what.
    """
    wait_s = asked_wait(response)
    if status == 429:
        cure = f"too many requests, wait some minutes and run again; {KEPT}"
        return PassingFailure(answer, cure, wait_s=wait_s)
    if status in (408, 416) or status >= 500:
        cure = f"its server failed, run again later; {KEPT}"
        return PassingFailure(answer, cure, wait_s=wait_s, restart=status == 416)
    return None


@dataclass(frozen=True)
class RemoteFile:
    """A file that a source lists.

    Attributes:
        place: the data set or archive that holds it.
        name: within that place, with folders.
        size_bytes: 0 where unknown.
    """

    place: str
    name: str
    size_bytes: int


@dataclass(frozen=True)
class Answer:
    """A response whose body is a file, or the rest of one.

    Attributes:
        raw: the body.
        start: where in the file the body begins, bytes.
        size_bytes: of the whole file, None where unknown.
        identity: differs between two objects of one name; None where the server tells none.
        md5: of the whole file in hex, where the server announces one.
    """

    raw: urllib3.HTTPResponse
    start: int
    size_bytes: int | None
    identity: str | None
    md5: str | None = None


class Source(Protocol):
    """Where LiTS cases come from.

    Attributes:
        name: for messages.
        credit: whose data it is, and its licence.
        form: how its files are named, for messages.
        patience: how long to try.
        prepared_share: size of prepared cases by the size of what is fetched; True: with PNG.
        typical_bytes: by kind, where a listing has no size.
    """

    name: str
    credit: str
    form: str
    patience: Patience
    prepared_share: dict[bool, float]
    typical_bytes: dict[str, int]

    def key(self, path: PurePath) -> tuple[str, int] | None:
        """Return ("volume" or "segmentation", case number) of a file, None for others."""

    def case_id(self, number: int) -> str:
        """Return the id that a case has when its files are found in a folder."""

    def list_files(self, numbers: Iterable[int]) -> list[RemoteFile]:
        """Return at least the files of these cases, others and files of no case among them."""

    def open(
        self, file: RemoteFile, start: int, identity: str | None
    ) -> contextlib.AbstractContextManager[Answer]:
        """Ask for a file from byte `start` on; the answer may begin at 0 all the same.

        Args:
            identity: of the object whose first bytes are here.

        Raises:
            DownloadError: there is no answer; a `PassingFailure` where it may come later.
        """

    def page(self, place: str) -> str:
        """Return the address of the page about a data set or archive."""
