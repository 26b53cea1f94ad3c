"""Execute notebooks headless with nbconvert, keep them, print a table of what came out.

While a notebook works, each tenth of its trainings is told in a line, other long steps too. Tiny
trainings run side by side, each on its share of the cores: a small network does not fill two. While
a single tiny notebook works, those of the next turn import what they need.
"""

import csv
import html
import json
import os
import re
import sys
import time
from collections import defaultdict
from concurrent.futures import CancelledError, Future
from datetime import datetime
from pathlib import Path
from threading import Event, Thread

import nbformat
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert.preprocessors import ExecutePreprocessor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from lits_helpers.machine import available_cores  # noqa: E402
from lits_helpers.settings import Settings, anchor_folders, load_settings  # noqa: E402

CELL_TIMEOUT_S = None  # a full training is one cell
QUIET_S = 10  # between two lines of a bar that is no training
THREADS = "OMP_NUM_THREADS"
SETTINGS_CELL = "# @title Settings"  # cells above it only import


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(f"{__doc__}\n\n    {Path(__file__).name} [NOTEBOOK ...]    default: all, in order")
        return 0
    anchor_folders()
    paths = [Path(name) for name in arguments] or sorted((ROOT / "notebooks").glob("*.ipynb"))
    try:
        settings = load_settings(ROOT)
        for path in paths:
            nbformat.read(path, as_version=4)  # before an hour of work on those before it
    except (OSError, ValueError) as error:  # no such file, no notebook, or LITS_... is no choice
        print(f"nothing was executed: {error}", file=sys.stderr)
        return 2
    began = time.monotonic()
    execute_all = execute_ahead if shares_cores(settings.tiny) else execute_in_turn
    rows = execute_all(turns(paths, settings.tiny), settings)
    if None in rows.values():
        return 1
    print(table(list(rows.items()), settings))
    print(f"{time.monotonic() - began:.0f} seconds in all")
    return 0


def shares_cores(tiny: bool) -> bool:
    """Say whether several notebooks may be open at the same time: tiny ones, on several cores."""
    return tiny and available_cores() > 1 and not os.environ.get(THREADS)


def turns(paths: list[Path], tiny: bool) -> list[list[Path]]:
    """Group the notebooks that work at the same time: tiny trainings, if each can have a core."""
    found: list[list[Path]] = []
    shared = shares_cores(tiny)
    for path in paths:
        if found and shared and "_train_" in path.name and "_train_" in found[-1][-1].name:
            found[-1].append(path)
        else:
            found.append([path])
    return found


def execute_in_turn(groups: list[list[Path]], settings: Settings) -> dict[str, float | None]:
    """Execute one notebook after the other; return {name: seconds, None if it failed}."""
    rows: dict[str, float | None] = {}
    for path in (path for group in groups for path in group):
        job = Job(path, settings)
        job.begin()
        job.run()  # in this thread, which Ctrl-C reaches
        rows[path.stem] = job.seconds
        if job.seconds is None:
            break
    return rows


def execute_ahead(groups: list[list[Path]], settings: Settings) -> dict[str, float | None]:
    """Execute the notebooks of a group at the same time; while its last works, the next import.

    Returns:
        {name: seconds since its turn, None if it failed}, up to the group in which one failed.
    """
    rows: dict[str, float | None] = {}
    working = started(groups[0], settings)
    for group in [*groups[1:], []]:
        for job in working:
            job.begin()
        for job in working:
            job.imported.wait()  # in Colab the first import brings the module for all
        while sum(map(Job.is_alive, working)) > 1:
            time.sleep(0.1)
        following = started(group, settings)
        for job in working:
            job.join()
        rows |= {job.path.stem: job.seconds for job in working}
        if None in rows.values():
            for job in following:
                job.turn.cancel()
                job.join()
            break
        working = following
    return rows


