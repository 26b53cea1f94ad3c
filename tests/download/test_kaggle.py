"""Signing in, and what is said where Kaggle refuses."""

import json
import logging
import os
import time
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from helpers.kaggle_stand_in import (
    FIRST,
    KEY,
    PATIENCE,
    REFRESH,
    SIGNATURE,
    TOKEN,
    USER,
    VOLUME,
    Fault,
    fetch_one,
    nifti,
    point_client_at,
)

from lits_helpers.download import DownloadError, KaggleClient
from lits_helpers.download.kaggle import credentials
from lits_helpers.download.source import Patience

pytest_plugins = ["helpers.kaggle_fixtures", "helpers.colab_fixtures"]

pytestmark = pytest.mark.usefixtures("signed_in")


def test_credentials_come_from_environment_then_colab_then_files(colab, monkeypatch, tmp_path):
    colab.userdata.secrets |= {"KAGGLE_USERNAME": USER, "KAGGLE_KEY": KEY}
    file = tmp_path / "home" / ".kaggle" / "access_token"
    file.parent.mkdir(parents=True)
    file.write_text("from-the-file")
    assert credentials().source == "KAGGLE_API_TOKEN (environment)"
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    assert credentials().source == "KAGGLE_USERNAME and KAGGLE_KEY (Colab secrets)"
    colab.userdata.secrets.clear()
    assert credentials().source == str(file)
    file.unlink()
    with pytest.raises(DownloadError, match="KAGGLE_API_TOKEN"):
        credentials()


def test_credentials_do_not_show_their_values():
    assert TOKEN not in repr(credentials())
    assert TOKEN not in repr(KaggleClient(credentials()))


def client_file(name: str, content) -> Path:
    """Write one of the files in which Kaggle's client keeps credentials, and no variable."""
    file = Path(os.environ["HOME"], ".kaggle", name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    os.environ.pop("KAGGLE_API_TOKEN", None)  # which the fixture `signed_in` puts back
    return file


def kept_sign_in(access_token: str, days: int, refresh_token: str = REFRESH) -> dict:
    """Return what `kaggle auth login` keeps, its access token valid for so many days."""
    until = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    return {
        "refresh_token": refresh_token,
        "access_token": access_token,
        "access_token_expiration": until,
        "username": USER,
    }


def test_environment_key_wins_over_the_clients_token_file(monkeypatch, kaggle, client, raw):
    client_file("access_token", "an-outdated-token")
    monkeypatch.setenv("KAGGLE_USERNAME", USER)
    monkeypatch.setenv("KAGGLE_KEY", KEY)
    assert fetch_one(3, raw, client=client)[0].read_bytes() == nifti(3)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("access_token", TOKEN),
        ("access_token.txt", f"{TOKEN}\n"),
        ("kaggle.json", {"username": USER, "key": KEY}),
        ("credentials.json", kept_sign_in(TOKEN, days=1)),
        ("credentials.json", kept_sign_in("an-outdated-token", days=-1)),
    ],
)
def test_files_of_the_client_sign_in(kaggle, client, raw, capfd, name, content):
    client_file(name, content)
    assert fetch_one(3, raw, client=client)[0].read_bytes() == nifti(3)
    assert "".join(capfd.readouterr()) == ""


def test_renewed_token_of_a_kept_sign_in_is_kept_too(kaggle, client, raw):
    file = client_file("credentials.json", kept_sign_in("an-outdated-token", days=-1))
    fetch_one(3, raw, client=client)
    assert json.loads(file.read_text())["access_token"] == TOKEN


def test_revoked_sign_in_says_how_to_make_a_new_one(kaggle, client, raw):
    file = client_file("credentials.json", kept_sign_in("", days=-1, refresh_token="revoked"))
    with pytest.raises(DownloadError, match=r"credentials\.json \(401\): make a new token"):
        fetch_one(3, raw, client=client)
    assert file.exists()


