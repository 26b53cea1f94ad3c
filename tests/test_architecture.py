"""The house as docs/architecture.md draws it: rooms, faces, who imports whom, what needs no torch.

A half-moved import must fail here, not at a user's.
"""

import ast
import os
import subprocess
import sys
import zipfile
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

import lits_helpers

PACKAGE = Path(lits_helpers.__file__).parent
REPOSITORY = PACKAGE.parent
TESTS = REPOSITORY / "tests"
FOREIGN = {  # private names that tests may use
    "_ipython_display_", "_repr_html_", "_repr_png_",  # IPython's protocol
    "_env_to_endpoint", "_is_view",  # of kagglesdk and torch, which have no public ones
}  # fmt: skip
COLUMNS = [  # a room imports rooms of later lines only
    {"__main__"},
    {"pipeline", "options"},
    {"training", "inference"},
    {"report", "export"},
    {"checkpoints", "datasets"},
    {"viewer", "preprocess"},
    {"figures", "download", "cases"},
    {"models", "metrics", "phantom", "volumes", "environment"},
    {"losses", "recipes", "settings", "machine"},
]
COLUMN_OF = {room: place for place, column in enumerate(COLUMNS) for room in column}
WITHOUT_TORCH = (
    "options settings recipes machine volumes cases download preprocess metrics figures viewer "
    "phantom report environment"
).split()
NO_TORCH = "assert not {'torch', 'torchvision'} & set(sys.modules)"
LAZY_FACE = """import lazy_loader
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)"""
MOST_FILES, MOST_LINES = 10, 450
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file())


