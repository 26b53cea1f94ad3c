"""The notebooks' first cell finds the project: on a laptop, in Colab, on Kaggle, with stand-ins."""

import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from helpers.notebook_rules import REPOSITORY, read_notebooks, text
from helpers.repository import ROOT

from lits_helpers.cases import find_cases

CELL = text(read_notebooks(ROOT / "notebooks")[0].cells[2])
SET = CELL.replace(REPOSITORY.search(CELL)[1], "somebody/lits")  # as scripts/set_repository.sh does
SAY_WHERE = "\nimport lits_helpers\nprint()\nprint(lits_helpers.__file__)\n"
AS_COLAB = f"""
import sys
sys.path.append({str(ROOT / "tests/helpers/colab_stand_in")!r})
from google.colab import drive
drive.answer = sys.argv[1]
"""
IDENTITY = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=0"]
OPENED = "fileId=https%3A//github.com/{}/blob/{}/notebooks/02_train_liver_gan.ipynb"
HOST = "127.77.0.1"  # this machine, under an address where nobody listens


@pytest.fixture
def github(tmp_path, monkeypatch):
    """A folder whose repositories git finds at https://github.com/."""
    if not shutil.which("git"):
        pytest.skip("no git on this machine")
    folder = tmp_path / "github"
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.file://{folder}/.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://github.com/")
    return folder


def publish(folder: Path, branch: str = "main", *, module: str = "lits_helpers") -> None:
    """Make a git repository that holds an empty module."""
    write_module(folder, module)
    arguments = (["init", "-b", branch], ["add", "."], [*IDENTITY, "commit", "--message", "one"])
    for command in arguments:
        subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True)


def write_module(folder: Path, name: str = "lits_helpers") -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text("")
    return folder


@pytest.fixture
def machine(tmp_path):
    folder = tmp_path / "machine" / "content"
    folder.mkdir(parents=True)
    return folder


def run_cell(cwd: Path, cell: str = SET, *, colab: str | None = None):
    """Run the cell in a fresh Python; `colab` is what the user answers where Drive asks."""
    return subprocess.run(
        [sys.executable, "-c", (AS_COLAB if colab else "") + cell + SAY_WHERE, str(colab)],
        cwd=cwd,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def found(done: subprocess.CompletedProcess) -> Path:
    """Return the folder in which the cell found the module."""
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1]).parent.parent


def sentence(done: subprocess.CompletedProcess) -> str:
    """Return what the cell says where it finds nothing."""
    assert done.returncode == 1
    assert "CalledProcessError" not in done.stderr
    return done.stderr.splitlines()[-1]


# --- a laptop ------------------------------------------------------------------------------------


def test_below_a_checkout_nothing_is_cloned(machine):
    write_module(machine.parent)
    assert found(run_cell(machine)) == machine.parent
    assert list(machine.iterdir()) == []


def test_on_an_empty_machine_the_module_is_cloned_once(machine, github):
    publish(github / "somebody/lits")
    assert found(run_cell(machine)) == machine / "lits"
    shutil.rmtree(github)
    assert found(run_cell(machine)) == machine / "lits"
    assert [path.name for path in machine.iterdir()] == ["lits"]


def test_without_an_address_one_sentence_says_what_to_set(machine, github):
    publish(github / "OWNER/REPO")  # somebody else's
    told = sentence(run_cell(machine, CELL.replace("somebody/lits", "OWNER/REPO")))
    assert told.startswith("FileNotFoundError: no lits_helpers here: set REPOSITORY in this cell")
    assert "MyDrive/lits" in told


@pytest.mark.parametrize("there", [None, "another_module"])
def test_a_wrong_address_says_so_and_leaves_the_next_run_a_chance(machine, github, there):
    if there:
        publish(github / "somebody/lits", module=there)
    done = run_cell(machine)
    assert "set REPOSITORY" in sentence(done)
    assert there or "somebody/lits" in done.stdout  # git's own words name the address
    publish(github / "somebody/right")
    assert found(run_cell(machine, SET.replace("somebody/lits", "somebody/right")))


