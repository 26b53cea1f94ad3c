"""Packing: lossless, resumable, whole or not at all, the same wherever it runs."""

import contextlib
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor

import cv2
import nibabel as nib
import numpy as np
import pytest
from helpers.drawn import BODY_SPACING_MM, body, stored_as, write_case
from helpers.repository import ROOT, load_script

from lits_helpers.cases import find_cases
from lits_helpers.machine import locked_folder, read_json, run_jobs
from lits_helpers.preprocess import packing, prepare, prepared_cases
from lits_helpers.settings import real_data
from lits_helpers.volumes import open_volume, read_volume, window_to_uint8, write_segmentation

kill_prepare = load_script("benchmarks/kill_prepare.py")
contents = kill_prepare.contents


def test_prepared_case_is_lossless_and_knows_its_slices(raw, tmp_path):
    report = prepare(find_cases(raw), tmp_path / "out", workers=0)
    hu, labels = body()
    assert report.prepared == ["0", "1", "2"]
    assert report.skipped == {}
    assert report.findings["2"][0].code == "no_segmentation"
    first, second, third = prepared_cases(tmp_path / "out")
    for case in (first, second, third):
        packed = open_volume(tmp_path / "out" / "cases" / f"{case.id}.b2nd")
        np.testing.assert_array_equal(packed.read(), hu)
        assert case.shape == hu.shape
        assert case.spacing_mm == pytest.approx(BODY_SPACING_MM, rel=1e-5)
        assert case.slices == tuple(range(14))
    kept = open_volume(tmp_path / "out" / "cases" / "0-labels.b2nd")
    np.testing.assert_array_equal(kept.read(), labels)
    assert first.liver_slices == tuple(np.flatnonzero(labels.any(axis=(1, 2))))
    assert first.tumor_slices == (4, 5, 6)
    assert (second.tumor_slices, second.has_segmentation) == ((), True)
    assert (third.liver_slices, third.has_segmentation) == ((), False)
    assert not (tmp_path / "out" / "cases" / "2-labels.b2nd").exists()


