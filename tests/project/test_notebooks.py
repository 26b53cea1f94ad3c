"""The notebooks keep to the rules of `notebook_rules`, and every rule can fail."""

import ast
import copy
import importlib
import importlib.util

import helpers.notebook_rules as rules
import pytest
from helpers.notebook_rules import Notebook, text
from helpers.repository import ROOT

FOLDER = ROOT / "notebooks"
NOTEBOOKS = rules.read_notebooks(FOLDER)


def name_of(item) -> str:
    return getattr(item, "__name__", None) or getattr(item, "name", None) or str(item)


def test_the_four_notebooks_are_there():
    assert [notebook.name[:2] for notebook in NOTEBOOKS] == ["01", "02", "03", "04"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name_of)
@pytest.mark.parametrize("rule", rules.RULES, ids=name_of)
def test_notebook_keeps_to_the_rule(rule, notebook):
    faults = list(rule(notebook))
    assert not faults, "\n".join(f"{notebook.name}.ipynb: {fault}" for fault in faults)


def test_every_notebook_opens_with_the_same_bootstrap_cell():
    first = {notebook.name: notebook.cells[2] for notebook in NOTEBOOKS}
    sources = {text(cell) for cell in first.values()}
    assert all(cell["cell_type"] == "code" for cell in first.values())
    assert len(sources) == 1, (
        f"cell 3 differs between {', '.join(first)}: copy the bootstrap cell byte for byte"
    )


def test_common_form_fields_are_the_same_everywhere():
    lines = {}
    for notebook in NOTEBOOKS:
        source = "\n".join(source for _, source in notebook.of("code") if "@param" in source)
        for line in source.splitlines():
            if line.split(" = ")[0] in rules.COMMON_FORM:
                lines.setdefault(line.split(" = ")[0], set()).add(line)
    differing = sorted(name for name, found in lines.items() if len(found) > 1)
    assert not differing, f"{', '.join(differing)} differ between notebooks: make the lines equal"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name_of)
def test_every_name_taken_from_lits_helpers_exists(notebook):
    modules, missing = {}, []
    for _, tree in rules.parsed(notebook):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lits_helpers"):
                for alias in node.names:
                    found = find(node.module, alias.name)
                    modules[alias.asname or alias.name] = found
                    missing += [] if found else [f"{node.module}.{alias.name}"]
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                owner = modules.get(node.value.id)
                if owner and not hasattr(owner, node.attr):
                    missing.append(f"{node.value.id}.{node.attr}")
    assert not missing, f"{notebook.name} calls what lits_helpers lacks: {', '.join(missing)}"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name_of)
def test_papermill_sets_fields_of_the_form(notebook):
    papermill = pytest.importorskip("papermill")
    content = papermill.iorw.load_notebook_node(str(FOLDER / f"{notebook.name}.ipynb"))
    wanted = {"TINY": True, "ORIENTATION": "LPS"}
    changed = papermill.parameterize.parameterize_notebook(content, wanted)
    values: dict = {}
    sources = [cell.source for cell in changed.cells if cell.cell_type == "code"]
    form = next(i for i, source in enumerate(sources) if "@param" in source)
    for source in sources[form : form + 2]:
        exec(source, values)
    assert (values["TINY"], values["ORIENTATION"], values["SOURCE"]) == (True, "LPS", "phantom")
    assert "load_settings(" in sources[form + 2]


def find(module: str, name: str):
    """Return the attribute or submodule of that name, or None."""
    found = getattr(importlib.import_module(module), name, None)
    if found is None and importlib.util.find_spec(f"{module}.{name}"):
        found = importlib.import_module(f"{module}.{name}")
    return found


# --- every rule can fail ---------------------------------------------------------------------


def code(source: str) -> dict:
    """Return a code cell as a file holds it."""
    return {
        "cell_type": "code",
        "id": f"x{abs(hash(source))}",
        "metadata": {},
        "execution_count": None,
        "outputs": [],
        "source": source,
    }


def append_to(number: int, addition: str):
    """Return a change that appends to a cell's source (number from 1; -1 the last)."""

    def change(notebook: Notebook) -> None:
        cell = notebook.cells[number if number < 0 else number - 1]
        cell["source"] = text(cell) + addition

    return change


