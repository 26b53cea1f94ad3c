"""What happens in Google Colab, on a stand-in for its package; the first cell has its own file."""

import logging
import subprocess
import sys
import types

import pytest
from helpers.logs import logged
from helpers.repository import ROOT
from packaging.requirements import Requirement

from lits_helpers import environment
from lits_helpers.download import DownloadError, kaggle, transfer

pytest_plugins = ["helpers.colab_fixtures"]

# --- secrets -------------------------------------------------------------------------------------


@pytest.fixture
def no_kaggle_account(monkeypatch, tmp_path):
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_present_secret_is_returned(colab):
    colab.userdata.secrets["KAGGLE_KEY"] = "abc"
    assert environment.colab_secret("KAGGLE_KEY") == "abc"


@pytest.mark.parametrize("why", ["missing", "empty", "denied", "unanswered"])
def test_secret_that_cannot_be_had_is_none(colab, why):
    if why != "missing":
        colab.userdata.secrets["KAGGLE_KEY"] = "" if why == "empty" else "abc"
    if why in ("denied", "unanswered"):
        getattr(colab.userdata, why).add("KAGGLE_KEY")
    assert environment.colab_secret("KAGGLE_KEY") is None


def test_secret_never_reaches_the_log(colab, caplog):
    colab.userdata.secrets["KAGGLE_KEY"] = "abc123"
    colab.userdata.denied.add("KAGGLE_KEY")
    with caplog.at_level(logging.DEBUG):
        environment.colab_secret("KAGGLE_KEY")
    assert logged(caplog, "KAGGLE_KEY", "NotebookAccessError")
    assert "abc123" not in caplog.text


def test_kaggle_signs_in_with_colab_secrets(colab, no_kaggle_account):
    colab.userdata.secrets.update(KAGGLE_USERNAME="somebody", KAGGLE_KEY="abc")
    assert "Colab secrets" in kaggle.credentials().source


def test_denied_secrets_end_in_the_words_that_help(colab, no_kaggle_account):
    colab.userdata.secrets["KAGGLE_API_TOKEN"] = "abc"
    colab.userdata.denied.add("KAGGLE_API_TOKEN")
    with pytest.raises(DownloadError, match="Colab secret KAGGLE_API_TOKEN"):
        kaggle.credentials()


# --- the machine ---------------------------------------------------------------------------------


def test_without_a_gpu_the_report_says_what_to_click(colab):
    last = environment.report("cpu").splitlines()[-1]
    assert last == environment.GPU_HINT
    assert "Runtime > Change runtime type > T4 GPU" in last


def test_colab_is_known_by_its_package_alone(colab):
    assert environment.in_colab()


def test_stand_in_is_gone_after_its_tests():
    assert not environment.in_colab()


def test_ipykernel_loaded_outside_a_kernel_is_no_notebook(monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))  # as ipywidgets 7
    with transfer.Meter(10, "LiTS") as meter:
        meter.add(10)
    assert capfd.readouterr().err == ""


def lines(name: str) -> list[Requirement]:
    content = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(line.split("#")[0]) for line in content if line.split("#")[0].strip()]


def test_nothing_has_to_be_installed_in_colab():
    pinned = {
        pin.name: str(pin.specifier).removeprefix("==") for pin in lines("constraints-colab.txt")
    }
    for requirement in lines("requirements.txt"):
        assert requirement.name in pinned
        assert requirement.specifier.contains(pinned[requirement.name]), requirement


@pytest.mark.colab
def test_notebooks_run_in_the_versions_of_colab():
    done = subprocess.run([ROOT / "scripts" / "colab_environment.sh"], check=False)
    assert done.returncode == 0, "see the traceback above; the executed notebooks lie in runs/colab"
