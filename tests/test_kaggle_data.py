"""The download, through the real kaggle client, against a stand-in that misbehaves."""

import gzip
import io
import logging
import os
import resource
import stat
import sys
import time
import traceback
import types
import zipfile
from pathlib import Path

import pytest
from kaggle_stand_in import (
    KEY,
    SIGNATURE,
    TOKEN,
    USER,
    Fault,
    StandIn,
    lits_sets,
    nifti,
    point_client_at,
    serving,
    zipped,
)

from lits_helpers import kaggle_data, kaggle_files, kaggle_plan, kaggle_transfer, progress
from lits_helpers.kaggle_client import KaggleClient, credentials
from lits_helpers.kaggle_data import fetch_case, fetch_cases, find_mounted, plan_download
from lits_helpers.kaggle_errors import FileUnavailable, KaggleError, Patience

FIRST = "andrewmvd/liver-tumor-segmentation"
VOLUME, LABELS = "volume_pt1/volume-3.nii", "segmentations/segmentation-3.nii"
PATIENCE = Patience(tries=3, first_wait_s=0.0, longest_wait_s=0.05, timeout_s=5.0)


@pytest.fixture(autouse=True)
def signed_in(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("KAGGLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)


@pytest.fixture
def kaggle():
    with serving(StandIn(lits_sets((3, 60)))) as stand_in:
        point_client_at(stand_in.url)
        yield stand_in


@pytest.fixture
def client():
    return KaggleClient(patience=PATIENCE)


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw"


def files_below(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


# --- signing in -------------------------------------------------------------------------------


def test_credentials_come_from_environment_then_colab_then_files(monkeypatch, tmp_path):
    secrets = {"KAGGLE_USERNAME": USER, "KAGGLE_KEY": KEY}
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.setattr("lits_helpers.kaggle_client._colab_secret", secrets.get)
    file = tmp_path / "home" / ".kaggle" / "access_token"
    file.parent.mkdir(parents=True)
    file.write_text("from-the-file")
    assert credentials().source == "KAGGLE_API_TOKEN (environment)"
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    assert credentials().source == "KAGGLE_USERNAME and KAGGLE_KEY (Colab secrets)"
    secrets.clear()
    assert credentials().source == str(file)
    file.unlink()
    with pytest.raises(KaggleError, match="KAGGLE_API_TOKEN"):
        credentials()


def test_credentials_do_not_show_their_values():
    assert TOKEN not in repr(credentials())
    assert TOKEN not in repr(KaggleClient(credentials()))


def test_environment_key_wins_over_the_clients_token_file(monkeypatch, kaggle, client, raw):
    file = Path(os.environ["HOME"], ".kaggle", "access_token")
    file.parent.mkdir(parents=True)
    file.write_text("an-outdated-token")
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    monkeypatch.setenv("KAGGLE_USERNAME", USER)
    monkeypatch.setenv("KAGGLE_KEY", KEY)
    assert fetch_case(3, raw, client=client)[0].read_bytes() == nifti(3)


def test_token_file_of_the_client_is_used(monkeypatch, kaggle, client, raw):
    file = Path(os.environ["HOME"], ".kaggle", "access_token")
    file.parent.mkdir(parents=True)
    file.write_text(TOKEN)
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    assert fetch_case(3, raw, client=client)[0].read_bytes() == nifti(3)


def test_rejected_token_says_how_to_make_a_new_one(monkeypatch, kaggle, client, raw):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_expired")
    stdin = sys.stdin
    with pytest.raises(KaggleError, match=r"KAGGLE_API_TOKEN.*make a new token"):
        fetch_case(3, raw, client=client)
    assert sys.stdin is stdin
    assert not stdin.closed


def test_storage_server_never_gets_the_token(kaggle, client, raw):
    fetch_case(3, raw, client=client)
    assert kaggle.storage_headers
    assert not any("Authorization" in headers for headers in kaggle.storage_headers)


# --- what arrives ------------------------------------------------------------------------------


def test_case_arrives_whole_from_both_sets(kaggle, client, raw):
    volume, labels = fetch_case(60, raw, client=client)
    assert volume == raw / "volume_pt7" / "volume-60.nii"
    assert labels == raw / "segmentations" / "segmentation-60.nii"
    assert (volume.read_bytes(), labels.read_bytes()) == (nifti(60), nifti(60, bits=8))
    assert len(files_below(raw)) == 2


def test_second_call_makes_no_request_and_needs_no_credentials(kaggle, client, raw, monkeypatch):
    pair = fetch_case(3, raw, client=client)
    kaggle.seen.clear()
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    assert fetch_case(3, raw) == pair
    assert str(plan_download([3], raw)).startswith("nothing to fetch: 1 cases")
    assert kaggle.seen == []


def test_listing_is_read_page_by_page(kaggle, client):
    kaggle.page = 2
    assert len(client.files(FIRST)) == 4
    assert [entry[0] for entry in kaggle.seen].count("ListDatasetFiles") == 2


@pytest.mark.parametrize("zip_name", ["volume-3.nii", "volume_pt1/volume-3.nii"])
def test_zipped_file_is_unpacked(kaggle, client, raw, zip_name):
    kaggle.sets[FIRST][VOLUME] = zipped(**{zip_name: nifti(3), "notes.txt": b"x"})
    assert fetch_case(3, raw, client=client)[0].read_bytes() == nifti(3)
    assert len(files_below(raw)) == 2


def test_gzipped_file_is_unpacked(kaggle, client, raw):
    kaggle.sets[FIRST][VOLUME] = gzip.compress(nifti(3))
    assert fetch_case(3, raw, client=client)[0].read_bytes() == nifti(3)


def test_gz_name_keeps_its_compression(kaggle, client, raw):
    content = gzip.compress(nifti(3))
    kaggle.sets[FIRST][VOLUME + ".gz"] = content
    del kaggle.sets[FIRST][VOLUME]
    assert fetch_case(3, raw, client=client)[0].read_bytes() == content


# --- broken transfers --------------------------------------------------------------------------


def test_cut_transfer_goes_on_where_it_stopped(kaggle, client, raw):
    kaggle.storage_faults[VOLUME] = [Fault(after=5000), Fault(after=9000)]
    assert fetch_case(3, raw, client=client)[0].read_bytes() == nifti(3)
    assert [r for *_, r in kaggle.gets(VOLUME)] == ["", "bytes=5000-", "bytes=14000-"]


def test_cuts_that_gain_bytes_do_not_exhaust_patience(kaggle, client, raw):
    kaggle.storage_faults[VOLUME] = [Fault(after=2000) for _ in range(8)]
    assert fetch_case(3, raw, client=client)[0].read_bytes() == nifti(3)


def test_next_process_goes_on_where_the_last_gave_up(kaggle, client, raw):
    kaggle.storage_faults[VOLUME] = [Fault(after=5000), *[Fault(after=0) for _ in range(3)]]
    with pytest.raises(KaggleError, match=r"ended after 5000 of \d+ bytes.*run again to go on"):
        fetch_case(3, raw, client=client)
    kaggle.seen.clear()
    volume, _ = fetch_case(3, raw, client=KaggleClient(patience=PATIENCE))
    assert volume.read_bytes() == nifti(3)
    assert kaggle.gets(VOLUME) == [("GET", VOLUME, "bytes=5000-")]


def test_file_changed_on_the_server_is_not_mixed(kaggle, client, raw):
    kaggle.storage_faults[VOLUME] = [Fault(after=5000), *[Fault(after=0) for _ in range(3)]]
    with pytest.raises(KaggleError, match="run again"):
        fetch_case(3, raw, client=client)
    kaggle.sets[FIRST][VOLUME] = nifti(99)
    assert fetch_case(3, raw, client=client)[0].read_bytes() == nifti(99)


def test_shorter_file_on_the_server_starts_afresh(kaggle, client, raw):
    kaggle.storage_faults[VOLUME] = [Fault(after=30000), *[Fault(after=0) for _ in range(3)]]
    with pytest.raises(KaggleError, match="run again"):
        fetch_case(3, raw, client=client)
    kaggle.sets[FIRST][VOLUME] = nifti(99, (40, 48, 2))
    assert fetch_case(3, raw, client=client)[0].read_bytes() == nifti(99, (40, 48, 2))


def test_server_without_ranges_or_identity_is_survived(kaggle, client, raw):
    kaggle.with_etag = kaggle.with_md5 = False
    kaggle.storage_faults[VOLUME] = [Fault(after=5000), Fault(ignore_range=True, after=9000)]
    assert fetch_case(3, raw, client=client)[0].read_bytes() == nifti(3)
    assert [r for *_, r in kaggle.gets(VOLUME)] == ["", "", ""]


def test_ignored_range_starts_afresh(kaggle, client, raw):
    kaggle.storage_faults[VOLUME] = [Fault(after=5000), Fault(ignore_range=True)]
    assert fetch_case(3, raw, client=client)[0].read_bytes() == nifti(3)


def test_silent_connection_counts_as_cut(kaggle, raw):
    kaggle.storage_faults[VOLUME] = [Fault(after=5000, stall=True)]
    client = KaggleClient(patience=Patience(3, 0.0, 0.0, timeout_s=0.2))
    begun = time.monotonic()
    assert fetch_case(3, raw, client=client)[0].read_bytes() == nifti(3)
    assert time.monotonic() - begun < 2.5


def test_answer_without_length_is_accepted(kaggle, client, raw):
    kaggle.storage_faults[VOLUME] = [Fault(no_length=True)]
    assert fetch_case(3, raw, client=client)[0].read_bytes() == nifti(3)


@pytest.mark.parametrize("announced", [10_000, 90_000])
def test_wrong_length_is_fetched_again(kaggle, client, raw, announced):
    kaggle.storage_faults[VOLUME] = [Fault(announce=announced)]
    assert fetch_case(3, raw, client=client)[0].read_bytes() == nifti(3)


@pytest.mark.parametrize("announced", [10_000, 90_000])
def test_length_that_stays_wrong_is_given_up(kaggle, client, raw, announced):
    kaggle.with_md5 = False
    kaggle.storage_faults[VOLUME] = [Fault(announce=announced) for _ in range(20)]
    with pytest.raises(KaggleError, match=r"volume-3.nii.*run again"):
        fetch_case(3, raw, client=client)
    assert not list(raw.rglob("volume-3.nii"))


def test_garbled_bytes_are_fetched_again(kaggle, client, raw, caplog):
    kaggle.storage_faults[VOLUME] = [Fault(garbled=True)]
    assert fetch_case(3, raw, client=client)[0].read_bytes() == nifti(3)
    assert "checksum" in caplog.text


def test_garbled_zip_is_fetched_again_without_a_checksum(kaggle, client, raw, caplog):
    kaggle.with_md5 = False
    kaggle.sets[FIRST][VOLUME] = zipped(**{"volume-3.nii": nifti(3)})
    kaggle.storage_faults[VOLUME] = [Fault(garbled=True)]
    assert fetch_case(3, raw, client=client)[0].read_bytes() == nifti(3)
    assert "in the zip is broken" in caplog.text


def test_web_page_instead_of_a_volume_is_refused(kaggle, client, raw):
    kaggle.storage_faults[VOLUME] = [Fault(body=b"<html>" + b" " * 500) for _ in range(3)]
    with pytest.raises(FileUnavailable, match=r"volume-3.nii.*web page"):
        fetch_case(3, raw, client=client)
    assert files_below(raw) == []


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words", "attempts"),
    [
        (401, "make a new token at https://www.kaggle.com/settings", 1),
        (403, f"open https://www.kaggle.com/datasets/{FIRST} while signed in, accept its terms", 1),
        (404, "it is not there under this name", 1),
        (418, f"see https://www.kaggle.com/datasets/{FIRST}", 1),
        (429, "too many requests, wait some minutes and run again", PATIENCE.tries),
        (500, "its server failed, run again later", PATIENCE.tries),
    ],
)
@pytest.mark.parametrize("place", ["listing", "download", "storage", "hidden"])
def test_refusal_says_what_to_do(kaggle, client, raw, caplog, status, words, attempts, place):
    caplog.set_level(logging.DEBUG, "lits_helpers")
    faults = [Fault(status=status, hidden=place == "hidden") for _ in range(attempts)]
    service = "ListDatasetFiles" if place == "listing" else "DownloadDataset"
    if place == "storage":
        kaggle.storage_faults[VOLUME] = faults
    else:
        kaggle.api_faults[service] = faults
    with pytest.raises(KaggleError) as caught:
        fetch_case(3, raw, client=client)
    assert words in str(caught.value)
    assert not any(kaggle.api_faults.values())
    assert not any(kaggle.storage_faults.values())
    told = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert not any(secret in told for secret in (TOKEN, SIGNATURE))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_refusal_is_waited_out(kaggle, client, raw, status):
    kaggle.api_faults["DownloadDataset"] = [Fault(status=status), Fault(status=status)]
    assert fetch_case(3, raw, client=client)[0].read_bytes() == nifti(3)


def test_waits_double_and_heed_the_server_within_bounds():
    patience = Patience(first_wait_s=1.0, longest_wait_s=20.0)
    assert [patience.wait_s(n) for n in range(6)] == [1, 2, 4, 8, 16, 20]
    assert patience.wait_s(0, asked_s=7.0) == 7.0
    assert patience.wait_s(0, asked_s=3600.0) == 20.0


def test_retry_after_is_heeded(kaggle, raw):
    kaggle.api_faults["DownloadDataset"] = [Fault(status=429, retry_after=0.3)]
    client = KaggleClient(patience=Patience(3, 0.0, 1.0, 5.0))
    begun = time.monotonic()
    fetch_case(3, raw, client=client)
    assert time.monotonic() - begun >= 0.3


def test_no_network_says_so_without_the_address(client, raw):
    point_client_at("http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(KaggleError, match=r"no connection to Kaggle.*check the network"):
        fetch_case(3, raw, client=client)


def test_unreadable_listing_is_asked_for_again_then_named(kaggle, client, raw):
    kaggle.api_faults["ListDatasetFiles"] = [Fault(body=b"<html>") for _ in range(3)]
    with pytest.raises(KaggleError, match=r"unreadable: a proxy or sign-in page"):
        fetch_case(3, raw, client=client)


def test_missing_case_is_left_out_and_the_others_go_on(kaggle, client, raw):
    del kaggle.sets[FIRST][LABELS]
    seen = []
    failed = fetch_cases([3, 60], raw, lambda *pair: seen.append(pair[0].name), client=client)
    assert seen == ["volume-60.nii"]
    assert "Kaggle does not list segmentation-3.nii" in failed[3]


def test_case_numbers_out_of_range_are_named(raw):
    with pytest.raises(ValueError, match=r"cases 0\.\.130, got 131, 200"):
        plan_download([3, 131, 200], raw)


# --- hostile archives --------------------------------------------------------------------------


def entry(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def hostile(info: zipfile.ZipInfo, content: bytes = b"x") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("volume-3.nii", nifti(3))
        archive.writestr(info, content)
    return out.getvalue()


BOMB = zipped(**{"volume-3.nii": nifti(3) + bytes(30_000_000)})
CLAIMED_HUGE = hostile(entry("big.nii"), b"y" * 1000).replace(
    (1000).to_bytes(4, "little"), (0xFFFFFFF0).to_bytes(4, "little")
)


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        (hostile(entry("/tmp/evil.nii")), "outside its folder"),
        (hostile(entry("../../evil.nii")), "outside its folder"),
        (hostile(entry("a/../../evil.nii")), "outside its folder"),
        (hostile(entry("C:\\evil.nii")), "outside its folder"),
        (hostile(entry("..\\evil.nii")), "outside its folder"),
        (hostile(entry("link.nii", stat.S_IFLNK | 0o777), b"/etc/passwd"), "link or device"),
        (BOMB, "unpacks to more"),
    ],
)
def test_hostile_archive_is_refused_and_leaves_nothing(kaggle, client, raw, archive, words):
    kaggle.sets[FIRST][VOLUME] = archive
    with pytest.raises(FileUnavailable, match=words):
        fetch_case(3, raw, client=client)
    assert files_below(raw.parent) == []


def test_archive_claiming_gigabytes_is_refused(kaggle, client, raw):
    kaggle.sets[FIRST][VOLUME] = CLAIMED_HUGE
    with pytest.raises(FileUnavailable, match="more than any CT volume"):
        fetch_case(3, raw, client=client)


def test_archive_without_the_wanted_file_is_named(kaggle, client, raw):
    kaggle.sets[FIRST][VOLUME] = zipped(**{"volume-4.nii": nifti(4)})
    with pytest.raises(FileUnavailable, match=r"does not hold volume-3\.nii"):
        fetch_case(3, raw, client=client)


# --- many cases on a small disk -----------------------------------------------------------------


def test_raw_files_are_deleted_and_the_next_case_comes_meanwhile(kaggle, client, raw):
    counts = []

    def on_case(volume, segmentation):
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


def test_leftovers_of_cases_done_meanwhile_are_removed(raw):
    leftover = raw / "in-transit" / "volume_pt1" / "volume-7.nii"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(nifti(7))
    assert fetch_cases([], raw, lambda *_: None) == {}
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
    assert fetch_case(3, raw, client=client)[0] == flat
    assert flat.read_bytes() == nifti(3)


def test_full_disk_stops_clearly_and_keeps_what_is_whole(kaggle, client, raw):
    kaggle.sets[FIRST][VOLUME] = nifti(3, (40, 48, 400))
    volume = "volume_pt7/volume-60.nii"
    fetch_case(60, raw, client=client)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(KaggleError, match="no space left in"):
            fetch_case(3, raw, client=client)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (raw / volume).read_bytes() == nifti(60)
    assert fetch_case(3, raw, client=client)[0].stat().st_size == 352 + 40 * 48 * 400 * 2


def test_file_larger_than_the_free_disk_is_not_begun(kaggle, client, raw, monkeypatch):
    monkeypatch.setattr(
        kaggle_transfer.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=9)
    )
    with pytest.raises(KaggleError, match=r"volume-3.nii needs 0.00 GB"):
        fetch_case(3, raw, client=client)


def test_unwritable_folder_is_named(kaggle, client, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(KaggleError, match="cannot write in"):
        fetch_case(3, tmp_path / "file" / "raw", client=client)


# --- plan, whole sets, mounts, progress ---------------------------------------------------------


def test_plan_says_gigabytes_minutes_and_disk(kaggle, client, raw):
    kaggle.sizes = {VOLUME: 3_000_000_000, LABELS: 1_000_000_000}
    plan = plan_download([3], raw, client=client)
    assert plan.bytes == 4_000_000_000
    assert plan.disk_bytes == 8_000_000_000 + 1_400_000_000  # two cases and the prepared one
    assert "1 cases to fetch, 0 already here: 4.0 GB, about 3 min at 20 MB/s" in str(plan)
    kept = plan_download([3], raw, keep_raw=True, client=client)
    assert kept.disk_bytes == plan.disk_bytes + plan.bytes


def test_plan_stops_where_the_disk_is_too_small(kaggle, client, raw, monkeypatch):
    monkeypatch.setattr(kaggle_plan, "_free_bytes", lambda _: 10)
    with pytest.raises(KaggleError, match=r"needs 0.0 GB for this but has 0.0 GB free: free some"):
        plan_download([3], raw, client=client).check()


@pytest.mark.parametrize("as_archives", [False, True])
def test_both_sets_are_fetched_whole(kaggle, client, raw, monkeypatch, as_archives):
    monkeypatch.setattr(kaggle_files, "CASES", 4)
    monkeypatch.setattr(kaggle_files, "FIRST_SET_VOLUMES", 2)
    kaggle.sets = lits_sets(range(4), second_from=2)
    for files in kaggle.sets.values():
        files[""] = zipped(**files)
    kaggle_data.download_all(raw, as_archives=as_archives, client=client)
    assert len(files_below(raw)) == 8
    assert (raw / "volume_pt1" / "volume-2.nii").read_bytes() == nifti(2)
    assert len(kaggle.gets()) == (2 if as_archives else 8)


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


def test_nothing_mounted_is_none(tmp_path):
    labels = tmp_path / "segmentations" / "segmentation-3.nii"
    labels.parent.mkdir()
    labels.write_bytes(nifti(3, bits=8))
    assert find_mounted([tmp_path, tmp_path / "absent"]) is None


def test_progress_is_told_in_lines_where_there_is_no_terminal(
    kaggle, client, raw, monkeypatch, caplog
):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1.0)
    caplog.set_level(logging.INFO, "lits_helpers")
    fetch_case(3, raw, client=client)
    assert "LiTS: 0.00 of 0.00 GB" in caplog.text
    assert "MB/s" in caplog.text


def test_progress_line_has_bytes_rate_and_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    meter = progress.Meter(5_000_000_000, "LiTS")
    now[0] = 110.0
    meter.add(1_000_000_000, fresh=False)
    meter.add(100_000_000)
    assert meter.line() == "LiTS: 1.10 of 5.00 GB, 10.0 MB/s, 6 min left"  # 3.9 GB at 10 MB/s


# --- killed ------------------------------------------------------------------------------------


@pytest.mark.slow  # 10 s; benchmarks/kill_download.py does the same 25 times
@pytest.mark.parametrize("keep_raw", [True, False])
def test_killed_download_ends_as_if_undisturbed(keep_raw, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    from kill_download import storm

    assert storm(kills=3, seed=1, keep_raw=keep_raw)["kills"] == 3
