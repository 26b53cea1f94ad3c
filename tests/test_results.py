"""Predictions of prepared cases and their scores: what is compared, marked, left out and kept."""

import json
import logging
import math
import re
from dataclasses import replace
from functools import partial

import nibabel as nib
import numpy as np
import pytest
from drawn import body, write_nifti
from prepared_runs import write_checkpoint, write_prepared
from small_runs import small_liver, small_tumor

from lits_helpers.checkpoints import load_liver_model
from lits_helpers.inference import folders, segment_files
from lits_helpers.inference import segment as segment_module
from lits_helpers.inference.provenance import MakerRecord
from lits_helpers.machine import files as files_module
from lits_helpers.machine import read_json
from lits_helpers.metrics import read_metrics_csv
from lits_helpers.pipeline import (
    evaluate,
    find_predictions,
    open_result,
    results,
    save_score_figures,
    segment_cases,
)
from lits_helpers.pipeline.results import resize_ceiling
from lits_helpers.recipes import InputSpec
from lits_helpers.volumes import open_volume, read_volume, write_segmentation

LABELS = body()[1]
SHIFTED = np.roll(LABELS, 3, axis=2)
NO_TUMOR = np.minimum(LABELS, 1)
DRAWN = {"0": LABELS, "1": SHIFTED, "2": np.zeros_like(LABELS), "3": NO_TUMOR}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four cases; the last has no tumor."""
    return write_prepared(tmp_path_factory.mktemp("drawn"), cases=4, without_tumor={3})


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {s: write_checkpoint(folder / f"{s}.pth", s) for s in ("liver", "tumor")}


def predict(data, folder, drawn=DRAWN):
    """Write drawn labels as the predictions of cases."""
    for case_id, labels in drawn.items():
        volume = read_volume(data.volume_path(case_id))
        write_segmentation(labels, volume, folder / f"prediction-volume-{case_id}.nii.gz")
    return find_predictions(folder)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


# --- evaluate ------------------------------------------------------------------------------------


def test_metrics_csv_has_a_row_for_each_case(data, tmp_path):
    rows, _ = evaluate(data, predict(data, tmp_path / "p"), tmp_path / "r")
    assert [row["case_id"] for row in rows] == ["0", "1", "2", "3"]
    assert [row["liver_dice"] for row in rows] == pytest.approx(
        [1, dice(SHIFTED >= 1, LABELS >= 1), 0, 1]
    )
    assert [row["tumor_dice"] for row in rows] == pytest.approx(
        [1, dice(SHIFTED == 2, LABELS == 2), 0, 1]
    )
    assert [row["voxel_mm3"] for row in rows] == pytest.approx([5.0 * 0.7 * 0.8] * 4)
    assert read_metrics_csv(tmp_path / "r" / "metrics.csv") == rows


def test_the_summary_is_kept_with_intervals_and_worst_cases_first(data, tmp_path):
    rows, summary = evaluate(data, predict(data, tmp_path / "p"), tmp_path / "r")
    text = (tmp_path / "r" / "summary.json").read_text()
    written = json.loads(text, parse_constant=pytest.fail)  # Infinity and NaN are no JSON
    assert summary["tumor_rvd_prediction"]["mean"] == math.inf  # nothing found in case 2
    assert written["tumor_rvd_prediction"]["mean"] is None
    assert written["tumor_dice"] == summary["tumor_dice"]
    liver = summary["liver_dice"]
    assert liver["mean"] == pytest.approx(np.mean([row["liver_dice"] for row in rows]))
    assert liver["sd"] == pytest.approx(np.std([row["liver_dice"] for row in rows], ddof=1))
    assert liver["low"] < liver["mean"] < liver["high"]
    assert [case for case, _ in summary["worst_liver"]][:2] == ["2", "1"]
    assert [case for case, _ in summary["worst_tumor"]] == ["2", "1", "0"]
    assert summary["cases_with_tumor"] == 3


def test_the_same_predictions_give_the_same_files(data, tmp_path):
    predictions = predict(data, tmp_path / "p")
    evaluate(data, predictions, tmp_path / "a")
    evaluate(data, predictions, tmp_path / "b")
    for name in ("metrics.csv", "summary.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert str(tmp_path) not in (tmp_path / "a" / name).read_text()


def test_cases_that_either_model_was_trained_on_are_marked_and_left_out(data, tmp_path):
    origin = partial(write_checkpoint, network=False)
    made = [
        origin(tmp_path / "l.pth", "liver", ["2"]),
        origin(tmp_path / "t.pth", "tumor", ["1", "99"]),
    ]
    rows, summary = evaluate(data, predict(data, tmp_path / "p"), tmp_path / "r", models=made)
    assert [row["training_case"] for row in rows] == [False, True, True, False]
    assert (summary["cases"], summary["training_cases"]) == (2, 2)
    assert summary["liver_dice"]["mean"] == 1
    assert [case for case, _ in summary["worst_liver"]] == ["0", "3"]


def hashes_of(data, *case_ids):
    """What a training writes down of its cases' files."""
    return {i: read_json(data.root / "cases" / f"{i}.json")["source_hash"] for i in case_ids}


