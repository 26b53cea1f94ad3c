"""A fixture that lets a test run as in Google Colab, on the stand-in for its package."""

import importlib
import sys
from pathlib import Path

import pytest

from lits_helpers import environment

STAND_IN = Path(__file__).resolve().parent / "colab_stand_in"


def colab_modules() -> list[str]:
    return [name for name in sys.modules if name.startswith("google.colab")]


@pytest.fixture
def colab(monkeypatch, tmp_path):
    """Let this process look like a Colab kernel; return its stand-in for `google.colab`."""
    monkeypatch.syspath_prepend(STAND_IN)
    package = importlib.import_module("google.colab")
    for name in ("drive", "userdata"):
        importlib.import_module(f"google.colab.{name}")
    monkeypatch.setattr(environment, "DRIVE_ROOT", tmp_path / "drive")
    yield package
    for name in colab_modules():
        del sys.modules[name]
