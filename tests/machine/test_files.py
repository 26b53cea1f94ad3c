"""Files appear whole or not at all."""

import json
from pathlib import Path

import pytest

from lits_helpers.machine import (
    TEMPORARY_PREFIX,
    file_hash,
    read_json,
    remove_leftovers,
    write_json,
    written_whole,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_and_fail(target: Path, error: BaseException, *, folder: bool = False) -> None:
    """Write half of a file or folder, then raise."""
    with written_whole(target) as temporary:
        if folder:
            temporary.mkdir()
        (temporary / "new.png" if folder else temporary).write_text("ha")
        raise error


def test_file_appears_only_when_the_block_ends(tmp_path):
    target = tmp_path / "new" / "folder" / "a.txt"
    with written_whole(target) as temporary:
        temporary.write_text("whole")
        assert not target.exists()
        assert temporary.suffix == ".txt"  # libraries choose the format by it
        assert temporary.parent == target.parent  # a rename within one file system
    assert target.read_text() == "whole"
    assert names(target.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError("midway"), KeyboardInterrupt("midway")])
def test_interrupted_writing_leaves_the_former_file(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("former")
    with pytest.raises(type(error), match="midway"):
        write_and_fail(target, error)
    assert target.read_text() == "former"
    assert names(tmp_path) == ["a.txt"]


def test_error_before_anything_was_written_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="early"), written_whole(tmp_path / "a.txt"):
        raise ValueError("early")
    assert names(tmp_path) == []


def test_folder_replaces_a_folder_that_holds_files(tmp_path):
    target = tmp_path / "case"
    target.mkdir()
    (target / "old.png").touch()
    with written_whole(target) as temporary:
        temporary.mkdir()
        (temporary / "new.png").touch()
    assert names(target) == ["new.png"]
    assert names(tmp_path) == ["case"]


def test_interrupted_folder_leaves_the_former_folder(tmp_path):
    target = tmp_path / "case"
    target.mkdir()
    (target / "old.png").touch()
    with pytest.raises(OSError, match="disk full"):
        write_and_fail(target, OSError("disk full"), folder=True)
    assert names(target) == ["old.png"]
    assert names(tmp_path) == ["case"]


def test_leftovers_go_and_everything_else_stays(tmp_path):
    deep = tmp_path / "cases" / "deep"
    (deep / f"{TEMPORARY_PREFIX}1-images" / f"{TEMPORARY_PREFIX}1-inner").mkdir(parents=True)
    (deep / f"{TEMPORARY_PREFIX}1-images" / "0.png").touch()
    (tmp_path / f"{TEMPORARY_PREFIX}22-a.b2nd").touch()
    (deep / "a.b2nd").touch()
    assert remove_leftovers(tmp_path) == 3
    assert names(tmp_path) == ["cases"]
    assert names(deep) == ["a.b2nd"]
    assert remove_leftovers(tmp_path) == 0


def test_json_comes_back_as_it_was_written(tmp_path):
    content = {"spacing_mm": [5.0, 0.7, 0.8], "note": "Größe", "findings": []}
    assert read_json(write_json(tmp_path / "a.json", content)) == content


def test_same_content_gives_the_same_bytes(tmp_path):
    one = write_json(tmp_path / "1.json", {"a": 1, "b": {"c": 2, "d": 3}})
    two = write_json(tmp_path / "2.json", {"b": {"d": 3, "c": 2}, "a": 1})
    assert one.read_bytes() == two.read_bytes()


def test_json_that_cannot_be_written_leaves_the_former_file(tmp_path):
    path = write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe\x00"])
def test_broken_json_is_named_with_the_cure(tmp_path, content):
    path = tmp_path / "recipe.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"recipe\.json is not valid JSON .*delete it"):
        read_json(path)


def test_hash_tells_content_and_nothing_else(tmp_path):
    for name, content in {"a": b"HU", "b": b"HU", "c": b"Hu"}.items():
        (tmp_path / name).write_bytes(content)
    a, b, c = (file_hash(tmp_path / name) for name in "abc")
    assert a == b != c
    assert len(a) == 40
