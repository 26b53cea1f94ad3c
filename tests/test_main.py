"""The steps from a shell: the whole way on tiny phantoms, exit codes, sentences, precedence."""

import contextlib
import inspect
import io
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.drawn import BODY_SPACING_MM, body, write_nifti
from helpers.logs import logged
from helpers.prepared_runs import VARIABLES, write_checkpoint, write_prepared
from helpers.repository import ROOT
from helpers.small_runs import draw_no_curves, small_liver, small_tumor

from lits_helpers import __version__, checkpoints, pipeline, recipes, settings
from lits_helpers.__main__ import main
from lits_helpers.machine import read_json
from lits_helpers.metrics import read_metrics_csv
from lits_helpers.pipeline import acquisition, trainings
from lits_helpers.preprocess import prepared as prepared_module
from lits_helpers.training.start import TrainingOptions

STEPS = (
    "phantom",
    "download",
    "check",
    "prepare",
    "train-liver",
    "train-tumor",
    "predict",
    "report",
    "evaluate",
    "crossval",
    "export",
)
TRAININGS = {"train-liver": "train_liver_gan", "train-tumor": "train_tumor_regnet"}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Each test starts in a folder of its own, without variables; only `way` draws its scores."""
    make_small(tmp_path, monkeypatch)
    monkeypatch.setattr(pipeline, "save_score_figures", touch_score_figures)


def touch_score_figures(rows, folder):
    """Stand for figures, which take longer than what they show."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dice_per_case.pdf").touch()


