"""Settings, prepared cases and models of tests of the steps."""

import pytest
from helpers.prepared_runs import VARIABLES, write_checkpoint, write_prepared
from helpers.small_runs import draw_no_curves

from lits_helpers.pipeline import acquisition
from lits_helpers.settings import load_settings


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch):
    draw_no_curves(monkeypatch)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Settings of a full run on phantoms that are small."""
    for tiny in (True, False):
        monkeypatch.setitem(acquisition.PHANTOMS, tiny, (3, (12, 40, 48)))
    return load_settings(tmp_path, device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four cases; the last has no tumor."""
    return write_prepared(tmp_path_factory.mktemp("drawn"), cases=4, without_tumor={3})


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {s: write_checkpoint(folder / f"{s}.pth", s) for s in ("liver", "tumor")}
