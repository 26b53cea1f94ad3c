"""The download, through the real kaggle client, against a stand-in for Kaggle."""

import gzip
import logging
import os
import resource
import time
import types
from pathlib import Path

import pytest
from kaggle_stand_in import FIRST, LABELS, VOLUME, fetch_one, files_below, nifti, zipped

from lits_helpers.download import KaggleError, fetch_cases, find_mounted, plan_download, transfer

pytest_plugins = ["kaggle_fixtures"]


# --- what arrives -------------------------------------------------------------------------------


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
    assert str(plan_download([3], raw)).startswith("nothing to fetch: 1 cases")
    assert kaggle.seen == []


def test_listing_is_read_page_by_page(kaggle, client):
    kaggle.page = 2
    assert len(client.files(FIRST)) == 4
    assert [entry[0] for entry in kaggle.seen].count("ListDatasetFiles") == 2


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


# --- many cases on a small disk -----------------------------------------------------------------


def test_raw_files_are_deleted_and_the_next_case_comes_meanwhile(kaggle, client, raw):
    counts = []

    def on_case(volume, segmentation):
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

    assert fetch_cases([3, 60], raw, on_case, client=client) == {}
    assert counts == [1, 0]
    assert files_below(raw) == []


def test_kept_raw_files_stay(kaggle, client, raw):
    fetch_cases([3, 60], raw, lambda *_: None, keep_raw=True, client=client)
    assert len(files_below(raw)) == 4


def test_error_while_preparing_keeps_the_raw_files_for_the_next_run(kaggle, client, raw):
    def fail(*_):
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        fetch_cases([3], raw, fail, client=client)
    kaggle.seen.clear()
    fetch_cases([3], raw, lambda *_: None, client=client)
    assert kaggle.seen == []
    assert files_below(raw) == []


@pytest.mark.parametrize("keep_raw", [True, False])
def test_leftovers_of_cases_done_meanwhile_are_removed(raw, keep_raw):
    leftover = raw / "in-transit" / "volume_pt1" / "volume-7.nii"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(nifti(7))
    assert fetch_cases([], raw, lambda *_: None, keep_raw=keep_raw) == {}
    assert files_below(raw) == []


def test_users_own_files_are_used_in_place_and_never_deleted(kaggle, client, raw, tmp_path):
    mine = tmp_path / "mounted" / "anywhere" / "volume-3.nii"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(nifti(3))
    pairs = []
    fetch_cases([3], raw, lambda *p: pairs.append(p), mounted=tmp_path / "mounted", client=client)
    assert pairs[0][0] == mine
    assert mine.exists()
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
        with pytest.raises(KaggleError, match="no space left in"):
            fetch_one(3, raw, client=client)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (raw / volume).read_bytes() == nifti(60)
    assert fetch_one(3, raw, client=client)[0].stat().st_size == 352 + 40 * 48 * 400 * 2


def test_file_larger_than_the_free_disk_is_not_begun(kaggle, client, raw, monkeypatch):
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=9))
    with pytest.raises(KaggleError, match=r"volume-3.nii needs 0.00 GB"):
        fetch_one(3, raw, client=client)