def test_a_training_case_is_known_by_its_ct_under_another_number(data, tmp_path, caplog):
    seen = {"70": hashes_of(data, "2")["2"], "1": "another-file-header"}
    path = write_checkpoint(tmp_path / "l.pth", "liver", list(seen), network=False, data=seen)
    rows, _ = evaluate(data, predict(data, tmp_path / "p"), tmp_path / "r", models=[path])
    assert [row["training_case"] for row in rows] == [False, True, True, False]
    assert "by their number, though their CTs are other files: 1; if they" in caplog.text


def test_of_a_model_without_hashes_nothing_is_said_of_its_cts(data, tmp_path, caplog):
    bare = write_checkpoint(tmp_path / "l.pth", "liver", ["1"], network=False)
    seen = hashes_of(data, "2")
    other = write_checkpoint(tmp_path / "t.pth", "tumor", ["2"], network=False, data=seen)
    rows, _ = evaluate(data, predict(data, tmp_path / "p"), tmp_path / "r", models=[bare, other])
    assert [row["training_case"] for row in rows] == [False, True, True, False]
    assert "by their number" not in caplog.text


def test_a_training_case_whose_ct_is_the_same_needs_no_word(data, tmp_path, caplog):
    seen = hashes_of(data, "1")
    path = write_checkpoint(tmp_path / "l.pth", "liver", list(seen), data=seen)
    made = segment_cases(data, ["0", "1"], tmp_path / "p", liver=path, device="cpu")
    rows, _ = evaluate(data, made, tmp_path / "r")
    assert [row["training_case"] for row in rows] == [False, True]
    assert "by their number" not in caplog.text


def test_the_record_beside_the_predictions_says_who_made_them(data, tmp_path, caplog):
    liver = write_checkpoint(tmp_path / "liver.pth", "liver", ["1"])
    made = segment_cases(data, ["0", "1"], tmp_path / "p", liver=liver, device="cpu")
    named = evaluate(data, made, tmp_path / "named", models=[liver])[0]
    rows, _ = evaluate(data, made, tmp_path / "r")
    assert [row["training_case"] for row in rows] == [False, True]
    assert rows == named
    assert "liver_dice_ceiling" in rows[0]
    assert "are of a liver model alone" in caplog.text
    assert "not recorded" not in caplog.text
    evaluate(data, predict(data, tmp_path / "p", {"2": LABELS}), tmp_path / "r")
    assert "unknown models: prediction-volume-2.nii.gz; their training cases" in caplog.text


@pytest.fixture
def old_records(data, models, tmp_path):
    """A folder whose predictions are recorded together, as 0.1.0 did: it named no CTs."""
    folder, finished = tmp_path / "p", {}
    segment_cases(data, ["0", "1"], folder, liver=models["liver"], device="cpu")
    for path in folder.glob("*.nii.gz.json"):
        maker = read_json(path)
        finished[path.stem] = {name: maker.pop(name) for name in ("source", "prediction")}
        path.unlink()
    del maker["liver"]["training_cts"]
    maker["liver"]["training_ids"] = ["1"]
    files_module.write_json(folder / "segmented_by.json", {**maker, "finished": {}})
    files_module.write_json(folder / "segmented_by-1.json", {**maker, "finished": finished})
    return folder


def test_what_records_of_a_whole_folder_say_still_counts(data, old_records, tmp_path, caplog):
    rows, _ = evaluate(data, find_predictions(old_records), tmp_path / "r")
    assert [row["training_case"] for row in rows] == [False, True]
    assert "not recorded" not in caplog.text
    evaluate(data, predict(data, old_records, {"0": SHIFTED}), tmp_path / "r")
    assert "unknown models: prediction-volume-0.nii.gz" in caplog.text


