"""Cases are found by whole names, their patients by a table."""

import gzip
import os
import re
import time

import pytest

from lits_helpers.cases import Case, check_case, find_cases, find_cts, search_cases, split_cases
from lits_helpers.preprocess import check_folder, prepare


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
        (f"case,patient\n{'9' * 5000},a\n", "99999"),
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
    with pytest.raises(FileNotFoundError, match=r"no case under .*N.nii\[.gz\].*of load_settings"):
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
    write(tmp_path, "segmentation-12.nii")
    (case, _) = sorted(find_cases(tmp_path), key=lambda case: case.segmentation is None)
    assert (case.id, case.segmentation.name) == ("12", "segmentation-12.nii")  # none is lost


def test_no_case_is_called_as_the_packed_reference_of_another(tmp_path):
    write(tmp_path, "a.nii", "b.nii")
    (tmp_path / "cases.csv").write_text("case,volume\nx,a.nii\nx-labels,b.nii\n")
    search = search_cases(tmp_path)
    assert [case.id for case in search.cases] == ["x"]
    assert "left aside, its name ends as that of a reference: x-labels" in search.notes[1]
    with pytest.raises(ValueError, match=r"cannot be prepared: its name ends .* x-labels"):
        prepare([Case(name, name, tmp_path / "a.nii") for name in ("x", "x-labels")], tmp_path)


def test_names_that_differ_in_capitals_alone_are_told_apart_by_folder_or_refused(tmp_path):
    write(tmp_path, *(f"{name}{end}.nii" for name in ("a/CT", "b/ct") for end in ("", "_seg")))
    assert [case.id for case in find_cases(tmp_path)] == ["a-CT", "b-ct"]
    words = "cases CT and ct differ in capitals alone, .* rename one, or name them in a cases.csv"
    cases = [Case(name, name, tmp_path / "a" / "CT.nii") for name in ("CT", "ct")]
    with pytest.raises(ValueError, match=words):
        prepare(cases, tmp_path / "out")
    write(tmp_path / "out" / "cases", "CT.json")  # of an earlier preparation
    with pytest.raises(ValueError, match=words):
        prepare(cases[1:], tmp_path / "out")
    write(tmp_path / "one", "CT.nii", "CT_seg.nii", "ct.nii", "ct_seg.nii")
    with pytest.raises(ValueError, match="cases CT and ct differ in capitals alone"):
        check_folder(tmp_path / "one")


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


# --- bad input: one sentence each, the others go on ----------------------------------------------


def test_two_layouts_in_one_folder_the_one_of_more_pairs_is_taken(tmp_path):
    write(tmp_path, "volume-1.nii", "segmentation-1.nii")
    write(tmp_path, *(f"{part}Tr/liver_{n}.nii.gz" for part in ("images", "labels") for n in "12"))
    search = search_cases(tmp_path)
    assert [case.id for case in search.cases] == ["liver_1", "liver_2"]
    assert "left aside, of another layout or format: 2 (segmentation-1.nii" in search.notes[1]
    assert search.notes[2].endswith("layout lits takes those")
    assert [case.id for case in find_cases(tmp_path, "lits")] == ["1"]


def test_a_table_names_files_of_any_name_and_their_patients(tmp_path):
    write(tmp_path, "x/one.nii", "x/one-expert.nii", "two.nii.gz", "volume-3.nii")
    table = "case, volume, segmentation, patient\r\nB 2,two.nii.gz,,Ann\r\nB 1,x/one.nii,"
    (tmp_path / "cases.csv").write_text(table + "x/one-expert.nii,Ann\r\n", encoding="utf-8-sig")
    one, two = find_cases(tmp_path)
    assert (one.id, one.patient, one.volume) == ("B 1", "Ann", tmp_path / "x/one.nii")
    assert one.segmentation == tmp_path / "x/one-expert.nii"
    assert (two.id, two.patient, two.segmentation) == ("B 2", "Ann", None)
    assert [case.id for case in find_cts(tmp_path)] == ["B 2", "B 1"]
    assert [case.id for case in find_cases(tmp_path, "lits")] == ["3"]


def test_a_table_s_references_of_the_liver_alone_say_nothing_about_tumors(tmp_path):
    write(tmp_path, "s1/ct.nii.gz", "s1/segmentations/liver.nii.gz", "x/2.nii", "x/2_seg.nii")
    write(tmp_path, "x/dataset.json", text='{"labels": {"background": 0, "liver": 1}}')
    write(tmp_path, "3.nii", "3_seg.nii")
    lines = [
        "case,volume,segmentation",
        "1,s1/ct.nii.gz,s1/segmentations/liver.nii.gz",
        "2,x/2.nii,x/2_seg.nii",
        "3,3.nii,3_seg.nii",
    ]
    (tmp_path / "cases.csv").write_text("\n".join(lines))
    assert [case.liver_only for case in find_cases(tmp_path)] == [True, True, False]


