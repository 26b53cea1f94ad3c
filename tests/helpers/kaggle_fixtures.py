"""Fixtures of the download tests: a stand-in Kaggle, a client without patience, a raw folder."""

import os

import pytest

from helpers.kaggle_stand_in import PATIENCE, TOKEN, StandIn, lits_sets, point_client_at, serving
from lits_helpers.download import KaggleClient


@pytest.fixture
def signed_in(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("KAGGLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)


@pytest.fixture
def kaggle(signed_in):
    with serving(StandIn(lits_sets((3, 60)))) as stand_in:
        point_client_at(stand_in.url)
        yield stand_in


@pytest.fixture
def client(signed_in):
    return KaggleClient(patience=PATIENCE)


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw"