def test_a_folder_with_a_record_of_the_whole_is_gone_on_with(data, models, old_records):
    for path in old_records.glob("segmented_by*.json"):
        record = read_json(path)
        record["liver"]["training_ids"] = []  # as of these models
        files_module.write_json(path, record)
    before = {path: path.stat().st_mtime_ns for path in old_records.glob("*.nii.gz")}
    segment_cases(data, ["0", "1", "2"], old_records, liver=models["liver"], device="cpu")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [path.name for path in old_records.glob("*.nii.gz.json")] == [
        "prediction-volume-2.nii.gz.json"
    ]
    with pytest.raises(ValueError, match="holds results of another setting"):
        MakerRecord(old_records, None, None, None).claim()
    MakerRecord(old_records, None, None, None).claim(take_over=True)
    assert not list(old_records.glob("*.json"))


def test_models_that_did_not_make_the_predictions_are_refused(data, models, tmp_path):
    made = segment_cases(data, ["0"], tmp_path / "p", liver=models["liver"], device="cpu")
    other = write_checkpoint(tmp_path / "other.pth", "liver")  # random weights of its own
    for model in (other, models["tumor"]):
        with pytest.raises(ValueError, match=r"did not make the predictions in .*records"):
            evaluate(data, made, tmp_path / "r", models=[model])
    assert not (tmp_path / "r" / "metrics.csv").exists()


def test_what_was_segmented_before_is_not_segmented_again(data, models, tmp_path, monkeypatch):
    def cut_off(volume, *arguments):
        if volume.path.stem == "1":
            raise KeyboardInterrupt
        return plain(volume, *arguments)

    plain, out = segment_module.segment_volume, tmp_path / "p"
    with monkeypatch.context() as patch:
        patch.setattr(folders, "segment_volume", cut_off)
        with pytest.raises(KeyboardInterrupt):
            segment_cases(data, ["0", "1"], out, liver=models["liver"], device="cpu")
    kept = (out / "prediction-volume-0.nii.gz").stat().st_mtime_ns
    made = segment_cases(data, ["0", "1"], out, liver=models["liver"], device="cpu")
    assert sorted(made) == ["0", "1"]
    assert made["0"].stat().st_mtime_ns == kept


def test_the_ceiling_is_that_of_the_models_working_size(data, tmp_path):
    recipe = small_liver()
    liver = write_checkpoint(tmp_path / "l.pth", "liver", recipe=recipe, network=False)
    predictions = predict(data, tmp_path / "p", {"0": LABELS})
    rows, summary = evaluate(data, predictions, tmp_path / "r", models=[liver])
    expected = resize_ceiling(LABELS >= 1, recipe.spec)
    assert 0.8 < expected < 1
    assert rows[0]["liver_dice_ceiling"] == expected
    assert summary["liver_dice_ceiling"]["mean"] == expected
    assert "tumor_dice_ceiling" not in rows[0]


def test_the_ceiling_of_a_model_that_sees_the_livers_box_is_measured_there(data, tmp_path):
    def ceiling(margin):
        spec = InputSpec(32, (-100, 250), channels=3, context=1, liver_margin=margin)
        recipe = small_tumor(spec=spec)
        path = tmp_path / f"{margin}.pth"
        model = write_checkpoint(path, "tumor", recipe=recipe, network=False)
        return evaluate(data, predictions, tmp_path / "r", models=[model])[0][0]

    predictions = predict(data, tmp_path / "p", {"0": LABELS})
    whole, box = ceiling(None)["tumor_dice_ceiling"], ceiling(0.1)["tumor_dice_ceiling"]
    assert whole == resize_ceiling(LABELS == 2, InputSpec(32, (-100, 250)))
    assert whole < box <= 1


def test_untrusted_spacing_gives_no_figures_in_mm_and_says_why(tmp_path):
    data = write_prepared(tmp_path / "d", cases=2)
    record = read_json(data.root / "cases" / "0.json")
    record["geometry"]["spacing_trusted"] = False
    files_module.write_json(data.root / "cases" / "0.json", record)
    drawn = {case_id: DRAWN[case_id] for case_id in ("0", "1")}
    rows, summary = evaluate(data, predict(data, tmp_path / "p", drawn), tmp_path / "r")
    assert "voxel size cannot be trusted" in rows[0]["note"]
    assert (rows[0]["voxel_mm3"], rows[0]["liver_assd_mm"]) == (None, None)
    assert rows[1]["note"] is None
    assert rows[1]["liver_assd_mm"] > 0
    assert summary["cases_with_mm"] == 1


