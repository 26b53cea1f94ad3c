"""Two dates of one patient: what belongs together, what changed, and the page that shows it."""

import json
import re

import numpy as np
import pytest

from lits_helpers.report import compare_dates, comparison, write_comparison
from lits_helpers.volumes import volume_from_array

SPACING_MM = (5.0, 1.0, 1.0)
THIN_MM = (2.5, 1.0, 1.0)


def scan(case_id, lesions, spacing_mm=SPACING_MM, moved=(0, 0, 0), liver=True):
    """A liver of 100 x 90 x 120 mm from (15, 20, 30) mm on, moved by voxels, and square lesions.

    Args:
        lesions: (z, y, x) in mm from the liver's first corner and the side in mm, one slab of 5 mm.
    """
    step = round(5 / spacing_mm[0])
    labels = np.zeros((26 * step, 160, 200), np.uint8)
    corner = np.array([3 * step, 20, 30]) + moved
    z, y, x = corner
    labels[z : z + 20 * step, y : y + 90, x : x + 120] = liver
    for (dz, dy, dx), side in lesions:
        k, top, left = corner + np.array([dz // 5 * step, dy, dx])
        labels[k : k + step, top : top + side, left : left + side] = 2
    hu = np.where(labels == 1, 100, np.where(labels == 2, 60, -100)).astype(np.int16)
    volume = volume_from_array(hu, spacing_mm)
    return {"volume": volume, "labels": labels, "case_id": case_id}


def numbers(compared):
    return [(pair["earlier"], pair["later"]) for pair in compared["pairs"]]


def test_lesions_are_paired_by_place_whatever_the_table_moved_and_the_slices_are():
    earlier = scan("a", [((20, 10, 10), 12), ((60, 70, 90), 10), ((80, 20, 60), 8)])
    later = scan("b", [((20, 9, 9), 14), ((60, 70, 90), 5), ((40, 45, 20), 9)],
                 THIN_MM, moved=(4, 30, -25))  # fmt: skip
    compared = compare_dates(earlier, later)
    assert numbers(compared) == [(1, 1), (2, 3), (None, 2), (3, None)]
    grown, shrunk, new, vanished = compared["pairs"]
    assert grown["ml_change"] == pytest.approx(0.98 - 0.72)
    assert grown["longest_mm_change"] == pytest.approx(2 * 2**0.5)
    assert grown["apart_mm"] == pytest.approx(0, abs=0.1)
    assert shrunk["ml_change"] == pytest.approx(0.125 - 0.5)
    for pair in (new, vanished):
        assert [pair["ml_change"], pair["longest_mm_change"], pair["apart_mm"]] == [None] * 3
    liver_ml = [compared[date]["measurements"]["liver"]["ml"] for date in ("earlier", "later")]
    assert liver_ml == pytest.approx([1080, 1080])


def test_a_lesion_has_one_partner_and_the_nearer_of_two_is_it():
    earlier = scan("a", [((20, 30, 30), 9), ((20, 45, 30), 8)])
    later = scan("b", [((20, 42, 30), 10)])
    assert numbers(compare_dates(earlier, later)) == [(2, 1), (1, None)]
    assert numbers(compare_dates(later, earlier)) == [(1, 2), (None, 1)]


@pytest.mark.parametrize(("apart", "paired"), [(18, True), (20, False)])
def test_beyond_15_mm_and_the_larger_ones_radius_lesions_are_two(apart, paired):
    # 10 x 10 x 5 mm3 is a ball of 4.9 mm radius
    earlier, later = scan("a", [((20, 30, 30), 10)]), scan("b", [((20, 30, 30 + apart), 10)])
    assert len(compare_dates(earlier, later)["pairs"]) == (1 if paired else 2)
    # and 30 x 30 x 5 mm3 one of 10.2 mm, at either date
    large = scan("c", [((20, 20, 24 + apart), 30)])  # its middle is 4 mm farther
    for dates in ((earlier, large), (large, earlier)):
        assert len(compare_dates(*dates)["pairs"]) == 1


def test_the_nearest_is_the_partner_even_where_a_farther_one_is_larger():
    def ball(number, radius_mm):
        ml = 4 / 3 * np.pi * radius_mm**3 / 1000
        return {"number": number, "ml": ml, "longest_mm": 2 * radius_mm}

    places = np.array([[0, 0, 12.0], [0, 16.0, 0]])
    pairs = comparison.pair_lesions([ball(1, 5)], [ball(1, 5), ball(2, 12)], 0 * places[:1], places)
    assert [(pair["earlier"], pair["later"]) for pair in pairs] == [(None, 2), (1, 1)]


def test_both_pictures_of_a_small_pair_show_the_same_mm(monkeypatch, tmp_path):
    asked = []

    def pictures_of(volume, labels, lesions, lengths_mm):
        asked.append(lengths_mm)
        return pictures(volume, labels, lesions, lengths_mm)

    pictures = comparison.pictures_of
    monkeypatch.setattr(comparison, "pictures_of", pictures_of)
    later = scan("b", [((20, 30, 30), 4)])
    later["volume"] = volume_from_array(later["volume"].hu, (5.0, 0.6, 0.6))
    write_comparison(scan("a", [((20, 30, 30), 4)]), later, tmp_path)
    assert asked == [[8.0], [8.0]]  # 8 pixels of 1 mm


def test_no_lesion_is_new_where_nobody_looked_for_tumors(tmp_path):
    given = {"makers": {"liver": [{"weights": "0123456789", "training_ids": []}]}}
    page, compared = write_comparison(
        scan("a", []) | given, scan("b", [((20, 30, 30), 9)]), tmp_path
    )
    assert compared["pairs"] == []
    assert "not looked for at the earlier date: no tumor" in page.read_text(encoding="utf-8")


def test_what_cannot_be_compared_is_one_sentence():
    sound = scan("a", [])
    no_mm = sound | {"volume": volume_from_array(sound["volume"].hu), "case_id": "28"}
    with pytest.raises(ValueError, match="28: two dates are compared in mm, and the file's voxel"):
        compare_dates(sound, no_mm)
    with pytest.raises(ValueError, match="c: no liver in its labels, so no place to pair by"):
        compare_dates(scan("c", [], liver=False), sound)
    with pytest.raises(ValueError, match="d: no liver in its labels, so no place to pair by"):
        compare_dates(scan("d", [((20, 30, 30), 9)], liver=False), sound)


def test_the_page_needs_nothing_from_elsewhere_and_says_what_is_new_and_what_vanished(tmp_path):
    earlier = scan("a <1>", [((20, 10, 10), 12), ((80, 20, 60), 8)])
    later = scan("b", [((20, 9, 9), 14), ((40, 45, 20), 9)])
    page, found = write_comparison(earlier, later, tmp_path)
    text = page.read_text(encoding="utf-8")
    assert page.name == "a <1>-b.html"
    assert not re.search(r"<script|https?:|<link|@import|url\(|<1>", text)
    assert text.count("data:image/jpeg;base64,") == 4 + 4  # both overviews, two lesions each
    assert text.count(">new</td>") == text.count(">vanished</td>") == 2
    assert "not found earlier" in text
    assert 'alt="earlier, lesion 1, slice ' in text
    assert text.count('<th scope="row"') == 6
    assert "not found later" in text
    assert "<td>1080</td><td>1080</td><td>+0 (+0%)</td>" in text
    assert "+0.26 (+36%)" in text
    assert "<td>100</td><td>100</td><td>+0</td>" in text  # HU have no percent
    assert "15 mm and the larger one's radius" in text
    assert "the scan ends within the liver" not in text
    cut = {name: earlier[name][6:] for name in ("labels",)}
    cut["volume"] = volume_from_array(earlier["volume"].hu[6:], SPACING_MM)
    text = write_comparison(earlier | cut, later, tmp_path / "cut")[0].read_text(encoding="utf-8")
    assert "the scan ends within the liver" in text
    assert found == json.loads(page.with_suffix(".json").read_text())
    report_of_one = tmp_path / "one" / "a <1>-b.json"
    report_of_one.parent.mkdir()
    report_of_one.write_text('{"flags": {}}')  # a case of that name
    with pytest.raises(ValueError, match=r"a <1>-b\.json is no report and would be written over"):
        write_comparison(earlier, later, report_of_one.parent)
    again, _ = write_comparison(earlier, later, tmp_path / "again")
    assert again.read_bytes() == page.read_bytes()
