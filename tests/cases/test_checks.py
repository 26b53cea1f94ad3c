"""Cases: found by whole names, split by patient, checked against their anatomy."""

import contextlib
import itertools
import re
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from helpers.drawn import ORIENTATIONS, affine_of, body, stored_as, write_case, write_nifti

from lits_helpers.cases import Case, check_case, check_lits_set, find_cases, load_case, split_cases
from lits_helpers.preprocess import PreparedCase
from lits_helpers.settings import real_data

FLIPS = list(itertools.product((False, True), repeat=3))


def turned(array, flips):
    return array[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]


def codes(findings):
    return [finding.code for finding in findings]


def numbered_as(*names):
    return [Case(name, name, None) for name in names]


def numbered(count):
    return [Case(str(n), str(n), None) for n in range(count)]


def test_cases_are_found_by_whole_names_anywhere_and_sorted_by_number(tmp_path):
    for name in (
        "volume_pt1/volume-10.nii",
        "volume_pt2/deep/er/volume-9.nii.gz",
        "segmentations/segmentation-10.nii.gz",
        "segmentations/segmentation-130.nii",
        "results/prediction-volume-3.nii.gz",
        "volume-4.nii.part",
        "my-volume-5.nii",
        "._volume-6.nii",
        "volume-7.nii.gz.zip",
        "volume-x.nii",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    first, second = find_cases(tmp_path)
    assert (first.id, first.patient, first.segmentation) == ("9", "9", None)
    assert second.volume == tmp_path / "volume_pt1/volume-10.nii"
    assert second.segmentation == tmp_path / "segmentations/segmentation-10.nii.gz"


def with_patients(root, text, cases=4):
    for n in range(cases):
        (root / f"volume-{n}.nii").write_bytes(b"x")
    (root / "patients.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])  # Excel's mark
def test_several_scans_of_a_patient_are_named_in_a_table(tmp_path, start):
    text = start + "case,patient\r\n1,M\u00fcller\r\n02, M\u00fcller\r\n99,other\r\n".encode()
    cases = find_cases(with_patients(tmp_path, text))
    assert [case.patient for case in cases] == ["0", "M\u00fcller", "M\u00fcller", "3"]
    for tenths in range(1, 10):
        split = split_cases(cases, validation=tenths / 10)
        assert len({"1", "2"} & set(split.validation)) != 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("case;patient\n1;a\n", "1;a"),
        ("case,patient\n1,\n", "'patient': ''"),
        ("case,patient\nvolume-1,a\n", "volume-1"),
        ("case,patient\n1,a\n1,b\n", "'patient': 'b'"),
        ("case,patient\n1,a\n".encode("utf-16"), "patients.csv"),
    ],
)
def test_table_of_patients_that_cannot_be_understood_is_refused(tmp_path, text, shown):
    with pytest.raises(ValueError, match=re.escape(shown)) as error:
        find_cases(with_patients(tmp_path, text))
    assert "patients.csv" in str(error.value)
    assert "columns case" in str(error.value)


def test_patient_named_like_a_case_without_a_line_is_refused(tmp_path):
    with_patients(tmp_path, "case,patient\n2,1\n3,1\n")
    with pytest.raises(ValueError, match=r'patients\.csv: is patient 1 .* add "1,1"; if not'):
        find_cases(tmp_path)
    cases = find_cases(with_patients(tmp_path, "case,patient\n2,1\n3,1\n1,1\n"))
    assert [case.patient for case in cases] == ["0", "1", "1", "1"]


def test_no_case_says_what_was_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no case under .*volume-N.nii\[.gz\].*LITS_RAW"):
        find_cases(tmp_path)
    with pytest.raises(FileNotFoundError, match="no case under"):
        find_cases(tmp_path / "absent")


def test_the_same_file_twice_is_one_case_and_two_different_ones_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "volume-1.nii").write_bytes(b"same")
    assert [case.volume.parent.name for case in find_cases(tmp_path)] == ["a"]
    (tmp_path / "b" / "volume-1.nii").write_bytes(b"else")
    with pytest.raises(ValueError, match=r"two files for one case: .*a.volume-1.*b.volume-1"):
        find_cases(tmp_path)


