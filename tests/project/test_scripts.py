"""The shell scripts that set up a machine and name the repository, on copies with stand-ins."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.repository import ROOT

BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None, reason="no bash on this machine")

# A python that notes what is asked of it. What the machine has is told by files beside it:
# no_libgl, no_pip, has_cv2, fails.
PYTHON = """#!/bin/sh
here="$(cd "$(dirname "$0")" && pwd)"
case "$*" in
  "-m venv "*)
    mkdir -p "$3/bin"
    cp "$here"/* "$3/bin"
    echo "PATH='$3/bin:$PATH'" > "$3/bin/activate"
    echo "venv" >> "$LOG";;
  "-m pip --version"*) [ ! -e "$here/no_pip" ];;
  "-m ensurepip"*) rm "$here/no_pip"; echo "ensurepip" >> "$LOG";;
  "-m pip install"*) [ ! -e "$here/fails" ] || exit 1
    echo "install $*" >> "$LOG"
    while [ "$1" != -r ]; do shift; done
    cat "$2" >> "$LOG";;
  *"sys.prefix"*) dirname "$here";;
  *"import cv2"*) [ -e "$here/has_cv2" ];;
  *"libGL.so.1"*) [ ! -e "$here/no_libgl" ];;
esac
"""


class Machine:
    """A copy of the set-up scripts beside an environment whose python only takes notes."""

    def __init__(self, folder: Path):
        self.project = folder / "project"
        self.bin = folder / "environment" / "bin"
        self.log = folder / "log"
        (self.project / "scripts").mkdir(parents=True)
        self.bin.mkdir(parents=True)
        shutil.copy(ROOT / "scripts" / "environment.sh", self.project / "scripts")
        (self.project / "constraints-colab.txt").write_text("torch==2.11.0\n")
        (self.project / "requirements.txt").write_text(
            "torch>=2.9\nopencv-python>=4.10\nopencv-python-other>=1\nsix\n"
        )
        (self.project / "requirements-dev.txt").write_text("-r requirements.txt\npytest>=8\n")
        for name in ("python", "python3"):
            (self.bin / name).write_text(PYTHON)
            (self.bin / name).chmod(0o755)

    def has(self, *marks: str) -> None:
        for mark in marks:
            (self.bin / mark).touch()

    def set_up(self, file: str = "requirements.txt", *, active: bool = True):
        """Set up as nbconvert_ci.sh does; return the finished process."""
        environment = {"PATH": f"{self.bin}:{os.environ['PATH']}", "LOG": str(self.log)}
        if active:
            environment["VIRTUAL_ENV"] = str(self.bin.parent)
        commands = (
            "set -euo pipefail; . scripts/environment.sh; "
            f"activate_environment; install_requirements {file}; command -v python"
        )
        return subprocess.run(
            [BASH, "-c", commands],
            cwd=self.project,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    @property
    def notes(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_an_active_environment_is_used(machine):
    done = machine.set_up()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(machine.bin / "python")
    assert "venv" not in machine.notes
    assert not (machine.project / ".venv").exists()


def test_without_an_active_environment_one_is_made_once(machine):
    for _ in range(2):
        done = machine.set_up(active=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == str(machine.project / ".venv" / "bin" / "python")
    assert machine.notes.count("venv") == 1


def test_second_call_installs_nothing(machine):
    machine.set_up()
    before = machine.notes
    assert machine.set_up().returncode == 0
    assert machine.notes == before
    assert len([note for note in before if note.startswith("install")]) == 1


def test_changed_requirements_are_installed(machine):
    machine.set_up()
    (machine.project / "requirements.txt").write_text("torch>=2.10\n")
    machine.set_up()
    assert "torch>=2.10" in machine.notes


def test_without_libgl_the_headless_wheel_is_taken(machine):
    machine.has("no_libgl")
    done = machine.set_up()
    assert "No libGL" in done.stderr
    assert machine.notes[1:] == [
        "torch>=2.9",
        "opencv-python-headless>=4.10",
        "opencv-python-other>=1",
        "six",
    ]


def test_with_libgl_opencv_stays_as_listed(machine):
    machine.set_up()
    assert "opencv-python>=4.10" in machine.notes


def test_an_opencv_that_imports_is_left_alone(machine):
    machine.has("has_cv2", "no_libgl")
    machine.set_up()
    assert [note for note in machine.notes if note.startswith("opencv")] == [
        "opencv-python-other>=1"
    ]


def test_development_requirements_bring_those_of_the_suite(machine):
    machine.has("no_libgl")
    machine.set_up("requirements-dev.txt")
    assert {"torch>=2.9", "opencv-python-headless>=4.10", "pytest>=8"} <= set(machine.notes)
    assert not any(note.startswith("-r") for note in machine.notes)


def test_options_reach_pip(machine):
    machine.set_up("requirements.txt -c constraints-colab.txt")
    assert machine.notes[0].endswith("-c constraints-colab.txt")


def test_a_failed_installation_fails_and_is_tried_again(machine):
    machine.has("fails")
    assert machine.set_up().returncode != 0
    (machine.bin / "fails").unlink()
    assert machine.set_up().returncode == 0
    assert machine.notes


def test_an_environment_without_pip_gets_it(machine):
    machine.has("no_pip")
    assert machine.set_up().returncode == 0
    assert machine.notes[0] == "ensurepip"


def test_too_old_a_python_is_named(machine):
    (machine.bin / "python").write_text("#!/bin/sh\n[ $1 = -V ] && echo Python 3.9.2\nexit 1\n")
    done = machine.set_up()
    assert done.returncode != 0
    assert "Python 3.9.2; Python >= 3.11 is needed" in done.stderr


# --- Colab's versions ----------------------------------------------------------------------------


def test_without_python_313_the_colab_run_is_skipped_with_the_reason(tmp_path):
    for name in ("dirname", "bash"):
        (tmp_path / name).symlink_to(shutil.which(name))
    done = subprocess.run(
        [BASH, str(ROOT / "scripts" / "colab_environment.sh"), str(tmp_path / "environment")],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Skipped" in done.stdout
    assert "Python 3.13" in done.stdout
    assert not (tmp_path / "environment").exists()


# --- the repository's address --------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path):
    """Copy what carries the placeholder, and what must stay as it is."""
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT / "notebooks", copy / "notebooks")
    (copy / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "set_repository.sh", copy / "scripts")
    for notebook in (copy / "notebooks").glob("*.ipynb"):  # also where the address is set already
        source = notebook.read_text(encoding="utf-8")
        address = re.search(r"com/github/([^/]+/[^/]+)/blob", source)[1]
        notebook.write_text(source.replace(address, "OWNER/REPO"), encoding="utf-8")
    (copy / "README.md").write_text("See https://github.com/OWNER/REPO.\n\nNo newline at the end")
    (copy / "picture.png").write_bytes(b"\x89PNG\x00OWNER/REPO")
    (copy / ".git").mkdir()
    (copy / ".git" / "config").write_text("OWNER/REPO")
    return copy


def set_repository(checkout, *arguments):
    return subprocess.run(
        [BASH, str(checkout / "scripts" / "set_repository.sh"), *arguments],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def test_address_is_set_everywhere(checkout):
    before = {path: path.read_text(encoding="utf-8") for path in checkout.rglob("*.ipynb")}
    done = set_repository(checkout, "some-body/lits.suite")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(before) + 1
    for path, content in before.items():
        assert content.count("OWNER/REPO") >= 2
        assert path.read_text("utf-8") == content.replace("OWNER/REPO", "some-body/lits.suite")
    assert (checkout / "README.md").read_text() == (
        "See https://github.com/some-body/lits.suite.\n\nNo newline at the end"
    )


def test_only_text_of_the_project_is_touched(checkout):
    script = (checkout / "scripts" / "set_repository.sh").read_bytes()
    set_repository(checkout, "somebody/lits")
    assert (checkout / "scripts" / "set_repository.sh").read_bytes() == script
    assert (checkout / "picture.png").read_bytes() == b"\x89PNG\x00OWNER/REPO"
    assert (checkout / ".git" / "config").read_text() == "OWNER/REPO"


@pytest.mark.parametrize(
    "wrong", ["", "lits", "https://github.com/a/b", "a/b/c", "a b/c", "OWNER/REPO", "a/b|e"]
)
def test_what_is_no_repository_is_refused(checkout, wrong):
    done = set_repository(checkout, wrong)
    assert done.returncode == 2
    assert f"got '{wrong}'" in done.stderr
    assert "OWNER/REPO" in (checkout / "README.md").read_text()


def test_a_second_setting_says_that_there_was_a_first(checkout):
    set_repository(checkout, "somebody/lits")
    done = set_repository(checkout, "somebody/else")
    assert done.returncode == 1
    assert "set before" in done.stderr
