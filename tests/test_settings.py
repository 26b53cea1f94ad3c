"""Recipes, and how form fields and LITS_* variables become settings."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lits_helpers.settings import (
    LIVER_RECIPES,
    TUMOR_RECIPES,
    InputSpec,
    anchor_folders,
    liver_recipe,
    load_settings,
    real_data,
    recipe_from_dict,
    recipe_to_dict,
    tumor_recipe,
)

ALL_RECIPES = [*LIVER_RECIPES.values(), *TUMOR_RECIPES.values()]
VARIABLES = ("TINY", "SOURCE", "RAW", "PREPARED", "RUNS", "DEVICE", "REAL")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(f"LITS_{name}", raising=False)


# --- recipes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ALL_RECIPES, ids=lambda r: f"{type(r).__name__}-{r.name}")
def test_recipe_survives_json(recipe):
    assert recipe_from_dict(json.loads(json.dumps(recipe_to_dict(recipe)))) == recipe


def test_original_liver_recipe_is_the_published_one():
    recipe = liver_recipe("original")
    assert recipe.spec == InputSpec(size=160, window=(-200, 300))
    assert (recipe.batch_size, recipe.learning_rate, recipe.betas) == (10, 2e-4, (0.5, 0.999))
    assert (recipe.width, recipe.critic_width, recipe.skips) == (64, 128, False)
    assert (recipe.head, recipe.critic, recipe.critic_goal) == ("relu", "published", "minimise")
    assert (recipe.pixel_weight, recipe.feature_weight, recipe.dice_weight) == (1.0, 0.01, 0.0)


def test_original_tumor_recipe_is_the_published_one():
    recipe = tumor_recipe("original")
    assert recipe.spec == InputSpec(size=128, window=None, channels=3, normalization="imagenet")
    assert (recipe.batch_size, recipe.learning_rate) == (8, 1e-4)
    assert (recipe.pretrained, recipe.skips, recipe.dice_weight) == (True, False, 0.0)
    assert (recipe.sampling, recipe.within_liver) == ("all", False)


def test_tiny_changes_the_size_and_not_the_idea():
    full, tiny = liver_recipe(), liver_recipe(tiny=True)
    assert tiny.width < full.width
    assert (tiny.head, tiny.critic, tiny.skips) == (full.head, full.critic, full.skips)
    assert tumor_recipe(tiny=True).spec.size < tumor_recipe().spec.size


def test_a_change_wins_over_tiny_and_leaves_the_recipe_itself():
    before = LIVER_RECIPES["default"]
    assert liver_recipe(tiny=True, epochs=2, size=64).epochs == 2
    assert liver_recipe(tiny=True, epochs=2, size=64).spec.size == 64
    assert LIVER_RECIPES["default"] == before


def test_unknown_recipe_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"no recipe 'best'; there are: .*original.*default"):
        liver_recipe("best")


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_recipe_of_another_version_is_refused_by_the_differing_key(change):
    content = recipe_to_dict(tumor_recipe())
    if change == "missing":
        del content["sampling"]
    else:
        content["momentum"] = 0.9
    with pytest.raises(ValueError, match=r"sampling differ|momentum differ"):
        recipe_from_dict(content)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 100}, "multiple of 32.*got 100"),
        ({"size": 0}, "multiple of 32.*got 0"),
        ({"window": (300, -200)}, r"low < high, got \(300, -200\)"),
        ({"context": 1}, "2 \\* context \\+ 1 = 3, got 1"),
        ({"normalization": "z-score"}, "got 'z-score'"),
        ({"liver_margin": 2.0}, r"in \[0, 1\], got 2.0"),
        ({"window": None, "liver_window": True}, "liver_window needs a window"),
    ],
)
def test_impossible_input_is_refused_with_its_value(change, words):
    with pytest.raises(ValueError, match=words):
        InputSpec(**{"size": 160, "window": (-200, 300)} | change)


def test_impossible_schedule_is_refused():
    with pytest.raises(ValueError, match='"constant" or "cosine", got \'step\''):
        replace(liver_recipe(), schedule="step")


def test_windowed_slices_have_256_levels_and_others_65536():
    assert InputSpec(size=64, window=(0, 1)).levels == 255
    assert InputSpec(size=64, window=None).levels == 65535


# --- form fields and variables -------------------------------------------------------------------


def test_nothing_given_means_phantoms_below_the_root(tmp_path):
    settings = load_settings(tmp_path)
    assert (settings.source, settings.tiny, settings.drive) == ("phantom", False, False)
    assert settings.device is None
    for folder in (settings.raw, settings.prepared, settings.runs):
        assert tmp_path in folder.parents


def test_runs_of_different_data_never_share_a_folder(tmp_path):
    folders = [
        folder
        for source in ("phantom", "folder", "kaggle")
        for tiny in (False, True)
        for settings in [load_settings(tmp_path, source=source, tiny=tiny)]
        for folder in (settings.raw, settings.prepared, settings.runs)
    ]
    assert len(set(folders)) == 18


def test_an_empty_form_field_leaves_the_default(tmp_path):
    assert load_settings(tmp_path, raw="", device=None) == load_settings(tmp_path)


def test_a_form_field_reaches_the_settings(tmp_path):
    settings = load_settings(tmp_path, source="folder", raw="scans", drive=True, tiny=True)
    assert (settings.source, settings.raw) == ("folder", Path("scans"))
    assert settings.drive
    assert settings.tiny


def test_a_variable_wins_over_the_form(tmp_path, monkeypatch):
    for name, value in {
        "TINY": "0",
        "SOURCE": "kaggle",
        "RAW": "r",
        "PREPARED": "p",
        "RUNS": "o",
        "DEVICE": "cpu",
    }.items():
        monkeypatch.setenv(f"LITS_{name}", value)
    settings = load_settings(tmp_path, tiny=True, source="folder", raw="elsewhere", device="cuda")
    assert (settings.tiny, settings.source, settings.device) == (False, "kaggle", "cpu")
    assert (settings.raw, settings.prepared, settings.runs) == (Path("r"), Path("p"), Path("o"))


def test_folders_mean_the_same_in_another_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITS_RAW", "../scans")
    monkeypatch.setenv("LITS_RUNS", "")
    anchor_folders()
    monkeypatch.chdir("/")
    assert load_settings().raw == tmp_path.parent / "scans"
    assert load_settings().runs == Path("runs/phantom")


def test_an_empty_variable_says_nothing(tmp_path, monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(f"LITS_{name}", "")
    assert load_settings(tmp_path, tiny=True, source="folder").tiny
    assert load_settings(tmp_path, tiny=True, source="folder").source == "folder"
    assert real_data() is None


@pytest.mark.parametrize("value", ["1", "true", "YES", " 1 "])
def test_tiny_is_switched_on(tmp_path, monkeypatch, value):
    monkeypatch.setenv("LITS_TINY", value)
    assert load_settings(tmp_path).tiny


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("LITS_TINY", "maybe", "LITS_TINY must be 1 or 0, got 'maybe'"),
        ("LITS_SOURCE", "lits", "one of phantom, folder, kaggle, got 'lits'"),
    ],
)
def test_a_wrong_variable_is_named_with_its_choices(tmp_path, monkeypatch, variable, value, words):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=words):
        load_settings(tmp_path)


def test_an_unknown_setting_is_named(tmp_path):
    with pytest.raises(ValueError, match="no such setting: epochs"):
        load_settings(tmp_path, epochs=3)


def test_real_data_lies_where_the_variable_says(monkeypatch):
    monkeypatch.setenv("LITS_REAL", "scans/real")
    assert real_data() == Path("scans/real")
