"""Which model and which CT made a prediction: what is finished, what is never mixed."""

import logging

import nibabel as nib
import numpy as np
import pytest
from helpers.drawn import BODY_SPACING_MM, body, write_case, write_nifti
from helpers.grey_models import SHAPE, bright_model, segment_below, tumor_model, write_ct
from helpers.logs import logged

from lits_helpers.cases import find_cases
from lits_helpers.inference import Postprocessing, read_record, read_records
from lits_helpers.inference.provenance import described_model
from lits_helpers.machine import read_json
from lits_helpers.preprocess import prepare


@pytest.mark.parametrize(
    ("changed", "post", "words"),
    [
        (bright_model(0.55), None, "liver differ"),
        (bright_model(), Postprocessing(rotation_degrees=8), "postprocessing differ"),
    ],
)
def test_results_of_other_models_or_settings_are_never_mixed(tmp_path, changed, post, words):
    write_ct(tmp_path / "raw" / "volume-0.nii")
    segment_below(tmp_path / "raw", tmp_path / "out", bright_model())
    with pytest.raises(ValueError, match=f"holds results of another setting.*{words}"):
        segment_below(tmp_path / "raw", tmp_path / "out", changed, post=post)


@pytest.mark.parametrize("submission", [False, True])
def test_another_ct_of_the_same_name_is_segmented_again(tmp_path, caplog, submission):
    for folder, k in (("a", 0), ("b", 2)):
        write_ct(tmp_path / folder / "volume-2.nii", slice_index=k)
    segment_below(tmp_path / "a", tmp_path / "out", bright_model(), submission=submission)
    with caplog.at_level(logging.INFO):
        report = segment_below(
            tmp_path / "b", tmp_path / "out", bright_model(), submission=submission
        )
    (target,) = report.written.values()
    assert np.flatnonzero(np.asarray(nib.load(target).dataobj).any(axis=(0, 1))).tolist() == [2]
    assert report.present == {}
    assert logged(caplog, "volume-2.nii", "again", str(target))


def test_a_prepared_case_whose_header_was_mended_is_segmented_again(tmp_path):
    hu, labels = body()
    for spacing_mm in (BODY_SPACING_MM, (9.0, 4.4, 5.0)):
        write_case(tmp_path / "raw", 0, hu, labels, spacing_mm=spacing_mm)
        prepare(find_cases(tmp_path / "raw"), tmp_path / "prepared", workers=0, png=False)
        packed = tmp_path / "prepared" / "cases" / "0.b2nd"
        report = segment_below(packed, tmp_path / "out", bright_model())
        (target,) = {**report.written, **report.present}.values()
        assert nib.load(target).header.get_zooms() == pytest.approx(spacing_mm[::-1])
    assert segment_below(packed, tmp_path / "out", bright_model()).written == {}


def test_a_file_that_others_put_in_the_place_of_a_result_is_not_counted(tmp_path):
    write_ct(tmp_path / "raw" / "volume-0.nii")
    target = tmp_path / "out" / "prediction-volume-0.nii.gz"
    segment_below(tmp_path / "raw", tmp_path / "out", bright_model())
    write_nifti(np.ones(SHAPE, np.uint8), target)
    assert list(segment_below(tmp_path / "raw", tmp_path / "out", bright_model()).written) == [
        tmp_path / "raw" / "volume-0.nii"
    ]
    assert np.asarray(nib.load(target).dataobj).mean() < 0.5


def test_a_ct_moved_to_another_folder_is_still_finished(tmp_path):
    source = write_ct(tmp_path / "a" / "volume-0.nii")
    segment_below(tmp_path / "a", tmp_path / "out", bright_model())
    source.parent.rename(tmp_path / "b")
    report = segment_below(tmp_path / "b", tmp_path / "out", bright_model())
    assert list(report.present) == [tmp_path / "b" / "volume-0.nii"]


def test_the_record_names_settings_and_no_path_or_time(tmp_path):
    write_ct(tmp_path / "raw" / "volume-0.nii")
    records = []
    for out in ("one", "two"):
        segment_below(tmp_path / "raw", tmp_path / out, bright_model())
        (path,) = (tmp_path / out).glob("*.json")
        records.append(path.read_bytes())
    assert records[0] == records[1]
    assert path.name == "prediction-volume-0.nii.gz.json"
    record = read_json(path)
    assert record["tumor"] is None
    assert record["postprocessing"]["margin_mm"] == 5.0


def test_json_of_other_programs_beside_their_images_is_no_record(tmp_path):
    write_ct(tmp_path / "raw" / "volume-0.nii")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scan.nii.gz.json").write_text('{"EchoTime": 1}')
    (tmp_path / "out" / "prediction-volume-0.nii.gz.json").write_text("[1]")
    (target,) = segment_below(tmp_path / "raw", tmp_path / "out", bright_model()).written.values()
    assert [record["source"] for record in read_records(tmp_path / "out")]
    assert read_record(target)["tumor"] is None


def test_the_record_knows_how_sure_a_tumor_model_must_be_and_leaves_older_ones_as_they_are():
    model = tumor_model(0.9)
    assert "peak" not in described_model(model)
    model.peak = 0.95
    assert described_model(model)["peak"] == 0.95
