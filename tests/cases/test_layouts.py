"""Each layout that people have, drawn as a few empty files."""

from pathlib import PureWindowsPath

import pytest

from lits_helpers.cases import find_cases, find_cts, search_cases
from lits_helpers.cases.layouts import LAYOUTS

# layout -> its files: "case: CT, reference"; a line without a case is no part of one; "//" ends a
# folder that is read as a whole
TREES = {
    "lits": """
        9: volume_pt1/volume-9.nii.gz segmentations/segmentation-9.nii
        10: volume_pt2/volume-10.nii segmentations/segmentation-10.nii.gz
        11: volume_pt2/volume-11.nii""",
    "lits-test": """
        7: test/test-volume-7.nii
        12: test/test-volume-12.nii.gz""",
    "msd": """
        liver_2: Task03_Liver/imagesTr/liver_2.nii.gz Task03_Liver/labelsTr/liver_2.nii.gz
        liver_12: Task03_Liver/imagesTr/liver_12.nii.gz Task03_Liver/labelsTr/liver_12.nii.gz
        liver_132: Task03_Liver/imagesTs/liver_132.nii.gz""",
    "nnunet": """
        liver_2: imagesTr/liver_2_0000.nii.gz labelsTr/liver_2.nii.gz
        liver_10: imagesTs/liver_10_0000.nii.gz""",
    "totalsegmentator": """
        s0004: s0004/ct.nii.gz s0004/segmentations/liver.nii.gz
        s0011: s0011/ct.nii.gz s0011/segmentations/liver.nii.gz
        : s0004/segmentations/spleen.nii.gz""",
    "ircadb": """
        3Dircadb1.2: 3Dircadb1.2/PATIENT_DICOM//image_0 3Dircadb1.2/MASKS_DICOM//liver/image_0
        3Dircadb1.11: 3Dircadb1.11/PATIENT_DICOM//image_0 3Dircadb1.11/MASKS_DICOM//liver/image_0
        : 3Dircadb1.2/PATIENT_DICOM/image_1 3Dircadb1.2/MASKS_DICOM/livertumor01/image_0""",
    "chaos": """
        5: CT/5/DICOM_anon//i0000,0000b.dcm CT/5/Ground//liver_GT_000.png
        16: CT/16/DICOM_anon//i0000,0000b.dcm CT/16/Ground//liver_GT_000.png
        : CT/5/DICOM_anon/i0001,0000b.dcm CT/5/Ground/liver_GT_001.png""",
    "folders": """
        a: images/a.nii.gz masks/a.nii.gz
        b: images/b.nii.gz masks/b_seg.nii.gz""",
    "suffix": """
        a: a.nii a_seg.nii.gz
        b.c: deep/b.c.nii.gz deep/b.c-label.nii.gz
        d: d.nii.gz d_mask.nii.gz
        e: e.nii.gz e.seg.nii.gz
        f: f.nii.gz""",
}


def plant(root, tree):
    """Write the files of a tree, each with its name in it; return {case: its paths}."""
    cases = {}
    for line in tree.strip().splitlines():
        case, _, names = line.strip().partition(":")
        names = names.split()
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        if case:
            cases[case] = [root / name.partition("//")[0] for name in names]
    return cases


def found(cases):
    return {case.id: [case.volume, *filter(None, [case.segmentation])] for case in cases}


def test_every_layout_has_a_tree():
    assert TREES.keys() == {layout.name for layout in LAYOUTS}


@pytest.mark.parametrize("layout", TREES)
def test_a_layout_is_recognised_by_itself_and_pairs_are_in_order(tmp_path, layout):
    wanted = plant(tmp_path, TREES[layout])
    search = search_cases(tmp_path)
    assert search.layout == layout
    assert found(search.cases) == wanted
    assert [case.id for case in search.cases] == list(wanted)
    assert all(
        case.liver_only == (layout in ("totalsegmentator", "chaos")) for case in search.cases
    )
    assert search.notes[0].startswith(f"layout {layout}: {len(wanted)} CTs below {tmp_path}")
    assert not any(f"{layout} takes those" in note for note in search.notes)


@pytest.mark.parametrize("layout", TREES)
def test_the_same_cts_are_segmented_under_the_same_ids(tmp_path, layout):
    wanted = plant(tmp_path, TREES[layout])
    cts = {case_id: paths[0] for case_id, paths in wanted.items()}
    assert {case.id: case.volume for case in find_cts(tmp_path)} == cts
    for case_id, path in cts.items():
        (alone,) = find_cts(path)
        assert (alone.id, alone.volume) == (case_id, path)