def started(group: list[Path], settings: Settings) -> list["Job"]:
    """Open notebooks that share the cores."""
    threads = max(1, available_cores() // len(group)) if len(group) > 1 else None
    jobs = [Job(path, settings, threads) for path in group]
    for job in jobs:
        job.start()
    return jobs


class Job(Thread):
    """Executes a notebook: its imports at once, the rest when its turn has come."""

    def __init__(self, path: Path, settings: Settings, threads: int | None = None):
        super().__init__(daemon=True)  # Ctrl-C ends it
        self.path = path
        self.settings = settings
        self.environment = os.environ | ({THREADS: str(threads)} if threads else {})
        self.turn: Future[float] = Future()  # when it came
        self.imported = Event()
        self.seconds: float | None = None

    def begin(self) -> None:
        """Let the notebook go on."""
        print(f"{self.path.name} ...", flush=True)
        self.turn.set_result(time.monotonic())

    def run(self) -> None:
        """Execute the notebook, print what it took, keep its seconds if it did not fail."""
        executed = self.settings.runs / "results" / "notebooks" / self.path.name
        try:
            error = execute(self.path, executed, self.turn, self.imported, self.environment)
        finally:
            self.imported.set()
        if self.turn.cancelled():
            return
        if error:
            print(f"{self.path.name} failed:\n{error}", file=sys.stderr)
            print(f"executed as far as it came: {executed}")
            return
        print(f"{self.path.name}: {spent(nbformat.read(executed, as_version=4))}", flush=True)
        self.seconds = time.monotonic() - self.turn.result()


def execute(
    path: Path, target: Path, turn: Future, imported: Event, environment: dict
) -> str | None:
    """Execute a notebook and save it as `target`, also if a cell fails; return why it did.

    Args:
        turn: nothing below the imports is executed before it is done; if it is cancelled, nothing
            is saved.
        imported: set when the imports are executed.
        environment: variables of the kernel.
    """
    notebook = nbformat.read(path, as_version=4)
    runner = Runner(
        turn,
        imported,
        environment,
        timeout=CELL_TIMEOUT_S,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],
    )
    try:
        runner.preprocess(notebook, {"metadata": {"path": str(path.resolve().parent)}})
    except CancelledError:
        return None
    except CellExecutionError as error:
        return str(error)
    except DeadKernelError:
        return "its kernel died, most likely for lack of memory or of disk"
    finally:
        if not turn.cancelled():
            for cell in notebook.cells:
                keep_finished_bars(cell, runner.widget_state)
            target.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, target)
    return None


class Runner(ExecutePreprocessor):
    """Executes a notebook, in its turn, and prints how far its progress bars are."""

    def __init__(self, turn: Future, imported: Event, environment: dict, **options):
        super().__init__(**options)
        self.turn = turn
        self.imported = imported
        self.environment = environment
        self.bars: dict[str, str] = {}  # id of a part of a bar -> id of the bar
        self.told: dict[str, tuple[int, float]] = {}  # id of a bar -> tenths told, and when

    def start_new_kernel(self, **options):
        """Start the kernel with its own variables."""
        super().start_new_kernel(env=self.environment, **options)

    def preprocess_cell(self, cell, resources, index):
        """Execute a cell; one that does more than import waits for the notebook's turn."""
        starts = [cell.source.startswith(SETTINGS_CELL) for cell in self.nb.cells]
        if not any(starts[index + 1 :]):
            self.imported.set()
            self.turn.result()
        return super().preprocess_cell(cell, resources, index)

    def handle_comm_msg(self, outs, msg, cell_index):
        """Follow the widgets, of which progress bars consist."""
        super().handle_comm_msg(outs, msg, cell_index)
        changed = msg["content"]["comm_id"]
        if parts := parts_of_bar(changed, self.widget_state):
            self.bars |= dict.fromkeys(parts, changed)
        elif changed in self.bars:
            self._tell(self.bars[changed])

    def _tell(self, bar: str) -> None:
        left, right = texts_of_bar(bar, self.widget_state)
        found = re.match(r"(.*): +(\d+)%", left)
        tenths, spoken = self.told.setdefault(bar, (0, time.monotonic()))
        percent = int(found[2]) if found else 0
        ended = self.widget_state[parts_of_bar(bar, self.widget_state)[1]]["bar_style"] == "success"
        if percent // 10 <= tenths or (percent == 100 and not ended):  # the last Dice is to come
            return
        if "step" not in right and time.monotonic() - spoken < QUIET_S:
            return
        self.told[bar] = percent // 10, time.monotonic()
        print("    " + line_of_bar(found[1], percent, right), flush=True)


def parts_of_bar(name: str, widgets: dict) -> list[str] | None:
    """Return the ids of left text, bar and right text if a widget is a progress bar of tqdm."""
    children = widgets.get(name, {}).get("children") or ()
    parts = [str(child).removeprefix("IPY_MODEL_") for child in children]
    kinds = [widgets.get(part, {}).get("_model_name") for part in parts]
    return parts if kinds == ["HTMLModel", "FloatProgressModel", "HTMLModel"] else None


