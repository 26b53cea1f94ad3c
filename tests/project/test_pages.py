"""The pages keep to the rules of `scripts/check_pages.py`, and every rule can fail."""

import json
import re
from dataclasses import fields

import pytest
from helpers.repository import ROOT, load_script

import lits_helpers
from lits_helpers.cases.layouts import LAYOUTS
from lits_helpers.models import build_critic, build_generator, build_segmenter
from lits_helpers.recipes import LIVER_RECIPES, TUMOR_RECIPES
from lits_helpers.report.quality import FLAGS

check = load_script("scripts/check_pages.py")
PAGES = {str(path.relative_to(ROOT)): path for path in check.pages()}
RESULTS = ROOT / "docs" / "results"
INTERVAL = re.compile(r"[+-]0\.\d{3} \([+-]0\.\d{3} to [+-]0\.\d{3}\)")


@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES)
def test_page_is_sound(path):
    assert not check.faults(path)


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_links_of_the_notebook_lead_somewhere(path):
    assert not check.notebook_faults(path)


def test_the_readme_fits_on_two_screens():
    assert len(PAGES["README.md"].read_text().splitlines()) <= 110


def test_every_interval_of_the_results_is_one_of_the_generated_tables():
    found = {
        name: set(INTERVAL.findall((RESULTS / name).read_text()))
        for name in ("README.md", "ablations.md")
    }
    assert len(found["README.md"]) > 10
    assert found["README.md"] <= found["ablations.md"]


def test_the_readme_repeats_the_results_as_they_are():
    lines = PAGES["README.md"].read_text().splitlines()
    results = (RESULTS / "README.md").read_text()
    table = [line for line in lines if "docs/results/README.md#" in line and line[0] == "|"]
    assert 3 <= len(table) <= 5
    numbers = {number for line in table for number in re.findall(r"[+-]?\d+\.\d+", line)}
    assert not {number for number in numbers if number not in results}


