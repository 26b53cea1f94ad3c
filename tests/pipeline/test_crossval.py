"""Cross-validation: each patient once, rules from other folds, resumed, shared among processes."""

import logging
from shutil import copytree

import numpy as np
import pytest
from helpers.logs import logged
from helpers.prepared_runs import VARIABLES, write_checkpoint
from helpers.small_runs import small_liver, small_tumor

from lits_helpers.inference import Postprocessing
from lits_helpers.machine import locked, read_json, write_json
from lits_helpers.metrics import read_metrics_csv
from lits_helpers.pipeline import checkpoint_path, cross_validate, crossval, format_pooled
from lits_helpers.pipeline.crossval import choose_postprocessing
from lits_helpers.preprocess import open_prepared
from lits_helpers.settings import load_settings


def untrained(patch, data, folder):
    """Return settings of two folds whose trainings write an untrained model and note it."""
    for variable in VARIABLES:
        patch.delenv(variable, raising=False)
    patch.setattr(crossval, "liver_recipe", lambda *_, **__: small_liver())
    patch.setattr(crossval, "tumor_recipe", lambda *_, **__: small_tumor())
    trained = []

    def training(system):
        def train(fold_settings, fold_data, recipe, seed):
            path = checkpoint_path(fold_settings, system)
            write_checkpoint(path, system, fold_data.split.training, recipe)
            trained.append((system, fold_settings.runs.name[-6:]))

        return train

    for system in ("liver", "tumor"):
        patch.setattr(crossval, f"train_{system}", training(system))
    made = load_settings(folder, prepared=data.root, runs=folder / "runs", device="cpu")
    object.__setattr__(made, "trained", trained)
    return made


@pytest.fixture
def settings(data, tmp_path, monkeypatch):
    return untrained(monkeypatch, data, tmp_path)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """Settings and summary of a whole cross-validation; tests that write take a copy."""
    with pytest.MonkeyPatch.context() as patch:
        settings = untrained(patch, data, tmp_path_factory.mktemp("finished"))
        return settings, cross_validate(settings, folds=2)


def folder_of(settings, number=0):
    return settings.runs / "crossval" / f"runs-fold-{number}-of-2"


def test_every_patient_is_scored_once_by_models_that_never_saw_it(finished):
    settings, summary = finished
    rows = read_metrics_csv(settings.runs / "crossval" / "metrics.csv")
    assert sorted(row["case_id"] for row in rows) == ["0", "1", "2", "3"]
    assert not any(row["training_case"] for row in rows)
    assert summary["cases"] == summary["liver_without_tumor_dice"]["cases"] == 4
    assert read_json(settings.runs / "crossval" / "summary.json")["cases"] == 4
    assert "Infinity" not in (settings.runs / "crossval" / "summary.json").read_text()
    text = (settings.runs / "crossval" / "table.txt").read_text()
    assert text == format_pooled(summary) + "\n"
    for line in ("tumor Dice, cases with tumor", "tumor Dice as nnU-Net", "liver without its"):
        assert line in text


