"""Scores of predictions: what is compared, marked, left out and kept; the resize ceiling."""

import json
import logging
import math
from dataclasses import replace
from functools import partial

import nibabel as nib
import numpy as np
import pytest
from helpers.drawn import BODY_SPACING_MM, write_nifti
from helpers.drawn_predictions import DRAWN, LABELS, SHIFTED, predict
from helpers.logs import logged
from helpers.prepared_runs import write_checkpoint, write_prepared
from helpers.small_runs import small_liver, small_tumor

from lits_helpers.inference import folders
from lits_helpers.inference.provenance import MakerRecord
from lits_helpers.machine import files as files_module
from lits_helpers.machine import read_json
from lits_helpers.metrics import read_metrics_csv
from lits_helpers.pipeline import (
    evaluate,
    find_predictions,
    flags_of,
    open_result,
    open_viewed,
    results,
    results_of,
    save_score_figures,
    segment_cases,
)
from lits_helpers.pipeline.results import resize_ceiling
from lits_helpers.recipes import InputSpec
from lits_helpers.settings import load_settings
from lits_helpers.volumes import open_volume, probability_path, read_volume, write_probability


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_metrics_csv_has_a_row_for_each_case(data, tmp_path):
    rows, _ = evaluate(data, predict(data, tmp_path / "p"), tmp_path / "r")
    assert [row["case_id"] for row in rows] == ["0", "1", "2", "3"]
    assert [row["liver_dice"] for row in rows] == pytest.approx(
        [1, dice(SHIFTED >= 1, LABELS >= 1), 0, 1]
    )
    assert [row["tumor_dice"] for row in rows] == pytest.approx(
        [1, dice(SHIFTED == 2, LABELS == 2), 0, 1]
    )
    assert [row["voxel_mm3"] for row in rows] == pytest.approx([10.0 * 4.5 * 5.0] * 4)
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


def test_scores_of_other_predictions_never_replace_a_runs_own(data, tmp_path):
    evaluate(data, predict(data, tmp_path / "predictions"), tmp_path)
    before = (tmp_path / "metrics.csv").read_bytes()
    others = predict(data, tmp_path / "others", {"0": LABELS})
    with pytest.raises(ValueError, match=r"predictions are of .*others: choose another folder"):
        evaluate(data, others, tmp_path)
    assert (tmp_path / "metrics.csv").read_bytes() == before
    evaluate(data, others, results_of(load_settings(runs=tmp_path), tmp_path / "others"))
    assert (tmp_path / "others" / "summary.json").is_file()


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
    assert logged(caplog, "other files: 1", "rename")


def test_of_a_model_without_hashes_nothing_is_said_of_its_cts(data, tmp_path, caplog):
    bare = write_checkpoint(tmp_path / "l.pth", "liver", ["1"], network=False)
    seen = hashes_of(data, "2")
    other = write_checkpoint(tmp_path / "t.pth", "tumor", ["2"], network=False, data=seen)
    rows, _ = evaluate(data, predict(data, tmp_path / "p"), tmp_path / "r", models=[bare, other])
    assert [row["training_case"] for row in rows] == [False, True, True, False]
    assert not logged(caplog, "other files")


def test_a_training_case_whose_ct_is_the_same_needs_no_word(data, tmp_path, caplog):
    seen = hashes_of(data, "1")
    path = write_checkpoint(tmp_path / "l.pth", "liver", list(seen), data=seen)
    made = segment_cases(data, ["0", "1"], tmp_path / "p", liver=path, device="cpu")
    rows, _ = evaluate(data, made, tmp_path / "r")
    assert [row["training_case"] for row in rows] == [False, True]
    assert not logged(caplog, "other files")


def test_the_record_beside_the_predictions_says_who_made_them(data, tmp_path, caplog):
    liver = write_checkpoint(tmp_path / "liver.pth", "liver", ["1"])
    made = segment_cases(data, ["0", "1"], tmp_path / "p", liver=liver, device="cpu")
    named = evaluate(data, made, tmp_path / "named", models=[liver])[0]
    rows, _ = evaluate(data, made, tmp_path / "r")
    assert [row["training_case"] for row in rows] == [False, True]
    assert rows == named
    assert "liver_dice_ceiling" in rows[0]
    assert logged(caplog, "liver model alone")
    assert not logged(caplog, "unknown models")
    evaluate(data, predict(data, tmp_path / "p", {"2": LABELS}), tmp_path / "r")
    assert logged(caplog, "unknown models", "prediction-volume-2.nii.gz")


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
    assert not logged(caplog, "unknown models")
    evaluate(data, predict(data, old_records, {"0": SHIFTED}), tmp_path / "r")
    assert logged(caplog, "unknown models", "prediction-volume-0.nii.gz")


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


