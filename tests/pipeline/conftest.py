"""Prepared cases and models of tests of the results."""

import pytest
from helpers.prepared_runs import write_checkpoint, write_prepared


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four cases; the last has no tumor."""
    return write_prepared(tmp_path_factory.mktemp("drawn"), cases=4, without_tumor={3})


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {s: write_checkpoint(folder / f"{s}.pth", s) for s in ("liver", "tumor")}
