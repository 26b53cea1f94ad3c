"""Flags: what each piece of evidence is, and which word follows from it."""

import numpy as np
import pytest
from helpers.drawn import body

from lits_helpers.cases import Finding
from lits_helpers.report import judge, look

SPACING_MM = (10.0, 4.0, 4.5)  # a liver of 600 ml and more in the small drawn body


def test_a_sound_liver_has_no_reason():
    hu, labels = body()
    judged = judge(look(hu, labels, SPACING_MM))
    assert (judged["word"], judged["reasons"]) == ("sound", [])
    assert judged["score"] < 1


def test_labels_without_liver_are_not_to_be_used():
    hu, labels = body()
    judged = judge(look(hu, 0 * labels, SPACING_MM))
    assert judged["word"] == "do not use"
    assert judged["reasons"] == ["no liver was found"]


def test_a_jump_is_the_area_that_neighbouring_slices_do_not_share():
    labels = np.zeros((5, 12, 16), np.uint8)
    labels[1, 2:6, 3:8] = 1  # 20 pixels, then 20 of which half are others
    labels[2, 2:6, 3:8] = 1
    labels[3, 4:8, 3:8] = 1
    found = look(np.full(labels.shape, 60, np.int16), labels, None)
    assert found["liver_jump"] == 20 / 80
    assert "liver_volume" not in found  # untrusted millimetres judge no volume


def test_a_liver_that_the_scan_cuts_is_a_remark_and_its_small_volume_no_reason():
    hu, labels = body()
    cut, part = hu[:5], labels[:5]
    found = look(cut, part, (5.0, 3.0, 3.0))
    assert found["cut"] == 1
    judged = judge(found | {"liver_misfit": 0, "liver_jump": 0})
    assert judged["word"] == "sound"
    assert judged["remarks"] == ["the scan ends within the liver: its volume is a lower bound"]
    scrap = np.zeros_like(labels)
    scrap[0, 20:22, 20:23] = 1
    found = look(hu, scrap, (5.0, 3.0, 3.0)) | {"liver_misfit": 0}  # 0.27 ml where the scan ends
    assert judge(found)["word"] == "do not use"
    small = look(hu, labels, (1.0, 1.0, 1.0))
    assert "the liver's volume is outside 500 to 4000 ml" in judge(small)["reasons"]


def test_other_tissue_where_the_scan_cuts_the_liver_is_told_and_a_tumor_there_is_not():
    rng = np.random.default_rng(0)
    labels = np.zeros((13, 24, 30), np.uint8)
    labels[:12, 4:20, 3:25] = 1
    hu = rng.normal(100, 20, labels.shape).astype(np.int16)
    assert look(hu, labels, None)["liver_end"] < 0.2
    hu[0] += 88  # 4.4 times the noise; that of all slices is a little more
    evidence = look(hu, labels, None)
    assert 3 < evidence["liver_end"] < 4.4
    reasons = judge({"liver_end": evidence["liver_end"]})["reasons"]
    assert reasons[0].startswith("where the scan ends it shows other tissue as liver (")
    labels[0][labels[0] == 1] = 2
    assert look(hu, labels, None)["liver_end"] == 0
    inner = np.roll(labels, 1, axis=0)
    inner[[0, -1]] = 0
    assert "liver_end" not in look(hu, inner, None)  # the scan cuts no liver


def test_a_tip_in_an_end_slice_is_no_cut_and_10_hu_are_the_least_noise():
    labels = np.zeros((6, 20, 24), np.uint8)
    labels[0, 5, 5:10] = 1  # 5 voxels of 100 in the largest slice
    labels[1:, 5:15, 5:15] = 1
    hu = np.where(labels, 100, -100).astype(np.int16)
    hu[0][labels[0] == 1] = 0  # it is not looked at
    hu[-1][labels[-1] == 1] = 140  # 40 HU away in a liver of 100 HU without noise
    assert look(hu, labels, (5.0, 0.7, 0.8))["liver_end"] == 4.0


def test_tumor_along_the_rim_only_is_told_from_tumor_inside():
    labels = np.zeros((3, 24, 30), np.uint8)
    labels[1, 2:20, 3:25] = 1
    hu = np.full(labels.shape, 60, np.int16)
    labels[1, 2:4, 3:25] = 2
    assert look(hu, labels, None)["tumor_rim"] == 1
    labels[1, 2:4, 3:25] = 1
    labels[1, 8:12, 8:12] = 2
    assert look(hu, labels, None)["tumor_rim"] == 0


@pytest.mark.parametrize(("column", "share"), [(3, 1), (4, 0)])
def test_the_rim_is_as_wide_across_pixels_that_are_not_square(column, share):
    labels = np.zeros((3, 24, 30), np.uint8)
    labels[1, 2:20, 3:25] = 1
    labels[1, 8:12, column] = 2
    hu = np.full(labels.shape, 60, np.int16)
    assert look(hu, labels, (5.0, 0.8, 2.4))["tumor_rim"] == share
    assert (
        look(hu.transpose(0, 2, 1), labels.transpose(0, 2, 1), (5.0, 2.4, 0.8))["tumor_rim"]
        == share
    )


@pytest.mark.parametrize(
    ("unsure", "word"), [(0.0599, "sound"), (0.06, "look at it"), (0.15, "do not use")]
)
def test_the_word_follows_from_the_largest_evidence_by_its_limit(unsure, word):
    judged = judge({"liver_unsure": unsure, "liver_disagreement": 0.01, "liver_jump": 0.1})
    assert judged["word"] == word
    assert judged["score"] == pytest.approx(unsure / 0.06, abs=1e-3)
    assert bool(judged["reasons"]) == (word != "sound")


def test_a_harmful_finding_forbids_and_another_is_a_remark():
    harmful, odd = Finding("not_hu", True, "no HU"), Finding("extreme_hu", False, "extreme values")
    assert judge({}, [odd]) == {
        "word": "sound",
        "score": 0.0,
        "reasons": [],
        "remarks": ["extreme values"],
    }
    assert judge({}, [harmful])["word"] == "do not use"
    assert judge({}, [harmful])["reasons"] == ["no HU"]
