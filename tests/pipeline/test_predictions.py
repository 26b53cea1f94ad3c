"""Prepared cases are segmented: what is made, found again, shared and left out."""

import logging

import nibabel as nib
import numpy as np
import pytest
from helpers.drawn import body, write_nifti
from helpers.drawn_predictions import LABELS, predict
from helpers.logs import logged
from helpers.prepared_runs import write_checkpoint, write_prepared

from lits_helpers.cases import Case
from lits_helpers.checkpoints import load_liver_model
from lits_helpers.inference import find_volumes, folders, segment_files
from lits_helpers.inference import segment as segment_module
from lits_helpers.machine import read_json
from lits_helpers.pipeline import evaluate, find_predictions, segment_cases


def test_what_was_segmented_before_is_not_segmented_again(data, models, tmp_path, monkeypatch):
    def cut_off(volume, *arguments, **options):
        if volume.path.stem == "1":
            raise KeyboardInterrupt
        return plain(volume, *arguments, **options)

    plain, out = segment_module.segment_volume, tmp_path / "p"
    with monkeypatch.context() as patch:
        patch.setattr(folders, "segment_volume", cut_off)
        with pytest.raises(KeyboardInterrupt):
            segment_cases(data, ["0", "1"], out, liver=models["liver"], device="cpu")
    kept = (out / "prediction-volume-0.nii.gz").stat().st_mtime_ns
    made = segment_cases(data, ["0", "1"], out, liver=models["liver"], device="cpu")
    assert sorted(made) == ["0", "1"]
    assert made["0"].stat().st_mtime_ns == kept


def test_each_prediction_returns_in_its_files_own_grid(data, models, tmp_path):
    files = segment_cases(data, ["0", "1"], tmp_path / "p", **models, device="cpu")
    assert files == find_predictions(tmp_path / "p")
    for case_id, path in files.items():
        source = data.root.parent / "raw" / "volume_pt1" / f"volume-{case_id}.nii"
        assert nib.load(path).shape == nib.load(source).shape
        assert np.allclose(nib.load(path).affine, nib.load(source).affine)
        assert np.asarray(nib.load(path).dataobj).max() <= 2


def test_predictions_of_unknown_models_are_not_taken_for_finished_ones(data, models, tmp_path):
    cts = [Case(case_id, case_id, data.volume_path(case_id)) for case_id in ("0", "1")]
    liver = load_liver_model(models["liver"], "cpu")

    def newly_segmented():
        return [path.stem for path in segment_files(cts, tmp_path, liver).written]

    predict(data, tmp_path, {"0": LABELS, "1": LABELS})
    assert newly_segmented() == ["0", "1"]
    assert newly_segmented() == []
    predict(data, tmp_path, {"1": LABELS})
    assert newly_segmented() == ["1"]


def test_cases_segmented_by_the_same_models_are_finished_for_folders_too(data, models, tmp_path):
    cts = [Case(case_id, case_id, data.volume_path(case_id)) for case_id in ("0", "1")]
    segment_cases(data, ["0"], tmp_path, liver=models["liver"], device="cpu")
    report = segment_files(cts, tmp_path, load_liver_model(models["liver"], "cpu"))
    assert list(report.present) == [cts[0].volume]
    segment_cases(data, ["0"], tmp_path, tumor=models["tumor"], device="cpu")
    assert read_json(tmp_path / "prediction-volume-0.nii.gz.json")["liver"] is None


def test_a_prepared_case_is_not_taken_for_another_ct_of_its_name(data, models, tmp_path):
    segment_cases(data, ["0"], tmp_path / "p", liver=models["liver"], device="cpu")
    other = write_nifti(body()[0][:, :-4], tmp_path / "other" / "volume-0.nii")
    report = segment_files(
        find_volumes(other), tmp_path / "p", load_liver_model(models["liver"], "cpu")
    )
    assert nib.load(report.written[other]).shape == nib.load(other).shape


def test_the_processes_of_torchrun_share_the_cases(data, models, tmp_path, monkeypatch):
    segment_cases(data, ["2"], tmp_path, tumor=models["tumor"])  # given up by whoever is first
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, share in enumerate((["0", "2"], ["1"])):
        monkeypatch.setenv("RANK", str(rank))
        assert list(segment_cases(data, ["0", "1", "2"], tmp_path, liver=models["liver"])) == share
    made = find_predictions(tmp_path)
    assert list(made) == ["0", "1", "2"]
    assert len(evaluate(data, made, tmp_path / "r")[0]) == 3


def test_a_case_that_fails_is_named_and_the_others_are_segmented(
    data, models, tmp_path, monkeypatch, caplog
):
    good = segment_module.segment_volume

    def segment(volume, *arguments, **options):
        if volume.path.stem == "0":
            raise ValueError("values 0..1 are not Hounsfield units")
        return good(volume, *arguments, **options)

    monkeypatch.setattr(folders, "segment_volume", segment)
    liver = {"liver": models["liver"], "device": "cpu"}
    with caplog.at_level(logging.WARNING):
        assert list(segment_cases(data, ["0", "1"], tmp_path, **liver)) == ["1"]
    assert logged(caplog, "0.b2nd", "values 0..1")
    with pytest.raises(ValueError, match=r"no case was segmented: values 0\.\.1"):
        segment_cases(data, ["0"], tmp_path, **liver)
    assert list(find_predictions(tmp_path)) == ["1"]


def test_several_models_are_averaged_and_known_to_the_evaluation(data, models, tmp_path):
    other = write_checkpoint(tmp_path / "other.pth", "liver", training_ids=["0"])
    out = tmp_path / "p"
    livers = [models["liver"], other]
    made = segment_cases(data, ["0", "1"], out, liver=livers, device="cpu")
    rows, _ = evaluate(data, made, tmp_path / "r", models=livers)
    assert {row["case_id"]: row["training_case"] for row in rows} == {"0": True, "1": False}
    third = write_checkpoint(tmp_path / "third.pth", "liver")
    with pytest.raises(ValueError, match=r"third\.pth did not make the predictions"):
        evaluate(data, made, tmp_path / "r", models=[third])


def test_a_model_of_the_other_system_is_refused(data, models, tmp_path):
    with pytest.raises(ValueError, match="holds a tumor model, a liver model is wanted"):
        segment_cases(data, ["0"], tmp_path, liver=models["tumor"])


def test_predictions_are_found_by_their_whole_name(tmp_path):
    for name in ("prediction-volume-7.nii.gz", "prediction-volume-a.b.nii.gz", "volume-3.nii.gz"):
        (tmp_path / name).touch()
    assert list(find_predictions(tmp_path)) == ["7", "a.b"]
    with pytest.raises(FileNotFoundError, match=r"call pipeline.segment_cases first"):
        find_predictions(tmp_path / "nowhere")


def test_a_case_whose_packed_file_is_damaged_does_not_end_the_others(tmp_path, models, caplog):
    data = write_prepared(tmp_path)
    path = data.volume_path("1")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle - 1000 : middle + 1000] = bytes(2000)
    path.write_bytes(content)
    files = segment_cases(data, ["0", "1", "2"], tmp_path / "p", liver=models["liver"])
    assert list(files) == ["0", "2"]
    assert logged(caplog, "1.b2nd", "prepare the case again")