def make_small(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setitem(acquisition.PHANTOMS, True, (4, (12, 40, 48)))
    monkeypatch.setitem(recipes.LIVER_RECIPES, "default", small_liver())
    monkeypatch.setitem(recipes.TUMOR_RECIPES, "default", small_tumor())
    monkeypatch.setattr(recipes, "TINY_LIVER", {})
    monkeypatch.setattr(recipes, "TINY_TUMOR", {"pretrained": False})
    draw_no_curves(monkeypatch)


def shell_call(*arguments):
    """Run a step; return its exit code and what it wrote."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue())


def sentence(call):
    """Return what a failed step says, which is one line and no traceback."""
    assert call.code == 1
    lines = [line for line in call.err.split("\n") if line and "\r" not in line]  # no bar
    assert len(lines) == 1, call.err
    return lines[0]


# --- the whole way -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def way(tmp_path_factory):
    """Every step but download and crossval, one after the other, in one folder."""
    folder = tmp_path_factory.mktemp("way")
    common = ("--tiny", "--device", "cpu")
    done = {}
    with pytest.MonkeyPatch.context() as patch:
        make_small(folder, patch)
        patch.setattr(torch.onnx, "export", lambda *given, **_: Path(given[2]).touch())  # slow
        for step in (step for step in STEPS if step not in ("download", "crossval")):
            extra = ("--workers", "0") if step in ("check", "prepare") else ()
            done[step] = shell_call(step, *common, *extra)
    return SimpleNamespace(folder=folder, **{k.replace("-", "_"): v for k, v in done.items()})


def test_every_step_ends_well(way):
    for name, call in vars(way).items():
        if name != "folder":
            assert call.code == 0, f"{name}: {call.err}"
    assert way.phantom.out == "data/phantom-tiny/raw\n"
    assert way.prepare.out.startswith("4 cases prepared (4 now, 0 unchanged), 0 skipped")


@pytest.mark.parametrize(("system", "epochs"), [("liver", 2), ("tumor", 1)])
def test_a_training_leaves_its_model_and_says_how_good_it_is(way, system, epochs):
    run = way.folder / "runs" / "phantom-tiny" / system
    assert (run / "checkpoints" / "best_model.pth").is_file()
    assert len((run / "history.csv").read_text().splitlines()) == 1 + epochs
    written = getattr(way, f"train_{system}").out
    assert re.fullmatch(r"best validation Dice per case \d\.\d{3} in epoch \d\n", written)


def test_predict_lists_the_validation_patients_labels(way):
    recipe = read_json(way.folder / "runs" / "phantom-tiny" / "liver" / "recipe.json")
    folder = Path("runs/phantom-tiny/results/predictions")
    named = [str(folder / f"prediction-volume-{i}.nii.gz") for i in recipe["validation_ids"]]
    assert way.predict.out.splitlines() == named
    assert all((way.folder / path).is_file() for path in named)


def test_evaluate_leaves_table_summary_and_figures(way):
    results = way.folder / "runs" / "phantom-tiny" / "results"
    rows = read_metrics_csv(results / "metrics.csv")
    assert len(rows) == len(way.predict.out.splitlines())
    assert not any(row["training_case"] for row in rows)
    assert all(0 < row["liver_dice_ceiling"] <= 1 for row in rows)
    assert read_json(results / "summary.json")["cases"] == len(rows)
    figures = sorted(path.name for path in (results / "figures").glob("*.png"))
    assert figures == ["dice_per_case.png", "recall_by_size.png", "volume_agreement.png"]
    assert "liver Dice per case" in way.evaluate.out
    assert "95 %" in way.evaluate.out
    assert "runs/phantom-tiny/results" in way.evaluate.out


def test_training_cases_among_the_predictions_are_marked(way, monkeypatch):
    monkeypatch.chdir(way.folder)
    common = ("--tiny", "--device", "cpu")
    prepared = way.folder / "data" / "phantom-tiny" / "prepared"
    assert shell_call("predict", prepared, "--out", "all", *common).code == 0
    call = shell_call("evaluate", "--predictions", "all", "--out", "scores", *common)
    assert call.code == 0
    recipe = read_json(way.folder / "runs" / "phantom-tiny" / "liver" / "recipe.json")
    rows = read_metrics_csv(way.folder / "scores" / "metrics.csv")
    marked = {str(row["case_id"]) for row in rows if row["training_case"]}
    assert marked == set(recipe["training_ids"])
    assert len(rows) == 4
    assert f"{len(marked)} training cases left out" in call.out


def test_two_folders_of_labels_are_compared_without_anything_prepared(way, tmp_path):
    predictions = way.folder / "runs" / "phantom-tiny" / "results" / "predictions"
    raw = way.folder / "data" / "phantom-tiny" / "raw"
    call = shell_call("evaluate", predictions, raw)
    assert call.code == 0, call.err
    rows = read_metrics_csv(tmp_path / "runs" / "phantom" / "results" / "compared" / "metrics.csv")
    written = way.folder / "runs" / "phantom-tiny" / "results" / "metrics.csv"
    prepared = read_metrics_csv(written)
    assert [row["liver_dice"] for row in rows] == [row["liver_dice"] for row in prepared]
    wrong = sentence(shell_call("evaluate", predictions))
    assert "name two files or folders" in wrong


def test_results_of_other_labels_leave_the_runs_own_alone(way, monkeypatch):
    monkeypatch.chdir(way.folder)
    results = Path("runs/phantom-tiny/results")
    own = [results / "metrics.csv", results / "summary.json", results / "reports" / "report.csv"]
    own += sorted((results / "figures").iterdir())
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in own]
    shutil.copytree(results / "predictions", "others")
    call = shell_call("evaluate", "--predictions", "others", "--tiny", "--device", "cpu")
    assert call.code == 0, call.err
    assert "metrics.csv, summary.json and figures are in others" in call.out
    assert len(read_metrics_csv(Path("others/metrics.csv"))) == len(way.predict.out.splitlines())
    assert (Path("others/figures") / "dice_per_case.pdf").is_file()
    assert shell_call("report", "others", "--tiny").code == 0
    assert (results / "reported" / "report.csv").is_file()
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in own] == before
    again = ("evaluate", "--predictions", results / "predictions", "--tiny", "--device", "cpu")
    assert f"figures are in {results}" in shell_call(*again).out


def test_one_model_alone_segments_what_it_knows(way, monkeypatch):
    monkeypatch.chdir(way.folder)
    given = "predict --only liver --out livers --tiny --rotation 8 --probabilities"
    call = shell_call(*given.split())
    assert call.code == 0
    names = {Path(line).name for line in call.out.splitlines()}
    assert names == {Path(line).name for line in way.predict.out.splitlines()}
    records = list((way.folder / "livers").glob("*.nii.gz.json"))
    assert len(records) == len(names)
    assert all(read_json(path)["postprocessing"]["rotation_degrees"] == 8 for path in records)
    kept = list((way.folder / "livers").glob("*_liver_probability.nii.gz"))
    assert len(kept) == len(names)


def test_a_finished_step_is_not_done_again(way, monkeypatch):
    monkeypatch.chdir(way.folder)
    best = way.folder / "runs" / "phantom-tiny" / "liver" / "checkpoints" / "best_model.pth"
    volumes = sorted((way.folder / "data").rglob("volume-*"))
    before = [path.stat().st_mtime_ns for path in (best, *volumes)]
    assert shell_call("phantom", "--tiny").code == 0
    assert shell_call("train-liver", "--tiny", "--device", "cpu").out == way.train_liver.out
    assert [path.stat().st_mtime_ns for path in (best, *volumes)] == before


# --- the same defaults as the notebooks ----------------------------------------------------------


@pytest.mark.parametrize("tiny", [True, False])
@pytest.mark.parametrize("step", TRAININGS)
def test_a_training_without_options_is_the_notebooks(step, tiny, tmp_path, monkeypatch):
    signature = inspect.signature(getattr(trainings, TRAININGS[step]))
    calls = []

    def record(*given, **options):
        call = signature.bind(*given, **options)
        arguments = dict(call.arguments)
        arguments["options"] = TrainingOptions(**arguments.get("options", {}))
        calls.append(arguments)
        return []

    monkeypatch.setattr(trainings, TRAININGS[step], record)
    share = property(lambda chosen: 0.6 if chosen.tiny else 0.15)  # of few cases, 0.4 is as 0.15
    monkeypatch.setattr(settings.Settings, "validation_share", share)
    root = write_prepared(tmp_path / "drawn", cases=6).root
    where = {"source": "folder", "raw": str(root.parent / "raw"), "prepared": str(root)}
    given = [text for name, value in where.items() for text in (f"--{name}", value)]
    shell_call(step, *given, *(["--tiny"] if tiny else []))
    chosen = settings.load_settings(".", tiny=tiny, **where)
    data = pipeline.ensure_prepared(chosen, workers=0)
    {"train-liver": pipeline.train_liver, "train-tumor": pipeline.train_tumor}[step](chosen, data)
    assert calls[0] == calls[1]


def test_options_reach_the_training(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(trainings, "train_liver_gan", lambda *given, **o: calls.append((given, o)))
    monkeypatch.setattr(pipeline, "best_epoch_text", lambda history: "")
    data = write_prepared(tmp_path / "drawn", cases=6)
    given = "--recipe original --epochs 3 --width 8 --seed 5 --resume never --max-minutes 1.5"
    call = shell_call("train-liver", "--prepared", data.root, *given.split(), "--fold", "4")
    assert call.code == 0, call.err
    (_, run, split, recipe), options = calls[0]
    assert run == Path("runs/phantom/liver")
    assert (recipe.name, recipe.epochs, recipe.width) == ("original", 3, 8)
    assert (options["seed"], options["resume"], options["max_minutes"]) == (5, "never", 1.5)
    assert split == prepared_module.open_prepared(data.root, validation=0.15, fold=4).split


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ([0.25, 0.5, 0.375], "0.500 in epoch 2"),
        ([float("nan"), 0.25], "0.250 in epoch 2"),
        ([float("nan")], "no validation patient holds the target"),
        ([], "stopped before the first epoch ended"),
    ],
)
def test_the_best_epoch_is_told_from_any_history(scores, words):
    history = [{"epoch": n, "validation_dice": score} for n, score in enumerate(scores, 1)]
    assert words in pipeline.best_epoch_text(history)


# --- options and variables -----------------------------------------------------------------------


def chosen_settings(monkeypatch, *options):
    seen = []
    monkeypatch.setattr(pipeline, "make_phantoms", lambda chosen: seen.append(chosen) or "made")
    assert shell_call("phantom", *options).code == 0
    return seen[0]


def test_variables_count_where_no_option_is_given(monkeypatch):
    monkeypatch.setenv("LITS_RAW", "scans")
    monkeypatch.setenv("LITS_TINY", "1")
    chosen = chosen_settings(monkeypatch)
    assert (chosen.raw, chosen.tiny) == (Path("scans"), True)


def test_an_option_wins_over_its_variable(monkeypatch):
    monkeypatch.setenv("LITS_RAW", "scans")
    monkeypatch.setenv("LITS_RUNS", "kept")
    monkeypatch.setenv("LITS_TINY", "0")
    monkeypatch.setenv("LITS_SOURCE", "folder")
    chosen = chosen_settings(monkeypatch, "--raw", "other", "--tiny", "--source", "phantom")
    assert (chosen.raw, chosen.runs) == (Path("other"), Path("kept"))
    assert (chosen.tiny, chosen.source) == (True, "phantom")


# --- help, usage and sentences -------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
def test_each_step_explains_itself(step, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([step, "--help"])
    written = capsys.readouterr().out
    assert stopped.value.code == 0
    assert f"python -m lits_helpers {step}" in written
    assert {"--raw", "--runs", "--tiny"} <= set(re.findall(r"--\w+", written))
    undescribed = re.findall(r"^  (--[a-z-]+)(?: [A-Z]+)?$(?!\n {10})", written, re.MULTILINE)
    assert undescribed == []


def test_the_overview_names_every_step_as_the_pages_do(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    written = capsys.readouterr().out
    assert stopped.value.code == 0
    assert re.findall(r"^    ([a-z-]+)(?= |$)", written, re.MULTILINE) == list(STEPS)
    places = (ROOT / "README.md", *ROOT.glob("docs/*.md"))
    pages = "".join(path.read_text("utf-8") for path in places)
    assert all(f"lits {step}" in pages or f"`{step}`" in pages for step in STEPS)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "STEP"),
        ("train", "invalid choice: 'train'"),
        ("prepare --source web", "invalid choice: 'web'"),
        ("download --source phantom", "invalid choice: 'phantom'"),
        ("phantom --source folder", "invalid choice: 'folder'"),
        ("train-liver --precision int8", "invalid choice: 'int8'"),
        ("train-liver --recipe best", "invalid choice: 'best'"),
        ("train-liver --epochs 0", "must be a whole number from 1 on, got 0"),
        ("train-liver --seed -1", "must be a whole number from 0 on, got -1"),
        ("train-tumor --width 8", "unrecognized arguments: --width 8"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments.split())
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("prepare", "prepare: no case under data/phantom/raw: expected volume-N.nii"),
        ("prepare --source folder --raw nowhere", "no case under nowhere"),
        ("download --cases 1,x", "case numbers look like"),
        ("train-liver", "no prepared case under data/phantom/prepared"),
        ("train-tumor --prepared nowhere", "no prepared case under nowhere"),
        ("predict", "no prepared case under"),
        ("predict nowhere", "no CT at nowhere: expected .nii"),
        ("predict --submission", "name their files or folder"),
        ("predict scans --fold 0", "--fold is for the validation patients"),
        ("predict scans --only liver --tumor a.pth", "leave out --tumor: --only liver takes no"),
        ("predict --orientation LPS", "leave out --orientation: prepared cases lie as prepare"),
        ("export --only tumor --liver a.pth", "leave out --liver: --only tumor takes no such"),
        ("evaluate a b --liver c.pth --predictions p", "leave out --predictions and --liver: they"),
        ("report a.nii --compare a b --meshes", "leave out --meshes: --compare writes one page"),
        ("evaluate", "no prediction-volume-N.nii.gz in runs/phantom/results/predictions"),
    ],
)
def test_what_is_missing_is_told_in_one_sentence(arguments, words):
    call = shell_call(*arguments.split())
    assert words in sentence(call)
    assert call.out == ""


def test_a_wrong_device_is_told_in_one_sentence(tmp_path):
    data = write_prepared(tmp_path / "drawn", cases=3)
    call = shell_call("train-liver", "--prepared", data.root, "--device", "quantum")
    assert "device 'quantum' (--device or LITS_DEVICE) is not usable" in sentence(call)


def test_a_wrong_variable_is_told_in_one_sentence(monkeypatch):
    monkeypatch.setenv("LITS_TINY", "perhaps")
    assert "LITS_TINY must be 1 or 0, got 'perhaps'" in sentence(shell_call("phantom"))


def test_phantoms_never_mix_with_other_volumes(tmp_path):
    write_nifti(body()[0], tmp_path / "scans" / "volume-0.nii")
    call = shell_call("phantom", "--tiny", "--raw", "scans")
    assert "holds files that are no phantoms" in sentence(call)


def test_a_folder_without_a_usable_case_fails(tmp_path):
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "volume-0.nii").write_bytes(b"")
    call = shell_call("prepare", "--raw", "scans", "--workers", "0")
    assert "no case under scans could be prepared" in sentence(call)
    assert "0 cases prepared" in call.out


def test_a_download_is_of_kaggle_and_goes_to_its_own_folder(monkeypatch):
    monkeypatch.setenv("LITS_SOURCE", "phantom")
    asked = []

    def download(settings, numbers, **options):
        asked.append((settings.source, str(settings.prepared)))
        return SimpleNamespace(failed={})

    monkeypatch.setattr(pipeline, "download", download)
    assert shell_call("download", "--cases", "0").code == 0
    assert asked == [("kaggle", "data/kaggle/prepared")]


def test_a_download_takes_the_source_of_its_option_or_variable(monkeypatch, caplog):
    asked = []

    def download(settings, numbers, **options):
        asked.append((settings.source, str(settings.prepared), numbers))
        return SimpleNamespace(failed={})

    monkeypatch.setattr(pipeline, "download", download)
    shell_call("download", "--source", "msd", "--cases", "0-3")
    monkeypatch.setenv("LITS_SOURCE", "msd")
    shell_call("download")
    assert asked == [("msd", "data/msd/prepared", "0-3"), ("msd", "data/msd/prepared", "")]
    assert caplog.messages[-1].endswith("train-liver --source msd")


def test_a_download_that_lacks_cases_fails_and_names_them(tmp_path, monkeypatch):
    data = write_prepared(tmp_path / "drawn", cases=2)
    asked = []

    def fetch(source, numbers, raw, on_case, *, keep_raw, **_):
        asked.append((numbers, keep_raw))
        return {27: "it is gone from Kaggle"}

    plan = SimpleNamespace(check=lambda: None)
    monkeypatch.setattr(acquisition, "find_mounted", lambda _: None)
    monkeypatch.setattr(acquisition, "plan_download", lambda *_, **__: plan)
    monkeypatch.setattr(acquisition, "fetch_cases", fetch)
    given = ("download", "--prepared", data.root, "--keep-raw")
    assert shell_call(*given, "--cases", "0-1, 27").code == 1
    call = shell_call(*given, "--cases", "0-1, 27")
    assert call.err.endswith("cases 27 failed, see above; the same command tries them again\n")
    assert asked == [([27], True), ([27], True)]
    monkeypatch.setattr(acquisition, "fetch_cases", lambda *_, **__: {})
    assert shell_call(*given, "--cases", "0-1").code == 0


def test_a_key_error_is_told_without_quotes(monkeypatch):
    def fail(chosen):
        raise KeyError("no case '7' in prepared")

    monkeypatch.setattr(pipeline, "make_phantoms", fail)
    assert sentence(shell_call("phantom")) == "phantom: no case '7' in prepared"


def test_an_interrupted_step_says_how_to_go_on(monkeypatch):
    def stop(chosen):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "make_phantoms", stop)
    call = shell_call("phantom")
    assert call.code == 130
    assert call.err == "phantom: stopped; the same command continues\n"


def test_models_of_the_wrong_system_or_kind_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "WEIGHTS", tmp_path)  # none come with the project
    liver = write_checkpoint(tmp_path / "liver.pth", "liver")
    ct = write_nifti(body()[0], tmp_path / "volume-3.nii")
    call = shell_call("predict", ct, "--only", "tumor")
    assert "no tumor checkpoint at runs/phantom/tumor" in sentence(call)
    call = shell_call("predict", ct, "--liver", liver, "--tumor", liver)
    assert "holds a liver model, a tumor model is wanted" in sentence(call)
    call = shell_call("predict", ct, "--liver", ct, "--tumor", liver)
    assert "volume-3.nii" in sentence(call)
    call = shell_call("predict", ct, "--liver", liver, "--only", "liver", "--out", ct)
    assert "cannot write to" in sentence(call)


def test_named_cts_leave_the_validation_patients_alone_and_come_once(tmp_path):
    liver = write_checkpoint(tmp_path / "liver.pth", "liver")
    ct = write_nifti(body()[0], tmp_path / "cts" / "volume-3.nii")
    call = shell_call("predict", "cts", ct, "cts/../cts", "--liver", liver, "--only", "liver")
    assert call.out == "runs/phantom/results/segmented/prediction-volume-3.nii.gz\n", call.err


def test_a_folder_of_dicom_studies_gets_one_seg_a_study(tmp_path):
    pytest.importorskip("highdicom", reason='pip install highdicom "pylibjpeg[all]"')
    from helpers.drawn_dicom import write_series

    liver = write_checkpoint(tmp_path / "liver.pth", "liver")
    for study in "ab":
        write_series(tmp_path / "cts" / study / "venous", body()[0], study=study)
        write_series(tmp_path / "cts" / study / "late", body()[0][1:], study=study, series=5)
    words = ("predict", "cts", "--liver", liver, "--only", "liver", "--format", "dicom-seg")
    call = shell_call(*words)
    out = "runs/phantom/results/segmented/prediction-volume-{}.dcm\n"
    assert call.out == "".join(out.format(name) for name in "ab"), call.err
    assert "Doe" not in call.err
    call = shell_call(*words, "--series", "5")
    assert call.out == "".join(out.format(f"{name}-series5") for name in "ab"), call.err


def test_several_models_are_named_before_or_after_the_cts(tmp_path):
    first, other = (write_checkpoint(tmp_path / f"{n}.pth", "liver") for n in ("first", "other"))
    ct = write_nifti(body()[0], tmp_path / "volume-3.nii")
    record = Path("runs/phantom/results/segmented/prediction-volume-3.nii.gz.json")
    for words in ((ct, "--liver", first, other), ("--liver", first, other, ct)):
        call = shell_call("predict", *words, "--only", "liver")
        assert call.code == 0, call.err
        assert len(read_json(record)["liver"]) == 2


def test_a_mask_given_as_ct_is_refused(tmp_path):
    liver = write_checkpoint(tmp_path / "liver.pth", "liver")
    mask = write_nifti(body()[1], tmp_path / "volume-3.nii")
    call = shell_call("predict", mask, "--liver", liver, "--only", "liver", "--out", "out")
    assert call.code == 1
    assert "look like a segmentation" in call.err
    assert "Traceback" not in call.err


def test_evaluate_keeps_what_fits_and_fails_for_the_rest(tmp_path, caplog):
    data = write_prepared(tmp_path / "drawn", cases=2)
    for name, labels in {"0": body()[1], "1": body()[1][:-1], "9": body()[1]}.items():
        path = tmp_path / "p" / f"prediction-volume-{name}.nii.gz"
        write_nifti(labels, path, spacing_mm=BODY_SPACING_MM)
    caplog.set_level(logging.INFO)
    call = shell_call("evaluate", "--prepared", data.root, "--predictions", "p", "--out", "r")
    assert call.code == 1
    assert call.err.splitlines()[-1] == "evaluate: not compared, see above: 1"
    assert [row["case_id"] for row in read_metrics_csv(tmp_path / "r" / "metrics.csv")] == ["0"]
    assert "1 cases" in call.out
    assert logged(caplog, "case 1", "prediction-volume-1", "shape")
    assert logged(caplog, "without a reference", "9")
    assert logged(caplog, "no liver model", "runs/phantom/liver/checkpoints/best_model.pth")


def test_models_that_made_the_predictions_can_be_named(tmp_path):
    data = write_prepared(tmp_path / "drawn", cases=2)
    path = tmp_path / "p" / "prediction-volume-0.nii.gz"
    write_nifti(np.minimum(body()[1], 1), path, spacing_mm=BODY_SPACING_MM)
    made = ("--liver", write_checkpoint(tmp_path / "liver.pth", "liver", ["0"], network=False))
    given = ("--prepared", data.root, "--predictions", "p", "--out", "r")
    assert shell_call("evaluate", *given, *made).code == 0
    assert read_metrics_csv(tmp_path / "r" / "metrics.csv")[0]["training_case"] is True
    call = shell_call("evaluate", *given, "--liver", "nowhere.pth")
    assert "checkpoint at nowhere.pth" in call.err.splitlines()[-1]


def test_evaluate_asks_the_record_and_not_the_default_models(tmp_path):
    data = write_prepared(tmp_path / "drawn", cases=2)
    made = write_checkpoint(tmp_path / "made.pth", "liver", ["0"])
    write_checkpoint(tmp_path / "runs/phantom/liver/checkpoints/best_model.pth", "liver", ["1"])
    given = ("--prepared", data.root, "--device", "cpu")
    cts = [data.volume_path(case_id) for case_id in "01"]
    call = shell_call("predict", *cts, "--liver", made, "--only", "liver", "--out", "p", *given)
    assert call.code == 0, call.err
    scores = ("--predictions", "p", "--out", "r", *given)
    assert shell_call("evaluate", *scores).code == 0
    rows = read_metrics_csv(tmp_path / "r" / "metrics.csv")
    assert [row["training_case"] for row in rows] == [True, False]
    other = tmp_path / "runs/phantom/liver/checkpoints/best_model.pth"
    call = shell_call("evaluate", *scores, "--liver", other)
    assert "did not make the predictions in p" in sentence(call)


def test_a_fresh_process_ends_with_the_code_and_the_sentence(tmp_path):
    command = [sys.executable, "-m", "lits_helpers", "prepare", "--raw", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith(f"prepare: no case under {tmp_path}")
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
