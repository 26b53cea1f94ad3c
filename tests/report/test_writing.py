"""The page and its files: self-contained, readable whatever the labels hold, the same twice."""

import json
import re

import numpy as np
import pytest
from helpers.drawn import SPACING_MM, body

from lits_helpers.cases import Finding
from lits_helpers.report import measure, write_report
from lits_helpers.report.pictures import lesion_picture
from lits_helpers.volumes import volume_from_array

MAKERS = {"liver": [{"weights": "abcdef0123456789", "training_ids": ["1", "2"]}]}


def report(tmp_path, labels=None, spacing_mm=SPACING_MM, **known):
    hu, drawn = body()
    labels = drawn if labels is None else labels
    page, found = write_report(volume_from_array(hu, spacing_mm), labels, tmp_path, "7", **known)
    return page.read_text(encoding="utf-8"), found


def test_a_page_needs_nothing_from_elsewhere_and_runs_no_script(tmp_path):
    text, _ = report(tmp_path)
    assert not re.search(r"<script|https?:|<link|@import|url\(", text)
    assert text.count("data:image/jpeg;base64,") == 3  # slices, from in front, one lesion
    assert "Not a medical device" in text


def test_a_page_says_in_words_what_its_pictures_show_and_prints_in_light_colors(tmp_path):
    text, found = report(tmp_path)
    (lesion,) = found["measurements"]["lesions"]
    shown = f"lesion 1, slice {lesion['slice_index']}"
    where = f"{lesion['place']} of the liver"
    assert f'alt="{shown}, outlined, with its two diameters; {where}"' in text
    assert len(set(re.findall(r'alt="([^"]{30,})"', text))) == 3
    assert "slices are counted from 0, at the feet" in text
    assert text.count("<main>") == text.count("</main>") == 1
    printed = text[text.index("@media print") : text.index("</style>")]
    for color in ("ink", "soft", "paper", "card", "line", "good", "warn", "bad"):
        assert f"--{color}: #" in printed  # none of a dark theme stays


def test_a_page_says_what_was_found_and_by_whom(tmp_path):
    text, found = report(tmp_path, findings=[Finding("odd", False, "an <odd> file")], makers=MAKERS)
    ml = body()[1].astype(bool).sum() * np.prod(SPACING_MM) / 1000
    assert f"<b>{ml:.0f} ml</b>" in text
    assert "an &lt;odd&gt; file" in text
    assert "liver: model abcdef01, trained on 2 cases" in text
    assert found == json.loads((tmp_path / "7.json").read_text())


def test_the_same_labels_give_the_same_bytes(tmp_path):
    assert report(tmp_path / "a") == report(tmp_path / "b")


def test_labels_without_liver_give_a_page_that_says_so(tmp_path):
    text, found = report(tmp_path, np.zeros_like(body()[1]))
    assert "no liver was found" in text
    assert found["flags"]["word"] == "do not use"


def test_a_page_of_tumors_alone_says_that_nobody_looked_for_the_liver(tmp_path):
    labels = np.where(body()[1] == 2, 2, 0).astype(np.uint8)
    makers = {"tumor": MAKERS["liver"]}
    text, found = report(tmp_path, labels, makers=makers, meshes=True)
    assert "<b>–</b>liver, tumors included" in text
    reason = "the liver was not looked for: no flag can judge these labels"
    assert found["flags"]["reasons"] == [reason]
    assert f"<li>{reason}</li>" in text
    assert 'with its two diameters"' in text  # and no place in the liver
    assert text.count("data:image/jpeg;base64,") == 2  # no liver from in front
    assert [path.name for path in tmp_path.glob("*.stl")] == ["7-lesion-1.stl"]
    text, _ = report(tmp_path, 0 * labels, makers=makers)
    assert "no liver was found" not in text
    assert "None was found." in text


def test_untrusted_millimetres_give_no_mm_and_say_why(tmp_path):
    text, _ = report(tmp_path, spacing_mm=None, meshes=True)
    assert "voxel size cannot be trusted" in text
    assert not re.search(r"\d ml|\d mm", text.split("</style>")[1])
    assert not list(tmp_path.glob("*.stl"))


def test_a_json_of_somebody_else_is_not_written_over(tmp_path):
    beside = tmp_path / "7.json"  # as dcm2niix writes one beside a CT
    beside.write_text('{"Modality": "CT"}')
    with pytest.raises(ValueError, match=r"7\.json is no report .* choose another out, where no"):
        report(tmp_path)
    assert beside.read_text() == '{"Modality": "CT"}'
    assert not (tmp_path / "7.html").exists()
    beside.unlink()
    assert report(tmp_path) == report(tmp_path)  # one of ours is replaced


def test_meshes_of_lesions_that_are_gone_do_not_stay(tmp_path, caplog):
    liver = np.minimum(body()[1], 1)
    (tmp_path / "77-liver.stl").write_bytes(b"of another case")
    report(tmp_path, meshes=True)
    assert (tmp_path / "7-lesion-1.stl").is_file()
    report(tmp_path, liver, meshes=True)
    assert sorted(p.name for p in tmp_path.glob("*.stl")) == ["7-liver.stl", "77-liver.stl"]
    report(tmp_path, liver, spacing_mm=None, meshes=True)
    assert [p.name for p in tmp_path.glob("*.stl")] == ["77-liver.stl"]
    assert "case 7 gets no meshes: its voxel size cannot be trusted" in caplog.text


def test_four_hundred_lesions_leave_the_page_readable(tmp_path):
    labels = np.ones((14, 60, 76), np.uint8)
    labels[::2, 1::7, 1::8] = 2
    assert (labels == 2).sum() > 400
    text, found = report(tmp_path, labels)
    assert len(found["measurements"]["lesions"]) == (labels == 2).sum()
    assert text.count("<tr>") == 13
    assert f"and {(labels == 2).sum() - 12} smaller ones" in text


@pytest.mark.parametrize("axis", [1, 2])
def test_a_lesion_of_narrow_pixels_is_shown_in_a_square_picture(axis):
    spacing_mm = tuple(2.4 if n == axis else 0.8 for n in range(3))
    labels = np.zeros((3, 240, 240), np.uint8)
    labels[:, 40:200, 40:200] = 1
    labels[1, 100:112, 100:104] = 2
    volume = volume_from_array(np.full(labels.shape, 60, np.int16), spacing_mm)
    (lesion,) = measure(volume, labels)["lesions"]
    height, width = lesion_picture(volume.hu, labels, lesion, spacing_mm).shape[:2]
    assert height == pytest.approx(width, rel=0.1)


def test_one_slice_is_enough(tmp_path):
    hu, labels = body()
    volume = volume_from_array(hu[5:6], SPACING_MM)
    page, _ = write_report(volume, labels[5:6], tmp_path, "one")
    assert page.stat().st_size > 1000


def test_meshes_are_written_by_the_numbers_of_the_page(tmp_path):
    report(tmp_path, meshes=True)
    assert sorted(path.name for path in tmp_path.glob("*.stl")) == ["7-lesion-1.stl", "7-liver.stl"]


def test_another_grid_is_refused(tmp_path):
    with pytest.raises(ValueError, match="labels have shape"):
        report(tmp_path, body()[1][1:])