def shown(value) -> str:
    """Return a recipe's value as the page on training writes it."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, tuple):
        return ", ".join(map(shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_the_page_on_training_holds_every_knob_of_the_recipes():
    named = {f"A {name}": recipe for name, recipe in LIVER_RECIPES.items()}
    named |= {f"B {name}": recipe for name, recipe in TUMOR_RECIPES.items()}
    head, found, expected = [], set(), set()
    for line in (ROOT / "docs" / "training.md").read_text().splitlines():
        cells = [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        if cells[0] == "knob":
            head = cells
        elif line.startswith("| `") and head:
            found |= {(name, cells[0], cells[head.index(name)]) for name in named if name in head}
        elif not line.startswith("|"):
            head = []
    for name, recipe in named.items():
        for owner in (recipe, recipe.spec):
            for field in fields(owner):
                if field.name not in ("name", "spec"):
                    expected.add((name, field.name, shown(getattr(owner, field.name))))
    assert found == expected


def test_the_page_on_predicting_holds_every_rule_with_its_default():
    rows = re.findall(r"^\| (`.*?`) \| (.*?) \|", (ROOT / "docs/predicting.md").read_text(), re.M)
    found = {name: value for names, value in rows for name in re.findall(r"`(\w+)`", names)}
    post = lits_helpers.Postprocessing()
    rules = {field.name: shown(getattr(post, field.name)) for field in fields(post)}
    assert {name: found.get(name) for name in rules} == rules


def test_the_page_on_data_holds_every_finding_and_every_layout():
    page = (ROOT / "docs" / "data.md").read_text()
    code = "".join(path.read_text() for path in (ROOT / "lits_helpers" / "cases").glob("*.py"))
    made = dict(re.findall(r'Finding\(\s*"(\w+)",\s*(True|False)', code))
    said = {
        name: "True" if harmful == "yes" else "False"
        for names, harmful in re.findall(r"^\| (`.*?`) \| (yes|no) \|", page, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    assert said == made
    assert all(f"| `{layout.name}` |" in page for layout in LAYOUTS)


def test_the_page_on_predicting_explains_every_flag_in_the_report_s_words():
    page = (ROOT / "docs" / "predicting.md").read_text()
    rows = re.findall(r"^\| (.+?) \| .+? \| (.*?) ?\|$", page, re.M)
    limits = {flag.text.split(" (")[0]: f"{flag.limit:g}" for flag in FLAGS.values()}
    found = {said: limit or "1" for said, limit in rows if said in limits}
    assert found == limits


def test_the_card_of_the_weights_is_the_page_s():
    page = (ROOT / "docs" / "models.md").read_text()
    card = json.loads((ROOT / "lits_helpers" / "weights" / "liver.json").read_text())["card"]
    scores = [scan["dice"] for scan in card["real scans"]]
    distances = [scan["assd_mm"] for scan in card["real scans"]]
    assert f"mean Dice {sum(scores) / len(scores):.3f}, lowest {min(scores):.3f}" in page
    assert f"surface distance {min(distances):g} to {max(distances):g} mm" in page
    assert card["trained on"].split(" of ")[0] in page
    assert card["slices seen"].split(" of ")[0] in page


def test_the_cards_state_the_networks_as_they_are_built():
    page = (ROOT / "docs" / "models.md").read_text()
    for name in LIVER_RECIPES:
        networks = [
            build_generator(LIVER_RECIPES[name]),
            build_critic(LIVER_RECIPES[name]),
            build_segmenter(TUMOR_RECIPES[name], pretrained=False),
        ]
        for network in networks:
            assert f"{sum(p.numel() for p in network.parameters()):,} parameters" in page


def test_the_readme_s_python_segments_shows_and_reports(tmp_path, monkeypatch):
    [code] = re.findall(r"```python\n(.*?)```", PAGES["README.md"].read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    raw = lits_helpers.write_phantom_dataset(tmp_path / "raw", cases=1, shape=(12, 96, 128), seed=3)
    ct = next(raw.rglob("volume-*.nii*"))
    ct.rename(tmp_path / "my_ct.nii.gz")
    exec(code, {})
    assert (tmp_path / "labels.nii.gz").exists()
    assert "<html" in (tmp_path / "my_ct.html").read_text().lower()


def test_the_drawing_of_the_way_is_what_its_script_draws():
    script = load_script("docs/make_way.py")
    assert script.DRAWING.read_text() == script.drawing()


def test_the_citation_is_of_a_released_version_and_says_how_to_cite_the_data():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert f"## {citation['version']} ({citation['date-released']})" in (
        PAGES["CHANGELOG.md"].read_text()
    )
    assert {"title", "authors", "message", "cff-version"} <= citation.keys()
    assert [reference["year"] for reference in citation["references"]] == [2023, 2022, 2018, 2020]


# --- every rule can fail ---------------------------------------------------------------------


def test_sentences_are_split_and_joined():
    assert (
        check.split_page("One. Two\ngoes on here. Three!\n") == "One.\nTwo goes on here.\nThree!\n"
    )
    assert (
        check.split_page("- **Head.** One (a. b). Two.\n") == "- **Head.**\n  One (a. b).\n  Two.\n"
    )


@pytest.mark.parametrize(
    "kept",
    [
        "See Bilic et al. for more, e.g. LiTS.",
        "Dice is 0.945. `lits.segment(a. B)` is code.".split(". `", maxsplit=1)[0] + ".",
        "| One. Two. | a table |",
        "# A heading. Two sentences",
        "```\nOne. Two.\n```",
        "One, over\n\ntwo paragraphs.",
        "1. A list.\n2. Its second.",
    ],
)
def test_what_is_no_two_sentences_stays(kept):
    assert check.split_page(kept + "\n") == kept + "\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("One. Two.", "not one sentence a line"),
        ("[gone](docs/gone.md)", "no file docs/gone.md"),
        ("[gone](README.md#gone)", "no heading #gone in README.md"),
        ("[gone](https://github.com/OWNER/REPO/blob/main/docs/gone.md)", "no file https://github"),
        ('<img src="docs/gone.svg">', "no file docs/gone.svg"),
        ("`lits predict --gone ct.nii.gz`", "unrecognized arguments: --gone"),
        ("`--gone`", "no option --gone"),
        ("```\nlits train-liver --recipe best\n```", "invalid choice: 'best'"),
        ("```\npython benchmarks/gone.py\n```", "no file benchmarks/gone.py"),
        ("```python\nimport lits_helpers as\n```", "line 2: no Python"),
        ("```python\nfrom lits_helpers.recipes import gone\n```", "no lits_helpers.recipes.gone"),
        ("`LITS_GONE=1`", "no variable LITS_GONE"),
        ("`gone_name`", "no name gone_name"),
        ("`lits_helpers.gone(ct)`", "no lits_helpers.gone"),
    ],
)
def test_fault_is_found(text, words):
    text = text.replace("github.com/OWNER/REPO", check.repository())
    page = ROOT / "PAGE.md"  # never written
    found = [fault for rule in check.CHECKS for fault in rule(page, text + "\n")]
    assert len(found) >= 1
    assert words in found[0]


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("## How good is it?", "how-good-is-it"),
        ("### `lits predict`: a [link](README.md)", "lits-predict-a-link"),
    ],
)
def test_anchors_are_github_s(heading, anchor, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(heading + "\n\nWords.\n")
    assert check.anchors(page) == {anchor}
