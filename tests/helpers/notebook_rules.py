"""What every notebook here keeps to. A rule takes a notebook and yields its faults in words."""

import ast
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

BADGES = (
    "[![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name}.ipynb)\n"
    "[![Open In Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)]"
    "(https://kaggle.com/kernels/welcome?src=https://github.com/{repository}"
    "/blob/main/notebooks/{name}.ipynb)"
)
REPOSITORY = re.compile(r'^REPOSITORY = "https://github\.com/([\w.-]+/[\w.-]+)"$', re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
MACHINE_PATH = re.compile(
    r"(?<![\w./~-])(?:/(?:content|home|root|tmp|work|mnt|Users|data|kaggle|usr|var|opt)\b|[A-Z]:\\)"
)
PARAMETERS = {"tags": ["parameters"]}  # after such a cell papermill sets other values
COMMON_FORM = ("SOURCE", "RAW_FOLDER", "USE_DRIVE", "TINY")
MEDIAN_LINES, MOST_LINES = 9, 18  # of a code cell
FIRST_CELL_LINES = 29  # which cannot take anything from the module that it looks for
LEAST_PROSE = 0.4  # share of cells


@dataclass(frozen=True)
class Notebook:
    """A notebook file as parsed JSON, and the folder's other notebooks."""

    name: str
    content: dict
    siblings: tuple[str, ...]

    @property
    def cells(self) -> list[dict]:
        return self.content["cells"]

    def of(self, kind: str) -> list[tuple[int, str]]:
        """Return (number counted from 1, source) of the cells of a kind."""
        return [(n, text(c)) for n, c in enumerate(self.cells, 1) if c["cell_type"] == kind]


Rule = Callable[[Notebook], Iterator[str]]


def read_notebooks(folder: Path) -> list[Notebook]:
    """Read the notebooks of a folder, in order."""
    paths = sorted(folder.glob("*.ipynb"))
    names = tuple(path.stem for path in paths)
    return [Notebook(p.stem, json.loads(p.read_text(encoding="utf-8")), names) for p in paths]


def text(cell: dict) -> str:
    """Return a cell's source, which a file holds as a list of lines or as one string."""
    return "".join(cell["source"])


def parsed(notebook: Notebook) -> Iterator[tuple[int, ast.Module]]:
    """Yield (number, syntax tree) of the code cells that are plain Python."""
    for number, source in notebook.of("code"):
        try:
            yield number, ast.parse(source)
        except SyntaxError:  # told by `plain_python`
            continue


def badges_first(notebook: Notebook) -> Iterator[str]:
    found = REPOSITORY.search("\n".join(source for _, source in notebook.of("code")))
    if not found:
        yield 'the bootstrap cell names no REPOSITORY = "https://github.com/OWNER/REPO"'
        return
    wanted = BADGES.format(repository=found[1], name=notebook.name)
    if text(notebook.cells[0]) != wanted or notebook.cells[0]["cell_type"] != "markdown":
        yield f"cell 1 must be the badges alone, with the notebook's own path: {wanted}"


def title_and_needs(notebook: Notebook) -> Iterator[str]:
    opening = text(notebook.cells[1])
    if not opening.startswith(f"# {notebook.name[:2]} "):
        yield f'cell 2 must begin with the title "# {notebook.name[:2]} ..."'
    for words in ("You will be able to:\n\n- ", "**Needs:**"):
        if words not in opening:
            yield f'cell 2 must say "{words}" and what follows from it'


def plain_python(notebook: Notebook) -> Iterator[str]:
    for number, source in notebook.of("code"):
        try:
            ast.parse(source)
        except SyntaxError as error:
            yield (
                f"cell {number} is no plain Python ({error.msg}, line {error.lineno}): write no "
                "magics and no shell lines; nothing is installed from a notebook"
            )


def outputs_stripped(notebook: Notebook) -> Iterator[str]:
    for number, cell in enumerate(notebook.cells, 1):
        if cell.get("outputs") or cell.get("execution_count") is not None:
            yield f"cell {number} holds outputs: strip them with nbstripout --keep-id"
        if cell["metadata"] not in ({}, PARAMETERS):
            yield f"cell {number} has metadata {sorted(cell['metadata'])}: empty its metadata"


def ids_unique(notebook: Notebook) -> Iterator[str]:
    ids = [cell.get("id") for cell in notebook.cells]
    for number, key in enumerate(ids, 1):
        if not key or ids.count(key) > 1:
            yield f"cell {number} has the id {key!r}: give every cell an id of its own"


def machine_metadata(notebook: Notebook) -> Iterator[str]:
    trains = not notebook.name.startswith("01")  # a GPU that does nothing counts against the user
    wanted = {
        "accelerator": "GPU" if trains else None,
        "colab": ({"gpuType": "T4"} if trains else {}) | {"provenance": []},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    found = notebook.content["metadata"]
    for key in sorted(wanted.keys() | found.keys()):
        if found.get(key) != wanted.get(key):
            yield f"metadata {key!r} is {found.get(key)!r}: set it to {wanted.get(key)!r}"


def no_definitions(notebook: Notebook) -> Iterator[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for number, tree in parsed(notebook):
        for node in ast.walk(tree):
            if isinstance(node, kinds):
                yield f"cell {number} defines {node.name}: move it to lits_helpers and import it"


def links_lead_somewhere(notebook: Notebook) -> Iterator[str]:
    for number, source in notebook.of("markdown"):
        for target in LINK.findall(source):
            if "://" not in target and target.removesuffix(".ipynb") not in notebook.siblings:
                yield f"cell {number} links to {target}, which is not there: correct the link"


def next_is_linked(notebook: Notebook) -> Iterator[str]:
    after = [name for name in notebook.siblings if name > notebook.name]
    if after and f"]({after[0]}.ipynb)" not in text(notebook.cells[-1]):
        yield f"the last cell must link to the next notebook, {after[0]}.ipynb"


def no_machine_paths(notebook: Notebook) -> Iterator[str]:
    for number, cell in enumerate(notebook.cells, 1):
        found = MACHINE_PATH.search(text(cell))
        if found:
            yield f"cell {number} names {found[0]}...: build paths from `root` or `settings`"
    for number, tree in parsed(notebook):
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and str(node.value).startswith(("/", "~")):
                yield f"cell {number} names {node.value!r}: build paths from `root` or `settings`"


def settings_in_one_cell(notebook: Notebook) -> Iterator[str]:
    cells = [(n, source) for n, source in notebook.of("code") if "@param" in source]
    if len(cells) != 1:
        yield f"{len(cells)} cells hold @param forms: keep all settings in exactly one cell"
        return
    number, source = cells[0]
    if not source.startswith("# @title Settings\n"):
        yield f'cell {number} must begin with "# @title Settings"'
    if not text(notebook.cells[number - 2]).startswith("## Settings"):
        yield f'before cell {number} a "## Settings" cell must explain the form'
    form = assigned_constants(ast.parse(source))
    missing = [name for name in COMMON_FORM if name not in form]
    if missing:
        yield f"cell {number} lacks {', '.join(missing)}, which every notebook offers"
    for line in source.splitlines():
        name = line.partition(" = ")[0]
        if name in form and "# @param" not in line:
            yield f"cell {number}: {name} needs a # @param, so that Colab shows it as a form field"


def papermill_can_set_the_form(notebook: Notebook) -> Iterator[str]:
    for number, cell in enumerate(notebook.cells, 1):
        form = "@param" in text(cell)
        if form != (cell["metadata"] == PARAMETERS):
            yield f"cell {number}: the form, and it alone, has the tag {PARAMETERS['tags'][0]!r}"
        if form and any(not isinstance(x, ast.Assign) for x in ast.parse(text(cell)).body):
            yield f"cell {number} does more than set fields: papermill's values come after it"
        if form and None in assigned_constants(ast.parse(text(cell))).values():
            yield f"cell {number} computes a field: papermill's values come after it"


def no_settings_elsewhere(notebook: Notebook) -> Iterator[str]:
    for number, tree in parsed(notebook):
        source = text(notebook.cells[number - 1])
        if "@param" in source or REPOSITORY.search(source):
            continue
        for name in assigned_constants(tree):
            yield f"cell {number} sets {name}: move it to the settings cell"
        if "os.environ" in source or "getenv" in source:
            yield f"cell {number} reads the environment: only settings.load_settings does"


def harmless_defaults(notebook: Notebook) -> Iterator[str]:
    source = "\n".join(source for _, source in notebook.of("code") if "@param" in source)
    form = assigned_constants(ast.parse(source))
    for name, value in (("SOURCE", "phantom"), ("RAW_FOLDER", ""), ("USE_DRIVE", False)):
        if form.get(name) != value:
            yield f"{name} must start as {value!r}: Run all has to work with nothing changed"


def ends_in_a_check(notebook: Notebook) -> Iterator[str]:
    heads = [n for n, source in notebook.of("markdown") if source.startswith("## Check\n")]
    if len(heads) != 1:
        yield f'{len(heads)} cells begin with "## Check": there must be exactly one'
        return
    cell = notebook.cells[heads[0]]
    tree = ast.parse(text(cell)) if cell["cell_type"] == "code" else ast.Module([], [])
    if sum(isinstance(node, ast.Assert) for node in ast.walk(tree)) < 2:
        yield f"cell {heads[0] + 1} must assert what makes this notebook a test"


def two_exercises_of_a_field(notebook: Notebook) -> Iterator[str]:
    source = "\n".join(source for _, source in notebook.of("code") if "@param" in source)
    form = assigned_constants(ast.parse(source))
    cells = [source for _, source in notebook.of("markdown") if source.startswith("## Exercises\n")]
    answers = re.findall(r"<details>.*?</details>", "".join(cells), re.DOTALL)
    if len(cells) != 1 or len(answers) != 2:
        yield f'{len(cells)} cells "## Exercises" with {len(answers)} answers: make it 1 with 2'
    for answer in answers:
        found = re.match(r"<details><summary>Answer</summary>\n\n   `(\w+)(` = | = .*`)", answer)
        if not found or found[1] not in form:
            yield f"an answer must begin with a field of the form and its value: {answer}"


def short_cells(notebook: Notebook) -> Iterator[str]:
    lengths = {n: sum(1 for x in s.splitlines() if x.strip()) for n, s in notebook.of("code")}
    for number, lines in lengths.items():
        if lines > (FIRST_CELL_LINES if number == 3 else MOST_LINES):
            yield f"cell {number} has {lines} lines: split it or move code to lits_helpers"
    if median(lengths.values()) > MEDIAN_LINES:
        yield f"half of the code cells are longer than {MEDIAN_LINES} lines: one idea a cell"


def prose_enough(notebook: Notebook) -> Iterator[str]:
    share = len(notebook.of("markdown")) / len(notebook.cells)
    if share < LEAST_PROSE:
        yield f"only {share:.0%} of the cells are prose: say before each cell what it shows"


def honest_ending(notebook: Notebook) -> Iterator[str]:
    ending = text(notebook.cells[-1])
    for words in ("Limits:", "Sources and licences", "Not a medical device"):
        if words not in ending:
            yield f'the last cell must say "{words}"'


def assigned_constants(tree: ast.Module) -> dict[str, object]:
    """Return {NAME: literal value or None} of the upper-case names that a cell assigns."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            value = node.value.value if isinstance(node.value, ast.Constant) else None
            names = [x.id for x in node.targets if isinstance(x, ast.Name)]
            found |= {name: value for name in names if name.isupper()}
    return found


RULES: tuple[Rule, ...] = (
    badges_first,
    title_and_needs,
    plain_python,
    outputs_stripped,
    ids_unique,
    machine_metadata,
    no_definitions,
    links_lead_somewhere,
    next_is_linked,
    no_machine_paths,
    settings_in_one_cell,
    papermill_can_set_the_form,
    no_settings_elsewhere,
    harmless_defaults,
    ends_in_a_check,
    two_exercises_of_a_field,
    short_cells,
    prose_enough,
    honest_ending,
)
