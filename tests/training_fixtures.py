"""Fixtures of the tests of whole trainings: small data, written once a module."""

import pytest
from small_runs import write_slices, write_volumes


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    return write_slices(tmp_path_factory.mktemp("slices"))


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    return write_volumes(tmp_path_factory.mktemp("volumes"))
