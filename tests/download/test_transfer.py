"""Transfers that break: what is kept, what is said, how progress is told."""

import io
import logging
import time
import types

import pytest
from helpers.kaggle_stand_in import (
    FIRST,
    PATIENCE,
    VOLUME,
    Fault,
    fetch_one,
    files_below,
    nifti,
    zipped,
)
from helpers.logs import logged

from lits_helpers.download import DownloadError, KaggleClient, transfer
from lits_helpers.download.source import FileUnavailable, Patience

pytest_plugins = ["helpers.kaggle_fixtures"]
pytestmark = pytest.mark.usefixtures("signed_in")


def test_cut_transfer_goes_on_where_it_stopped(kaggle, client, raw):
    kaggle.storage_faults[VOLUME] = [Fault(after=5000), Fault(after=9000)]
    assert fetch_one(3, raw, client=client)[0].read_bytes() == nifti(3)
    assert [r for *_, r in kaggle.gets(VOLUME)] == ["", "bytes=5000-", "bytes=14000-"]


def test_a_disk_that_takes_only_a_part_of_what_is_written_loses_no_byte(
    kaggle, client, raw, monkeypatch
):
    class Reluctant(io.FileIO):
        def write(self, content):
            return super().write(content[:1000])

    def opened(path, mode, buffering=-1):
        return Reluctant(path, mode) if buffering == 0 else open(path, mode)

    monkeypatch.setattr(transfer, "open", opened, raising=False)
    assert fetch_one(3, raw, client=client)[0].read_bytes() == nifti(3)
    assert [r for *_, r in kaggle.gets(VOLUME)] == [""]


def test_cuts_that_gain_bytes_do_not_exhaust_patience(kaggle, client, raw):
    kaggle.storage_faults[VOLUME] = [Fault(after=2000) for _ in range(8)]
    assert fetch_one(3, raw, client=client)[0].read_bytes() == nifti(3)


def test_next_process_goes_on_where_the_last_gave_up(kaggle, client, raw):
    kaggle.storage_faults[VOLUME] = [Fault(after=5000), *[Fault(after=0) for _ in range(3)]]
    with pytest.raises(DownloadError, match=r"ended after 5000 of \d+ bytes.*run again to go on"):
        fetch_one(3, raw, client=client)
    kaggle.seen.clear()
    volume, _ = fetch_one(3, raw, client=KaggleClient(patience=PATIENCE))
    assert volume.read_bytes() == nifti(3)
    assert kaggle.gets(VOLUME) == [("GET", VOLUME, "bytes=5000-")]


@pytest.mark.parametrize("with_md5", [True, False])
def test_file_changed_on_the_server_is_not_mixed(kaggle, client, raw, with_md5):
    kaggle.with_md5 = with_md5
    kaggle.storage_faults[VOLUME] = [Fault(after=5000), *[Fault(after=0) for _ in range(3)]]
    with pytest.raises(DownloadError, match="run again"):
        fetch_one(3, raw, client=client)
    kaggle.sets[FIRST][VOLUME] = nifti(99)
    assert fetch_one(3, raw, client=client)[0].read_bytes() == nifti(99)


def test_shorter_file_on_the_server_starts_afresh(kaggle, client, raw):
    kaggle.storage_faults[VOLUME] = [Fault(after=30000), *[Fault(after=0) for _ in range(3)]]
    with pytest.raises(DownloadError, match="run again"):
        fetch_one(3, raw, client=client)
    kaggle.sets[FIRST][VOLUME] = nifti(99, (40, 48, 2))
    assert fetch_one(3, raw, client=client)[0].read_bytes() == nifti(99, (40, 48, 2))


def test_server_without_ranges_or_identity_is_survived(kaggle, client, raw):
    kaggle.with_etag = kaggle.with_md5 = False
    kaggle.storage_faults[VOLUME] = [Fault(after=5000), Fault(ignore_range=True, after=9000)]
    assert fetch_one(3, raw, client=client)[0].read_bytes() == nifti(3)
    assert [r for *_, r in kaggle.gets(VOLUME)] == ["", "", ""]


def test_ignored_range_starts_afresh(kaggle, client, raw):
    kaggle.storage_faults[VOLUME] = [Fault(after=5000), Fault(ignore_range=True)]
    assert fetch_one(3, raw, client=client)[0].read_bytes() == nifti(3)


