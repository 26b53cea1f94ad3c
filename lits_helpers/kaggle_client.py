"""Kaggle's own client, signed in quietly: credentials, listings, one response per file."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import requests
import urllib3
from requests.adapters import HTTPAdapter

from .kaggle_errors import TOKEN_PAGE, KaggleError, Patience, explain, refused, retrying

PAGE_SIZE = 200  # the most that one listing answer holds
VARIABLES = (("KAGGLE_API_TOKEN",), ("KAGGLE_USERNAME", "KAGGLE_KEY"))


@dataclass(frozen=True)
class Credentials:
    """Where credentials were found. `variables` is empty where the client reads its own file.

    The values stay out of `repr`, and so out of logs and tracebacks.
    """

    source: str
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)


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
    for path in _client_files():
        if path.is_file():
            return Credentials(str(path))
    raise KaggleError(
        f"no Kaggle credentials: make a token at {TOKEN_PAGE} (API), put it into the environment"
        " variable or Colab secret KAGGLE_API_TOKEN (or KAGGLE_USERNAME and KAGGLE_KEY), or into"
        " the file ~/.kaggle/access_token (an older one: ~/.kaggle/kaggle.json), and run again"
    )


def _colab_secret(name: str) -> str | None:
    if "google.colab" not in sys.modules:
        return None
    from .environment import colab_secret  # imports torch, which a download elsewhere does not need

    return colab_secret(name)


def _client_files() -> list[Path]:
    home = Path(os.path.expanduser("~"))
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "kaggle"
    folder = os.environ.get("KAGGLE_CONFIG_DIR")
    places = [Path(folder)] if folder else [home / ".kaggle", config]
    names = ("access_token", "access_token.txt", "credentials.json")
    return [home / ".kaggle" / name for name in names] + [p / "kaggle.json" for p in places]


@dataclass(frozen=True)
class Listed:
    """One line of a listing: name inside the set (with folders), size in bytes (0 = unknown)."""

    name: str
    bytes: int


class KaggleClient:
    """Signed in on first use: nothing is imported or asked while every file is already there.

    Args:
        found: credentials; None looks for them when they are needed.
        patience: how long to try.
    """

    def __init__(self, found: Credentials | None = None, patience: Patience | None = None):
        self.patience = patience or Patience()
        self._found = found
        self._api = None
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
        from kagglesdk.datasets.types.dataset_api_service import ApiListDatasetFilesRequest

        request, token = ApiListDatasetFilesRequest(), ""
        request.owner_slug, request.dataset_slug = dataset.split("/")
        request.page_size = PAGE_SIZE
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
        from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest

        request = ApiDownloadDatasetRequest()
        request.owner_slug, request.dataset_slug = dataset.split("/")
        request.file_name = name
        with self._service(f"{name} of {dataset}", dataset, headers) as service:
            with service.download_dataset(request) as response:
                yield response

    @contextlib.contextmanager
    def _service(self, about: str, dataset: str, headers: Mapping[str, str] | None = None):
        if self._api is None:
            self._found = self._found or credentials()
        try:
            if self._api is None:
                self._api = _signed_in(self._found)
            with self._api.build_kaggle_client() as client:
                self._equip(client.http_client()._session, headers or {})
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

    def _equip(self, session: requests.Session, headers: Mapping[str, str]) -> None:
        """Add what the client lacks: time-outs, storage headers, our order of credentials."""
        wire = _Wire(self.patience.timeout_s, {"Accept-Encoding": "identity", **headers})
        session.mount("https://", wire)
        session.mount("http://", wire)
        if "KAGGLE_KEY" in self._found.variables:  # the client would prefer its token file
            session.auth = tuple(self._found.variables[name] for name in VARIABLES[1])


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


def _signed_in(found: Credentials):
    """Import the client and sign in."""
    stdin, sys.stdin = sys.stdin, io.StringIO()  # finding nothing it prints, exits, closes stdin
    try:
        with _environment(found.variables), _silence():
            from kaggle.api.kaggle_api_extended import KaggleApi

            api = KaggleApi()
            api.authenticate()
    except SystemExit:
        raise refused(found.source) from None
    except ImportError as error:
        raise KaggleError(
            f"the kaggle client does not import ({error}): pip install kaggle six"
        ) from error
    finally:
        sys.stdin = stdin
    # a verbose client prints its credentials
    api.args = [word for word in api.args if word not in ("-v", "--verbose")]
    return api


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    hidden = {name for names in VARIABLES for name in names} if variables else set()
    before = {name: os.environ.pop(name) for name in hidden if name in os.environ}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in hidden:
            os.environ.pop(name, None)
        os.environ.update(before)