def test_predictions_without_reference_are_named_and_the_others_compared(data, tmp_path):
    predictions = predict(data, tmp_path / "p", {"0": LABELS})
    rows, summary = evaluate(data, {**predictions, "77": tmp_path / "any"}, tmp_path / "r")
    assert [row["case_id"] for row in rows] == ["0"]
    assert summary["without_reference"] == ["77"]
    assert summary["failed"] == []


def test_no_overlap_of_ids_names_both_sides(data, tmp_path):
    words = "no prediction has a reference: predictions of 77, references of 0, 1, 2, 3 in"
    with pytest.raises(ValueError, match=words):
        evaluate(data, {"77": tmp_path / "any"}, tmp_path / "r")
    assert not (tmp_path / "r" / "metrics.csv").exists()


def test_a_prediction_of_another_shape_is_named_and_the_others_compared(data, tmp_path, caplog):
    predictions = predict(data, tmp_path / "p")
    write_nifti(LABELS[:-1], predictions["1"])
    predictions["2"].write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        rows, summary = evaluate(data, predictions, tmp_path / "r")
    assert [row["case_id"] for row in rows] == ["0", "3"]
    assert summary["failed"] == ["1", "2"]
    said = [record.getMessage() for record in caplog.records]
    assert re.search(r"case 1 was not compared: .*prediction-volume-1.*\(76, 60, 13\)", said[0])
    assert re.search(r"case 2 was not compared: .*prediction-volume-2.*empty", said[1])


def test_where_no_prediction_fits_earlier_scores_are_kept(data, tmp_path):
    predictions = predict(data, tmp_path / "p", {"0": LABELS})
    evaluate(data, predictions, tmp_path / "r")
    before = (tmp_path / "r" / "metrics.csv").read_bytes()
    write_nifti(LABELS[:-1], predictions["0"])
    with pytest.raises(ValueError, match=r"no prediction could be compared: .*differs"):
        evaluate(data, predictions, tmp_path / "r")
    assert (tmp_path / "r" / "metrics.csv").read_bytes() == before


def test_an_unwritable_folder_is_named_before_the_work_begins(data, models, tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "segment_volume", pytest.fail)
    monkeypatch.setattr(results, "evaluate_case", pytest.fail)
    predictions = predict(data, tmp_path / "p", {"0": LABELS})
    taken = tmp_path / "taken"
    taken.write_text("a file")
    words = r"cannot write to .*taken.* \(.+\); choose another folder"
    with pytest.raises(OSError, match=words):
        evaluate(data, predictions, taken)
    with pytest.raises(OSError, match=words):
        segment_cases(data, ["0"], taken / "below", **models)


def test_the_three_score_figures_are_saved(data, tmp_path):
    rows, _ = evaluate(data, predict(data, tmp_path / "p"), tmp_path / "r")
    files = save_score_figures(rows, tmp_path / "r" / "figures")
    names = ["dice_per_case.png", "volume_agreement.png", "recall_by_size.png"]
    assert [path.name for path in files] == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in files)


# --- predictions ---------------------------------------------------------------------------------


def test_each_prediction_returns_in_its_files_own_grid(data, models, tmp_path):
    files = segment_cases(data, ["0", "1"], tmp_path / "p", **models, device="cpu")
    assert files == find_predictions(tmp_path / "p")
    for case_id, path in files.items():
        source = data.root.parent / "raw" / "volume_pt1" / f"volume-{case_id}.nii"
        assert nib.load(path).shape == nib.load(source).shape
        assert np.allclose(nib.load(path).affine, nib.load(source).affine)
        assert np.asarray(nib.load(path).dataobj).max() <= 2


def test_predictions_of_unknown_models_are_not_taken_for_finished_ones(data, models, tmp_path):
    cts = [data.volume_path(case_id) for case_id in ("0", "1")]
    liver = load_liver_model(models["liver"], "cpu")

    def newly_segmented():
        return [path.stem for path in segment_files(cts, tmp_path, liver).written]

    predict(data, tmp_path, {"0": LABELS, "1": LABELS})
    assert newly_segmented() == ["0", "1"]
    assert newly_segmented() == []
    predict(data, tmp_path, {"1": LABELS})
    assert newly_segmented() == ["1"]