def test_silent_connection_counts_as_cut(kaggle, raw):
    kaggle.storage_faults[VOLUME] = [Fault(after=5000, stall=True)]
    client = KaggleClient(patience=Patience(3, 0.0, 0.0, timeout_s=0.2))
    begun = time.monotonic()
    assert fetch_one(3, raw, client=client)[0].read_bytes() == nifti(3)
    assert time.monotonic() - begun < 2.5


def test_answer_without_length_is_accepted(kaggle, client, raw):
    kaggle.storage_faults[VOLUME] = [Fault(no_length=True)]
    assert fetch_one(3, raw, client=client)[0].read_bytes() == nifti(3)


@pytest.mark.parametrize("announced", [10_000, 90_000])
def test_wrong_length_is_fetched_again(kaggle, client, raw, announced):
    kaggle.storage_faults[VOLUME] = [Fault(announce=announced)]
    assert fetch_one(3, raw, client=client)[0].read_bytes() == nifti(3)


@pytest.mark.parametrize("announced", [10_000, 90_000])
def test_length_that_stays_wrong_is_given_up(kaggle, client, raw, announced):
    kaggle.with_md5 = False
    kaggle.storage_faults[VOLUME] = [Fault(announce=announced) for _ in range(20)]
    with pytest.raises(DownloadError, match=r"volume-3.nii.*run again"):
        fetch_one(3, raw, client=client)
    assert not list(raw.rglob("volume-3.nii"))


def test_garbled_bytes_are_fetched_again(kaggle, client, raw, caplog):
    kaggle.storage_faults[VOLUME] = [Fault(garbled=True)]
    assert fetch_one(3, raw, client=client)[0].read_bytes() == nifti(3)
    assert logged(caplog, "volume-3.nii", "checksum")


def test_garbled_zip_is_fetched_again_without_a_checksum(kaggle, client, raw, caplog):
    kaggle.with_md5 = False
    kaggle.sets[FIRST][VOLUME] = zipped(**{"volume-3.nii": nifti(3)})
    kaggle.storage_faults[VOLUME] = [Fault(garbled=True)]
    assert fetch_one(3, raw, client=client)[0].read_bytes() == nifti(3)
    assert logged(caplog, "volume-3.nii", "zip")


def test_web_page_instead_of_a_volume_is_refused(kaggle, client, raw):
    kaggle.storage_faults[VOLUME] = [Fault(body=b"<html>" + b" " * 500) for _ in range(3)]
    with pytest.raises(FileUnavailable, match=r"volume-3.nii.*web page"):
        fetch_one(3, raw, client=client)
    assert files_below(raw) == []


def test_file_larger_than_the_free_disk_is_not_begun(kaggle, client, raw, monkeypatch):
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=9))
    with pytest.raises(DownloadError, match=r"volume-3.nii needs 0.00 GB"):
        fetch_one(3, raw, client=client)


def test_unwritable_folder_is_named(kaggle, client, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DownloadError, match="cannot write in"):
        fetch_one(3, tmp_path / "file" / "raw", client=client)


def test_progress_is_told_in_lines_where_there_is_no_terminal(
    kaggle, client, raw, monkeypatch, caplog
):
    monkeypatch.setattr(transfer, "SECONDS_BETWEEN_LINES", -1.0)
    caplog.set_level(logging.INFO, "lits_helpers")
    fetch_one(3, raw, client=client)
    assert logged(caplog, "LiTS", "GB", "MB/s")


def test_progress_line_has_bytes_rate_and_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(transfer.time, "monotonic", lambda: now[0])
    meter = transfer.Meter(5_000_000_000, "LiTS")
    now[0] = 110.0
    meter.add(1_000_000_000, fresh=False)
    meter.add(100_000_000)
    assert meter.line() == "LiTS: 1.10 of 5.00 GB, 10.0 MB/s, 6 min left"  # 3.9 GB at 10 MB/s


def test_kill_while_writing_the_note_starts_the_file_afresh(kaggle, client, raw):
    part = raw / "volume_pt1" / ".part-volume-3.nii"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"of another object")
    part.with_name(part.name + ".json").write_text('{"identity": ')
    assert fetch_one(3, raw, client=client)[0].read_bytes() == nifti(3)