def test_a_dangling_link_gives_way_to_the_file_itself(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "volume-1.nii").symlink_to(tmp_path / "gone")
    assert find_cases(tmp_path)[0].volume.parent.name == "a"  # named, and refused when it is read
    (tmp_path / "volume-1.nii.gz").write_bytes(b"x")
    assert find_cases(tmp_path)[0].volume == tmp_path / "volume-1.nii.gz"


def test_a_link_that_leads_back_does_not_hang(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "volume-1.nii").write_bytes(b"x")
    (tmp_path / "data" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert [case.id for case in find_cases(tmp_path)] == ["1"]


def test_adding_cases_moves_no_other():
    before, after = split_cases(numbered(80), 0.2, 0.1), split_cases(numbered(131), 0.2, 0.1)
    for part in ("training", "validation", "test"):
        assert set(getattr(before, part)) <= set(getattr(after, part))


def test_split_is_by_patient_and_complete():
    cases = [Case(str(n), f"patient {n // 3}", None) for n in range(60)]
    split = split_cases(cases, validation=0.3, test=0.2)
    patients = [
        {case.patient for case in cases if case.id in part}
        for part in (split.training, split.validation, split.test)
    ]
    assert all(patients)
    assert not any(one & other for one, other in itertools.combinations(patients, 2))
    assert sorted(split.training + split.validation + split.test) == sorted(c.id for c in cases)


def test_split_meets_its_shares_on_average():
    split = split_cases(numbered(2000), validation=0.15, test=0.1)
    assert len(split.validation) == pytest.approx(300, abs=50)
    assert len(split.test) == pytest.approx(200, abs=50)


def test_folds_validate_every_patient_once_and_leave_the_test_alone():
    splits = [split_cases(numbered(131), 0.2, 0.2, fold=fold) for fold in range(4)]
    validated = [case_id for split in splits for case_id in split.validation]
    assert len(validated) == len(set(validated))
    assert set(validated) | set(splits[0].test) == {str(n) for n in range(131)}
    assert len({split.test for split in splits}) == 1
    with pytest.raises(ValueError, match="fold must be 0 to 3"):
        split_cases(numbered(9), 0.2, 0.2, fold=4)


@pytest.mark.parametrize("count", [3, 4, 5, 6, 8, 10, 15, 20])
def test_folds_of_a_small_set_share_no_patient_and_leave_the_test_alone(count):
    splits = []
    for fold in range(11):
        with contextlib.suppress(ValueError):
            splits.append(split_cases(numbered(count), 0.09, 0.03, fold=fold))
    assert len(splits) < 11
    assert len({split.test for split in splits}) == 1
    parts = [splits[0].test, *(split.validation for split in splits)]
    assert sorted(itertools.chain(*parts), key=int) == [str(n) for n in range(count)]


def test_a_fold_without_patients_is_refused():
    with pytest.raises(ValueError, match="fold 1 holds none of the 8 patients: leave it out"):
        split_cases(numbered(8), 0.09, 0.03, fold=1)


def test_small_sets_still_validate_and_one_patient_trains():
    for count in range(2, 12):
        split = split_cases(numbered(count), validation=0.15)
        assert split.validation
        assert split.training
    assert split_cases(numbered(1), validation=0.15) == split_cases(numbered(1), validation=0)
    with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
        split_cases(numbered(5), validation=0.6, test=0.5)


def test_sound_case_has_no_finding(tmp_path):
    write_case(tmp_path, 3, *body(), orientation="SAR", suffix=".nii.gz")
    assert check_case(find_cases(tmp_path)[0]) == []


def test_case_without_segmentation_is_named_but_harmless(tmp_path):
    write_case(tmp_path, 3, body()[0])
    (finding,) = check_case(find_cases(tmp_path)[0])
    assert (finding.code, finding.harmful) == ("no_segmentation", False)
    assert "fine for inference" in finding.text


@pytest.mark.parametrize("flips", FLIPS)
def test_body_stored_the_wrong_way_round_is_mended(tmp_path, flips):
    hu, labels = body()
    write_case(tmp_path, 3, turned(hu, flips), turned(labels, flips), orientation="RAS")
    case = find_cases(tmp_path)[0]
    findings = check_case(case)
    assert codes(findings) == (["turned"] if any(flips) else [])
    volume, mended, _ = load_case(case)
    np.testing.assert_array_equal(volume.hu, hu)
    np.testing.assert_array_equal(mended, labels)
    found = findings[-1].orientation if findings else None
    volume, mended, again = load_case(replace(case, orientation=found))
    np.testing.assert_array_equal(volume.hu, hu)
    np.testing.assert_array_equal(mended, labels)
    assert again == []


@pytest.mark.parametrize("flips", FLIPS[1:])
def test_mask_turned_against_its_ct_is_harmful(tmp_path, flips):
    hu, labels = body()
    write_case(tmp_path, 3, hu, turned(labels, flips))
    (finding,) = check_case(find_cases(tmp_path)[0])
    assert finding.harmful
    assert finding.code in ("mask_turned", "mask_misplaced")


def test_mask_of_someone_else_is_harmful(tmp_path):
    hu, labels = body()
    elsewhere = np.roll(labels, (0, 14, 9), axis=(0, 1, 2))
    write_case(tmp_path, 3, hu, elsewhere)
    (finding,) = check_case(find_cases(tmp_path)[0])
    assert (finding.code, finding.harmful) == ("mask_misplaced", True)


def identity_pair(tmp_path, with_mask):
    """Stored as LAS under an identity affine, as LiTS 28 to 47 are."""
    hu, labels = body()
    for name, array in (("volume-28.nii", hu), ("segmentation-28.nii", labels)):
        if with_mask or name.startswith("volume"):
            nib.save(nib.Nifti1Image(stored_as(array, "LAS"), np.eye(4)), tmp_path / name)
    return find_cases(tmp_path)[0], hu, labels


@pytest.mark.parametrize("with_mask", [True, False])
def test_identity_affine_is_flagged_and_comes_out_unmirrored(tmp_path, with_mask):
    case, hu, labels = identity_pair(tmp_path, with_mask)
    volume, mask, findings = load_case(case)
    assert {"spacing_untrusted", "turned"} <= set(codes(findings))
    assert not any(finding.harmful for finding in findings)
    np.testing.assert_array_equal(volume.hu, hu)
    assert volume.geometry.orientation == findings[-1].orientation == "LAS"
    if with_mask:
        np.testing.assert_array_equal(mask, labels)


def test_mask_header_that_differs_is_noted_and_paired_by_voxel(tmp_path):
    hu, labels = body()
    write_nifti(hu, tmp_path / "volume-48.nii", "RAS")
    affine = affine_of(hu.shape, "LPS", origin=(0, 0, 0))
    write_nifti(labels, tmp_path / "segmentation-48.nii", "RAS", affine=affine)
    _, mask, findings = load_case(find_cases(tmp_path)[0])
    assert [(f.code, f.harmful) for f in findings] == [("mask_header_differs", False)]
    np.testing.assert_array_equal(mask, labels)


def harmful_change(hu, labels, kind):
    changes = {
        "empty_liver": (hu, labels * 0),
        "constant": (hu * 0 - 1024, labels),
        "offset_missing": (hu - hu.min(), labels),
        "eight_bit": (np.clip(hu + 100, 0, 255).astype(np.int16), labels),
        "narrow": (hu[:, :, :3], labels[:, :, :3]),
        "absurd": (np.where(hu > -300, 9 * hu + 4000, hu).astype(np.int16), labels),
    }
    return changes[kind]


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("empty_liver", "empty_liver", "holds no liver"),
        ("constant", "not_hu", "every voxel of the volume is -1024"),
        ("offset_missing", "not_hu", "no Hounsfield units.*offset of 1024"),
        ("eight_bit", "not_hu", r"values 0\.\.255 are no Hounsfield units"),
        ("narrow", "no_abdomen", r"slices of \d+ x 3 pixels show no abdomen"),
        ("absurd", "absurd_hu", "denser than bone"),
    ],
)
def test_harmful_content_is_found(tmp_path, kind, code, words):
    write_case(tmp_path, 3, *harmful_change(*body(), kind))
    finding = check_case(find_cases(tmp_path)[0])[0]
    assert (finding.code, finding.harmful) == (code, True)
    assert re.search(words, finding.text)