def test_the_ceiling_is_that_of_the_models_working_size(data, tmp_path):
    recipe = small_liver()
    liver = write_checkpoint(tmp_path / "l.pth", "liver", recipe=recipe, network=False)
    predictions = predict(data, tmp_path / "p", {"0": LABELS})
    rows, summary = evaluate(data, predictions, tmp_path / "r", models=[liver])
    expected = resize_ceiling(LABELS >= 1, recipe.spec, BODY_SPACING_MM[1] / BODY_SPACING_MM[2])
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
    aspect = BODY_SPACING_MM[1] / BODY_SPACING_MM[2]
    assert whole == resize_ceiling(LABELS == 2, InputSpec(32, (-100, 250)), aspect)
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
    assert logged(caplog, "case 1", "prediction-volume-1", "(76, 60, 13)")
    assert logged(caplog, "case 2", "prediction-volume-2", "empty")


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


def test_the_three_score_figures_are_saved_for_the_screen_and_for_a_paper(data, tmp_path):
    rows, _ = evaluate(data, predict(data, tmp_path / "p"), tmp_path / "r")
    files = save_score_figures(rows, tmp_path / "r" / "figures")
    names = ["dice_per_case", "volume_agreement", "recall_by_size"]
    assert [path.name for path in files] == [
        f"{n}.{kind}" for n in names for kind in ("png", "pdf")
    ]
    assert {path.read_bytes()[:4] for path in files} == {b"\x89PNG", b"%PDF"}


def test_a_result_is_opened_with_its_reference_in_one_orientation(data, tmp_path):
    predictions = predict(data, tmp_path / "p", {"1": SHIFTED})
    volume, layers = open_result(data, "1", predictions["1"])
    assert np.array_equal(layers["prediction"], SHIFTED)
    assert np.array_equal(layers["reference"], LABELS)
    assert np.array_equal(volume.hu, open_volume(data.volume_path("1")).read())


def test_a_row_of_scores_says_how_far_to_trust_the_prediction_and_why(data, tmp_path):
    drawn = {"1": LABELS, "2": np.zeros_like(LABELS)}
    evaluate(data, predict(data, tmp_path / "p", drawn), tmp_path)
    rows = {row["case_id"]: row for row in read_metrics_csv(tmp_path / "metrics.csv")}
    flags = flags_of(read_volume(data.volume_path("1")), LABELS, tmp_path / "none.nii.gz")
    assert rows["1"]["flag"] == flags["word"]
    assert rows["1"]["flag_reasons"] == ("; ".join(flags["reasons"]) or None)
    assert (rows["2"]["flag"], rows["2"]["flag_score"]) == ("do not use", 5.0)
    assert rows["2"]["flag_reasons"] == "no liver was found"


def test_probabilities_beside_a_prediction_are_its_uncertainty_in_the_viewer(data, tmp_path):
    predictions = predict(data, tmp_path / "p", {"1": SHIFTED})
    volume, layers, unsure, notes = open_viewed(data, "1", predictions["1"])
    assert notes[0].startswith(("sound: ", "look at it: ", "do not use: "))
    assert unsure is None
    half = np.where(SHIFTED > 0, 128, 0).astype(np.uint8)
    write_probability(half, volume, probability_path(predictions["1"], "liver"))
    _, _, unsure, _ = open_viewed(data, "1", predictions["1"])
    assert np.array_equal(unsure >= 0.9, SHIFTED > 0)
    assert set(layers) == {"reference", "prediction"}


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
    assert logged(caplog, "prediction-volume-0.nii.gz", "header")


def test_another_scan_of_a_patient_that_was_trained_on_is_marked(data, tmp_path):
    cases = [replace(case, patient="P" if case.id in "01" else case.id) for case in data.cases]
    model = write_checkpoint(tmp_path / "l.pth", "liver", ["0"], network=False)
    rows, _ = evaluate(
        replace(data, cases=cases), predict(data, tmp_path / "p"), tmp_path / "r", models=[model]
    )
    assert [row["training_case"] for row in rows] == [True, True, False, False]


def disc(diameter: float, shape: tuple[int, int] = (200, 256)) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    inside = (rows - 90.3) ** 2 + (columns - 141.8) ** 2 <= (diameter / 2) ** 2
    return np.stack([inside & False, inside, inside])


def spec(size: int) -> InputSpec:
    return InputSpec(size=size, window=(-200, 300))


def test_native_size_costs_nothing():
    assert resize_ceiling(disc(20), spec(256)) == 1


def test_ceiling_falls_with_the_size_of_the_lesion():
    ceilings = [resize_ceiling(disc(wide), spec(64)) for wide in (80, 20, 8)]
    assert ceilings == sorted(ceilings, reverse=True)
    assert ceilings[0] > 0.96 > 0.88 > ceilings[2]


def test_ceiling_rises_with_the_working_size():
    ceilings = [resize_ceiling(disc(9), spec(size)) for size in (32, 64, 128, 256)]
    assert ceilings == sorted(ceilings)


def test_lesion_much_smaller_than_a_pixel_cannot_be_found():
    mask = np.zeros((2, 200, 256), bool)
    mask[1, 64, 64] = True
    assert resize_ceiling(mask, spec(64)) == 0


def test_ceiling_of_an_empty_mask_is_one():
    assert resize_ceiling(disc(0), spec(64)) == 1


def test_labels_are_refused():
    with pytest.raises(ValueError, match=r"mask must be \(Z, Y, X\) bool, got .* uint8"):
        resize_ceiling(disc(9).astype(np.uint8), spec(64))