def test_cases_of_one_id_are_refused_by_it(raw, tmp_path):
    with pytest.raises(ValueError, match=r"several cases are called 1: name them in a cases.csv"):
        prepare([*find_cases(raw), find_cases(raw)[1]], tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


def test_folder_that_cannot_be_made_is_refused_with_the_cure(raw, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OSError, match=r"cannot write to .*out \(.+\); choose another folder"):
        prepare(find_cases(raw), tmp_path / "out", workers=0)


def test_png_slices_are_the_windowed_packed_slices_bit_for_bit(raw, tmp_path):
    prepare(find_cases(raw), tmp_path / "out", workers=0)
    for case in prepared_cases(tmp_path / "out"):
        folder = tmp_path / "out" / "images" / case.id
        assert len(list(folder.iterdir())) == 14
        packed = open_volume(tmp_path / "out" / "cases" / f"{case.id}.b2nd")
        for k in case.slices:
            png = cv2.imread(str(folder / f"{k}.png"), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(png, window_to_uint8(packed.slice(k), (-200, 300)))
    for k in range(14):
        mask = cv2.imread(str(tmp_path / "out/masks/0" / f"{k}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(mask, 255 * (body()[1][k] > 0))
    assert not (tmp_path / "out" / "masks" / "2").exists()


def test_patients_right_is_left_in_the_picture_and_his_front_above(raw, tmp_path):
    prepare(find_cases(raw), tmp_path / "out", workers=0)
    for case_id in ("0", "1"):
        mask = cv2.imread(str(tmp_path / "out/masks" / case_id / "6.png"), cv2.IMREAD_GRAYSCALE)
        image = cv2.imread(str(tmp_path / "out/images" / case_id / "6.png"), cv2.IMREAD_GRAYSCALE)
        liver, bone = np.nonzero(mask), np.nonzero(image == 255)
        assert liver[1].mean() < 30 < bone[1].mean()  # of 76 columns
        assert liver[0].mean() < 30 < bone[0].mean()  # of 60 rows


def test_second_run_leaves_everything_alone(raw, tmp_path):
    out = tmp_path / "out"
    prepare(find_cases(raw), out, workers=0)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*")}
    report = prepare(find_cases(raw), out, workers=0)
    assert report.unchanged == report.prepared == ["0", "1", "2"]
    assert report.findings["2"][0].code == "no_segmentation"
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.*")} == before


def test_small_cases_that_are_known_need_no_workers(raw, tmp_path, monkeypatch):
    """Starting a worker would take longer than comparing them."""
    asked = []

    def run(work, jobs, *, workers, executor):
        asked.append(workers)
        return run_jobs(work, jobs, workers=0)

    monkeypatch.setattr(packing, "run_jobs", run)
    for limit in (2**28, 2**28, 1):
        monkeypatch.setattr(packing, "SOON_HASHED_BYTES", limit)
        report = prepare(find_cases(raw), tmp_path / "out")
    assert asked == [None, 0, None]
    assert report.unchanged == ["0", "1", "2"]


def test_touched_file_is_unchanged_and_changed_content_is_made_again(raw, tmp_path):
    out = tmp_path / "out"
    prepare(find_cases(raw), out, workers=0)
    hu, labels = body()
    write_case(raw, 0, hu, labels)
    os.utime(raw / "volume_pt1" / "volume-0.nii", (1, 1))
    assert prepare(find_cases(raw), out, workers=0).unchanged == ["0", "1", "2"]
    write_case(raw, 0, hu + np.int16(1), labels)
    assert prepare(find_cases(raw), out, workers=0).unchanged == ["1", "2"]
    np.testing.assert_array_equal(open_volume(out / "cases" / "0.b2nd").read(), hu + 1)


def test_png_come_later_and_in_another_window_without_the_originals(raw, tmp_path):
    out = tmp_path / "out"
    prepare(find_cases(raw), out, workers=0, png=False)
    assert not (out / "images").exists()
    report = prepare(find_cases(raw), out, workers=0)
    assert report.unchanged == ["0", "1", "2"]
    at_once = tmp_path / "at_once"
    prepare(find_cases(raw), at_once, workers=0)
    assert contents(out) == contents(at_once)
    shutil.rmtree(raw)
    packing.export_png(out, "0", window=(0, 100))
    png = cv2.imread(str(out / "images/0/6.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(png, window_to_uint8(body()[0][6], (0, 100)))
    assert read_json(out / "cases/0.json")["png_window"] == [0.0, 100.0]


def test_any_executor_gives_the_same_bytes(raw, tmp_path):
    prepare(find_cases(raw), tmp_path / "here", workers=0)
    prepare(find_cases(raw), tmp_path / "spawned", workers=2)
    with ThreadPoolExecutor(2) as threads:
        prepare(find_cases(raw), tmp_path / "threads", executor=threads)
    expected = contents(tmp_path / "here")
    assert len(expected) == 3 + 2 + 3 + 3 * 14 + 2 * 14
    assert contents(tmp_path / "spawned") == expected
    assert contents(tmp_path / "threads") == expected


def test_a_dask_cluster_gives_the_same_bytes(raw, tmp_path):
    distributed = pytest.importorskip("distributed", reason="pip install distributed for this test")
    prepare(find_cases(raw), tmp_path / "here", workers=0)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        pids = client.run(os.getpid)
        report = prepare(find_cases(raw), tmp_path / "cluster", executor=client.get_executor())
    assert len({*pids.values(), os.getpid()}) == 2
    assert report.prepared == ["0", "1", "2"]
    assert contents(tmp_path / "cluster") == contents(tmp_path / "here")


def test_killed_the_folder_is_that_of_an_undisturbed_run(raw, tmp_path):
    killed = tmp_path / "killed"
    process = kill_prepare.start(raw, killed, workers=2)
    while not list(killed.glob("cases/*")) and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.communicate()  # until its workers, who write to the same pipe, are gone too
    assert process.returncode == -signal.SIGKILL
    prepare(find_cases(raw), killed, workers=0)
    prepare(find_cases(raw), tmp_path / "undisturbed", workers=0)
    assert len(contents(killed)) == 78
    assert contents(killed) == contents(tmp_path / "undisturbed")


def test_leftovers_of_a_killed_run_are_removed(raw, tmp_path):
    (tmp_path / "out" / "images" / ".part-17-0").mkdir(parents=True)
    (tmp_path / "out" / "images" / ".part-17-0" / "3.png").write_bytes(b"half")
    foreign = tmp_path / "out" / "cache" / ".part-18-0"  # in no folder that a preparation writes
    foreign.mkdir(parents=True)
    (foreign / "levels.npy").write_bytes(b"half")
    prepare(find_cases(raw), tmp_path / "out", workers=0)
    left = [name for name in contents(tmp_path / "out") if ".part" in name]
    assert left == ["cache/.part-18-0/levels.npy"]


@contextlib.contextmanager
def limited_files(size):
    """Let no file of this process grow beyond a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("workers", [0, 2])
def test_full_disk_stops_with_a_sentence_and_leaves_finished_cases_valid(raw, tmp_path, workers):
    out = tmp_path / "out"
    prepare(find_cases(raw)[:1], out, workers=0)
    before = contents(out)
    wanted = "the disk is full .* finished cases stay valid: free some space and run again"
    with limited_files(20000), pytest.raises(OSError, match=wanted):
        prepare(find_cases(raw), out, workers=workers)  # workers inherit the limit
    assert contents(out) == before
    assert prepare(find_cases(raw), out, workers=0).unchanged == ["0"]


def test_a_script_without_a_guard_is_told_instead_of_waiting_for_itself(raw, tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "import sys; from lits_helpers.cases import find_cases\n"
        "from lits_helpers.preprocess import prepare\n"
        "print(prepare(find_cases(sys.argv[1])[:1], sys.argv[2], workers=2).table())\n"
    )
    command = [sys.executable, str(script), str(raw), str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", check=False, timeout=100
    )
    assert 'call this below `if __name__ == "__main__":`' in ended.stderr
    assert "its worker process died" in ended.stdout


def test_full_disk_while_a_known_case_gets_its_png_is_no_fault_of_the_case(
    raw, tmp_path, monkeypatch
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    prepare(find_cases(raw), tmp_path / "out", workers=0, png=False)
    monkeypatch.setattr(packing, "write_png", full)
    with pytest.raises(OSError, match="the disk is full"):
        prepare(find_cases(raw), tmp_path / "out", workers=0)
    monkeypatch.undo()
    assert prepare(find_cases(raw), tmp_path / "out", workers=0).unchanged == ["0", "1", "2"]


def test_case_whose_worker_died_is_named(raw, tmp_path, monkeypatch):
    broken = BrokenExecutor("its worker process died")
    monkeypatch.setattr(packing, "run_jobs", lambda *args, **kwargs: [broken])
    report = prepare(find_cases(raw)[:1], tmp_path / "out")
    assert report.skipped == {"0": "its worker process died"}


def caused_by(cause):
    error = ValueError("cannot read the file")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (OSError(5, "Input/output error"), True),
        (MemoryError(), True),
        (caused_by(MemoryError()), True),  # as `nifti.open_nifti` says it
        (caused_by(EOFError()), False),
        (ValueError("cut"), False),
    ],
)
def test_case_that_a_disk_failed_to_give_may_be_asked_for_again(
    raw, tmp_path, monkeypatch, error, passing
):
    def failing(case):
        raise error

    monkeypatch.setattr(packing, "load_case", failing)
    report = prepare(find_cases(raw)[:1], tmp_path / "out", workers=0)
    assert list(report.skipped) == ["0"]
    assert report.failed == (["0"] if passing else [])


def test_mended_case_is_stored_mended_and_recorded(tmp_path):
    hu, labels = body()
    for name, array in (("volume-28.nii", hu), ("segmentation-28.nii", labels)):
        nib.save(nib.Nifti1Image(stored_as(array, "LAS"), np.eye(4)), tmp_path / name)
    report = prepare(find_cases(tmp_path), tmp_path / "out", workers=0, png=False)
    assert "noted  turned             case 28  read as LAS" in report.table()
    np.testing.assert_array_equal(open_volume(tmp_path / "out/cases/28.b2nd").read(), hu)
    record = read_json(tmp_path / "out/cases/28.json")
    assert [finding["code"] for finding in record["findings"]] == ["spacing_untrusted", "turned"]
    assert not record["geometry"]["spacing_trusted"]
    volume = read_volume(tmp_path / "out/cases/28.b2nd")
    written = nib.load(write_segmentation(labels, volume, tmp_path / "p.nii"))
    np.testing.assert_array_equal(
        np.asarray(written.dataobj), np.asarray(nib.load(tmp_path / "segmentation-28.nii").dataobj)
    )


@pytest.mark.real
def test_real_scans_prepare_without_findings_in_radiological_view(tmp_path):
    if real_data() is None:
        pytest.skip("LITS_REAL names no folder with real data")
    report = prepare(find_cases(real_data() / "lits"), tmp_path / "out", workers=0)
    assert (report.prepared, report.findings) == (["0", "1", "2"], {})
    for case in prepared_cases(tmp_path / "out"):
        k = case.liver_slices[len(case.liver_slices) // 2]
        mask = cv2.imread(str(tmp_path / f"out/masks/{case.id}/{k}.png"), cv2.IMREAD_GRAYSCALE)
        image = cv2.imread(str(tmp_path / f"out/images/{case.id}/{k}.png"), cv2.IMREAD_GRAYSCALE)
        body_columns = np.nonzero(image.max(axis=0) > 100)[0]
        assert np.nonzero(mask)[1].mean() < body_columns.mean()
    assert len(prepared_cases(real_data() / "lits_png")) == 80


def write_long_case(folder, depth=987):
    """A 512x512x987 .nii.gz that is cheap to compress: one drawn slab, repeated."""
    hu, labels = body((21, 512, 512))
    hu = (hu // 16 * 16).astype(np.int16)
    repeats = depth // 21
    write_case(
        folder, 0, np.repeat(hu, repeats, 0), np.repeat(labels, repeats, 0), "RAS", ".nii.gz"
    )


@pytest.mark.slow
def test_longest_case_stays_under_1200_mb_of_memory(tmp_path):
    write_long_case(tmp_path / "raw")
    with ProcessPoolExecutor(1) as alone:
        prepare(find_cases(tmp_path / "raw"), tmp_path / "out", executor=alone)
        peak_kb = alone.submit(resource.getrusage, resource.RUSAGE_SELF).result().ru_maxrss
    assert prepared_cases(tmp_path / "out")[0].shape == (987, 512, 512)
    assert peak_kb < 1.2e6


def test_two_preparations_of_one_folder_take_turns(raw, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        with locked_folder(tmp_path / "out"):
            waiting = pool.submit(prepare, find_cases(raw), tmp_path / "out", workers=0, png=False)
            time.sleep(0.3)
            assert not (tmp_path / "out" / "cases").exists()
        assert waiting.result(timeout=60).prepared
