"""Cases are found by whole names, their patients by a table."""

import gzip
import re

import pytest

from lits_helpers.cases import find_cases, search_cases, split_cases


def write(root, *names, text=None):
    """Write files, each with its name in it unless all hold one text."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name if text is None else text)


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
        path.write_bytes(name.encode())
    first, second = find_cases(tmp_path)
    assert (first.id, first.patient, first.segmentation) == ("9", "9", None)
    assert second.volume == tmp_path / "volume_pt1/volume-10.nii"
    assert second.segmentation == tmp_path / "segmentations/segmentation-10.nii.gz"


def with_patients(root, text, cases=4):
    for n in range(cases):
        (root / f"volume-{n}.nii").write_bytes(b"x" * n)
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


def test_the_same_file_twice_is_one_case_and_two_different_ones_are_left_aside(tmp_path):
    write(tmp_path, "a/volume-1.nii", "b/volume-1.nii", text="same")
    write(tmp_path, "a/volume-2.nii")
    assert [case.volume.parent.name for case in find_cases(tmp_path)] == ["a", "a"]
    write(tmp_path, "b/volume-1.nii", text="else")
    search = search_cases(tmp_path)
    assert [case.id for case in search.cases] == ["2"]
    doubt = "two files for one case, left aside: 2 (a/volume-1.nii, b/volume-1.nii); remove one"
    assert any(doubt in note for note in search.notes)
    (tmp_path / "a/volume-2.nii").unlink()
    with pytest.raises(FileNotFoundError, match=r"no case .* can be used: two files for one case"):
        find_cases(tmp_path)


def test_a_file_and_its_gzip_are_one_case(tmp_path):
    write(tmp_path, "volume-1.nii")
    (tmp_path / "volume-1.nii.gz").write_bytes(gzip.compress(b"volume-1.nii"))
    assert [case.volume.name for case in find_cases(tmp_path)] == ["volume-1.nii"]
    (tmp_path / "volume-1.nii.gz").write_bytes(gzip.compress(b"volume-1 nii"))
    with pytest.raises(FileNotFoundError, match="two files for one case"):
        find_cases(tmp_path)


def test_a_ct_under_two_names_is_one_case(tmp_path):
    write(tmp_path, "volume-12.nii", "volume-3.nii", text="same")
    write(tmp_path, "volume-4.nii")
    search = search_cases(tmp_path)
    assert [case.id for case in search.cases] == ["3", "4"]
    assert "case 12 is the CT of case 3 under another name" in search.notes[1]


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
