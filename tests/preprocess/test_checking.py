"""A folder seen as one: a row, and a picture if asked for, of each case; the data stay as found."""

import csv

import cv2
import numpy as np
import pytest
from helpers.drawn import body, write_case, write_nifti

from lits_helpers.cases import find_cases
from lits_helpers.machine import file_hash
from lits_helpers.preprocess import check_folder, prepare
from lits_helpers.volumes import read_picture


@pytest.fixture
def folder(raw):
    """Cases 0 to 2 of `raw`, a CT that is a label file, a reference that is a CT, one cut short."""
    hu, labels = body()
    write_case(raw, 3, labels.astype(np.int16), labels)
    write_case(raw, 4, hu + 1, hu)
    write_case(raw, 5, hu + 2, labels)
    path = raw / "volume_pt1" / "volume-5.nii"
    path.write_bytes(path.read_bytes()[:-100])
    return raw


def test_every_case_has_a_row_with_what_would_be_done(folder):
    report = check_folder(folder, workers=0)
    rows = {row["case"]: row for row in report.rows}
    assert [row["action"] for row in rows.values()] == ["taken"] * 3 + ["left out"] * 3
    assert rows["0"]["size"] == "76 x 60 x 14"
    assert rows["0"]["spacing_mm"] == "5 4.5 10"
    assert [rows[case]["orientation"] for case in "012"] == ["LPS", "SRA", "RAS"]
    assert "no segmentation" in rows["2"]["findings"]
    assert "look like a segmentation" in rows["3"]["findings"]
    assert "labels must be 0 (background)" in rows["4"]["findings"]
    assert "truncated" in rows["5"]["findings"]
    text = report.table()
    assert text.startswith("layout lits: 6 CTs below")
    assert "\n0     76 x 60 x 14  5 4.5 10    LPS          taken\n" in text


def test_the_table_is_written_as_csv_and_nothing_into_the_data(folder, tmp_path):
    def content():
        return {path: file_hash(path) for path in folder.rglob("*") if path.is_file()}

    before = content()
    report = check_folder(folder, tiles=True, workers=0)
    path = report.write_csv(tmp_path / "out" / "check.csv")
    report.write_sheet(tmp_path / "out" / "sheet.png")
    assert content() == before
    with open(path, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case"] for row in rows] == list("012345")
    assert rows[1]["segmentation"] == str(folder / "segmentations" / "segmentation-1.nii.gz")


def test_a_case_that_is_left_out_has_a_red_frame(folder, tmp_path):
    sheet = check_folder(folder, tiles=True, workers=0).sheet()
    assert sheet.shape == (200, 6 * 200, 3)
    frames = [tuple(int(value) for value in sheet[100, 200 * k + 1]) for k in range(6)]
    assert [frame == (220, 40, 40) for frame in frames] == [False] * 3 + [True] * 3
    assert sheet[60:140, 60:140].max() > 0  # a picture
    assert sheet[60:140, 1060:1140].max() == 0  # none of the truncated file
    path = check_folder(folder, tiles=True, workers=0).write_sheet(tmp_path / "sheet.png")
    assert np.array_equal(read_picture(path, cv2.IMREAD_COLOR_RGB), sheet)


def test_a_turned_case_says_how_it_is_read(tmp_path):
    hu, labels = body()
    for name, array in (("volume-0.nii", hu), ("segmentation-0.nii", labels)):
        write_nifti(array[:, ::-1], tmp_path / name)
    (row,) = check_folder(tmp_path, workers=0).rows
    assert row["action"].startswith("turned, read as L")
    assert "the spine was in front" in row["findings"]


def test_no_sheet_without_tiles(folder):
    with pytest.raises(ValueError, match="no tiles were made"):
        check_folder(folder, workers=0).sheet()


def test_the_same_voxels_under_two_names_are_named(tmp_path):
    hu, labels = body()
    write_case(tmp_path, 3, hu, labels)
    write_case(tmp_path, 12, hu, labels, orientation="RAS", suffix=".nii.gz")
    write_case(tmp_path, 4, hu + 1, labels)
    rows = {row["case"]: row for row in check_folder(tmp_path, workers=0).rows}
    assert [row["findings"] != "" for row in rows.values()] == [False, False, True]
    assert rows["12"]["findings"].startswith("its CT has the voxels of case 3: take one of them")
    for _ in range(2):
        report = prepare(find_cases(tmp_path), tmp_path / "out", workers=0, png=False)
        assert [*report.findings] == ["12"]
        assert report.findings["12"][0].text == rows["12"]["findings"]
    (tmp_path / "patients.csv").write_text("case,patient\n3,a\n12,a\n")
    report = prepare(find_cases(tmp_path), tmp_path / "out", workers=0, png=False)
    assert not report.findings
