"""What happens in Google Colab, on a stand-in for its package and for the published repository."""

import logging
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from helpers.logs import logged
from helpers.notebook_rules import REPOSITORY, read_notebooks, text
from helpers.repository import ROOT
from packaging.requirements import Requirement

from lits_helpers import environment
from lits_helpers.download import DownloadError, kaggle, transfer

pytest_plugins = ["helpers.colab_fixtures"]

BOOTSTRAP = text(read_notebooks(ROOT / "notebooks")[0].cells[2])
ADDRESS = f"https://github.com/{REPOSITORY.search(BOOTSTRAP)[1]}"
SAY_WHERE = "\nimport lits_helpers\nprint(lits_helpers.__file__)\n"


# --- the bootstrap cell --------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path):
    """Make a git repository that stands in for the published one."""
    if not shutil.which("git"):
        pytest.skip("no git on this machine")
    folder = tmp_path / "published"
    (folder / "lits_helpers").mkdir(parents=True)
    (folder / "lits_helpers" / "__init__.py").write_text("")
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=0"]
    for arguments in (["init"], ["add", "."], [*identity, "commit", "--message", "one"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def machine(tmp_path):
    folder = tmp_path / "content"
    folder.mkdir()
    return folder


def run_bootstrap(cwd: Path, published: Path) -> subprocess.CompletedProcess:
    """Run the cell as it stands, in a fresh Python, git finding `published` at its address."""
    redirect = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{published}.insteadOf",
        "GIT_CONFIG_VALUE_0": ADDRESS,
        "GIT_TERMINAL_PROMPT": "0",
    }
    return subprocess.run(
        [sys.executable, "-c", BOOTSTRAP + SAY_WHERE],
        cwd=cwd,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | redirect,
        capture_output=True,
        text=True,
        check=False,
    )


def test_on_an_empty_machine_the_module_is_cloned(machine, published):
    done = run_bootstrap(machine, published)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == machine / "lits" / "lits_helpers" / "__init__.py"


def test_second_run_downloads_nothing(machine, published):
    run_bootstrap(machine, published)
    shutil.rmtree(published)
    done = run_bootstrap(machine, published)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == machine / "lits" / "lits_helpers" / "__init__.py"
    assert [path.name for path in machine.iterdir()] == ["lits"]


def test_below_a_checkout_nothing_is_cloned(machine, published):
    notebooks = published / "notebooks"
    notebooks.mkdir()
    done = run_bootstrap(notebooks, machine / "nowhere")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == published / "lits_helpers" / "__init__.py"
    assert list(notebooks.iterdir()) == []


def test_a_failed_clone_fails_and_leaves_the_next_run_a_chance(machine, published):
    done = run_bootstrap(machine, machine / "nowhere")
    assert done.returncode != 0
    assert "nowhere" in done.stderr  # git's own words name the address
    assert run_bootstrap(machine, published).returncode == 0


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