def test_finished_folds_are_not_trained_again(settings, monkeypatch):
    whole = crossval.train_tumor

    def stopped(fold_settings, *arguments, **options):
        if "fold-1" in fold_settings.runs.name:
            raise KeyboardInterrupt
        whole(fold_settings, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(crossval, "train_tumor", stopped)
        with pytest.raises(KeyboardInterrupt):
            cross_validate(settings, folds=2)
    settings.trained.clear()
    first = cross_validate(settings, folds=2)
    assert settings.trained == [("liver", "1-of-2"), ("tumor", "1-of-2")]
    settings.trained.clear()
    assert cross_validate(settings, folds=2) == first
    assert settings.trained == []


def test_a_fold_that_another_process_works_on_is_left_to_it(settings, caplog):
    with (
        locked(folder_of(settings, 0) / ".lock"),
        caplog.at_level(logging.INFO, logger="lits_helpers"),
    ):
        assert cross_validate(settings, folds=2) is None
    assert logged(caplog, "another process works in runs-fold-0-of-2")
    assert settings.trained == [("liver", "1-of-2"), ("tumor", "1-of-2")]
    assert cross_validate(settings, folds=2)["cases"] == 4


def test_the_rules_of_a_fold_come_from_the_other_folds_only(settings, monkeypatch):
    seen = []
    plain = crossval.choose_postprocessing
    monkeypatch.setattr(
        crossval, "choose_postprocessing", lambda folds: seen.append(folds) or plain(folds)
    )
    cross_validate(settings, folds=2)
    held_out = [read_json(folder_of(settings, k) / "candidates.json")["cases"] for k in (0, 1)]
    assert [[fold["cases"] for fold in folds] for folds in seen] == [held_out[1:], held_out[:1]]
    chosen = read_json(folder_of(settings, 0) / "postprocessing.json")
    record = next((folder_of(settings, 0) / "results" / "predictions").glob("*.json"))
    assert chosen.pop("tumor_peak") is None  # the models' own
    assert read_json(record)["postprocessing"] == chosen


def test_a_fold_is_scored_with_the_rules_that_are_best_for_the_others(settings, monkeypatch):
    held_out = open_prepared(settings.prepared, validation=0.5, fold=0).split.validation
    best = {True: (2, 8), False: (1, 3)}  # for fold 0: all three at their last; for fold 1: 0.3

    def scores(_, case_id, *__):
        liver, tumor = best[case_id in held_out]
        return {"liver": np.eye(3)[liver].tolist(), "tumor": np.eye(9)[tumor].tolist()}

    monkeypatch.setattr(crossval, "scores_by_rules", scores)
    cross_validate(settings, folds=2)
    rules = [read_json(folder_of(settings, k) / "postprocessing.json") for k in (0, 1)]
    names = ("liver_threshold", "tumor_threshold", "min_lesion_mm3")
    assert [[rule[name] for name in names] for rule in rules] == [[0.3, 0.3, 30], [0.7, 0.7, 100]]


def test_the_best_mean_over_all_cases_is_chosen_and_the_default_of_equal_ones():
    liver = np.zeros((2, 3))
    tumor = np.zeros((2, 9))
    assert choose_postprocessing([{"liver": liver, "tumor": tumor}]) == Postprocessing()
    liver[:, 2], tumor[0, 0], tumor[:, 4] = 0.9, 0.7, 0.4  # one case is worth less than two
    chosen = choose_postprocessing([{"liver": row[None], "tumor": t[None]} for row, t in
                                    zip(liver, tumor, strict=True)])  # fmt: skip
    assert chosen == Postprocessing(liver_threshold=0.7, tumor_threshold=0.3, min_lesion_mm3=0.0)


def test_nnunets_mean_leaves_out_clean_cases_without_tumor_only(settings, finished, monkeypatch):
    copytree(finished[0].runs, settings.runs)
    part = folder_of(settings, 0) / "results" / "metrics.csv"
    rows = read_metrics_csv(part) + read_metrics_csv(
        folder_of(settings, 1) / "results" / "metrics.csv"
    )
    keys = ("tumor_dice", "tumor_size_reference", "tumor_size_prediction")
    drawn = {"0": (0.8, 9, 9), "1": (0.4, 9, 9), "2": (0.0, 0, 1), "3": (1.0, 0, 0)}
    for row in rows:
        row |= dict(zip(keys, drawn[row["case_id"]], strict=True))
    monkeypatch.setattr(crossval, "read_metrics_csv", lambda path: rows if path == part else [])
    summary = cross_validate(settings, folds=2)
    assert summary["tumor_dice"]["mean"] == pytest.approx(0.6)
    assert summary["tumor_dice_all_cases"]["mean"] == pytest.approx(0.55)
    assert summary["tumor_dice_nnunet"]["mean"] == pytest.approx(0.4)


def test_other_folds_and_mixed_recipes_are_refused(settings, finished, monkeypatch):
    with pytest.raises(ValueError, match="needs 2 folds or more, got 1"):
        cross_validate(settings, folds=1)
    copytree(finished[0].runs, settings.runs)
    monkeypatch.setattr(crossval, "liver_recipe", lambda *_, **__: small_liver(epochs=3))
    with pytest.raises(ValueError, match=r"finished with other cases, .*recipes or another seed"):
        cross_validate(settings, folds=2)


def test_scores_against_a_reference_that_changed_since_are_refused(settings, finished, tmp_path):
    prepared = copytree(settings.prepared, tmp_path / "prepared")
    object.__setattr__(settings, "prepared", prepared)
    copytree(finished[0].runs, settings.runs)
    record = prepared / "cases" / "2.json"  # as after `lits prepare` of a corrected segmentation
    write_json(record, read_json(record) | {"source_hash": "another"})
    with pytest.raises(ValueError, match="finished with other cases, other files of them"):
        cross_validate(settings, folds=2)
