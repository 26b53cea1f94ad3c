"""Kaggle through its own client: credentials, listings, one response per file."""

import base64
import codecs
import contextlib
import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import ClassVar

import requests
import urllib3
from requests.adapters import HTTPAdapter

from ..volumes import parse_name
from .source import (
    KEPT,
    Answer,
    DownloadError,
    FileUnavailable,
    PassingFailure,
    Patience,
    RemoteFile,
    connection_failure,
    passing_status,
    retrying,
)

logger = logging.getLogger(__name__)

TOKEN_PAGE = "https://www.kaggle.com/settings"
PAGE = "https://www.kaggle.com/datasets/{}"
FIRST_SET = "andrewmvd/liver-tumor-segmentation"  # all segmentations, volumes 0-50
SECOND_SET = "andrewmvd/liver-tumor-segmentation-part-2"  # volumes 51-130
FIRST_SET_VOLUMES = 51
PAGE_SIZE = 200  # the most that one listing answer holds
VARIABLES = (("KAGGLE_API_TOKEN",), ("KAGGLE_USERNAME", "KAGGLE_KEY"))


def explain(error: Exception, about: str, dataset: str, source: str) -> DownloadError:
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
        return connection_failure(error, "Kaggle", about)
    status = _status(response)
    page = PAGE.format(dataset)
    answer = f"Kaggle answered {status} for {about}"
    if status == 401:
        return DownloadError(
            f"Kaggle refused the credentials from {source} (401): make a new token at"
            f" {TOKEN_PAGE} (API), put it there and run again"
        )
    if status == 403:
        return DownloadError(
            f"{answer}: open {page} while signed in, accept its terms (Kaggle may ask to verify a"
            " phone number) and run again"
        )
    if status == 404:
        return FileUnavailable(f"{answer}: it is not there under this name, see {page}")
    if failure := passing_status(response, status, answer):
        return failure
    return DownloadError(f"{answer}: see {page}")


def _status(response: requests.Response) -> int:
    if response.status_code >= 400:
        return response.status_code
    try:
        return int(response.json()["code"])  # some errors come as 200 with the code inside
    except (KeyError, TypeError, ValueError):
        return response.status_code


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
        DownloadError: there are none; the message says how to get some.
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
    raise DownloadError(
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


class KaggleClient:
    """Kaggle, signed in on first use; a call that needs no file imports and asks nothing.

    Args:
        found: credentials; None looks for them when they are needed.
        patience: how long to try.
    """

    name = "Kaggle"
    credit = "LiTS (Bilic et al.), CC BY-NC-ND 4.0"
    form = "volume-N.nii and no segmentation-N.nii"
    prepared_share: ClassVar = {False: 0.25, True: 0.35}
    typical_bytes: ClassVar = {"volume": 300_000_000, "segmentation": 110_000_000}

    def __init__(self, found: Credentials | None = None, patience: Patience | None = None):
        self.patience = patience or Patience()
        self._found = found
        self._token = ""
        self._listings: dict[str, tuple[RemoteFile, ...]] = {}

    def key(self, path: PurePath) -> tuple[str, int] | None:
        """Return ("volume" or "segmentation", case number) of a file, None for others."""
        return parse_name(path.name)

    def case_id(self, number: int) -> str:
        """Return the id that a case has when its files are found in a folder."""
        return str(number)

    def page(self, place: str) -> str:
        """Return the address of the page about a data set."""
        return PAGE.format(place)

    def list_files(self, numbers: Iterable[int]) -> list[RemoteFile]:
        """Return the files of the data sets that hold these cases.

        Raises:
            DownloadError: a set cannot be listed.
        """
        second = any(number >= FIRST_SET_VOLUMES for number in numbers)
        sets = (FIRST_SET, SECOND_SET) if second else (FIRST_SET,)
        return [file for dataset in sets for file in self.files(dataset)]

    def files(self, dataset: str) -> tuple[RemoteFile, ...]:
        """Return what a data set ("owner/name") holds; asked once per client.

        Raises:
            DownloadError: it cannot be listed.
        """
        if dataset not in self._listings:
            self._listings[dataset] = retrying(lambda: tuple(self._list(dataset)), self.patience)
        return self._listings[dataset]

    def _list(self, dataset: str) -> Iterator[RemoteFile]:
        request = _sdk().datasets.types.dataset_api_service.ApiListDatasetFilesRequest()
        request.owner_slug, request.dataset_slug = dataset.split("/")
        request.page_size = PAGE_SIZE
        token = ""
        while token is not None:
            request.page_token = token
            with self._service(f"the listing of {dataset}", dataset) as service:
                answer = service.list_dataset_files(request)
            if answer.error_message:
                raise DownloadError(f"Kaggle does not list {dataset}: {answer.error_message}")
            for file in answer.dataset_files or []:
                yield RemoteFile(dataset, file.name, int(file.total_bytes or 0))
            token = answer.next_page_token or None

    @contextlib.contextmanager
    def open(self, file: RemoteFile, start: int, identity: str | None) -> Iterator[Answer]:
        """Ask for a file from byte `start` on; the answer may begin at 0 all the same.

        Raises:
            DownloadError: see `explain`.
        """
        headers = {}  # sent to the storage server only
        if start and identity:
            headers = {"Range": f"bytes={start}-", "If-Range": identity}
        request = _sdk().datasets.types.dataset_api_service.ApiDownloadDatasetRequest()
        request.owner_slug, request.dataset_slug = file.place.split("/")
        request.file_name = file.name
        with self._service(f"{file.name} of {file.place}", file.place, headers) as service:
            with service.download_dataset(request) as response:
                yield _answer(response)

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
            raise DownloadError(
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


def _answer(response: requests.Response) -> Answer:
    headers = response.headers
    start, size = 0, headers.get("Content-Length", "")
    if response.status_code == 206:
        span = re.fullmatch(r"bytes (\d+)-\d*/(\d+|\*)", headers.get("Content-Range", ""))
        start, size = (int(span[1]), span[2]) if span else (-1, "")
    return Answer(
        raw=response.raw,
        start=start,
        size_bytes=int(size) if size.isdigit() else None,
        identity=headers.get("ETag") or headers.get("Last-Modified"),
        md5=_announced_md5(response),
    )


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


def _sdk():
    """Import Kaggle's own client, which a machine that downloads nothing need not have."""
    try:
        import kagglesdk.datasets.types.dataset_api_service
    except ImportError as error:
        raise DownloadError(
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
