"""Check pages and notebooks: links, anchors, commands, names, and one sentence a line.

python scripts/check_pages.py            list what is wrong; exit code 1 if anything is
python scripts/check_pages.py --split    first put each sentence on a line of its own
"""

import argparse
import ast
import contextlib
import importlib
import io
import json
import re
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lits_helpers.options import parser  # noqa: E402

FENCE = re.compile(r"^ *```")
CODE = re.compile(r"``.+?``|`[^`]+`")
LINK = re.compile(r"\]\(<?([^()<>\s]+)>?\)|(?:src|srcset)=\"([^\"]+)\"")
NO_PROSE = re.compile(r"^\s*($|\||#|<|\[!\[|!\[| {4}\S|-{3,}$)")  # blank, table, heading, picture
ITEM = re.compile(r"^\s*(?:[-*]|\d+\.) +")
SENTENCE = re.compile(r"(?<=[^.\s][.!?])([*_\")]*) +(?=[*_\"(\[`]*[A-Z`\d])|()\n")
LINE_ENDS = re.compile(r"[.!?:][*_\")]*$")
ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|al|vs|cf|Fig)\.$")
FILE = re.compile(r"^[\w.-]+(?:/[\w.-]+)+\.(?:py|sh|md|ipynb|js|jsonl|txt)$")
FOLDERS = ("", "lits_helpers", "docs", "docs/results", "tests")  # that paths are named from
NAME = re.compile(r"^(?=.*_)(?!NAME)[A-Za-z_]\w*(?:\.\w+)*$")
PUBLIC = re.compile(r"^(lits_helpers(?:\.\w+)+)")
STEP = re.compile(r"(?:\blits|-m lits_helpers) ([a-z][a-z-]*(?: .*)?)$")
VARIABLES = {f"LITS_{name}" for name in "TINY SOURCE RAW LAYOUT PREPARED RUNS DEVICE REAL".split()}
STEPS = "phantom download check prepare train-liver train-tumor predict report evaluate crossval"
SPOKEN_OF = {"evaluate PREDICTED REFERENCE"}  # more than a command