def test_extreme_hu_are_kept_and_noted(tmp_path):
    hu, labels = body()
    hu[3, 4, 5], hu[3, 4, 6] = -10522, 27572
    write_case(tmp_path, 3, hu, labels)
    volume, _, (finding,) = load_case(find_cases(tmp_path)[0])
    assert (finding.code, finding.harmful) == ("extreme_hu", False)
    assert "-10522..27572" in finding.text
    assert volume.hu.min() == -10522


def test_shapes_that_differ_are_harmful_and_named(tmp_path):
    hu, labels = body()
    write_case(tmp_path, 3, hu, labels[:, :, :-2])
    (finding,) = check_case(find_cases(tmp_path)[0])
    assert finding.harmful
    assert "segmentation-3.nii" in finding.text
    assert "(74, 60, 14) differs" in finding.text


def test_missing_file_is_a_finding_and_no_crash(tmp_path):
    (finding,) = check_case(Case("3", "3", tmp_path / "volume-3.nii"))
    assert (finding.code, finding.harmful) == ("unreadable", True)
    assert "volume-3.nii" in finding.text


def test_scan_without_a_body_is_noted(tmp_path):
    hu = np.full((6, 40, 48), -1000, np.int16)
    hu[:, 18:23, 20:29] = 40
    write_case(tmp_path, 3, hu)
    assert codes(check_case(find_cases(tmp_path)[0])) == ["no_segmentation", "no_body"]