def test_variable_may_name_a_file_that_holds_the_token(monkeypatch, kaggle, client, raw, tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("KAGGLE_API_TOKEN", str(tmp_path / "token"))
    assert fetch_one(3, raw, client=client)[0].read_bytes() == nifti(3)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_key_file_of_windows_is_read(kaggle, client, raw, encoding):
    file = client_file("kaggle.json", "")
    mark = b"\xff\xfe" if encoding == "utf-16-le" else b""
    file.write_bytes(mark + json.dumps({"username": USER, "key": KEY}).encode(encoding))
    assert fetch_one(3, raw, client=client)[0].read_bytes() == nifti(3)


@pytest.mark.parametrize("content", [b"[1, 2]", b'{"token": "x"}', b"\xff\xfe\x00"])
def test_key_file_that_holds_something_else_is_named(kaggle, client, raw, content):
    file = client_file("kaggle.json", "")
    file.write_bytes(content)
    with pytest.raises(DownloadError, match=rf"none in {file}\): make a token"):
        fetch_one(3, raw, client=client)


def test_unusable_file_of_the_client_is_named(kaggle, client, raw):
    file = client_file("kaggle.json", '{"username": ')
    with pytest.raises(DownloadError, match=rf"none in {file}\): make a token"):
        fetch_one(3, raw, client=client)


def test_sign_in_waits_for_a_server_that_fails(kaggle, client, raw):
    client_file("credentials.json", kept_sign_in("", days=-1))
    kaggle.api_faults["GenerateAccessToken"] = [Fault(status=500), Fault(body=b"<html>")]
    assert fetch_one(3, raw, client=client)[0].read_bytes() == nifti(3)


def test_rejected_token_says_how_to_make_a_new_one(monkeypatch, kaggle, client, raw):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_expired")
    with pytest.raises(DownloadError, match=r"KAGGLE_API_TOKEN.*make a new token"):
        fetch_one(3, raw, client=client)


@pytest.mark.parametrize("spoilt", [f"{TOKEN}\n", f"  {TOKEN} "])
def test_blanks_around_a_token_do_no_harm(monkeypatch, kaggle, client, raw, spoilt):
    monkeypatch.setenv("KAGGLE_API_TOKEN", spoilt)
    assert fetch_one(3, raw, client=client)[0].read_bytes() == nifti(3)


@pytest.mark.parametrize("end", ["\nmore", "\u2026"])  # a second line; copied as a page shortens it
def test_token_that_cannot_be_sent_is_not_shown(monkeypatch, kaggle, client, raw, end):
    monkeypatch.setenv("KAGGLE_API_TOKEN", f"{TOKEN}{end}")
    with pytest.raises(DownloadError, match="holds characters that no token has") as refused:
        fetch_one(3, raw, client=client)
    assert TOKEN not in "".join(traceback.format_exception(refused.value))


def test_storage_server_never_gets_the_token(kaggle, client, raw):
    fetch_one(3, raw, client=client)
    assert kaggle.storage_headers
    assert not any("Authorization" in headers for headers in kaggle.storage_headers)


@pytest.mark.parametrize(
    ("status", "words", "attempts"),
    [
        (401, "make a new token at https://www.kaggle.com/settings", 1),
        (403, f"open https://www.kaggle.com/datasets/{FIRST} while signed in, accept its terms", 1),
        (404, "it is not there under this name", 1),
        (418, f"see https://www.kaggle.com/datasets/{FIRST}", 1),
        (429, "too many requests, wait some minutes and run again", PATIENCE.tries),
        (500, "its server failed, run again later", PATIENCE.tries),
    ],
)
@pytest.mark.parametrize("place", ["listing", "download", "storage", "hidden"])
def test_refusal_says_what_to_do(
    kaggle, client, raw, caplog, capfd, status, words, attempts, place
):
    caplog.set_level(logging.DEBUG, "lits_helpers")
    faults = [Fault(status=status, hidden=place == "hidden") for _ in range(attempts)]
    service = "ListDatasetFiles" if place == "listing" else "DownloadDataset"
    if place == "storage":
        kaggle.storage_faults[VOLUME] = faults
    else:
        kaggle.api_faults[service] = faults
    with pytest.raises(DownloadError) as caught:
        fetch_one(3, raw, client=client)
    assert words in str(caught.value)
    assert not any(kaggle.api_faults.values())
    assert not any(kaggle.storage_faults.values())
    told = "".join([*traceback.format_exception(caught.value), caplog.text, *capfd.readouterr()])
    assert not any(secret in told for secret in (TOKEN, SIGNATURE))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_refusal_is_waited_out(kaggle, client, raw, status):
    kaggle.api_faults["DownloadDataset"] = [Fault(status=status), Fault(status=status)]
    assert fetch_one(3, raw, client=client)[0].read_bytes() == nifti(3)


def test_waits_double_and_heed_the_server_within_bounds():
    patience = Patience(first_wait_s=1.0, longest_wait_s=20.0)
    assert [patience.wait_s(n) for n in range(6)] == [1, 2, 4, 8, 16, 20]
    assert patience.wait_s(0, asked_s=7.0) == 7.0
    assert patience.wait_s(0, asked_s=3600.0) == 20.0


def test_retry_after_is_heeded(kaggle, raw):
    kaggle.api_faults["DownloadDataset"] = [Fault(status=429, retry_after=0.3)]
    client = KaggleClient(patience=Patience(3, 0.0, 1.0, 5.0))
    begun = time.monotonic()
    fetch_one(3, raw, client=client)
    assert time.monotonic() - begun >= 0.3


def test_no_network_says_so_without_the_address(client, raw):
    point_client_at("http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(DownloadError, match=r"no connection to Kaggle.*check the network"):
        fetch_one(3, raw, client=client)
