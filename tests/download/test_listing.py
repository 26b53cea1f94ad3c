"""What is to be fetched, how much room it takes, and what is mounted already."""

import pytest
from helpers.kaggle_stand_in import FIRST, LABELS, VOLUME, Fault, fetch_one, nifti

from lits_helpers.download import DownloadError, KaggleClient, find_mounted, plan_download

pytest_plugins = ["helpers.kaggle_fixtures"]


def test_listing_is_read_page_by_page(kaggle, client):
    kaggle.page = 2
    assert len(client.files(FIRST)) == 4
    assert [entry[0] for entry in kaggle.seen].count("ListDatasetFiles") == 2


def test_plan_says_gigabytes_minutes_and_disk(kaggle, client, raw):
    kaggle.sizes = {VOLUME: 3_000_000_000, LABELS: 1_000_000_000}
    plan = plan_download(client, [3], raw)
    assert plan.size_bytes == 4_000_000_000
    needed = 8_000_000_000 + 1_400_000_000  # two cases and the prepared one
    assert [room.needed for room in plan.rooms] == [needed]
    assert "1 cases to fetch, 0 already here: 4.0 GB, about 3 min at 20 MB/s" in str(plan)
    kept = plan_download(client, [3], raw, keep_raw=True)
    assert kept.rooms[0].needed == needed + plan.size_bytes


def test_plan_asks_each_disk_for_what_goes_there(kaggle, client, raw, tmp_path):
    kaggle.sizes = {VOLUME: 3_000_000_000, LABELS: 1_000_000_000}
    prepared = tmp_path / "prepared"
    where = {"prepared": prepared, "png": False}
    disks = {raw: (1, 9_000_000_000), prepared: (2, 900_000_000)}
    plan = plan_download(client, [3], raw, **where, disk_of=disks.__getitem__)
    assert [room.needed for room in plan.rooms] == [8_000_000_000, 1_000_000_000]
    assert f"1.0 GB in {prepared} (0.9 GB are free)" in str(plan)
    with pytest.raises(DownloadError, match=r"prepared needs 1.0 GB for this but has 0.9 GB free"):
        plan.check()


def test_plan_stops_where_the_disk_is_too_small(kaggle, client, raw):
    with pytest.raises(DownloadError, match=r"needs 0.0 GB for this but has 0.0 GB free"):
        plan_download(client, [3], raw, disk_of=lambda _: (1, 10)).check()


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
    assert find_mounted(KaggleClient(), [tmp_path / "absent", tmp_path / "input"]) == top


@pytest.mark.parametrize("place", ["images/a/volume-3.nii", "a/b/c/d/e/volume-3.nii"])
def test_mounts_are_not_searched_where_listing_is_slow(tmp_path, place):
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_bytes(nifti(3))
    assert find_mounted(KaggleClient(), [tmp_path]) is None


def test_nothing_mounted_is_none(tmp_path):
    labels = tmp_path / "segmentations" / "segmentation-3.nii"
    labels.parent.mkdir()
    labels.write_bytes(nifti(3, bits=8))
    assert find_mounted(KaggleClient(), [tmp_path, tmp_path / "absent"]) is None


def test_changed_layout_of_the_data_set_is_told(kaggle, client, raw):
    kaggle.sets[FIRST] = {"LITS17/volume_pt1.zip": b"", "LITS17/readme.txt": b""}
    with pytest.raises(DownloadError, match=r"lists no volume-N.nii .*volume_pt1.zip.*layout has"):
        plan_download(client, [3], raw)


def test_case_that_is_not_listed_is_no_change_of_layout(kaggle, client, raw):
    kaggle.sets[FIRST] = {"train.csv": b"", VOLUME: nifti(3)}
    assert plan_download(client, [5], raw).files == {}


def test_unreadable_listing_is_asked_for_again_then_named(kaggle, client, raw):
    kaggle.api_faults["ListDatasetFiles"] = [Fault(body=b"<html>") for _ in range(3)]
    with pytest.raises(DownloadError, match=r"unreadable: a proxy or sign-in page"):
        fetch_one(3, raw, client=client)


def test_case_numbers_out_of_range_are_named(raw):
    with pytest.raises(ValueError, match=r"cases 0\.\.130, got 131, 200"):
        plan_download(KaggleClient(), [3, 131, 200], raw)