def test_unwritable_folder_is_named(kaggle, client, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(KaggleError, match="cannot write in"):
        fetch_one(3, tmp_path / "file" / "raw", client=client)


# --- plan, mounts, progress ---------------------------------------------------------------------


def test_plan_says_gigabytes_minutes_and_disk(kaggle, client, raw):
    kaggle.sizes = {VOLUME: 3_000_000_000, LABELS: 1_000_000_000}
    plan = plan_download([3], raw, client=client)
    assert plan.size_bytes == 4_000_000_000
    needed = 8_000_000_000 + 1_400_000_000  # two cases and the prepared one
    assert [room.needed for room in plan.rooms] == [needed]
    assert "1 cases to fetch, 0 already here: 4.0 GB, about 3 min at 20 MB/s" in str(plan)
    kept = plan_download([3], raw, keep_raw=True, client=client)
    assert kept.rooms[0].needed == needed + plan.size_bytes


def test_plan_asks_each_disk_for_what_goes_there(kaggle, client, raw, tmp_path):
    kaggle.sizes = {VOLUME: 3_000_000_000, LABELS: 1_000_000_000}
    prepared = tmp_path / "prepared"
    where = {"client": client, "prepared": prepared, "png": False}
    disks = {raw: (1, 9_000_000_000), prepared: (2, 900_000_000)}
    plan = plan_download([3], raw, **where, disk_of=disks.__getitem__)
    assert [room.needed for room in plan.rooms] == [8_000_000_000, 1_000_000_000]
    assert f"1.0 GB in {prepared} (0.9 GB are free)" in str(plan)
    with pytest.raises(KaggleError, match=r"prepared needs 1.0 GB for this but has 0.9 GB free"):
        plan.check()


def test_plan_stops_where_the_disk_is_too_small(kaggle, client, raw):
    with pytest.raises(KaggleError, match=r"needs 0.0 GB for this but has 0.0 GB free: free some"):
        plan_download([3], raw, client=client, disk_of=lambda _: (1, 10)).check()


@pytest.mark.parametrize("below", ["", "datasets/andrewmvd"])
def test_mounted_sets_are_found_under_one_folder(tmp_path, below):
    top = tmp_path / "input" / below
    places = ["liver-tumor-segmentation/volume_pt1/volume-3.nii"]
    places += ["liver-tumor-segmentation/segmentations/segmentation-3.nii"]
    places += ["liver-tumor-segmentation-part-2/volume_pt6/volume-60.nii"]
    for place in places:
        path = top / place
        path.parent.mkdir(parents=True)
        path.write_bytes(nifti(3))
    assert find_mounted([tmp_path / "absent", tmp_path / "input"]) == top


@pytest.mark.parametrize("place", ["images/a/volume-3.nii", "a/b/c/d/e/volume-3.nii"])
def test_mounts_are_not_searched_where_listing_is_slow(tmp_path, place):
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_bytes(nifti(3))
    assert find_mounted([tmp_path]) is None


def test_nothing_mounted_is_none(tmp_path):
    labels = tmp_path / "segmentations" / "segmentation-3.nii"
    labels.parent.mkdir()
    labels.write_bytes(nifti(3, bits=8))
    assert find_mounted([tmp_path, tmp_path / "absent"]) is None


def test_progress_is_told_in_lines_where_there_is_no_terminal(
    kaggle, client, raw, monkeypatch, caplog
):
    monkeypatch.setattr(transfer, "SECONDS_BETWEEN_LINES", -1.0)
    caplog.set_level(logging.INFO, "lits_helpers")
    fetch_one(3, raw, client=client)
    assert "LiTS: 0.00 of 0.00 GB" in caplog.text
    assert "MB/s" in caplog.text


def test_progress_line_has_bytes_rate_and_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(transfer.time, "monotonic", lambda: now[0])
    meter = transfer.Meter(5_000_000_000, "LiTS")
    now[0] = 110.0
    meter.add(1_000_000_000, fresh=False)
    meter.add(100_000_000)
    assert meter.line() == "LiTS: 1.10 of 5.00 GB, 10.0 MB/s, 6 min left"  # 3.9 GB at 10 MB/s


# --- killed -------------------------------------------------------------------------------------


def test_kill_between_renaming_and_tidying_leaves_nothing(kaggle, client, raw):
    volume, _ = fetch_one(3, raw, client=client)
    for name in (".part-volume-3.nii", ".part-volume-3.nii.json", ".part-unpacked-volume-3.nii"):
        volume.with_name(name).write_bytes(b"x")
    kaggle.seen.clear()
    fetch_one(3, raw, client=client)
    assert len(files_below(raw)) == 2
    assert kaggle.seen == []


def test_kill_while_writing_the_note_starts_the_file_afresh(kaggle, client, raw):
    part = raw / "volume_pt1" / ".part-volume-3.nii"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"of another object")
    part.with_name(part.name + ".json").write_text('{"identity": ')
    assert fetch_one(3, raw, client=client)[0].read_bytes() == nifti(3)


@pytest.mark.parametrize("keep_raw", [True, False])
def test_killed_download_ends_as_if_undisturbed(keep_raw, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    from kill_download import storm

    assert storm(kills=3, seed=1, keep_raw=keep_raw)["kills"] == 3