# --- Colab ---------------------------------------------------------------------------------------


@pytest.fixture
def session(tmp_path, monkeypatch):
    """Colab's session at port 9000 of this machine's address: a function sets what it answers."""
    if not shutil.which("curl"):
        pytest.skip("no curl on this machine")
    answer = {"status": 200}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(answer["status"] if self.path == "/api/sessions" else 404)
            self.end_headers()
            self.wfile.write(answer["text"].encode())

        def log_message(self, *_):
            pass

    try:
        server = http.server.HTTPServer((HOST, 9000), Handler)
    except OSError as error:
        pytest.skip(f"port 9000 of {HOST} is not to be had: {error}")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "hostname").write_text(f"#!/bin/sh\necho {HOST}\n")
    (tmp_path / "bin" / "hostname").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield lambda text, status=200: answer.update(text=text, status=status)
    server.shutdown()
    server.server_close()


def sessions(path: str) -> str:
    return f'[{{"id": "1", "kernel": {{"name": "python3"}}, "name": "{path}", "path": "{path}"}}]'


def test_in_colab_the_repository_that_the_notebook_was_opened_from_is_cloned(
    machine, github, session
):
    publish(github / "reader/fork", branch="v2.0")
    publish(github / "somebody/lits")
    session(sessions(OPENED.format("reader/fork", "v2.0")))
    for cell in (SET, CELL):  # the address in the cell is of the project, or not known
        assert found(run_cell(machine, cell, colab="refused")) == machine / "lits"
        remote = ["git", "config", "remote.origin.url"]
        cloned = subprocess.run(remote, cwd=machine / "lits", capture_output=True, encoding="utf-8")
        assert cloned.stdout.strip() == "https://github.com/reader/fork"
        shutil.rmtree(machine / "lits")


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (sessions(OPENED.format("reader/private", "main")), 200),
        (sessions("fileId=1aBcD"), 200),  # opened from Drive
        ("[]", 200),
        ("\xff no JSON", 200),
        ("forbidden", 403),
    ],
)
def test_what_the_session_does_not_tell_the_address_in_the_cell_does(
    machine, github, session, answer, status
):
    publish(github / "somebody/lits")
    session(answer, status)
    assert found(run_cell(machine, colab="refused")) == machine / "lits"


def test_without_a_public_repository_the_project_is_taken_from_drive(machine, github, session):
    write_module(machine / "drive/MyDrive/lits")
    session(sessions("fileId=1aBcD"))
    assert found(run_cell(machine, CELL, colab="accepted")) == machine / "lits"


@pytest.mark.parametrize("answer", ["accepted", "refused", "timed out"])
def test_without_anything_in_colab_one_sentence_says_what_to_set(machine, github, session, answer):
    session("", 500)
    assert "set REPOSITORY" in sentence(run_cell(machine, CELL, colab=answer))


# --- Kaggle --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["lits", "datasets/somebody/lits", "lits/lits-main"])
def test_on_kaggle_the_project_is_taken_from_the_input(machine, github, place):
    write_module(machine.parent / "input" / place)
    assert found(run_cell(machine, CELL)) == machine / "lits"


def test_kaggles_input_is_read_in_place(machine):
    top = machine.parent / "input"
    names = ["liver-tumor-segmentation/volume_pt1/volume-3.nii"]
    names += ["liver-tumor-segmentation/segmentations/segmentation-3.nii"]
    names += ["liver-tumor-segmentation/segmentations/segmentation-60.nii"]
    names += ["liver-tumor-segmentation-part-2/volume_pt6/volume-60.nii"]
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)  # each its own
    for folder in [top, *top.rglob("*")]:
        folder.chmod(0o555)
    cases = find_cases(top)
    assert {case.id: case.volume.parent.name for case in cases} == {
        "3": "volume_pt1",
        "60": "volume_pt6",
    }
    assert all(case.segmentation for case in cases)
    assert sorted(str(p.relative_to(top)) for p in top.rglob("*.nii")) == sorted(names)
