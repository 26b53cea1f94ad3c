"""Recipes and InputSpec: the published ones, changes to them, and what is refused."""

import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest

from lits_helpers.recipes import (
    LIVER_RECIPES,
    TUMOR_RECIPES,
    InputSpec,
    liver_recipe,
    recipe_from_dict,
    tumor_recipe,
)

ALL_RECIPES = [*LIVER_RECIPES.values(), *TUMOR_RECIPES.values()]


@pytest.mark.parametrize("recipe", ALL_RECIPES, ids=lambda r: f"{type(r).__name__}-{r.name}")
def test_recipe_survives_json(recipe):
    assert recipe_from_dict(json.loads(json.dumps(asdict(recipe)))) == recipe


def test_original_liver_recipe_is_the_published_one():
    recipe = liver_recipe("original")
    assert recipe.spec == InputSpec(size=160, window=(-200, 300))
    assert (recipe.batch_size, recipe.learning_rate, recipe.betas) == (10, 2e-4, (0.5, 0.999))
    assert (recipe.width, recipe.critic_width, recipe.skips) == (64, 128, False)
    assert (recipe.residual, recipe.shallow_norm) == (False, "batch")
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


def test_a_critic_goal_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r'"minimise" or "maximise", got \'minimize\''):
        liver_recipe("original", critic_goal="minimize")


def test_a_spec_of_another_version_is_refused_by_name():
    content = asdict(liver_recipe())
    del content["spec"]["window"]
    content["spec"]["zoom"] = 2
    with pytest.raises(ValueError, match=r"InputSpec of this version.*: window, zoom differ"):
        recipe_from_dict(content)


def test_unknown_recipe_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"no recipe 'best'; there are: .*original.*default"):
        liver_recipe("best")


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_recipe_of_another_version_is_refused_by_the_differing_key(change):
    content = asdict(tumor_recipe())
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
        ({"window": (float("-inf"), 300)}, r"low < high, got \(-inf, 300\)"),
        ({"channels": 0}, "channels must be 1 or more and context 0 or more, got 0 and 0"),
        ({"channels": -1, "context": -1}, "got -1 and -1"),
        ({"context": 1}, "2 \\* context \\+ 1 = 3, got 1"),
        ({"normalization": "z-score"}, "got 'z-score'"),
        ({"liver_margin": 2.0}, r"in \[0, 1\], got 2.0"),
        ({"window": None, "liver_window": True}, "liver_window needs a window"),
    ],
)
def test_impossible_input_is_refused_with_its_value(change, words):
    with pytest.raises(ValueError, match=words):
        InputSpec(**{"size": 160, "window": (-200, 300)} | change)


def test_lesions_are_drawn_in_hu_alone():
    with pytest.raises(ValueError, match="drawn_lesions needs an InputSpec with a window"):
        tumor_recipe("original", drawn_lesions=0.5)


def test_impossible_schedule_is_refused():
    with pytest.raises(ValueError, match='"constant" or "cosine", got \'step\''):
        replace(liver_recipe(), schedule="step")


def test_windowed_slices_have_256_levels_and_others_65536():
    assert InputSpec(size=64, window=(0, 1)).levels == 255
    assert InputSpec(size=64, window=None).levels == 65535


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 0}, "LiverRecipe.epochs must be 1 or more, got 0"),
        ({"batch_size": 2.0}, "batch_size must be a whole number, got 2.0"),
        ({"learning_rate": 0.0}, "learning_rate must be 1e-12 to 1.0, got 0.0"),
        ({"ema": 1.0}, "ema must be 0 to 0.999999, got 1.0"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, got 'fast'"),
        ({"pixel_weight": float("inf")}, "pixel_weight must be 0 or more, got inf"),
        ({"betas": (0.9, 1.5)}, "betas must be two numbers from 0 to below 1, got (0.9, 1.5)"),
        ({"betas": [0.9]}, "betas must be two numbers from 0 to below 1, got (0.9,)"),
        ({"skips": "no"}, "LiverRecipe.skips must be True or False, got 'no'"),
        ({"augment": 1}, "augment must be True or False, got 1"),
        ({"dice_per_image": 2.0}, "dice_per_image must be 0 to 1, got 2.0"),
        ({"pixel_weight": float("nan")}, "pixel_weight must be 0 or more, got nan"),
        ({"width": 0}, "width must be 1 or more"),
        ({"full_size": -1}, "full_size must be 0 or more"),
    ],
)
def test_numbers_out_of_range_are_refused(changes, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        liver_recipe(**changes)


def test_the_smallest_input_is_32_pixels():
    assert InputSpec(size=32, window=(-200, 300)).size == 32


def test_a_window_of_no_width_is_refused():
    with pytest.raises(ValueError, match=r"low < high, got \(50, 50\)"):
        InputSpec(size=32, window=(50, 50))


@pytest.mark.parametrize("margin", [0, 1, np.float32(0.5)])
def test_margins_from_none_to_the_whole_box_are_kept_as_plain_numbers(margin):
    spec = InputSpec(size=32, window=(-200, 300), liver_margin=margin)
    assert (spec.liver_margin, type(spec.liver_margin)) == (margin, float)