def module_of(path: Path) -> tuple[str, ...]:
    """Return a file's place in the package: () for its face, ("volumes", "io")."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


@cache
def imports_of(path: Path) -> list[tuple[tuple[str, ...], list[str]]]:
    """Return [(place in the package, names)] of everything that a file imports from the package."""
    folder = path.parent.relative_to(PACKAGE).parts
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = folder[: len(folder) - node.level + 1]
            place = (*base, *(node.module.split(".") if node.module else ()))
            found.append((place, [alias.name for alias in node.names]))
        elif isinstance(node, ast.ImportFrom):
            assert node.module.split(".")[0] != "lits_helpers", f"{path}: imports must be relative"
        elif isinstance(node, ast.Import):
            assert all(alias.name.split(".")[0] != "lits_helpers" for alias in node.names), path
    return found


def rooms_entered(path: Path) -> list[tuple[str, tuple[str, ...], list[str]]]:
    """Return [(room, place within it, names)] of what a file imports from other rooms."""
    here = (module_of(path) or ("",))[0]
    entered = []
    for place, names in imports_of(path):
        for target, taken in [(place, names)] if place else [((name,), []) for name in names]:
            if target[0] in COLUMN_OF and target[0] != here:
                entered.append((target[0], target[1:], taken))
    return entered


def test_every_room_stands_in_one_column():
    tops = {module_of(path)[0] for path in FILES if module_of(path)}
    assert tops == set(COLUMN_OF)


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(module_of(path)) or "face")
def test_a_room_imports_rooms_to_its_right_only(path):
    here = (module_of(path) or ("",))[0]
    wrong = [
        room for room, _, _ in rooms_entered(path) if COLUMN_OF[room] <= COLUMN_OF.get(here, -1)
    ]
    assert not wrong, f"{path.name} of {here} imports {wrong}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(module_of(path)) or "face")
def test_rooms_are_entered_by_their_face_and_private_names_stay_inside(path):
    for room, inside, names in rooms_entered(path):
        assert not inside, f"{path.name} imports {room}.{'.'.join(inside)}: take it from {room}"
        private = [name for name in names if name.startswith("_") and name != "__version__"]
        assert not private, f"{path.name} imports {private} of {room}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_face_holds_a_sentence_and_names_and_no_code(room):
    body = ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8")).body
    assert isinstance(body[0], ast.Expr), "a face begins with its sentence"
    stub = PACKAGE / room / "__init__.pyi"
    if stub.exists():  # loaded when a name is first used
        assert "\n".join(map(ast.unparse, body[1:])) == LAZY_FACE
        body = ast.parse(stub.read_text(encoding="utf-8")).body
        assert all(node.names[0].asname == node.names[0].name for node in body)
        return
    *imports, names = body[1:]
    assert all(isinstance(node, ast.ImportFrom) and node.level == 1 for node in imports)
    taken = [alias.name for node in imports for alias in node.names]
    assert ast.unparse(names.targets[0]) == "__all__"
    assert sorted(taken) == sorted(ast.literal_eval(names.value)), "imports and __all__ differ"


@pytest.mark.parametrize("room", ROOMS)
def test_a_face_hides_no_file_of_its_room(room):
    face = getattr(__import__(f"lits_helpers.{room}"), room)
    files = {path.stem for path in (PACKAGE / room).glob("*.py")} - {"__init__"}
    assert not files & set(face.__all__)


@pytest.mark.parametrize("room", ROOMS)
def test_files_of_a_room_import_each_other_in_no_circle(room):
    uses = defaultdict(set)
    for path in (PACKAGE / room).glob("[!_]*.py"):
        for place, names in imports_of(path):
            if place[:1] == (room,):
                uses[path.stem] |= {place[1]} if len(place) > 1 else set(names)
    order: list[str] = []
    while len(order) < len(uses):
        free = [
            name
            for name in uses
            if name not in order and uses[name] - {name} <= set(order) | (uses[name] - uses.keys())
        ]
        assert free, f"a circle among {sorted(set(uses) - set(order))}"
        order += free


def test_a_folder_and_a_file_can_be_taken_in_at_a_glance():
    for folder in {path.parent for path in FILES} - {PACKAGE}:
        files = list(folder.glob("[!_]*.py"))
        assert len(files) <= MOST_FILES, f"{folder.name} has {len(files)} files"
    long = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not {name: lines for name, lines in long.items() if lines > MOST_LINES}


def test_tests_lie_in_the_rooms():
    folders = {path.name for path in TESTS.iterdir() if any(path.glob("*.py"))}
    assert folders == {*ROOMS, "helpers", "project"}


def test_tests_use_no_private_name_of_the_module():
    found = []
    for path in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) != "self":
                names = [node.attr]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr"):
                texts = [str(a.value) for a in node.args if isinstance(a, ast.Constant)]
                names = [part for text in texts for part in text.split(".")]
            private = [n for n in names if n.startswith("_") and not n.startswith("__")]
            found += [f"{path.name}:{node.lineno} {n}" for n in private if n not in FOREIGN]
    assert not found


def test_rooms_without_torch_and_steps_without_a_network_import_none(tmp_path):
    code = f"""
import sys, {", ".join(f"lits_helpers.{room}" for room in WITHOUT_TORCH)}
{NO_TORCH}, "a room"
assert " cores; " in lits_helpers.environment.report()
from lits_helpers.__main__ import main
from lits_helpers.pipeline import acquisition, download, ensure_prepared, make_phantoms
common = ["--tiny", "--raw", "raw", "--prepared", "prepared"]
acquisition.PHANTOMS[True] = 2, (12, 40, 48)
for step in (["phantom"], ["check", "--workers", "0"], ["prepare", "--workers", "0"]):
    assert main([*step, *common]) == 0
{NO_TORCH}, "a step"
"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)


def test_an_installed_module_has_every_room_and_file(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    source = tmp_path / "source"
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY, capture_output=True, encoding="utf-8", check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, files):
        if (REPOSITORY / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
    subprocess.run([*command, "-w", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    shipped = {
        name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("lits_helpers/")
    }
    wanted = {
        name for name in files if name.startswith("lits_helpers/") and (REPOSITORY / name).is_file()
    }
    assert shipped == wanted
