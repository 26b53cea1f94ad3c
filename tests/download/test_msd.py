"""Task03_Liver by byte ranges, against a server of a generated archive."""

import json
import tarfile
from pathlib import Path

import pytest
from helpers.kaggle_stand_in import PATIENCE, Fault, files_below, serving
from helpers.logs import logged
from helpers.msd_stand_in import (
    LABELS,
    SERVERS,
    VOLUME,
    Shelf,
    archive_of,
    fetch_pair,
    liver_files,
    packed,
    tar_of,
)

from lits_helpers.cases import find_cases
from lits_helpers.download import DownloadError, MsdArchive, fetch_cases, plan_download
from lits_helpers.download.source import FileUnavailable

INDEX = "Task03_Liver.tar.index.json"
PAIR = (packed(3), packed(3, bits=8))


@pytest.fixture
def shelf():
    content = tar_of(liver_files())
    with serving(Shelf(archive=content, mirror=content), SERVERS) as stand_in:
        yield stand_in


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw"


@pytest.fixture
def source(shelf, raw):
    return archive_of(shelf, raw)


def test_case_arrives_byte_for_byte_and_nothing_else(source, raw):
    assert fetch_pair(source, 3, raw) == PAIR
    assert files_below(raw) == [INDEX, VOLUME, LABELS]


def test_index_finds_the_members_where_tarfile_does(source, shelf, tmp_path):
    source.list_files([3])
    (tmp_path / "whole.tar").write_bytes(shelf.archive)
    with tarfile.open(tmp_path / "whole.tar") as whole:
        expected = {
            member.name: [member.offset_data, member.size]
            for member in whole
            if "Tr/liver_" in member.name
        }
    assert len(expected) == 4
    assert json.loads((tmp_path / "raw" / INDEX).read_text())["members"] == expected


def test_an_apple_double_and_the_header_after_it_cost_one_request(source, shelf):
    source.list_files([3])
    assert len(shelf.spans) <= 4 + 3 + 2  # a member each, what is above them, first look and end


def test_index_is_made_once(source, shelf, raw):
    fetch_pair(source, 60, raw)
    shelf.spans.clear()
    fetch_pair(archive_of(shelf, raw), 3, raw)
    assert [span for span in shelf.spans if span not in shelf.member_spans()] == [(0, 1535)]


def test_second_call_makes_no_request(source, shelf, raw):
    fetch_pair(source, 3, raw)
    shelf.spans.clear()
    assert fetch_pair(archive_of(shelf, raw), 3, raw) == PAIR
    assert shelf.spans == []


def test_raw_files_are_deleted_when_their_case_is_done(source, raw):
    seen = []
    assert fetch_cases(source, [3, 60], raw, lambda number, *_: seen.append(number)) == {}
    assert seen == [3, 60]
    assert files_below(raw) == [INDEX]


def test_kept_files_are_cases_of_a_folder_with_the_same_id(source, raw):
    fetch_pair(source, 3, raw)
    cases = find_cases(raw)
    assert [(case.id, case.segmentation) for case in cases] == [("liver_3", raw / LABELS)]
    assert source.case_id(3) == "liver_3"


def test_plan_says_whose_data_it_is(source, raw):
    plan = plan_download(source, [3], raw)
    assert plan.size_bytes == sum(map(len, PAIR))
    assert "1 cases to fetch" in str(plan)
    assert "CC BY-SA 4.0" in str(plan)
    assert "Medical Segmentation Decathlon" in str(plan)


def test_case_that_the_archive_lacks_is_named_and_the_others_come(source, raw):
    seen = []
    failed = fetch_cases(source, [3, 4], raw, lambda number, *_: seen.append(number))
    assert seen == [3]
    assert "the MSD archive lists no volume 4" in failed[4]


def test_cut_transfer_goes_on_where_it_stopped(source, shelf, raw):
    shelf.faults = [Fault(after=5000)]
    assert fetch_pair(source, 3, raw) == PAIR
    first, second, _ = shelf.member_spans()
    assert second == (first[0] + 5000, first[1])


@pytest.mark.parametrize(
    "lie",
    [
        Fault(garbled=True),
        Fault(announce=2000),
        Fault(announce=10**6),
        Fault(elsewhere=512),
        Fault(status=500),
        Fault(status=429, retry_after=0.01),
    ],
)
def test_lying_or_failing_transfer_is_repeated(source, shelf, raw, lie):
    shelf.faults = [lie]
    assert fetch_pair(source, 3, raw) == PAIR
    assert fetch_pair(source, 60, raw) == (packed(60), packed(60, bits=8))


@pytest.mark.parametrize(
    "lie", [Fault(after=100), Fault(elsewhere=512), Fault(garbled=True), Fault(status=503)]
)
def test_failing_header_is_asked_for_again(source, shelf, raw, lie):
    shelf.header_faults = [Fault(), Fault(), lie]
    assert fetch_pair(source, 3, raw) == PAIR