@pytest.mark.parametrize("layout", TREES)
def test_a_forced_layout_takes_its_files_among_others(tmp_path, layout):
    wanted = plant(tmp_path / layout, TREES[layout])
    plant(tmp_path / "o", "\n".join(f"{n}: volume-{n}.nii segmentation-{n}.nii" for n in range(9)))
    (tmp_path / "o" / "own.nii").touch()
    cases = found(find_cases(tmp_path, layout))
    assert wanted.items() <= cases.items() or layout == "lits"  # whose numbers are in conflict
    assert layout in ("lits", "suffix") or len(cases) == len(wanted)


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout.name in TREES])
def test_a_path_of_windows_gives_the_same_case_ids(layout):
    for line in filter(str.strip, TREES[layout.name].splitlines()):
        case_id, _, files = line.strip().partition(":")
        for name in files.replace("//", "/").split() if case_id else ():
            part = layout.part(PureWindowsPath("C:\\data") / name)
            assert part.case.rpartition("/")[2] == case_id


def test_the_folder_of_cts_itself_may_be_named(tmp_path):
    wanted = plant(tmp_path, TREES["msd"])
    cases = find_cases(tmp_path / "Task03_Liver" / "imagesTr")
    assert found(cases) == {name: wanted[name][:1] for name in ("liver_2", "liver_12")}


def test_what_is_left_aside_is_named(tmp_path):
    names = ["liver_2", "liver_3", "liver_4", "liver_5"]
    plant(tmp_path, TREES["msd"] + "".join(f"\n: labelsTr/{name}.nii.gz" for name in names))
    plant(tmp_path, "9: volume-9.nii segmentation-9.nii\n: Task03_Liver/imagesTr/._liver_2.nii.gz")
    plant(tmp_path, ": scan.nrrd\n: notes.txt")
    notes = search_cases(tmp_path).notes
    assert notes[0].endswith("without a reference: 1 (liver_132)")
    shown = "labelsTr/liver_2.nii.gz, labelsTr/liver_3.nii.gz, labelsTr/liver_4.nii.gz, ..."
    assert notes[1] == f"left aside, references without a CT: 4 ({shown})"
    assert "left aside, of another layout or format: 4 (scan.nrrd, segmentation-9.nii, " in notes[2]
    assert "1 cases as volume-N.nii[.gz] with segmentation-N.nii[.gz]: layout lits" in notes[3]
    assert len(notes) == 4
    assert all(len(note) < 400 for note in notes)


def test_names_of_a_browser_and_of_capitals_are_taken_and_said(tmp_path):
    plant(tmp_path, "1: volume-1.NII segmentation-1.nii.GZ")
    (tmp_path / "volume-2 (1).nii").write_text("x")
    search = search_cases(tmp_path)
    assert [case.id for case in search.cases] == ["1", "2"]
    names = ["volume-1.NII: taken", "segmentation-1.nii.GZ: taken", "volume-2 (1).nii: taken"]
    assert search.notes[1:] == names


def test_equal_names_in_folders_of_patients_get_ids_of_their_own(tmp_path):
    plant(tmp_path, "p1: p1/scan.nii p1/scan_seg.nii\np2: p2/scan.nii p2/scan_seg.nii")
    assert [case.id for case in find_cases(tmp_path)] == ["p1-scan", "p2-scan"]


def test_nothing_that_fits_names_what_was_seen_and_the_nearest_layout(tmp_path):
    plant(tmp_path, ": labelsTr/liver_1.nii.gz\n: a.nrrd")
    with pytest.raises(FileNotFoundError) as error:
        find_cases(tmp_path, "msd")
    assert "there are 2 (a.nrrd, labelsTr/liver_1.nii.gz)" in str(error.value)
    assert "expected imagesTr/NAME_0000.nii.gz with labelsTr/NAME.nii.gz" in str(error.value)
    with pytest.raises(ValueError, match="no layout 'brats'; there are auto, table, lits, "):
        find_cases(tmp_path, "brats")


def test_a_name_too_long_costs_its_own_case_only(tmp_path):
    plant(tmp_path, f"a: a.nii a_seg.nii\nb: {'b' * 240}.nii {'b' * 240}_seg.nii")
    search = search_cases(tmp_path)
    assert [case.id for case in search.cases] == ["a"]
    assert search.notes[1].startswith("left aside, its name is too long: bbbb")
