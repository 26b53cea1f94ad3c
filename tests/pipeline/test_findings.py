"""What is odd about a CT is told wherever it is used: segmented, reported, viewed."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.drawn import BODY_SPACING_MM, body, write_nifti
from helpers.grey_models import bright_model
from helpers.logs import logged

import lits_helpers
from lits_helpers.cases import Case, find_cases
from lits_helpers.inference import find_volumes, segment_file, segment_files
from lits_helpers.machine import read_json
from lits_helpers.pipeline import open_result, report_predictions
from lits_helpers.preprocess import open_prepared, prepare
from lits_helpers.viewer import SliceViewer

MIRRORED = "the bulkiest organ (the liver?) lies on the patient's left"


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    """A CT that is mirrored under a sound header, without a mask."""
    root = tmp_path_factory.mktemp("mirrored")
    return write_nifti(body()[0][:, :, ::-1], root / "volume-0.nii", spacing_mm=BODY_SPACING_MM)


@pytest.fixture(scope="module")
def shifted(tmp_path_factory):
    """A CT whose stored values were never rescaled."""
    root = tmp_path_factory.mktemp("shifted")
    hu = body()[0] + np.int16(1024)
    return write_nifti(hu, root / "volume-0.nii", spacing_mm=BODY_SPACING_MM)


def text_of(viewer: SliceViewer) -> str:
    return viewer.controls.scores.value


def test_one_file_is_segmented_with_its_findings_told(mirrored, tmp_path, caplog):
    caplog.set_level("INFO")
    segment_file(mirrored, tmp_path / "out.nii", bright_model())
    assert logged(caplog, MIRRORED) == 1
    made = lits_helpers.segment(mirrored, bright_model(), tumor=None)
    assert MIRRORED in made.findings[0].text
    assert "bulkiest organ" in text_of(made.view())
    assert "bulkiest organ" in made.report(tmp_path).read_text(encoding="utf-8")


def test_the_users_word_reaches_every_way_to_segment_a_file(mirrored, shifted, tmp_path):
    given = lits_helpers.segment(mirrored, bright_model(), tumor=None, orientation="RPS")
    assert given.volume.geometry.orientation == "RPS"
    for make in (
        lambda **word: lits_helpers.segment(shifted, bright_model(), tumor=None, **word),
        lambda **word: segment_file(shifted, tmp_path / "out.nii", bright_model(), **word),
    ):
        with pytest.raises(ValueError, match="not Hounsfield units"):
            make()
        make(accept=["not_hu"])


def test_accepted_values_are_segmented_and_reported(shifted, tmp_path):
    (case,) = find_volumes(shifted.parent)
    assert "not Hounsfield units" in segment_files([case], tmp_path, bright_model()).failed[shifted]
    report = segment_files([replace(case, accepted=("not_hu",))], tmp_path, bright_model())
    assert not report.failed
    _, failed = report_predictions({"0": report.written[shifted]}, {"0": shifted}, tmp_path / "r")
    assert not failed
    assert "(accepted by the user)" in str(read_json(tmp_path / "r" / "0.json")["flags"])


def test_a_report_reads_the_ct_as_it_was_segmented(mirrored, tmp_path):
    case = replace(find_volumes(mirrored.parent)[0], orientation="RPS")
    made = segment_files([case], tmp_path, bright_model()).written[mirrored]
    report_predictions({"0": made}, {"0": mirrored}, tmp_path / "r")
    remarks = read_json(tmp_path / "r" / "0.json")["flags"]["remarks"]
    assert any("read as RPS, as the user says" in text for text in remarks)


def test_a_prepared_case_keeps_its_findings_on_every_later_step(mirrored, shifted, tmp_path):
    accepted = Case("1", "1", shifted, accepted=("not_hu",))
    prepare([*find_cases(mirrored.parent), accepted], tmp_path / "prepared", workers=0, png=False)
    data = open_prepared(tmp_path / "prepared", validation=0.5)
    cts = {case.id: data.volume_path(case.id) for case in data.cases}
    report = segment_files(
        [Case(case_id, case_id, ct) for case_id, ct in cts.items()], tmp_path / "p", bright_model()
    )
    assert not report.failed
    made = {ct.name.removesuffix(".b2nd"): path for ct, path in report.written.items()}
    assert (
        MIRRORED in read_json(made["0"].with_name(made["0"].name + ".json"))["findings"][0]["text"]
    )
    report_predictions(made, cts, tmp_path / "r")
    assert MIRRORED in str(read_json(tmp_path / "r" / "0.json")["flags"]["remarks"])
    volume, layers = open_result(data, "0", made["0"])
    assert "bulkiest organ" in text_of(SliceViewer(volume, layers))