def replace_everywhere(old: str, new: str):
    """Return a change that replaces words in all cells; the words must be there."""

    def change(notebook: Notebook) -> None:
        assert any(old in text(cell) for cell in notebook.cells), old
        for cell in notebook.cells:
            cell["source"] = text(cell).replace(old, new)

    return change


def insert(source: str):
    """Return a change that inserts a code cell."""
    return lambda notebook: notebook.cells.insert(6, code(source))


def set_in_cell(key: str, value):
    """Return a change that sets a field of the third cell."""
    return lambda notebook: notebook.cells[2].__setitem__(key, value)


BREAKS = [
    (rules.badges_first, append_to(1, "\nand more")),
    (rules.badges_first, replace_everywhere("notebooks/02_", "notebooks/01_")),
    (rules.badges_first, replace_everywhere("/blob/main/", "/blob/other/")),
    (rules.title_and_needs, replace_everywhere("You will be able to:", "We will:")),
    (rules.plain_python, insert("!pip install something")),
    (rules.plain_python, insert("%matplotlib widget")),
    (rules.outputs_stripped, set_in_cell("execution_count", 3)),
    (rules.outputs_stripped, set_in_cell("outputs", [{"output_type": "stream"}])),
    (rules.outputs_stripped, set_in_cell("metadata", {"executionInfo": {}})),
    (rules.ids_unique, set_in_cell("id", None)),
    (rules.ids_unique, set_in_cell("id", "02-00")),
    (rules.machine_metadata, lambda notebook: notebook.content["metadata"].pop("accelerator")),
    (rules.machine_metadata, lambda notebook: notebook.content["metadata"].update(widgets={})),
    (rules.no_definitions, insert("def show(x):\n    return x")),
    (rules.no_definitions, insert("if True:\n    class Model:\n        pass")),
    (rules.links_lead_somewhere, append_to(-1, "[gone](05_gone.ipynb)")),
    (rules.next_is_linked, replace_everywhere("(03_train_tumor_regnet.ipynb)", "(nowhere)")),
    (rules.no_machine_paths, insert('open("/content/x.txt")')),
    (rules.no_machine_paths, insert('open("/srv/x.txt")')),
    (rules.no_machine_paths, append_to(-1, "Look into /home/somebody/runs.")),
    (rules.settings_in_one_cell, insert("WIDTH = 3  # @param")),
    (rules.settings_in_one_cell, replace_everywhere("  # @param", "")),
    (rules.settings_in_one_cell, replace_everywhere("TINY = False  # @param", "TINY = False  #")),
    (rules.papermill_can_set_the_form, set_in_cell("metadata", rules.PARAMETERS)),
    (rules.papermill_can_set_the_form, replace_everywhere("TINY = False", "TINY = not True")),
    (rules.papermill_can_set_the_form, replace_everywhere("TINY = False", "print()\nTINY = False")),
    (rules.no_settings_elsewhere, insert("EPOCHS = 3")),
    (rules.no_settings_elsewhere, insert('import os\nos.environ["LITS_TINY"]')),
    (rules.harmless_defaults, replace_everywhere("USE_DRIVE = False", "USE_DRIVE = True")),
    (rules.harmless_defaults, replace_everywhere('SOURCE = "phantom"', 'SOURCE = "kaggle"')),
    (rules.ends_in_a_check, replace_everywhere("## Check", "## Look")),
    (rules.ends_in_a_check, replace_everywhere("assert ", "")),
    (rules.two_exercises_of_a_field, replace_everywhere("## Exercises", "## Questions")),
    (rules.two_exercises_of_a_field, replace_everywhere("`RECIPE = ", "`RECEIPT = ")),
    (rules.two_exercises_of_a_field, replace_everywhere("<details>", "")),
    (rules.short_cells, insert("x = 1\n" * 30)),
    (rules.prose_enough, lambda notebook: notebook.cells.extend([code("x")] * 20)),
    (rules.honest_ending, replace_everywhere("Not a medical device", "A medical device")),
]


@pytest.mark.parametrize(("rule", "change"), BREAKS, ids=name_of)
def test_rule_finds_its_fault(rule, change):
    good = NOTEBOOKS[1]
    broken = Notebook(good.name, copy.deepcopy(good.content), good.siblings)
    change(broken)
    assert list(rule(broken))


def test_every_rule_has_a_fault_to_find():
    assert {rule for rule, _ in BREAKS} == set(rules.RULES)
