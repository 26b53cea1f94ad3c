"""What each notebook begins with: data are found, restored, or made on the spot."""

from dataclasses import replace

import pytest
from helpers.prepared_runs import write_prepared, write_raw

from lits_helpers.pipeline import acquisition, ensure_prepared
from lits_helpers.pipeline.acquisition import parse_numbers
from lits_helpers.preprocess import open_prepared


def files_below(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_missing_phantoms_are_made_and_prepared_once(small):
    data = ensure_prepared(small, workers=0)
    assert [case.id for case in data.cases] == ["0", "1", "2"]
    assert (data.root, data.split.test) == (small.prepared, ())
    assert sorted(data.split.training + data.split.validation) == ["0", "1", "2"]
    assert data.split.validation
    before = files_below(small.raw) | files_below(small.prepared)
    assert ensure_prepared(small, workers=0) == data
    assert files_below(small.raw) | files_below(small.prepared) == before


def test_slices_for_system_a_are_exported_where_they_are_asked_for(small):
    data = ensure_prepared(small, workers=0)
    assert not (data.root / "images").exists()
    data = ensure_prepared(small, png=True, workers=0)
    for kind in ("images", "masks"):
        pictures = list((data.root / kind / "0").glob("*.png"))
        assert len(pictures) == data.case("0").shape[0]


def test_a_folder_is_read_in_place(small, tmp_path):
    scans = write_raw(tmp_path / "scans", cases=2)
    before = files_below(scans)
    data = ensure_prepared(replace(small, source="folder", raw=scans), workers=0)
    assert [case.id for case in data.cases] == ["0", "1"]
    assert files_below(scans) == before


def test_drive_is_mounted_before_a_folder_on_it_is_read(small, tmp_path, monkeypatch):
    scans = tmp_path / "drive" / "scans"
    monkeypatch.setattr(acquisition, "drive_folder", lambda *_: write_raw(scans, cases=2))
    data = ensure_prepared(replace(small, source="folder", raw=scans, drive=True), workers=0)
    assert [case.id for case in data.cases] == ["0", "1"]


def test_a_folder_of_which_nothing_can_be_prepared_is_named(small, tmp_path):
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "volume-0.nii").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"none of the cases under .*scans could be"):
        ensure_prepared(replace(small, source="folder", raw=tmp_path / "scans"), workers=0)


def test_a_folder_without_cases_is_named(small, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no case under .*scans: expected volume-N\.nii"):
        ensure_prepared(replace(small, source="folder", raw=tmp_path / "scans"))
    with pytest.raises(FileNotFoundError, match=r"no prepared case under .*preprocess.prepare"):
        open_prepared(tmp_path / "prepared")


def test_kaggle_is_asked_for_the_numbers_of_the_form(small, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(acquisition, "download", lambda _, numbers, **o: asked.append((numbers, o)))
    data = write_prepared(tmp_path / "drawn")
    chosen = replace(small, source="kaggle", prepared=data.root)
    found = ensure_prepared(chosen, case_numbers="0-2", png=True)
    assert asked == [("0-2", {"png": True, "workers": None})]
    assert found.cases == data.cases


def test_cases_without_reference_are_in_no_part_of_the_split(small, tmp_path):
    scans = write_raw(tmp_path / "scans", cases=4)
    (scans / "segmentations" / "segmentation-2.nii").unlink()
    data = ensure_prepared(replace(small, source="folder", raw=scans), workers=0)
    assert len(data.cases) == 4
    assert not data.case("2").has_segmentation
    assert sorted(data.split.training + data.split.validation) == ["0", "1", "3"]


def test_an_unknown_case_is_named_with_those_there_are(tmp_path):
    data = write_prepared(tmp_path)
    with pytest.raises(KeyError, match=r"no case '7' in .*; there are 0, 1, 2"):
        data.volume_path("7")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0-2, 27", [0, 1, 2, 27]),
        ("5", [5]),
        ("3,1,3,1-2", [1, 2, 3]),
        ("7-7,", [7]),
        ("", list(range(131))),
        (" ", list(range(131))),
    ],
)
def test_case_numbers_are_read_from_text(text, numbers):
    assert parse_numbers(text) == numbers


@pytest.mark.parametrize("text", ["a", "1-", "-3", "1;2", "1-2-3", "1.5", "9-5"])
def test_other_text_is_refused(text):
    with pytest.raises(ValueError, match='case numbers look like "0-9, 27", got'):
        parse_numbers(text)