def test_lines_of_a_table_that_cannot_be_used_are_named(tmp_path):
    write(tmp_path, "a.nii", "b.nii")
    lines = [
        "a,a.nii,,",
        "a,b.nii,,",
        "c,gone.nii,,",
        "d,a.nii,lost.nii,",
        "../e,b.nii,,",
        ",b.nii,,",
    ]
    (tmp_path / "cases.csv").write_text("\n".join(["case,volume,segmentation,patient", *lines]))
    search = search_cases(tmp_path)
    assert [case.id for case in search.cases] == ["a"]
    notes = "\n".join(search.notes)
    assert "cases.csv, case a left aside: this case has a line already" in notes
    assert f"cases.csv, case c left aside: no file {tmp_path / 'gone.nii'}" in notes
    assert f"cases.csv, case d left aside: no file {tmp_path / 'lost.nii'}" in notes
    assert "cases.csv, case ../e left aside: a case is a name, no path" in notes
    assert "cases.csv, case ? left aside: it needs a case and a volume" in notes
    (tmp_path / "cases.csv").write_text("id;file\n1;a.nii\n")
    with pytest.raises(ValueError, match=r"cases\.csv: wanted are the columns case and volume"):
        find_cases(tmp_path)


def test_tables_that_contradict_each_other_cost_the_case_that_they_are_about(tmp_path):
    write(tmp_path, "a.nii", "b.nii")
    (tmp_path / "cases.csv").write_text("case,volume,patient\na,a.nii,Ann\nb,b.nii,Ben\n")
    (tmp_path / "patients.csv").write_text("case,patient\na,Eve\nb,Ben\n")
    search = search_cases(tmp_path)
    assert [(case.id, case.patient) for case in search.cases] == [("b", "Ben")]
    doubt = "case a left aside: its patient is Ann in cases.csv and Eve in patients.csv; mend one"
    assert doubt in search.notes[1]


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    write(tmp_path, "volume-1.nii", "locked/volume-2.nii")
    scan = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    search = search_cases(tmp_path)
    assert [case.id for case in search.cases] == ["1"]
    assert f"cannot read {tmp_path / 'locked'} (Permission denied): left aside" in search.notes


def test_a_folder_of_100_000_files_takes_seconds(tmp_path, monkeypatch):
    slices = [f"{k}.dcm" for k in range(1000)]
    tree = [(f"{tmp_path}/{n}", [], slices) for n in range(99)]
    tree.append((str(tmp_path), [], [f"volume-{n}.nii" for n in range(1000)]))
    monkeypatch.setattr(os, "walk", lambda root, **options: tree)
    start = time.process_time()
    search = search_cases(tmp_path, "lits")
    assert time.process_time() - start < 10
    assert len(search.cases) == 1000
    assert all(len(note) < 400 for note in search.notes)


def test_a_table_whose_quotation_marks_do_not_close_is_refused_with_its_line(tmp_path):
    write(tmp_path, "cases.csv", text='case,volume\na,a.nii\n"b,b.nii\n' + "x" * 200_000)
    with pytest.raises(ValueError, match=r"cases\.csv: .* after line 2; is a quotation mark"):
        find_cases(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes among files")
def test_pipes_among_the_files_are_passed_by_without_waiting(tmp_path):
    for name in ("volume-1.nii", "segmentation-1.nii", "IM1"):
        os.mkfifo(tmp_path / name)
    (case,) = find_cases(tmp_path)
    assert "it is not a regular file" in check_case(case)[0].text
    (skipped,) = prepare([case], tmp_path / "out", workers=0).skipped.values()
    assert "it is not a regular file" in skipped
    assert [case.id for case in find_cts(tmp_path)] == ["1"]


@pytest.mark.parametrize("text", ["", "case,volume\n"])
def test_a_table_without_lines_is_refused_by_its_name(tmp_path, text):
    write(tmp_path, "cases.csv", text=text)
    with pytest.raises(ValueError, match=r"cases\.csv: it has no line under its columns"):
        find_cases(tmp_path)


def test_a_path_that_no_disk_takes_costs_its_line_only_and_no_long_message(tmp_path):
    write(tmp_path, "a.nii")
    write(tmp_path, "cases.csv", text=f"case,volume\na,a.nii\n{'b' * 300},{'x' * 5000}.nii\n")
    search = search_cases(tmp_path)
    assert [case.id for case in search.cases] == ["a"]
    assert "no file ...xxx" in search.notes[1]
    assert max(map(len, search.notes)) < 400


def test_tables_that_contradict_each_other_on_every_case_are_refused(tmp_path):
    write(tmp_path, "a.nii")
    write(tmp_path, "cases.csv", text="case,volume,patient\na,a.nii,P\n")
    write(tmp_path, "patients.csv", text="case,patient\na,Q\n")
    with pytest.raises(FileNotFoundError, match=r"its patient is P in cases\.csv and Q in pat"):
        find_cases(tmp_path)