def pages() -> list[Path]:
    """Return the pages that people read."""
    top = [ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING")]
    return [*top, *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(text: str) -> Iterator[tuple[str, int, list[str]]]:
    """Yield ("code" or "prose" or "other", number of the first line, lines): all of a page."""
    kind, first, held = "other", 1, []
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if FENCE.match(line):
            now, fenced = "code", not fenced
        else:
            now = "code" if fenced else "other" if NO_PROSE.match(line) else "prose"
        if now == "prose" and not fenced and re.match(r"^ {4}", line) and kind != "prose":
            now = "code"
        if now != kind or (now == "prose" and ITEM.match(line)):
            if held:
                yield kind, first, held
            kind, first, held = now, number, []
        held.append(line)
    if held:
        yield kind, first, held


def sentences(paragraph: list[str]) -> list[str]:
    """Return a paragraph as it should stand: a sentence a line, indented as its list item is."""
    item = ITEM.match(paragraph[0])
    head = item[0] if item else re.match(r" *", paragraph[0])[0]
    words = paragraph[0][len(head) :].rstrip()
    for line in paragraph[1:]:
        words += ("\n" if LINE_ENDS.search(words) else " ") + line.strip()
    hidden = CODE.sub(lambda code: "`" + "\0" * (len(code[0]) - 2) + "`", words)
    found, start = [], 0
    for gap in SENTENCE.finditer(hidden):
        end = gap.start() + len(gap[1] or "")
        if not ABBREVIATION.search(hidden[start:end]):
            found.append(words[start:end])
            start = gap.end()
    found.append(words[start:])
    indent = " " * len(head)
    return [head + found[0], *(indent + sentence for sentence in found[1:])]


def split_page(text: str) -> str:
    """Return a page with each sentence on a line of its own."""
    made = []
    for kind, _, lines in blocks(text):
        made += sentences(lines) if kind == "prose" else lines
    return "\n".join(made) + "\n"


def sentence_faults(path: Path, text: str) -> Iterator[str]:
    """Say which paragraphs do not hold one sentence a line."""
    for kind, first, lines in blocks(text):
        if kind == "prose" and [line.rstrip() for line in lines] != sentences(lines):
            yield f"line {first}: not one sentence a line: {lines[0].strip()[:60]!r}"


def link_faults(path: Path, text: str) -> Iterator[str]:
    """Say which relative links lead to no file, and which anchors to no heading."""
    for number, line in enumerate(text.splitlines(), 1):
        for found in LINK.finditer(CODE.sub("", line)):
            target, _, anchor = (found[1] or found[2]).partition("#")
            _, own, place = target.rpartition(f"{repository()}/blob/main/")
            if "://" in target and not own:
                continue
            aim = ROOT / place if own else (path.parent / target).resolve() if target else path
            if not aim.exists():
                yield f"line {number}: no file {target}"
            elif anchor and anchor not in anchors(aim):
                yield f"line {number}: no heading #{anchor} in {aim.name}"


@cache
def repository() -> str:
    """Return this repository's address, or its placeholder, as CITATION.cff states it."""
    return re.search(r"repository-code: (?:https://)?(.*)", (ROOT / "CITATION.cff").read_text())[1]


@cache
def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    found: dict[str, int] = {}
    made = set()
    for kind, _, lines in blocks(path.read_text(encoding="utf-8")):
        for line in lines if kind == "other" else ():
            if line.startswith("#"):
                words = re.sub(r"[`*]|\]\([^)]*\)|\[", "", line.lstrip("#").strip()).lower()
                slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
                made.add(slug if slug not in found else f"{slug}-{found[slug]}")
                found[slug] = found.get(slug, 0) + 1
    return made


def command_faults(path: Path, text: str) -> Iterator[str]:
    """Say which commands, options, variables, files and names of the code are not there."""
    if path.name == "CHANGELOG.md":  # speaks of what is gone
        return
    for number, code in codes(text):
        for fault in code_faults(code):
            yield f"line {number}: {fault}"


def python_faults(path: Path, text: str) -> Iterator[str]:
    """Say which blocks of Python do not parse, or import from the module what is not there."""
    for found in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        number = text[: found.start()].count("\n") + 2
        try:
            tree = ast.parse(found[1])
        except SyntaxError as error:
            yield f"line {number + error.lineno - 1}: no Python: {error.msg}"
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lits_helpers"):
                for name in node.names:
                    for fault in public_faults(f"{node.module}.{name.name}"):
                        yield f"line {number + node.lineno - 1}: {fault}"


def codes(text: str) -> Iterator[tuple[int, str]]:
    """Yield (number of the line, code) of inline code and of the lines of code blocks."""
    for kind, first, lines in blocks(text):
        if kind == "code":
            joined = re.sub(r"\\\n *", "", "\n".join(lines)).split("\n")
            yield from ((first, re.sub(r"(?:^| )#.*| &$", "", line).strip()) for line in joined)
            continue
        for number, line in enumerate(lines, first):
            for found in CODE.finditer(line):
                yield number, found[0].strip("`").strip()


def code_faults(code: str) -> Iterator[str]:
    """Say what a piece of code names that is not there."""
    step = STEP.search(code)
    if step and step[1] not in SPOKEN_OF and step[1].split()[0] in (*STEPS.split(), "export"):
        yield from step_faults(step[1])
    for option in re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", code if not step else ""):
        if option not in sources():
            yield f"no option {option}"
    for variable in re.findall(r"\bLITS_[A-Z]+", code):
        if variable not in VARIABLES:
            yield f"no variable {variable}"
    for word in code.split():
        if FILE.match(word) and not any((ROOT / folder / word).exists() for folder in FOLDERS):
            yield f"no file {word}"
    if NAME.match(code) and not all(part in sources() for part in code.split(".")):
        yield f"no name {code}"
    if public := PUBLIC.match(code):
        yield from public_faults(public[1])


def step_faults(words: str) -> Iterator[str]:
    """Say why the shell would refuse a step as it is written."""
    runs = dict.fromkeys((*STEPS.split(), "export"), lambda *_: None)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parser(runs).parse_args(shlex.split(words))
    except SystemExit as end:
        if end.code:
            yield f"lits {words}: {said.getvalue().splitlines()[-1]}"


def public_faults(name: str) -> Iterator[str]:
    """Say whether a name of the module is there: a room, a file or what one of them holds."""
    found = importlib.import_module("lits_helpers")
    parts = name.removesuffix(".py").split(".")[1:]
    for position, part in enumerate(parts, 2):
        inner = getattr(found, part, None)
        if inner is None:
            with contextlib.suppress(ModuleNotFoundError):
                inner = importlib.import_module(".".join(["lits_helpers", *parts[: position - 1]]))
        if inner is None:
            yield f"no {name}"
            return
        found = inner


@cache
def sources() -> str:
    """Return all code and data that a page may name."""
    kinds = (
        "lits_helpers/**/*.py",
        "lits_helpers/**/*.pyi",
        "lits_helpers/**/*.js*",
        "notebooks/*.ipynb",
        "scripts/*",
        "benchmarks/*.py",
        "examples/*.py",
        "tests/**/*.py",
        "docs/**/*.py",
        "docs/**/*.jsonl",
    )
    files = [path for kind in kinds for path in ROOT.glob(kind) if path.is_file()]
    texts = (path.read_text(encoding="utf-8") for path in files if path.name != "test_pages.py")
    return "\n".join(texts)


CHECKS = (sentence_faults, link_faults, command_faults, python_faults)


def faults(path: Path) -> list[str]:
    """Return all that is wrong with a page."""
    text = path.read_text(encoding="utf-8")
    where = path.relative_to(ROOT)
    return [f"{where}, {fault}" for check in CHECKS for fault in check(path, text)]


def notebook_faults(path: Path) -> list[str]:
    """Return which links of a notebook's prose lead nowhere."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    prose = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    return [f"{path.name}: {fault}" for text in prose for fault in link_faults(path, text)]


def main() -> int:
    """Check all pages; return the exit code."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--split", action="store_true", help="put each sentence on its own line")
    if options.parse_args().split:
        for path in pages():
            path.write_text(split_page(path.read_text(encoding="utf-8")), encoding="utf-8")
    found = [fault for path in pages() for fault in faults(path)]
    found += [
        f for path in sorted((ROOT / "notebooks").glob("*.ipynb")) for f in notebook_faults(path)
    ]
    print(*found or ["all pages are sound"], sep="\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
