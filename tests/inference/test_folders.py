"""Folders of CTs: one bad file, a second call, several processes, the submission."""

import logging
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers.drawn import body, stored_as, write_nifti
from helpers.grey_models import SPEC, Bright, bright_model, segment_below, write_ct
from helpers.logs import logged
from helpers.repository import ROOT

from lits_helpers.cases import Case, check_case, find_cases
from lits_helpers.checkpoints import LiverModel, Origin
from lits_helpers.inference import find_volumes, own_device, segment_files
from lits_helpers.machine import read_json
from lits_helpers.preprocess import prepare


def write_three(root):
    """volume-0 and volume-2 are CTs, volume-1 is cut short."""
    for n in range(3):
        write_ct(root / "volume_pt1" / f"volume-{n}.nii", slice_index=n)
    cut = root / "volume_pt1" / "volume-1.nii"
    cut.write_bytes(cut.read_bytes()[:-100])
    return root


def test_one_bad_file_is_named_and_the_others_are_segmented(tmp_path):
    report = segment_below(write_three(tmp_path / "raw"), tmp_path / "out", bright_model())
    assert [path.name for path in report.written] == ["volume-0.nii", "volume-2.nii"]
    assert [path.name for path in report.failed] == ["volume-1.nii"]
    assert "truncated" in next(iter(report.failed.values()))
    for n in (0, 2):
        labels = np.asarray(nib.load(tmp_path / f"out/prediction-volume-{n}.nii.gz").dataobj)
        assert np.flatnonzero(labels.any(axis=(0, 1))).tolist() == [n]
    assert "2 segmented, 0 were finished before, 1 failed" in report.text()
    assert "volume-1.nii: cannot read" in report.text()


