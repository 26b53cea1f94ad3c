"""Kaggle through its own client: credentials, listings, one response per file."""

import codecs
import contextlib
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TypeVar

import requests
import urllib3
from requests.adapters import HTTPAdapter

logger = logging.getLogger(__name__)

TOKEN_PAGE = "https://www.kaggle.com/settings"
KEPT = "what is already here is kept"
T = TypeVar("T")
PAGE_SIZE = 200  # the most that one listing answer holds
VARIABLES = (("KAGGLE_API_TOKEN",), ("KAGGLE_USERNAME", "KAGGLE_KEY"))


class KaggleError(RuntimeError):
    """A download that cannot go on; says what to do, never a credential or a signed address."""


class FileUnavailable(KaggleError):
    """One file is not available; others may be."""


class PassingFailure(KaggleError):
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
        KaggleError: it failed `patience.tries` times in a row without gaining a byte, or for good.
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
                raise KaggleError("the download was stopped") from None


def explain(error: Exception, about: str, dataset: str, source: str) -> KaggleError:
    """Return one sentence that says what to do about a failed request.

    Args:
        error: from requests or urllib3; its text may hold a signed address and is not repeated.
        about: the file or listing that was asked for.
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
    status = _status(response)
    page = f"https://www.kaggle.com/datasets/{dataset}"
    answer = f"Kaggle answered {status} for {about}"
    if status == 401:
        return KaggleError(
            f"Kaggle refused the credentials from {source} (401): make a new token at"
            f" {TOKEN_PAGE} (API), put it there and run again"
        )
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


@dataclass(frozen=True)
class Credentials:
    """Kaggle credentials and where they were found.

    Attributes:
        source: a variable, a secret or a file.
        values: by the names in `VARIABLES`; empty for the file that `kaggle auth login` keeps. Not
            in `repr`, so that no log or traceback shows them.
    """

    source: str
    values: Mapping[str, str] = field(default_factory=dict, repr=False)


def credentials() -> Credentials:
    """Find Kaggle credentials: environment, then Colab's secrets, then the client's own files.

    Raises:
        KaggleError: there are none; the message says how to get some.
    """
    for place, look_up in (("environment", os.environ.get), ("Colab secrets", _colab_secret)):
        for names in VARIABLES:
            values = {name: (look_up(name) or "").strip() for name in names}
            if all(values.values()):
                return Credentials(f"{' and '.join(names)} ({place})", values)
    files = [path for path in _client_files() if path.is_file()]
    for path in files:
        values = _read(path)
        if values is not None:
            return Credentials(str(path), values)
    none_there = f" (there are none in {', '.join(map(str, files))})" if files else ""
    raise KaggleError(
        f"no Kaggle credentials{none_there}: make a token at {TOKEN_PAGE} (API), put it into the"
        " environment variable or Colab secret KAGGLE_API_TOKEN (or KAGGLE_USERNAME and"
        " KAGGLE_KEY), or into the file ~/.kaggle/access_token (an older one:"
        " ~/.kaggle/kaggle.json), and run again"
    )


def _colab_secret(name: str) -> str | None:
    if "google.colab" not in sys.modules:
        return None
    # here, because it imports torch, which a download elsewhere does not need
    from ..environment import colab_secret

    return colab_secret(name)


def _client_files() -> list[Path]:
    home = Path(os.path.expanduser("~"))
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "kaggle"
    folder = os.environ.get("KAGGLE_CONFIG_DIR")
    places = [Path(folder)] if folder else [home / ".kaggle", config]
    tokens = [home / ".kaggle" / name for name in ("access_token", "access_token.txt")]
    keys = [place / "kaggle.json" for place in places]
    return [*tokens, *keys, home / ".kaggle" / "credentials.json"]


def _text(path: Path) -> str:
    """Return a file's text, in UTF-8 or in the UTF-16 that Windows' shells write."""
    content = path.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if wide else "utf-8-sig")


def _read(path: Path) -> dict[str, str] | None:
    """Return the values in one of the client's files, None where it holds no credentials."""
    try:
        text = _text(path).strip()
        if path.suffix != ".json":
            return {"KAGGLE_API_TOKEN": text} if text else None
        content = json.loads(text)
        if path.name == "credentials.json":
            return {} if content["refresh_token"] else None
        return {"KAGGLE_USERNAME": content["username"], "KAGGLE_KEY": content["key"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True)
class Listed:
    """One line of a listing: name inside the set (with folders), size in bytes (0 = unknown)."""

    name: str
    size_bytes: int


class KaggleClient:
    """Kaggle, signed in on first use: a call that needs no file imports nothing and asks nothing.

    Args:
        found: credentials; None looks for them when they are needed.
        patience: how long to try.
    """

    def __init__(self, found: Credentials | None = None, patience: Patience | None = None):
        self.patience = patience or Patience()
        self._found = found
        self._token = ""
        self._listings: dict[str, tuple[Listed, ...]] = {}

    def files(self, dataset: str) -> tuple[Listed, ...]:
        """Return what a data set ("owner/name") holds; asked once per client.

        Raises:
            KaggleError: it cannot be listed.
        """
        if dataset not in self._listings:
            self._listings[dataset] = retrying(lambda: tuple(self._list(dataset)), self.patience)
        return self._listings[dataset]

    def _list(self, dataset: str) -> Iterator[Listed]:
        request = _sdk().datasets.types.dataset_api_service.ApiListDatasetFilesRequest()
        request.owner_slug, request.dataset_slug = dataset.split("/")
        request.page_size = PAGE_SIZE
        token = ""
        while token is not None:
            request.page_token = token
            with self._service(f"the listing of {dataset}", dataset) as service:
                answer = service.list_dataset_files(request)
            if answer.error_message:
                raise KaggleError(f"Kaggle does not list {dataset}: {answer.error_message}")
            for file in answer.dataset_files or []:
                yield Listed(file.name, int(file.total_bytes or 0))
            token = answer.next_page_token or None

    @contextlib.contextmanager
    def open(
        self, dataset: str, name: str, headers: Mapping[str, str] | None = None
    ) -> Iterator[requests.Response]:
        """Yield the streaming response for one file.

        Args:
            headers: sent to the storage server only (Range and If-Range).

        Raises:
            KaggleError: see `explain`.
        """
        request = _sdk().datasets.types.dataset_api_service.ApiDownloadDatasetRequest()
        request.owner_slug, request.dataset_slug = dataset.split("/")
        request.file_name = name
        with self._service(f"{name} of {dataset}", dataset, headers) as service:
            with service.download_dataset(request) as response:
                yield response

    @contextlib.contextmanager
    def _service(self, about: str, dataset: str, headers: Mapping[str, str] | None = None):
        self._found = self._found or credentials()
        try:
            self._token = self._token or self._access_token()
            with self._connected(self._token, headers or {}) as client:
                yield client.datasets.dataset_api_client
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise explain(error, about, dataset, self._found.source) from None
        except ValueError as error:  # its text holds the token
            if not isinstance(error, UnicodeEncodeError) and "header value" not in str(error):
                raise
            raise KaggleError(
                f"the Kaggle token from {self._found.source} holds characters that no token has: "
                f"make a new one at {TOKEN_PAGE} (API) and copy it whole"
            ) from None

    def _access_token(self) -> str:
        """Return the token that signs every request; "" if a user's key signs them instead.

        An old token of `kaggle auth login` is renewed in the file that holds it.
        """
        if not self._found.values:
            with self._connected("", {}) as client:
                return _sdk().KaggleCredentials.load(client).get_access_token()
        token = self._found.values.get("KAGGLE_API_TOKEN", "")
        # as in Kaggle's own tools this may be the path of a file that holds the token
        return _text(Path(token)).strip() if os.path.isfile(token) else token

    @contextlib.contextmanager
    def _connected(self, token: str, headers: Mapping[str, str]):
        """Yield Kaggle's client with time-outs, headers and the credentials found here added."""
        sdk = _sdk()
        # given a token, even an empty one, the client looks for no other
        with sdk.KaggleClient(env=sdk.KaggleEnv.PROD, api_token=token) as client:
            session = client.http_client()._session
            if not token:
                values = self._found.values
                key = tuple(values[name] for name in VARIABLES[1] if name in values)
                session.auth = key or None
            wire = _Wire(self.patience.timeout_s, {"Accept-Encoding": "identity", **headers})
            session.mount("https://", wire)
            session.mount("http://", wire)
            yield client


def _sdk():
    """Import Kaggle's own client, which a machine that downloads nothing need not have."""
    try:
        import kagglesdk.datasets.types.dataset_api_service
    except ImportError as error:
        raise KaggleError(
            f"the Kaggle client does not import ({error}): pip install kagglesdk"
        ) from error
    return kagglesdk


class _Wire(HTTPAdapter):
    def __init__(self, timeout_s: float, headers: Mapping[str, str]):
        super().__init__()
        self.timeout_s = timeout_s
        self.headers = headers

    def send(self, request, **options):
        options["timeout"] = self.timeout_s
        if request.method == "GET":
            request.headers.update(self.headers)
        return super().send(request, **options)
