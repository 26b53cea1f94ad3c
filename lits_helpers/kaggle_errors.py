"""What can go wrong between here and Kaggle, in one sentence each, and how long to try again."""

import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import requests

logger = logging.getLogger(__name__)

TOKEN_PAGE = "https://www.kaggle.com/settings"
KEPT = "what is already here is kept"
T = TypeVar("T")


class KaggleError(RuntimeError):
    """A download that cannot go on; says what to do, never a credential or a signed address."""


class FileUnavailable(KaggleError):
    """One file cannot be had; the others may."""


class PassingFailure(KaggleError):
    """A failure that may pass by waiting.

    Attributes:
        what: the failure without its cure, for the log while another attempt is made.
        wait_s: seconds the server asked to wait, or None.
        gained: bytes received before it happened, beyond any earlier attempt.
        restart: what is on the disk is no use to the next attempt.
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
        return min(
            max(self.first_wait_s * 2 ** min(failures, 20), asked_s or 0.0), self.longest_wait_s
        )


def retrying(action: Callable[[], T], patience: Patience, stop: threading.Event | None = None) -> T:
    """Return `action()`, repeated with back-off while it fails in a way that may pass.

    Args:
        stop: ends the waiting when set.

    Raises:
        KaggleError: it failed `patience.tries` times in a row without gaining a byte, or for good.
    """
    stop, failures = stop or threading.Event(), 0
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
                raise KaggleError("the download was stopped") from None


def explain(error: Exception, about: str, dataset: str, source: str) -> KaggleError:
    """Return one sentence that says what to do about a failed request.

    Args:
        error: what requests or urllib3 raised; its words may hold a signed address: not repeated.
        about: what was asked for.
        dataset: "owner/name".
        source: where the credentials came from.
    """
    if isinstance(error, requests.exceptions.JSONDecodeError):
        what = f"Kaggle's answer about {about} is unreadable"
        return PassingFailure(what, f"a proxy or sign-in page may be in between, run again; {KEPT}")
    response = getattr(error, "response", None)
    if response is None:
        what = f"no connection to Kaggle for {about} ({type(error).__name__})"
        return PassingFailure(what, f"check the network and run again; {KEPT}")
    status, page = _status(response), f"https://www.kaggle.com/datasets/{dataset}"
    answer = f"Kaggle answered {status} for {about}"
    if status == 401:
        return refused(source)
    if status == 403:
        return KaggleError(
            f"{answer}: open {page} while signed in, accept its terms (Kaggle may ask to verify a"
            " phone number) and run again"
        )
    if status == 404:
        return FileUnavailable(f"{answer}: it is not there under this name, see {page}")
    wait_s = _asked_wait(response)
    if status == 429:
        cure = f"too many requests, wait some minutes and run again; {KEPT}"
        return PassingFailure(answer, cure, wait_s=wait_s)
    if status in (408, 416) or status >= 500:
        cure = f"its server failed, run again later; {KEPT}"
        return PassingFailure(answer, cure, wait_s=wait_s, restart=status == 416)
    return KaggleError(f"{answer}: see {page}")


def refused(source: str) -> KaggleError:
    """Return what to do about credentials from `source` that Kaggle does not take."""
    return KaggleError(
        f"Kaggle refused the credentials from {source} (401): make a new token at"
        f" {TOKEN_PAGE} (API), put it there and run again"
    )


def _status(response: requests.Response) -> int:
    if response.status_code >= 400:
        return response.status_code
    try:
        return int(response.json()["code"])  # some errors come as 200 with the code inside
    except (KeyError, TypeError, ValueError):
        return response.status_code


def _asked_wait(response: requests.Response) -> float | None:
    """Seconds in Retry-After, which holds a number or a date (Source: RFC 9110, 10.2.3)."""
    text = response.headers.get("Retry-After")
    if not text:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(text))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    return None
