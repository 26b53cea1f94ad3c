"""The recipe bench: what it says of runs, and that a run trains, scores and is not repeated."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.repository import ROOT
from helpers.small_runs import CPU, write_slices

from benchmarks import recipe_tables, recipes
from benchmarks.recipe_rows import ROWS, scaled
from benchmarks.recipe_runs import trained
from lits_helpers.training.optimization import Precision


def run(row="default", dice=(0.9, 0.8), fold=0, seed=0, seconds=10.0):
    cases = [
        {"case_id": f"{fold}-{n}", "dice": value, "counts": [round(100 * value), 100, 100]}
        for n, value in enumerate(dice)
    ]
    settings = {"folds": 2, "fold": fold, "seed": seed, "seconds": seconds, "data": "drawn"}
    counts = {"epochs": 3, "parameters": 1000, "images_per_second": 5.0}
    return {"row": row, "seeks": "liver", **settings, **counts, "cases": cases}


def test_worst_tenth_is_the_mean_of_the_lowest_tenth():
    assert recipe_tables.worst_tenth([0.9] * 18 + [0.1, 0.3]) == pytest.approx(0.2)
    assert recipe_tables.worst_tenth([0.9, 0.5]) == 0.5


def test_seeds_of_a_case_count_once():
    scores = recipe_tables.dice_per_case([run(dice=(0.9, 0.8)), run(dice=(0.7, 0.8), seed=1)])
    assert scores == pytest.approx({"0-0": 0.8, "0-1": 0.8})


def test_cases_without_the_target_do_not_count():
    empty = run()
    empty["cases"][0]["counts"] = [0, 0, 0]
    assert list(recipe_tables.dice_per_case([empty])) == ["0-1"]


def test_paired_interval_sees_a_small_difference_that_all_cases_share():
    theirs = {str(n): 0.1 * n for n in range(10)}  # spread far wider than the difference
    ours = {case_id: value + 0.01 for case_id, value in theirs.items()}
    assert recipe_tables.paired_interval(ours, theirs) == pytest.approx((0.01, 0.01, 0.01))
    mean, low, high = recipe_tables.paired_interval(
        dict(zip("abcd", (0.1, 0.9, 0.2, 0.8), strict=True)), dict.fromkeys("abcd", 0.5)
    )
    assert mean == pytest.approx(0)
    assert low < 0 < high


def test_rows_are_compared_on_the_folds_they_share():
    runs = [run(dice=(0.9, 0.8)), run(dice=(0.2, 0.2), fold=1), run("other", dice=(0.8, 0.7))]
    lines = recipe_tables.table(runs, {"default": "ours", "other": "theirs"}).splitlines()
    assert lines[-1].endswith("| +0.100 (+0.100 to +0.100) |")
    assert "| 2 x 1 |" in lines[2]


def test_rows_are_compared_on_the_seeds_they_share():
    runs = [run(dice=(0.9, 0.8)), run("other", dice=(0.8, 0.7))]
    runs.append(run("other", dice=(0.1, 0.1), seed=1))
    lines = recipe_tables.table(runs, {"default": "ours", "other": "theirs"}).splitlines()
    assert lines[-1].endswith("| +0.100 (+0.100 to +0.100) |")


def test_rows_are_compared_at_the_same_budget_else_the_same_width():
    wide, narrow = {"width": 32, "parameters": 2000}, {"width": 16}
    runs = [run(dice=(0.9, 0.9), seconds=30.0) | wide, run(dice=(0.7, 0.7)) | narrow]
    runs += [run("other", dice=(0.6, 0.6), seconds=s) | narrow for s in (10.0, 20.0, 30.0)]
    lines = recipe_tables.table(runs, {"default": "ours", "other": "theirs"}).splitlines()
    assert lines[2].startswith("| `default`: ours, width 16 | 10 |")
    assert [line.split(" | ")[-1].rstrip(" |") for line in lines[4:]] == [
        "+0.100 (+0.100 to +0.100)",
        "+0.100 (+0.100 to +0.100), at 10 s",
        "+0.300 (+0.300 to +0.300)",
    ]


def test_tables_replace_what_stood_between_the_markers(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{recipe_tables.START}\nold\n{recipe_tables.END}\nafter\n")
    recipe_tables.write_tables(page, {"Liver": "| a |"})
    text = page.read_text()
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "### Liver\n\n| a |" in text
    page.write_text("no markers")
    with pytest.raises(ValueError, match="lacks the lines"):
        recipe_tables.write_tables(page, {})


def test_runs_of_two_recipes_are_never_averaged():
    runs = [{**run(), "recipe": "a"}, {**run(fold=1), "recipe": "b"}]
    with pytest.raises(ValueError, match="runs of default for 10 s are of several recipes"):
        recipe_tables.table(runs, {"default": "ours"})


@pytest.mark.parametrize("name", ["default", "no_critic"])
def test_run_trains_on_the_other_folds_and_scores_one(tmp_path, monkeypatch, name):
    root, learnt_from = write_slices(tmp_path / "drawn"), []

    def noted(row, folder, case_ids, *arguments):
        learnt_from.extend(case_ids)
        return trained(row, folder, case_ids, *arguments)

    monkeypatch.setattr(recipes, "trained", noted)
    options = {
        "data": "drawn",
        "fold": 1,
        "folds": 2,
        "seed": 0,
        "seconds": 0.1,
        "liver": "",
        "also": None,
    }
    result = recipes.job("liver", name, root, {**options, "width": 4, "size": None})
    scored = {case["case_id"] for case in result["cases"]}
    assert result["epochs"] >= 1
    assert scored
    assert sorted([*learnt_from, *scored]) == ["0", "1", "2", "3", "4"]
    assert all(0 <= case["dice"] <= 1 for case in result["cases"])
    assert {case["case_id"] for case in result["turned"]} == scored
    json.dumps(result)


def test_turned_scores_ask_the_model_thrice(tmp_path):
    root, calls = write_slices(tmp_path / "drawn"), []
    row = scaled(ROWS["liver"][0], width=4, size=None)
    model = recipes.as_model(row, row.make(row.recipe, CPU, Precision(CPU, "fp32")))
    model.network.register_forward_hook(lambda *_: calls.append(1))
    recipes.slice_scores(model, root, ["0", "1"])
    plain = len(calls)
    recipes.slice_scores(model, root, ["0", "1"], degrees=8.0)
    assert len(calls) == 4 * plain > 0


def test_turned_scores_have_a_table_of_their_own(tmp_path):
    out, page = tmp_path / "runs.jsonl", tmp_path / "page.md"
    page.write_text(f"{recipe_tables.START}\n{recipe_tables.END}\n")
    out.write_text(json.dumps({**run(), "turned": run(dice=(0.7, 0.5))["cases"]}) + "\n")
    recipes.tables(page, out)
    plain, turned = page.read_text().split("### Liver, drawn, mean of views turned by 8 degrees")
    assert "| 0.850 |" in plain
    assert "| 0.600 |" in turned


def test_the_page_holds_the_tables_that_the_script_makes_of_the_runs(tmp_path):
    page = ROOT / "docs" / "results" / "ablations.md"
    made = Path(shutil.copy(page, tmp_path))
    recipes.tables(made, page.with_name("recipe_runs.jsonl"))
    assert made.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")


def test_finished_runs_are_not_planned_again(tmp_path):
    out = tmp_path / "runs.jsonl"
    command = ["--slices", str(tmp_path), "--data", "drawn", "--rows", "default", "no_critic"]
    options = recipes.command_line([*command, "--seconds", "10", "--folds", "2", "--out", str(out)])
    first, *others = recipes.plan(options, "liver", tmp_path)
    assert len(others) == 3
    out.write_text(json.dumps({**run(), **first[1]}) + "\n")
    planned = recipes.plan(options, "liver", tmp_path)
    assert [(row.name, one["fold"]) for row, one in planned] == [
        ("no_critic", 0),
        ("default", 1),
        ("no_critic", 1),
    ]


def test_a_run_of_another_recipe_is_planned_again(tmp_path):
    out = tmp_path / "runs.jsonl"
    command = ["--slices", str(tmp_path), "--rows", "default", "--fold", "0", "--out", str(out)]
    [(_, planned)] = recipes.plan(recipes.command_line(command), "liver", tmp_path)
    out.write_text(json.dumps({**run(), **planned, "recipe": "00000000"}) + "\n")
    assert len(recipes.plan(recipes.command_line(command), "liver", tmp_path)) == 1


def test_no_row_runs_twice_under_two_names(tmp_path):
    (tmp_path / "cases").mkdir()
    for command, expected in (("--cases", True), ("--slices", False)):
        root = tmp_path if command == "--cases" else tmp_path / "slices"
        options = recipes.command_line([command, str(root), "--fold", "0"])
        names = [row.name for row, _ in recipes.plan(options, "liver", root)]
        assert ("darker_livers" in names) is expected  # on slices `batch_norm` darkens as far
        assert len(names) == len(ROWS["liver"]) - (not expected)


@pytest.mark.parametrize("seeks", ["liver", "tumor"])
def test_every_row_takes_a_step_at_small_size(seeks):
    for row in ROWS[seeks]:
        row = scaled(row, width=4, size=32)
        torch.manual_seed(0)
        system = row.make(row.recipe, CPU, Precision(CPU, "fp32"))
        channels = row.recipe.spec.channels
        labels = torch.randint(0, 3, (2, 32, 32)).to(torch.uint8)
        system.train()
        assert torch.isfinite(system.step(torch.rand(2, channels, 32, 32), labels)).all(), row.name
