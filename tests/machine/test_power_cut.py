"""What took long to make is on the disk before its final name is, or a power cut could tear it."""

import contextlib
import errno
import gzip
import os
import stat

import numpy as np
import pytest
from helpers.drawn import blob, body, ramp, write_case, write_nifti

from lits_helpers.cases import find_cases
from lits_helpers.checkpoints import save_model
from lits_helpers.download.archives import settle
from lits_helpers.machine import written_whole
from lits_helpers.preprocess import prepare
from lits_helpers.training.states import save_state
from lits_helpers.volumes import volume_from_array, write_packed, write_segmentation


@contextlib.contextmanager
def disk_calls(patch):
    """Yield the calls that reach for the disk: ("content", bytes), ("name", name), "folder"."""
    calls, sync, replace = [], os.fsync, os.replace

    def told_sync(descriptor):
        found = os.fstat(descriptor)
        calls.append("folder" if stat.S_ISDIR(found.st_mode) else ("content", found.st_size))
        sync(descriptor)

    def told_replace(source, target):
        calls.append(("name", os.path.basename(target)))
        replace(source, target)

    patch.setattr(os, "fsync", told_sync)
    patch.setattr(os, "replace", told_replace)
    yield calls
    patch.undo()


def packed(path):
    write_packed(ramp(), path)


def model(path):
    save_model(path, {"model": {}})


def segmentation(path):
    write_segmentation(blob(), volume_from_array(ramp(), (5.0, 0.7, 0.8)), path)


def fetched(path):
    write_nifti(blob(), path.parent / "part.nii")
    settle(path.parent / "part.nii", path)


def fetched_gzip(path):
    write_nifti(blob(), path.parent / "part.nii")
    content = gzip.compress((path.parent / "part.nii").read_bytes())
    (path.parent / "part").write_bytes(content)
    settle(path.parent / "part", path)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("5.b2nd", packed),
        ("best_model.pth", model),
        ("5.nii.gz", segmentation),
        ("volume-5.nii", fetched),
        ("volume-5.nii", fetched_gzip),
    ],
)
def test_content_reaches_the_disk_before_its_final_name_does(name, make, tmp_path, monkeypatch):
    with disk_calls(monkeypatch) as calls:
        make(tmp_path / name)
    size = (tmp_path / name).stat().st_size
    assert calls == [("content", size), ("name", name), "folder"]


def test_a_state_reaches_the_disk_before_it_becomes_the_last(tmp_path, monkeypatch):
    save_state(tmp_path, {"epoch": 1})
    with disk_calls(monkeypatch) as calls:
        save_state(tmp_path, {"epoch": 2})
    content = ("content", (tmp_path / "last.pth").stat().st_size)
    assert set(calls) == {content, ("name", "previous.pth"), ("name", "last.pth"), "folder"}
    assert calls.index(content) < calls.index(("name", "last.pth")) < calls.index("folder")


def test_every_file_of_a_folder_reaches_the_disk_before_the_folder_has_its_name(
    tmp_path, monkeypatch
):
    with disk_calls(monkeypatch) as calls, written_whole(tmp_path / "case") as temporary:
        temporary.mkdir()
        (temporary / "0.png").write_bytes(b"ab")
        (temporary / "1.png").write_bytes(b"abc")
    assert set(calls[:2]) == {("content", 2), ("content", 3)}
    assert calls[2:] == ["folder", ("name", "case"), "folder"]


def test_what_is_quickly_made_again_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    with (
        disk_calls(monkeypatch) as calls,
        written_whole(tmp_path / "curve.png", lasting=False) as temporary,
    ):
        temporary.write_bytes(b"ab")
    assert calls == [("name", "curve.png")]


def failing_with(number, *, folders):
    """Return an os.fsync that fails for folders, or for files."""

    def sync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == folders:
            raise OSError(number, os.strerror(number))

    return sync


@pytest.mark.parametrize(
    ("number", "folders"), [(errno.EINVAL, False), (errno.EINVAL, True), (errno.EIO, True)]
)
def test_file_systems_that_cannot_sync_are_written_all_the_same(
    number, folders, tmp_path, monkeypatch
):
    monkeypatch.setattr(os, "fsync", failing_with(number, folders=folders))
    packed(tmp_path / "5.b2nd")
    assert (tmp_path / "5.b2nd").is_file()


def test_a_disk_that_fails_while_it_syncs_leaves_the_former_file(tmp_path, monkeypatch):
    packed(tmp_path / "5.b2nd")
    before = (tmp_path / "5.b2nd").read_bytes()
    monkeypatch.setattr(os, "fsync", failing_with(errno.ENOSPC, folders=False))
    with pytest.raises(OSError, match="No space left"):
        write_packed(np.zeros((2, 3, 4), np.uint8), tmp_path / "5.b2nd")
    assert [path.name for path in tmp_path.iterdir()] == ["5.b2nd"]
    assert (tmp_path / "5.b2nd").read_bytes() == before


@pytest.mark.parametrize("left", [0, 30])
def test_a_case_whose_record_a_power_cut_tore_is_made_again(left, tmp_path):
    hu, labels = body()
    write_case(tmp_path / "raw", 5, hu, labels)
    cases = find_cases(tmp_path / "raw")
    prepare(cases, tmp_path / "out", workers=0)
    record = tmp_path / "out" / "cases" / "5.json"
    before = record.read_bytes()
    record.write_bytes(before[:left])
    assert prepare(cases, tmp_path / "out", workers=0).prepared == ["5"]
    assert record.read_bytes() == before
