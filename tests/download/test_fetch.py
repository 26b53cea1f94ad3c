"""The download, through the real kaggle client, against a stand-in for Kaggle."""

import gzip
import os
import resource
import time

import pytest
from helpers.kaggle_stand_in import (
    FIRST,
    LABELS,
    PATIENCE,
    VOLUME,
    Fault,
    fetch_one,
    files_below,
    nifti,
    zipped,
)
from helpers.repository import ROOT

from lits_helpers.download import DownloadError, KaggleClient, fetch_cases, plan_download

pytest_plugins = ["helpers.kaggle_fixtures"]


def test_case_arrives_whole_from_both_sets(kaggle, client, raw):
    volume, labels = fetch_one(60, raw, client=client)
    assert volume == raw / "volume_pt7" / "volume-60.nii"
    assert labels == raw / "segmentations" / "segmentation-60.nii"
    assert (volume.read_bytes(), labels.read_bytes()) == (nifti(60), nifti(60, bits=8))
    assert len(files_below(raw)) == 2


def test_second_call_makes_no_request_and_needs_no_credentials(kaggle, client, raw, monkeypatch):
    pair = fetch_one(3, raw, client=client)
    kaggle.seen.clear()
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    assert fetch_one(3, raw) == pair
    assert str(plan_download(KaggleClient(), [3], raw)).startswith("nothing to fetch: 1 cases")
    assert kaggle.seen == []


@pytest.mark.parametrize("zip_name", ["volume-3.nii", "volume_pt1/volume-3.nii"])
def test_zipped_file_is_unpacked(kaggle, client, raw, zip_name):
    kaggle.sets[FIRST][VOLUME] = zipped(**{zip_name: nifti(3), "notes.txt": b"x"})
    assert fetch_one(3, raw, client=client)[0].read_bytes() == nifti(3)
    assert len(files_below(raw)) == 2


def test_gzipped_file_is_unpacked(kaggle, client, raw):
    kaggle.sets[FIRST][VOLUME] = gzip.compress(nifti(3))
    assert fetch_one(3, raw, client=client)[0].read_bytes() == nifti(3)


def test_gz_name_keeps_its_compression(kaggle, client, raw):
    content = gzip.compress(nifti(3))
    kaggle.sets[FIRST][VOLUME + ".gz"] = content
    del kaggle.sets[FIRST][VOLUME]
    assert fetch_one(3, raw, client=client)[0].read_bytes() == content


def test_raw_files_are_deleted_and_the_next_case_comes_meanwhile(kaggle, client, raw):
    counts = []

    def on_case(_, volume, segmentation):
        names = [name for name in files_below(raw) if "volume-" in name and ".json" not in name]
        assert len(names) <= 2
        assert volume.exists()
        assert segmentation.exists()
        awaited = "volume_pt7/volume-60.nii"
        until = time.monotonic() + 3
        while volume.name == "volume-3.nii" and not kaggle.gets(awaited):
            assert time.monotonic() < until, "the next case was not fetched meanwhile"
            time.sleep(0.01)
        counts.append(len([name for name in files_below(raw) if name.endswith("volume-3.nii")]))

    assert fetch_cases(client, [3, 60], raw, on_case) == {}
    assert counts == [1, 0]
    assert files_below(raw) == []


def test_kept_raw_files_stay(kaggle, client, raw):
    fetch_cases(client, [3, 60], raw, lambda *_: None, keep_raw=True)
    assert len(files_below(raw)) == 4


def test_error_while_preparing_keeps_the_raw_files_for_the_next_run(kaggle, client, raw):
    def fail(*_):
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        fetch_cases(client, [3], raw, fail)
    kaggle.seen.clear()
    fetch_cases(client, [3], raw, lambda *_: None)
    assert kaggle.seen == []
    assert files_below(raw) == []


@pytest.mark.parametrize("keep_raw", [True, False])
def test_leftovers_of_cases_done_meanwhile_are_removed(raw, keep_raw):
    leftover = raw / "in-transit" / "volume_pt1" / "volume-7.nii"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(nifti(7))
    assert fetch_cases(KaggleClient(), [], raw, lambda *_: None, keep_raw=keep_raw) == {}
    assert files_below(raw) == []


def test_users_own_files_are_used_in_place_and_never_deleted(kaggle, client, raw, tmp_path):
    theirs = tmp_path / "mounted" / "anywhere" / "volume-3.nii"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(nifti(3))
    pairs = []
    fetch_cases(client, [3], raw, lambda _, *p: pairs.append(p), mounted=tmp_path / "mounted")
    assert pairs[0][0] == theirs
    assert theirs.exists()
    assert kaggle.gets(VOLUME) == []
    assert files_below(raw) == []


def test_cut_off_file_under_its_final_name_is_replaced_in_place(kaggle, client, raw):
    flat = raw / "volume-3.nii"
    raw.mkdir()
    flat.write_bytes(nifti(3)[:9000])
    assert fetch_one(3, raw, client=client)[0] == flat
    assert flat.read_bytes() == nifti(3)


def test_full_disk_stops_clearly_and_keeps_what_is_whole(kaggle, client, raw):
    kaggle.sets[FIRST][VOLUME] = nifti(3, (40, 48, 400))
    volume = "volume_pt7/volume-60.nii"
    fetch_one(60, raw, client=client)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(DownloadError, match="no space left in"):
            fetch_one(3, raw, client=client)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (raw / volume).read_bytes() == nifti(60)
    assert fetch_one(3, raw, client=client)[0].stat().st_size == 352 + 40 * 48 * 400 * 2


def test_kill_between_renaming_and_tidying_leaves_nothing(kaggle, client, raw):
    volume, _ = fetch_one(3, raw, client=client)
    for name in (".part-volume-3.nii", ".part-volume-3.nii.json", ".part-unpacked-volume-3.nii"):
        volume.with_name(name).write_bytes(b"x")
    kaggle.seen.clear()
    fetch_one(3, raw, client=client)
    assert len(files_below(raw)) == 2
    assert kaggle.seen == []


@pytest.mark.parametrize(
    ("source", "keep_raw"), [("kaggle", True), ("kaggle", False), ("msd", False)]
)
def test_killed_download_ends_as_if_undisturbed(source, keep_raw, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from kill_download import storm

    assert storm(kills=3, seed=1, keep_raw=keep_raw, source=source)["kills"] == 3


def test_one_stubborn_file_does_not_stop_the_others(kaggle, client, raw):
    kaggle.storage_faults[VOLUME] = [Fault(status=500) for _ in range(PATIENCE.tries)]
    seen = []
    failed = fetch_cases(client, [3, 60], raw, lambda _, volume, __: seen.append(volume.name))
    assert seen == ["volume-60.nii"]
    assert list(failed) == [3]
    fetch_cases(client, [3], raw, lambda _, volume, __: seen.append(volume.name))
    assert seen[1:] == ["volume-3.nii"]
    assert files_below(raw) == []


def test_two_stubborn_cases_in_a_row_end_the_run(kaggle, client, raw):
    kaggle.storage_faults["*"] = [Fault(status=500) for _ in range(2 * PATIENCE.tries)]
    with pytest.raises(DownloadError, match=r"500.*run again later"):
        fetch_cases(client, [3, 60], raw, lambda *_: None)


def test_missing_case_is_left_out_and_the_others_go_on(kaggle, client, raw):
    del kaggle.sets[FIRST][LABELS]
    seen = []
    failed = fetch_cases(client, [3, 60], raw, lambda _, volume, __: seen.append(volume.name))
    assert seen == ["volume-60.nii"]
    assert "Kaggle lists no segmentation 3" in failed[3]
