"""Change the module's code in small ways, one at a time, and see whether a test notices.

    pip install mutmut==3.8.1
    python benchmarks/mutants.py losses [datasets/sampling ...] [--sample 150] [--seed 0]

mutmut makes the mutants of a file and runs the tests named below against each, in a forked process,
so that torch is imported once. Of a file with more mutants than `--sample` that many are drawn.
Left out are messages: the statements that raise an error or write to the log. Prints each mutant
that no test noticed as a diff, then killed/total.
"""

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = {  # file of lits_helpers -> the tests that cover it
    "losses": ["test_losses"],
    "recipes": ["test_recipes", "volumes/test_pixels"],
    "cases/find": ["cases/test_find"],
    "cases/split": ["cases/test_split"],
    "volumes/geometry": ["volumes/test_geometry", "volumes/test_io", "volumes/test_packed"],
    "volumes/nifti": ["volumes/test_nifti", "volumes/test_io", "volumes/test_geometry"],
    "volumes/pixels": ["volumes/test_pixels"],
    "metrics/case": ["metrics/test_case"],
    "metrics/lesions": ["metrics/test_lesions"],
    "metrics/summary": ["metrics/test_summary"],
    "metrics/surface": ["metrics/test_surface"],
    "datasets/augmentation": ["datasets/test_augmentation"],
    "datasets/sampling": ["datasets/test_sampling"],
    "training/engine": [
        f"training/test_{name}" for name in ("engine", "start", "run_folder", "stopping", "health")
    ],
    "training/states": ["training/test_states"],
    "inference/postprocess": ["inference/test_postprocess"],
}
SETTINGS = """
[tool.mutmut]
source_paths = ["lits_helpers"]
only_mutate = ["lits_helpers/{name}.py"]
also_copy = ["benchmarks"]
pytest_add_cli_args_test_selection = {tests}
timeout_constant = 5.0
timeout_multiplier = 4.0
"""


def without_messages(source: str) -> str:
    """Mark the lines of `raise` and of log calls, which mutmut then leaves alone."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        call = node.value if isinstance(node, ast.Expr) else None
        logs = isinstance(call, ast.Call) and ast.unparse(call.func).startswith(("log.", "logger."))
        if isinstance(node, ast.Raise) or logs:
            for number in range(node.lineno - 1, node.end_lineno):
                lines[number] += "  # pragma: no mutate"
    return "\n".join(lines) + "\n"


def workplace(folder: Path, name: str) -> None:
    """Copy the module and its tests to `folder`, with mutmut's settings for one file."""
    for part in ("lits_helpers", "tests", "benchmarks", "docs", "notebooks", "scripts"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    tests = [f"tests/{test}.py" for test in TESTS[name]]
    settings = (ROOT / "pyproject.toml").read_text("utf-8")
    settings += SETTINGS.format(name=name, tests=json.dumps(tests))
    (folder / "pyproject.toml").write_text(settings, "utf-8")
    file = folder / "lits_helpers" / f"{name}.py"
    file.write_text(without_messages(file.read_text("utf-8")), "utf-8")


def mutants_of(name: str) -> list[str]:
    """Return the names of all mutants of a file; in the workplace, in a process of its own."""
    from mutmut.mutation.file_mutation import mutate_file_contents
    from mutmut.utils.format_utils import get_mutant_name

    path = Path("lits_helpers") / f"{name}.py"
    made = mutate_file_contents(str(path), path.read_text("utf-8"))
    return [get_mutant_name(path, mutant) for mutant in made.mutant_names]


def test(name: str, sample: int, seed: int) -> None:
    """Test a file's mutants and print what became of them; in the workplace."""
    mutants = mutants_of(name)
    chosen = mutants
    if len(mutants) > sample:
        chosen = sorted(random.Random(seed).sample(mutants, sample), key=mutants.index)
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", "1", *chosen]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    codes = json.loads(Path(f"mutants/lits_helpers/{name}.py.meta").read_text("utf-8"))
    codes = codes["exit_code_by_key"]
    if any(codes[mutant] is None for mutant in chosen):
        sys.exit(done.stdout[-5000:] + done.stderr[-5000:])
    left = [mutant for mutant in chosen if codes[mutant] in (0, 5, 33)]  # 5, 33: no test reaches it
    for mutant in left:
        show = [sys.executable, "-m", "mutmut", "show", mutant]
        print(subprocess.run(show, capture_output=True, text=True, check=True).stdout, flush=True)
    ended = sum(codes[mutant] in (-24, 24, 36, 152, 255) for mutant in chosen)
    endless = f", {ended} of them because they never ended" if ended else ""
    drawn = f" (drawn from {len(mutants)})" if len(mutants) > len(chosen) else ""
    killed = f"{len(chosen) - len(left)} of {len(chosen)} mutants killed"
    print(f"{name}: {killed}{endless}{drawn}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=TESTS, metavar="FILE")
    parser.add_argument("--sample", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # a forked process may not find torch's threads again
    for each in options.names:
        with tempfile.TemporaryDirectory() as place:
            workplace(Path(place), each)
            os.chdir(place)
            test(each, options.sample, options.seed)
            os.chdir(ROOT)