def texts_of_bar(name: str, widgets: dict) -> tuple[str, str]:
    """Return what stands left and right of a bar, "liver model:  30%" and "18/60 [00:12<...]"."""
    left, _, right = parts_of_bar(name, widgets)
    values = (html.unescape(widgets[part].get("value", "")) for part in (left, right))
    return tuple(value.replace("\u2007", " ").strip() for value in values)


def line_of_bar(name: str, percent: int, right: str) -> str:
    """Return what is told of a bar, "liver model  30 %, Dice 0.912, 00:28 left"."""
    dice = re.search(r"Dice=([\d.]+)", right)
    remaining = re.search(r"<([\d:]+)", right)
    words = [f"{name} {percent:>3} %"]
    words += [f"Dice {dice[1]}"] if dice else []
    words += [f"{remaining[1]} left"] if remaining and percent < 100 else []
    return ", ".join(words)


def keep_finished_bars(cell: nbformat.NotebookNode, widgets: dict) -> None:
    """Let a cell's outputs say how its bars ended; readers without widgets see how they began."""
    kept = []
    for output in cell.get("outputs", ()):
        view = output.get("data", {}).get("application/vnd.jupyter.widget-view+json", {})
        name = view.get("model_id")
        if parts_of_bar(name, widgets):
            layout = widgets[name]["layout"].removeprefix("IPY_MODEL_")
            if widgets[layout].get("visibility") == "hidden":
                continue  # a bar that was to vanish at its end
            output["data"]["text/plain"] = " ".join(texts_of_bar(name, widgets))
        kept.append(output)
    if "outputs" in cell:
        cell["outputs"] = kept


def spent(notebook: nbformat.NotebookNode) -> str:
    """Say how many seconds the cells below each heading took, where it is half a second or more."""
    seconds, heading = defaultdict(float), "imports"
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            heading = cell.source.splitlines()[0].removeprefix("## ").lower()
        times = cell.metadata.get("execution", {})
        if "shell.execute_reply" in times:
            began, ended = (
                datetime.fromisoformat(times[name].replace("Z", "+00:00"))
                for name in ("iopub.execute_input", "shell.execute_reply")
            )
            seconds[heading] += (ended - began).total_seconds()
    long = [f"{name} {value:.0f} s" for name, value in seconds.items() if value >= 0.5]
    return ", ".join(long)


def table(rows: list[tuple[str, float]], settings: Settings) -> str:
    """Return the closing table: seconds and Dice of each notebook, and where things lie."""
    scores = read_scores(settings.runs)
    lines = [f"{'notebook':<30} {'seconds':>8} {'liver Dice':>11} {'tumor Dice':>11}"]
    for name, seconds in rows:
        liver, tumor = scores.get(name[:2], (None, None))
        lines.append(f"{name:<30} {seconds:>8.0f} {_number(liver):>11} {_number(tumor):>11}")
    lines.append(
        "Dice per case on validation patients; 02 and 03 at working size, 04 at native size."
    )
    for words, place in (
        ("executed notebooks", settings.runs / "results" / "notebooks"),
        ("figures", settings.runs / "results" / "figures"),
        (
            "checkpoints",
            f"{settings.runs / 'liver' / 'checkpoints'}, {settings.runs / 'tumor' / 'checkpoints'}",
        ),
        ("predicted NIfTI", settings.runs / "results" / "predictions"),
    ):
        lines.append(f"{words:<20} {place}")
    return "\n".join(lines)


def read_scores(runs: Path) -> dict[str, tuple[float | None, float | None]]:
    """Return {notebook number: (liver Dice, tumor Dice)} from what the notebooks wrote."""
    scores = {
        "02": (_best_dice(runs / "liver" / "history.csv"), None),
        "03": (None, _best_dice(runs / "tumor" / "history.csv")),
    }
    summary = runs / "results" / "summary.json"
    if summary.exists():
        content = json.loads(summary.read_text(encoding="utf-8"))
        scores["04"] = (content["liver_dice"]["mean"], content["tumor_dice"]["mean"])
    return scores


def _best_dice(history: Path) -> float | None:
    if not history.exists():
        return None
    with open(history, newline="", encoding="utf-8") as stream:
        values = [
            float(row["validation_dice"])
            for row in csv.DictReader(stream)
            if row["validation_dice"]
        ]
    return max((value for value in values if value == value), default=None)


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
