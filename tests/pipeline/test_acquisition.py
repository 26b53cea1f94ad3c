"""From Kaggle to prepared cases, on a small disk and through interruptions; what Drive keeps."""

import gzip
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.drawn import body, write_case
from helpers.kaggle_stand_in import StandIn, point_client_at, serving
from helpers.logs import logged
from helpers.msd_stand_in import SERVERS, Shelf, archive_of, tar_of

from lits_helpers.cases import Finding
from lits_helpers.download import DownloadError
from lits_helpers.download.kaggle import FIRST_SET, SECOND_SET
from lits_helpers.machine import files, locked_folder, read_json
from lits_helpers.pipeline import acquisition, download, ensure_prepared, kept_cases
from lits_helpers.preprocess import PreparationReport, open_prepared, prepare
from lits_helpers.settings import Settings

pytest_plugins = ["helpers.kaggle_fixtures"]

PACKED = {f"cases/{n}{end}" for n in (3, 60) for end in (".b2nd", "-labels.b2nd", ".json")}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Two sound cases and one without liver, as file name -> content."""
    root = tmp_path_factory.mktemp("phantoms")
    hu, labels = body()
    write_case(root, 3, hu, labels, "RAS")
    write_case(root, 5, hu, 0 * labels)
    write_case(root, 60, hu, labels, "LPS")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.nii")}


@pytest.fixture
def kaggle(phantoms, signed_in, monkeypatch):
    """A stand-in Kaggle that holds them in its two sets; nothing is mounted."""
    monkeypatch.setattr(acquisition, "find_mounted", lambda _: None)
    second = {name for name in phantoms if name.endswith("volume-60.nii")}
    sets = {
        FIRST_SET: {n: c for n, c in phantoms.items() if n not in second},
        SECOND_SET: {n: c for n, c in phantoms.items() if n in second},
    }
    with serving(StandIn(sets)) as stand_in:
        point_client_at(stand_in.url)
        yield stand_in


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Make the settings of a new machine; all of them share one Drive, a plain folder."""
    monkeypatch.setattr(kept_cases, "ROOM_FOR_RUNS", 0)

    def new(name: str = "first", drive: bool = False) -> Settings:
        root = tmp_path / name
        return Settings(
            tiny=True,
            source="kaggle",
            raw=root / "raw",
            prepared=root / "prepared",
            runs=root / "kaggle",
            drive=drive,
        )

    def folder(settings, part):
        return tmp_path / "drive" / settings.runs.name / part if settings.drive else None

    monkeypatch.setattr(acquisition, "drive_folder", folder)
    return new


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def fetch(settings, numbers="3, 60", **options):
    return download(settings, numbers, workers=0, **options)


# --- fetch, check, prepare, delete ---------------------------------------------------------------


def test_cases_arrive_prepared_and_leave_no_raw_file(kaggle, machine):
    here = machine()
    report = fetch(here)
    assert report.prepared == ["3", "60"]
    assert set(contents(here.prepared)) == PACKED
    assert contents(here.raw) == {}
    assert [case.liver_slices[0] for case in open_prepared(here.prepared).cases] == [2, 2]


def test_second_call_makes_no_request_and_tells_the_same(kaggle, machine, monkeypatch):
    here = machine()
    fetch(here, "3, 5, 60")
    before = contents(here.prepared)
    kaggle.seen.clear()
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    report = fetch(here, "3, 5, 60")
    assert kaggle.seen == []
    assert contents(here.prepared) == before
    assert (report.prepared, list(report.skipped)) == (["3", "60"], ["5"])


def test_refused_case_is_remembered_and_not_fetched_again(kaggle, machine, caplog):
    here = machine()
    reason = "the segmentation holds no liver"
    assert fetch(here, "5").skipped == {"5": reason}
    assert read_json(here.prepared / "refused.json") == {"5": reason}
    assert logged(caplog, "case 5", reason)
    kaggle.seen.clear()
    assert fetch(here, "3, 5").skipped == {"5": reason}
    assert {entry[1] for entry in kaggle.gets()} == {
        "volume_pt1/volume-3.nii",
        "segmentations/segmentation-3.nii",
    }


def test_case_whose_worker_died_is_fetched_again(kaggle, machine, monkeypatch):
    here, died = machine(), Finding("failed", True, "its worker process died")

    def die(cases, *_, **__):
        ids = [case.id for case in cases]
        skipped = dict.fromkeys(ids, died.text)
        return PreparationReport(skipped=skipped, failed=ids, findings={ids[0]: [died]})

    with monkeypatch.context() as patch:
        patch.setattr(acquisition, "prepare", die)
        assert fetch(here, "3").skipped == {"3": "its worker process died"}
    assert not (here.prepared / "refused.json").exists()
    assert fetch(here, "3").prepared == ["3"]


