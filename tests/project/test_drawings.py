"""The drawings of the two systems: what the script draws, with the numbers of the networks."""

import re

import pytest
from helpers.repository import load_script
from torch import nn

from lits_helpers.models import RegNetSegmenter
from lits_helpers.recipes import LIVER_RECIPES


@pytest.fixture(scope="module")
def script():
    return load_script("docs/draw_systems.py")


@pytest.fixture(scope="module")
def drawn(script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    slices = script.pictures()
    for name, drawing in {
        "liver-gan": script.liver_gan,
        "tumor-regnet": script.tumor_regnet,
    }.items():
        drawing(slices).write(folder / f"{name}.svg")
    return folder


def without_pictures(svg: str) -> str:
    """Return an SVG without its pictures, which another JPEG library encodes otherwise."""
    return re.sub(r'href="data:[^"]*"', "", svg)


def words(svg: str) -> str:
    return re.sub(r"<[^>]*>|\u200b", "", svg)


@pytest.mark.parametrize("name", ["liver-gan", "tumor-regnet"])
def test_the_files_in_the_module_are_what_the_script_draws(script, drawn, name):
    kept = (script.FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    assert without_pictures(kept) == without_pictures((drawn / f"{name}.svg").read_text("utf-8"))
    assert len(kept) < 40_000
    assert kept.count("data:image/jpeg") >= 3


def test_the_weights_of_the_losses_are_those_of_the_recipes(drawn):
    told = words((drawn / "liver-gan.svg").read_text(encoding="utf-8"))
    for recipe in LIVER_RECIPES.values():
        assert f"+ {recipe.feature_weight:g} Lfeature" in told
        assert f"{recipe.width} " in told


@pytest.mark.parametrize("number", [0, 1])
def test_the_decoders_channels_are_those_of_the_networks(script, number):
    drawn = [int(found) for found in re.findall(r"\d+", script.DECODERS[number])]
    decoder = RegNetSegmenter(weights=None, skips=bool(number)).decoder
    kinds = (nn.ConvTranspose2d, nn.Conv2d)
    made = [layer.out_channels for layer in decoder.modules() if isinstance(layer, kinds)]
    assert drawn == sorted(set(made) - {1}, reverse=True)
