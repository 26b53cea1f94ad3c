"""What the tests of whole trainings share: small data, and one training that nothing disturbed."""

import contextlib

import pytest
import torch
from helpers.small_runs import SPLIT, draw_no_curves, small_liver, write_slices, write_volumes

from lits_helpers.training import train_liver_gan


@contextlib.contextmanager
def one_thread():
    """Results are the same bits only if the number of threads is."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch):
    """Only `calm`, made before this, draws its curve."""
    draw_no_curves(monkeypatch)


@pytest.fixture(scope="session")
def slices(tmp_path_factory):
    return write_slices(tmp_path_factory.mktemp("slices"))


@pytest.fixture(scope="session")
def volumes(tmp_path_factory):
    return write_volumes(tmp_path_factory.mktemp("volumes"))


@pytest.fixture(scope="session")
def calm(slices, tmp_path_factory):
    """A liver training that nothing disturbed: its run folder and history."""
    run = tmp_path_factory.mktemp("calm")
    with one_thread():
        return run, train_liver_gan(slices, run, SPLIT, small_liver(), device="cpu")