def test_case_that_kaggle_lacks_is_named_and_the_others_come(kaggle, machine):
    report = fetch(machine(), "3, 4")
    assert report.prepared == ["3"]
    assert "Kaggle lists no volume 4" in report.skipped["4"]


def test_killed_between_prepare_and_delete_the_next_call_tidies_up(kaggle, machine, monkeypatch):
    here = machine()

    def die_after(*arguments, **options):
        prepare(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(acquisition, "prepare", die_after)
        with pytest.raises(KeyboardInterrupt):
            fetch(here, "3")
    assert {name.rpartition("/")[2] for name in contents(here.raw)} >= {"volume-3.nii"}
    kaggle.seen.clear()
    assert fetch(here, "3").prepared == ["3"]
    assert kaggle.seen == []
    assert contents(here.raw) == {}


def test_kept_raw_files_serve_a_second_preparation(kaggle, machine):
    here = machine()
    fetch(here, "3", keep_raw=True)
    assert set(contents(here.raw)) == {
        "volume_pt1/volume-3.nii",
        "segmentations/segmentation-3.nii",
    }
    shutil.rmtree(here.prepared)
    kaggle.seen.clear()
    assert fetch(here, "3").prepared == ["3"]
    assert kaggle.seen == []


def test_mounted_files_are_read_in_place(kaggle, machine, phantoms, tmp_path, monkeypatch):
    for name, content in phantoms.items():
        if "-3." in name:
            path = tmp_path / "input" / name.rpartition("/")[2]
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
    monkeypatch.setattr(acquisition, "find_mounted", lambda _: tmp_path / "input")
    assert fetch(machine(), "3").prepared == ["3"]
    assert kaggle.gets() == []
    assert len(contents(tmp_path / "input")) == 2


def test_png_come_later_without_fetching(kaggle, machine):
    here, at_once = machine(), machine("other")
    fetch(here)
    fetch(at_once, png=True)
    kaggle.seen.clear()
    fetch(here, png=True)
    assert kaggle.seen == []
    assert contents(here.prepared) == contents(at_once.prepared)
    assert len(list((here.prepared / "masks" / "60").glob("*.png"))) == 14


def test_notebooks_that_name_no_cases_take_those_that_are_there(kaggle, machine):
    here = machine()
    fetch(here, "3")
    kaggle.seen.clear()
    assert [case.id for case in ensure_prepared(here).cases] == ["3"]
    assert kaggle.seen == []


def test_disk_that_cannot_hold_the_data_stops_before_anything_is_fetched(
    kaggle, machine, monkeypatch
):
    kaggle.sizes["volume_pt1/volume-3.nii"] = 10**18
    with pytest.raises(DownloadError, match=r"needs .* GB for this but has .* GB free: free some"):
        fetch(machine(), "3")
    assert kaggle.gets() == []


def test_report_joins_what_many_cases_share(kaggle, machine, caplog):
    caplog.set_level(logging.INFO, "lits_helpers")
    fetch(machine(), "3, 5, 60")
    assert caplog.messages[-1].splitlines() == [
        "2 cases prepared (0 now, 2 unchanged), 1 skipped",
        "SKIPPED  left_out  case 5  the segmentation holds no liver",
    ]
    noted = Finding("spacing_untrusted", False, "the voxel size is not to be trusted")
    ids = [str(n) for n in (28, 29, 30, 52)]
    report = PreparationReport(prepared=ids, findings={name: [noted] for name in ids})
    assert report.table().splitlines() == [
        "4 cases prepared (4 now, 0 unchanged), 0 skipped",
        "noted  spacing_untrusted  cases 28-30, 52  the voxel size is not to be trusted",
    ]


def test_tiny_run_downloads_a_few_cases_unless_others_are_named(kaggle, machine):
    here = machine()
    report = fetch(here, "")
    assert report.prepared == ["3"]
    assert sorted(report.skipped) == ["0", "1", "2", "4", "5"]


def test_mounted_case_that_is_cut_short_comes_from_kaggle(
    kaggle, machine, phantoms, tmp_path, monkeypatch
):
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    for name, content in phantoms.items():
        cut = name.endswith("volume-60.nii")
        (mounted / Path(name).name).write_bytes(content[:-9] if cut else content)
    monkeypatch.setattr(acquisition, "find_mounted", lambda _: mounted)
    assert fetch(machine()).prepared == ["3", "60"]
    assert {entry[1].rpartition("/")[2] for entry in kaggle.gets()} == {"volume-60.nii"}


def test_mounted_case_that_is_cut_short_ends_nothing_without_an_account(
    kaggle, machine, phantoms, tmp_path, monkeypatch, caplog
):
    for name, content in phantoms.items():
        cut = name.endswith("volume-60.nii")
        (tmp_path / Path(name).name).write_bytes(content[:-9] if cut else content)
    monkeypatch.setattr(acquisition, "find_mounted", lambda _: tmp_path)
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    report = fetch(machine())
    assert report.prepared == ["3"]
    assert f"not whole in {tmp_path}, and not fetched: no Kaggle" in report.skipped["60"]
    assert logged(caplog, "case 60", "Kaggle")
    with pytest.raises(DownloadError, match="no Kaggle credentials"):
        fetch(machine("second"), "3, 61")


def test_cases_of_the_msd_archive_take_the_same_way(phantoms, machine, monkeypatch):
    monkeypatch.setattr(acquisition, "find_mounted", lambda _: None)
    names = {"volume": "imagesTr", "segmentation": "labelsTr"}
    files = {}
    for path, content in phantoms.items():
        kind, number = Path(path).stem.split("-")
        member = f"Task03_Liver/{names[kind]}/liver_{number}.nii.gz"
        files[member] = gzip.compress(content, mtime=0)
    with serving(Shelf(archive=tar_of(files)), SERVERS) as shelf:
        monkeypatch.setattr(acquisition, "MsdArchive", lambda folder: archive_of(shelf, folder))
        first = replace(machine("first", drive=True), source="msd")
        report = fetch(first, "3, 5, 60")
        assert report.prepared == ["liver_3", "liver_60"]
        assert report.skipped == {"liver_5": "the segmentation holds no liver"}
        assert list(contents(first.raw)) == []
        shelf.spans.clear()
        second = replace(machine("second", drive=True), source="msd")
        for again in (first, second):
            assert fetch(again, "3, 5, 60").prepared == report.prepared
        assert shelf.spans == []
        assert contents(second.prepared) == contents(first.prepared)
        assert fetch(second, "3, 4, 60").prepared == report.prepared
        assert shelf.spans == [(0, 1535)], (
            "the index came from Drive; it was only asked whether it fits"
        )


# --- what Drive keeps ----------------------------------------------------------------------------


def test_prepared_cases_come_back_from_drive_without_a_request(kaggle, machine, monkeypatch):
    first, second = machine("first", drive=True), machine("second", drive=True)
    fetch(first, "3, 5, 60", png=True)
    kaggle.seen.clear()
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    report = fetch(second, "3, 5, 60", png=True)
    assert kaggle.seen == []
    assert (report.prepared, list(report.skipped)) == (["3", "60"], ["5"])
    assert contents(second.prepared) == contents(first.prepared)


def test_drive_gets_few_large_files_and_no_slices(kaggle, machine, tmp_path):
    fetch(machine(drive=True), "3, 5, 60", png=True)
    kept = tmp_path / "drive" / "kaggle" / "prepared"
    assert set(contents(kept)) == PACKED | {"refused.json"}
    assert [case.id for case in open_prepared(kept).cases] == ["3", "60"]  # readable as it is


def test_drive_stays_empty_unless_wanted(kaggle, machine, tmp_path):
    fetch(machine())
    assert not (tmp_path / "drive").exists()


def test_notebooks_that_name_no_cases_take_those_on_drive(kaggle, machine):
    fetch(machine("first", drive=True), "60")
    kaggle.seen.clear()
    assert [case.id for case in ensure_prepared(machine("second", drive=True)).cases] == ["60"]
    assert kaggle.seen == []


@pytest.mark.parametrize("harm", ["cut", "absent"])
def test_case_that_did_not_reach_drive_whole_is_fetched(kaggle, machine, tmp_path, harm):
    first = machine("first", drive=True)
    fetch(first)
    labels = tmp_path / "drive" / "kaggle" / "prepared" / "cases" / "3-labels.b2nd"
    whole = labels.read_bytes()
    labels.write_bytes(whole[:-9]) if harm == "cut" else labels.unlink()
    kaggle.seen.clear()
    second = machine("second", drive=True)
    fetch(second)
    assert {entry[1].rpartition("/")[2] for entry in kaggle.gets()} == {
        "volume-3.nii",
        "segmentation-3.nii",
    }
    assert contents(second.prepared) == contents(first.prepared)
    assert labels.read_bytes() == whole  # mended for the machine after this one


def test_what_drive_missed_is_copied_by_the_next_call_and_nothing_twice(kaggle, machine, tmp_path):
    fetch(machine(), "3")
    fetch(machine(drive=True), "3")  # Drive comes in later
    kept = tmp_path / "drive" / "kaggle" / "prepared"
    assert set(contents(kept)) == {name for name in PACKED if "/3" in name}
    for path in kept.rglob("*.*"):
        os.utime(path, (1, 1))
    (kept / "cases" / ".part-17-60.b2nd").write_bytes(b"half")
    fetch(machine(drive=True), "3")
    assert {path.stat().st_mtime for path in kept.rglob("*.*")} == {1}


def test_drive_without_room_is_told_once_and_loses_nothing(kaggle, machine, monkeypatch, caplog):
    monkeypatch.setattr(kept_cases, "ROOM_FOR_RUNS", 10**18)
    here = machine(drive=True)
    assert fetch(here).prepared == ["3", "60"]
    assert set(contents(here.prepared)) == PACKED
    assert logged(caplog, "kept on Google Drive", "untick USE_DRIVE") == 1


def test_notebooks_that_name_no_cases_ask_kaggle_for_nothing(kaggle, machine, tmp_path, caplog):
    fetch(machine("first", drive=True))
    labels = tmp_path / "drive" / "kaggle" / "prepared" / "cases" / "3-labels.b2nd"
    labels.write_bytes(labels.read_bytes()[:-9])
    kaggle.seen.clear()
    assert [case.id for case in ensure_prepared(machine("second", drive=True)).cases] == ["60"]
    assert kaggle.seen == []
    assert logged(caplog, "cases 3", "try again, or call preprocess.prepare")
    with pytest.raises(FileNotFoundError, match=r"is prepared in .*call pipeline.download"):
        ensure_prepared(machine("third"))


def test_case_that_is_damaged_here_is_named_and_left_out(kaggle, machine, caplog):
    fetch(machine())
    (machine().prepared / "cases" / "3.b2nd").write_bytes(b"cut")
    assert [case.id for case in ensure_prepared(machine()).cases] == ["60"]
    assert logged(caplog, "cases 3", "try again")


def test_raw_and_prepared_may_be_one_folder(kaggle, machine):
    here = replace(machine(), raw=machine().prepared)
    assert fetch(here, "3").prepared == ["3"]


def test_one_file_that_drive_does_not_give_costs_its_case_only(
    kaggle, machine, monkeypatch, caplog
):
    fetch(machine("first", drive=True))
    plain = files.copy_whole

    def copy(source, target):
        if source.name == "3.b2nd" and "drive" in source.parts:
            raise OSError(5, "Input/output error")
        plain(source, target)

    monkeypatch.setattr(kept_cases, "copy_whole", copy)
    assert [case.id for case in ensure_prepared(machine("second", drive=True)).cases] == ["60"]
    assert logged(caplog, "cases 3", "Google Drive", "[Errno 5]")


@pytest.mark.parametrize("content", ["", "[]"])
def test_spoilt_list_of_refused_cases_is_no_dead_end(kaggle, machine, content):
    fetch(machine(), "3")
    (machine().prepared / "refused.json").write_text(content)
    assert fetch(machine(), "3, 5").prepared == ["3"]
    assert list(read_json(machine().prepared / "refused.json")) == ["5"]


def test_second_download_into_a_folder_is_refused(kaggle, machine):
    here = machine()
    with (
        locked_folder(here.raw, "", purpose="download"),
        pytest.raises(OSError, match=r"another process works in .*raw.*: wait for it, or choose"),
    ):
        fetch(here)
    assert kaggle.gets() == []


def test_colab_is_told_that_without_drive_a_download_is_lost(kaggle, machine, monkeypatch, caplog):
    monkeypatch.setattr(acquisition, "in_colab", lambda: True)
    fetch(machine("first"), "3")
    assert logged(caplog, "lost", "USE_DRIVE")
    caplog.clear()
    fetch(machine("second", drive=True), "3")
    assert not logged(caplog, "lost")


def test_drive_that_cannot_be_written_or_read_loses_nothing(kaggle, machine, tmp_path, caplog):
    (tmp_path / "drive").write_text("unmounted")
    assert fetch(machine(drive=True)).prepared == ["3", "60"]
    assert logged(caplog, "goes on without") == 1