def test_without_the_packages_for_dicom_the_cure_is_named_and_others_go_on(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    scan = tmp_path / "raw" / "1" / "DICOM_anon" / "a.dcm"
    scan.parent.mkdir(parents=True)
    scan.write_bytes(bytes(128) + b"DICM")
    cases = find_cases(tmp_path / "raw", layout="chaos")
    prepared = prepare(cases, tmp_path / "prepared", workers=0)
    failed = segment_files(cases, tmp_path / "a", bright_model()).failed
    for reason in (check_case(cases[0])[0].text, prepared.skipped["1"], *failed.values()):
        assert reason.startswith("DICOM needs two packages: pip install highdicom")
    assert prepared.failed == ["1"]
    scan.parent.rename(tmp_path / "raw" / "1" / "DICOM")
    write_ct(tmp_path / "raw" / "volume-2.nii")
    report = segment_below(tmp_path / "raw", tmp_path / "b", bright_model())
    assert [path.name for path in report.written] == ["volume-2.nii"]
    assert logged(caplog, "left aside", "pip install highdicom")
    assert "Traceback" not in caplog.text


def test_the_next_call_segments_only_what_is_missing(tmp_path):
    root, out = write_three(tmp_path / "raw"), tmp_path / "out"
    segment_below(root, out, bright_model())
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    write_ct(root / "volume_pt1" / "volume-1.nii")
    report = segment_below(root, out, bright_model())
    assert [path.name for path in report.written] == ["volume-1.nii"]
    assert [path.name for path in report.present] == ["volume-0.nii", "volume-2.nii"]
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    assert before.items() <= after.items()
    assert len(after) == 3


def test_a_submission_never_holds_what_was_made_from_other_cts(tmp_path, monkeypatch):
    for folder in "ab":
        for n in range(2):
            write_ct(tmp_path / folder / f"volume-{n}.nii", slice_index=n + (folder == "b"))
    segment_below(tmp_path / "a", tmp_path / "out", bright_model(), submission=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, packed in (("1", False), ("0", True)):
        monkeypatch.setenv("RANK", rank)
        report = segment_below(tmp_path / "b", tmp_path / "out", bright_model(), submission=True)
        assert (report.archive is not None) == packed


class RightHalf(Bright):
    """Answers 1 in liver on the patient's right, which is low x."""

    def forward(self, images):
        answer = ((images > 0.55) & (images < 0.7)).float()
        answer[..., images.shape[-1] // 2 :] = 0
        return answer


def test_a_ct_without_orientation_is_turned_by_its_anatomy(tmp_path, caplog):
    """Stored as LAS under an identity affine, as LiTS 28 to 47 are."""
    hu, labels = body()
    path = tmp_path / "raw" / "volume-28.nii"
    path.parent.mkdir()
    nib.save(nib.Nifti1Image(stored_as(hu, "LAS"), np.eye(4)), path)
    origin = Origin("liver", SPEC, ())
    right = LiverModel(RightHalf(), SPEC, origin).eval()
    with caplog.at_level(logging.INFO):
        report = segment_below(tmp_path / "raw", tmp_path / "out", right)
    written = nib.load(report.written[path])
    assert np.array_equal(written.affine, np.eye(4))
    predicted, reference = np.asarray(written.dataobj) > 0, stored_as(labels, "LAS") > 0
    assert 2 * (predicted & reference).sum() / (predicted.sum() + reference.sum()) > 0.6
    assert logged(caplog, "volume-28.nii", "LAS")
    assert not logged(caplog, "segmentation")


def test_a_harmful_finding_is_the_reason_of_the_failure(tmp_path):
    hu = np.where(body()[0] > -300, 9 * body()[0] + 4000, -1000).astype(np.int16)
    path = write_nifti(hu, tmp_path / "raw" / "volume-0.nii")
    report = segment_below(tmp_path / "raw", tmp_path / "out", bright_model())
    assert "above 800 HU" in report.failed[path]
    assert "volume-0.nii: not Hounsfield units" in report.text()


def test_cts_are_found_by_what_they_are_not_named(tmp_path):
    cts = ["a/volume-0.nii", "b/test-volume-7.nii.gz", "patient x.nii.gz", "prepared/cases/4.b2nd"]
    others = ["s/segmentation-0.nii", "a/._volume-0.nii", "prepared/cases/4-labels.b2nd"]
    others += ["out/prediction-volume-0.nii.gz", "out/deep/volume-9.nii", "a/volume-0.json"]
    for name in cts + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_volumes(tmp_path, tmp_path / "out")
    assert sorted(str(case.volume.relative_to(tmp_path)) for case in found) == sorted(cts)
    assert [case.volume for case in find_volumes(tmp_path / cts[0])] == [tmp_path / cts[0]]
    for out in (tmp_path / "a", tmp_path):  # results beside the CTs, or above them
        assert [case.volume for case in find_volumes(tmp_path / "a", out)] == [tmp_path / cts[0]]


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("volume-12.nii", "prediction-volume-12.nii.gz"),
        ("test-volume-3.nii.gz", "prediction-volume-3.nii.gz"),
        ("Smith.b.nii.gz", "prediction-volume-Smith.b.nii.gz"),
        ("4.b2nd", "prediction-volume-4.nii.gz"),
    ],
)
def test_results_are_named_after_their_ct(tmp_path, name, target):
    ct = write_ct(tmp_path / "raw" / ("volume-4.nii" if name == "4.b2nd" else name))
    if name == "4.b2nd":
        prepare(find_cases(tmp_path / "raw"), tmp_path / "prepared", workers=0, png=False)
        ct = tmp_path / "prepared" / "cases" / name
    report = segment_files(find_volumes(ct), tmp_path / "out", bright_model())
    assert report.written == {ct: tmp_path / "out" / target}


def test_two_cts_of_one_name_are_refused_before_any_work(tmp_path):
    files = [Case("0", "0", write_ct(tmp_path / folder / "volume-0.nii")) for folder in "ab"]
    with pytest.raises(ValueError, match=r"both be written to prediction-volume-0\.nii\.gz"):
        segment_files(files, tmp_path / "out", bright_model())
    assert not (tmp_path / "out").exists()


def test_two_cts_whose_names_differ_in_capitals_alone_are_refused(tmp_path):
    cases = [Case(name, name, write_ct(tmp_path / f"{name}.nii")) for name in ("CT", "ct")]
    words = r"CT\.nii and .*ct\.nii would both be written to prediction-volume-ct\.nii\.gz"
    with pytest.raises(ValueError, match=words):
        segment_files(cases, tmp_path / "out", bright_model())


def test_a_folder_without_ct_and_a_missing_one_are_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(FileNotFoundError, match=r"no CT at .*expected \.nii"):
            segment_below(place, tmp_path / "out", bright_model())


def test_an_unwritable_target_is_one_sentence_before_any_work(tmp_path):
    write_ct(tmp_path / "raw" / "volume-0.nii")
    (tmp_path / "out").write_text("a file, no folder")
    with pytest.raises(OSError, match=r"cannot write to .*out .*choose another folder"):
        segment_below(tmp_path / "raw", tmp_path / "out", bright_model())


def test_ranks_share_the_files_and_the_last_one_packs_the_submission(tmp_path, monkeypatch):
    for n in range(3):
        write_ct(tmp_path / "raw" / f"test-volume-{n}.nii", slice_index=n)
    reports = []
    for rank in (1, 0):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        reports.append(
            segment_below(tmp_path / "raw", tmp_path / "out", bright_model(), submission=True)
        )
    assert [[path.name[12:-4] for path in r.written] for r in reports] == [["1"], ["0", "2"]]
    assert reports[0].archive is None
    assert reports[1].archive == tmp_path / "out" / "submission.zip"


def test_a_submission_holds_every_scan_flat_as_nii_and_is_reproducible(tmp_path):
    for n in (3, 12):
        write_ct(tmp_path / "raw" / f"test-volume-{n}.nii")
    report = segment_below(tmp_path / "raw", tmp_path / "out", bright_model(), submission=True)
    with zipfile.ZipFile(report.archive) as archive:
        assert archive.testzip() is None
        names = ["test-segmentation-12.nii", "test-segmentation-3.nii"]
        assert archive.namelist() == names
        assert archive.read(names[0]) == (tmp_path / "out" / names[0]).read_bytes()
    first = report.archive.read_bytes()
    os.utime(tmp_path / "out" / names[0], (1e9, 1e9))
    again = segment_below(tmp_path / "raw", tmp_path / "out", bright_model(), submission=True)
    assert again.written == {}
    assert again.archive.read_bytes() == first


def test_a_submission_among_the_cts_is_left_aside(tmp_path):
    ct = write_ct(tmp_path / "volume-0.nii", slice_index=1)
    report = segment_below(tmp_path, tmp_path / "sent", bright_model(), submission=True)
    assert report.archive
    assert [case.volume for case in find_volumes(tmp_path)] == [ct]
    assert find_volumes(report.archive)[0].volume == report.archive  # reading it says what it is


def test_an_incomplete_submission_is_not_packed(tmp_path):
    report = segment_below(
        write_three(tmp_path / "raw"), tmp_path / "out", bright_model(), submission=True
    )
    assert report.archive is None
    assert not (tmp_path / "out" / "submission.zip").exists()


def test_a_process_without_gpu_keeps_the_named_device(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert own_device("cpu") == torch.device("cpu")


def under_torchrun(tmp_path: Path, script: str) -> subprocess.CompletedProcess:
    (tmp_path / "work.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return subprocess.run(
        [*command, tmp_path / "work.py", tmp_path / "raw", tmp_path / "out"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        capture_output=True,
        encoding="utf-8",
    )


@pytest.mark.slow
def test_two_processes_under_torchrun_segment_every_file_once(tmp_path):
    for n in range(5):
        write_ct(tmp_path / "raw" / f"volume-{n}.nii", slice_index=n % 3)
    done = under_torchrun(
        tmp_path,
        "import sys; from helpers.grey_models import bright_model, segment_below\n"
        "report = segment_below(sys.argv[1], sys.argv[2], bright_model())\n"
        "print(*[path.name for path in report.written], sep='\\n')\n",
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == [f"volume-{n}.nii" for n in range(5)]
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 5


@pytest.mark.slow
def test_a_process_whose_files_all_fail_does_not_end_the_other(tmp_path):
    for n in range(4):
        write_ct(tmp_path / "raw" / f"volume-{n}.nii", slice_index=n % 3)
    for n in (1, 3):  # the second process's
        (tmp_path / "raw" / f"volume-{n}.nii").write_bytes(b"no NIfTI")
    done = under_torchrun(
        tmp_path,
        "import os, sys, time; from helpers.grey_models import bright_model, segment_below\n"
        "for seconds in (3, 1):  # a process may meet the others more than once\n"
        "    time.sleep(seconds * (os.environ['RANK'] == '0'))\n"
        "    report = segment_below(sys.argv[1], sys.argv[2], bright_model())\n"
        "sys.exit(len(report.failed))\n",
    )
    assert done.returncode != 0
    written = sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz"))
    assert written == ["prediction-volume-0.nii.gz", "prediction-volume-2.nii.gz"]


def test_the_record_keeps_findings_and_what_the_user_decided(tmp_path):
    path = write_nifti(body()[0][:, :, ::-1], tmp_path / "raw" / "volume-0.nii")
    (case,) = find_volumes(tmp_path / "raw")
    records = []
    for given in (case, replace(case, orientation="RPS"), replace(case, accepted=("turned",))):
        report = segment_files([given], tmp_path / "out", bright_model())
        assert list(report.written) == [path]  # another decision is another reading
        records.append(read_json(tmp_path / "out" / "prediction-volume-0.nii.gz.json"))
    assert [record["decisions"] for record in records] == [
        {},
        {"orientation": "RPS"},
        {"accepted": ["turned"]},
    ]
    codes = [[finding["code"] for finding in record["findings"]] for record in records]
    assert "mirrored_doubtful" in codes[0]
    assert codes[1][0] == "orientation_given"
    assert segment_files([given], tmp_path / "out", bright_model()).present