def test_interrupted_walk_goes_on_where_it_stopped(source, shelf):
    shelf.header_faults = [Fault(), Fault(), Fault(), Fault(status=500)]
    source.list_files([3])
    assert len(shelf.spans) == len(set(shelf.spans)) + 3  # two looks more at 0, one failed


def test_damaged_member_is_left_out_and_the_others_come(shelf, raw):
    files = liver_files()
    files[VOLUME] = files[VOLUME][:4000] + b"\xff" * 8 + files[VOLUME][4008:]
    shelf.archive = tar_of(files)
    seen = []
    failed = fetch_cases(
        archive_of(shelf, raw), [3, 60], raw, lambda number, *_: seen.append(number)
    )
    assert seen == [60]
    assert "liver_3.nii.gz" in failed[3]
    assert "arrived damaged 3 times" in failed[3]
    assert files_below(raw) == [INDEX]


@pytest.mark.parametrize("between", ["members", "parts of a member", "headers"])
def test_archive_that_changes_in_the_middle_is_never_mixed(source, shelf, raw, between):
    files = {**liver_files(), VOLUME: packed(99), "Task03_Liver/new.txt": b"x" * 700}
    files = dict(reversed(files.items()))

    def change(*_):
        shelf.archive = tar_of(files)

    if between == "members":
        fetch_cases(source, [60], raw, change, keep_raw=True)
    elif between == "parts of a member":
        shelf.faults = [Fault(after=5000), *[Fault(after=0)] * PATIENCE.tries]
        with pytest.raises(FileUnavailable):
            fetch_pair(source, 3, raw)
        change()
    else:
        shelf.swap = (5, tar_of(files))
    assert fetch_pair(source, 3, raw) == (packed(99), packed(3, bits=8))
    assert files_below(raw)[0] == INDEX


@pytest.mark.parametrize("mirror_differs", [False, True])
def test_mirror_is_taken_where_the_first_address_has_nothing(
    source, shelf, raw, mirror_differs, caplog
):
    if mirror_differs:
        shelf.mirror = tar_of(dict(reversed(liver_files().items())))
    shelf.archive = None
    assert fetch_pair(source, 3, raw) == PAIR
    assert logged(caplog, "answered 404 for Task03_Liver.tar")


def test_mirror_is_taken_when_the_first_address_goes_away_meanwhile(source, shelf, raw):
    def take_away(*_):
        shelf.archive = None

    assert fetch_cases(source, [60], raw, take_away) == {}
    assert fetch_pair(source, 3, raw) == PAIR


def test_mirror_is_taken_where_nobody_answers(shelf, raw):
    addresses = ("http://127.0.0.1:9/Task03_Liver.tar", shelf.addresses[1])
    assert fetch_pair(MsdArchive(raw, PATIENCE, addresses), 3, raw) == PAIR


def test_archive_that_is_nowhere_ends_the_run(source, shelf, raw):
    shelf.archive = shelf.mirror = None
    with pytest.raises(DownloadError, match=r"404 for Task03_Liver.tar: .*medicaldecathlon"):
        fetch_pair(source, 3, raw)


def test_server_without_ranges_is_named_and_little_is_received(source, shelf, raw):
    shelf.header_faults = [Fault(ignore_range=True)] * 2
    with pytest.raises(DownloadError, match=r"sends all of Task03_Liver.tar .*read it as a folder"):
        fetch_pair(source, 3, raw)


def test_something_that_is_no_tar_is_named(shelf, raw):
    shelf.archive = shelf.mirror = b"<html>" * 1000
    with pytest.raises(DownloadError, match="no tar at byte 0"):
        fetch_pair(archive_of(shelf, raw), 3, raw)


@pytest.mark.parametrize("content", ["", "[]", '{"identity": "x"}'])
def test_spoilt_index_is_made_anew(source, shelf, raw, content):
    raw.mkdir()
    (raw / INDEX).write_text(content)
    assert fetch_pair(source, 3, raw) == PAIR


def test_member_beyond_the_end_of_a_cut_archive_is_not_listed(shelf, raw):
    shelf.archive = shelf.archive[: shelf.archive.rindex(b"Task03_Liver/imagesTr/liver_3") + 4000]
    names = [file.name for file in archive_of(shelf, raw).list_files([3])]
    assert VOLUME not in names
    assert LABELS in names


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("Task03_Liver/imagesTr/liver_7.nii.gz", ("volume", 7)),
        ("labelsTr/liver_130.nii", ("segmentation", 130)),
        ("imagesTr/._liver_7.nii.gz", None),
        ("imagesTs/liver_132.nii.gz", None),
        ("imagesTr/liver_x.nii.gz", None),
    ],
)
def test_files_are_told_by_folder_and_name(raw, path, key):
    assert MsdArchive(raw).key(Path(path)) == key