def lits_like(number, depth=447, tumor=True):
    shape = (depth, 512, 512)
    return PreparedCase(
        str(number), str(number), shape, (1, 1, 1), (), (1,), (1,) if tumor else (), True
    )


def test_known_counts_are_compared_only_where_all_of_lits_is_there():
    without = {32, 34, 38, 41, 47, 87, 89, 91, 105, 106, 114, 115, 119}
    depths = {0: 74, 1: 987, 2: 58638 - 74 - 987 - 128 * 447}
    cases = [lits_like(n, depths.get(n, 447), n not in without) for n in range(131)]
    assert check_lits_set(cases) == []
    assert check_lits_set(cases[:-1]) == []
    cases[5] = replace(cases[5], shape=(446, 512, 512), tumor_slices=())
    slices, tumors = check_lits_set(cases)
    assert "58637, but LiTS has 58638" in slices.text
    assert "[5, 32" in tumors.text


@pytest.mark.real
def test_real_scans_are_sound_and_mended_from_every_turn(tmp_path):
    if real_data() is None:
        pytest.skip("LITS_REAL names no folder with real data")
    for case in find_cases(real_data() / "lits"):
        assert check_case(case) == []
        assert codes(check_case(replace(case, segmentation=None))) == ["no_segmentation"]
    hu, labels, _ = load_case(find_cases(real_data() / "lits")[2])
    write_case(tmp_path, 2, hu.hu[:, ::-1, ::-1], labels[:, ::-1, ::-1])
    volume, mended, findings = load_case(find_cases(tmp_path)[0])
    assert codes(findings) == ["turned"]
    np.testing.assert_array_equal(volume.hu, hu.hu)
    np.testing.assert_array_equal(mended, labels)


def test_there_are_48_orientations():
    assert len(set(ORIENTATIONS)) == 48


def test_split_leaves_somebody_to_train_on_where_all_hash_elsewhere():
    names = [f"p{n}" for n in range(300)]
    pair = [name for name in names if split_cases(numbered_as(name), 0.9).validation][:2]
    split = split_cases(numbered_as(*pair), validation=0.9)
    assert (len(split.training), len(split.validation)) == (1, 1)