def test_cases_segmented_by_the_same_models_are_finished_for_folders_too(data, models, tmp_path):
    cts = [data.volume_path(case_id) for case_id in ("0", "1")]
    segment_cases(data, ["0"], tmp_path, liver=models["liver"], device="cpu")
    report = segment_files(cts, tmp_path, load_liver_model(models["liver"], "cpu"))
    assert list(report.present) == cts[:1]
    segment_cases(data, ["0"], tmp_path, tumor=models["tumor"], device="cpu")
    assert read_json(tmp_path / "prediction-volume-0.nii.gz.json")["liver"] is None


def test_a_prepared_case_is_not_taken_for_another_ct_of_its_name(data, models, tmp_path):
    segment_cases(data, ["0"], tmp_path / "p", liver=models["liver"], device="cpu")
    other = write_nifti(body()[0][:, :-4], tmp_path / "other" / "volume-0.nii")
    report = segment_files([other], tmp_path / "p", load_liver_model(models["liver"], "cpu"))
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

    def segment(volume, *arguments):
        if volume.path.stem == "0":
            raise ValueError("values 0..1 are not Hounsfield units")
        return good(volume, *arguments)

    monkeypatch.setattr(folders, "segment_volume", segment)
    liver = {"liver": models["liver"], "device": "cpu"}
    with caplog.at_level(logging.WARNING):
        assert list(segment_cases(data, ["0", "1"], tmp_path, **liver)) == ["1"]
    assert "0.b2nd was not segmented: values 0..1" in caplog.text
    with pytest.raises(ValueError, match=r"no case was segmented: values 0\.\.1"):
        segment_cases(data, ["0"], tmp_path, **liver)
    assert list(find_predictions(tmp_path)) == ["1"]


def test_a_model_of_the_other_system_is_refused(data, models, tmp_path):
    with pytest.raises(ValueError, match="holds a tumor model, a liver model is wanted"):
        segment_cases(data, ["0"], tmp_path, liver=models["tumor"])


def test_predictions_are_found_by_their_whole_name(tmp_path):
    for name in ("prediction-volume-7.nii.gz", "prediction-volume-a.b.nii.gz", "volume-3.nii.gz"):
        (tmp_path / name).touch()
    assert list(find_predictions(tmp_path)) == ["7", "a.b"]
    with pytest.raises(FileNotFoundError, match="run notebook 04 first"):
        find_predictions(tmp_path / "nowhere")


def test_a_result_is_opened_with_its_reference_in_one_orientation(data, tmp_path):
    predictions = predict(data, tmp_path / "p", {"1": SHIFTED})
    volume, layers = open_result(data, "1", predictions["1"])
    assert np.array_equal(layers["prediction"], SHIFTED)
    assert np.array_equal(layers["reference"], LABELS)
    assert np.array_equal(volume.hu, open_volume(data.volume_path("1")).read())


@pytest.mark.parametrize("turned", ["axes", "origin", "no affine"])
def test_prediction_on_another_grid_is_refused_not_scored_wrongly(data, tmp_path, caplog, turned):
    predictions = predict(data, tmp_path / "p")
    image = nib.load(predictions["0"])
    affines = {
        "axes": image.affine @ np.diag([-1, 1, 1, 1]),
        "origin": image.affine + 200 * np.eye(4, k=3),
        "no affine": np.eye(4),
    }
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affines[turned]), predictions["0"])
    rows, summary = evaluate(data, predictions, tmp_path / "r")
    assert summary["failed"] == ["0"]
    assert len(rows) == 3
    assert "prediction-volume-0.nii.gz: its header puts the voxels elsewhere" in caplog.text


def test_another_scan_of_a_patient_that_was_trained_on_is_marked(data, tmp_path):
    cases = [replace(case, patient="P" if case.id in "01" else case.id) for case in data.cases]
    model = write_checkpoint(tmp_path / "l.pth", "liver", ["0"], network=False)
    rows, _ = evaluate(
        replace(data, cases=cases), predict(data, tmp_path / "p"), tmp_path / "r", models=[model]
    )
    assert [row["training_case"] for row in rows] == [True, True, False, False]


def test_a_case_whose_packed_file_is_damaged_does_not_end_the_others(tmp_path, models, caplog):
    data = write_prepared(tmp_path)
    path = data.volume_path("1")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle - 1000 : middle + 1000] = bytes(2000)
    path.write_bytes(content)
    files = segment_cases(data, ["0", "1", "2"], tmp_path / "p", liver=models["liver"])
    assert list(files) == ["0", "2"]
    assert "1.b2nd is damaged" in caplog.text
    assert "delete it and prepare the case again" in caplog.text
