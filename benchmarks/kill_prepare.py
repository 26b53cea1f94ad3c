"""Kill the preparation again and again, and compare what remains with an undisturbed run, byte for
byte.

    python benchmarks/kill_prepare.py RAW [--kills 25] [--seed 0]

RAW is a folder with cases, for example phantoms. Each attempt gets SIGKILL after a random time,
until the kills are used up; the last attempt runs to its end.
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORK = """
import sys
from lits_helpers.cases import find_cases
from lits_helpers.preprocess import prepare
if __name__ == "__main__":
    report = prepare(find_cases(sys.argv[1]), sys.argv[2], workers=int(sys.argv[3]))
    print(report.table())
"""


def start(raw: Path, out: Path, workers: int) -> subprocess.Popen:
    """Start one preparation as a process of its own."""
    script = out.parent / "work.py"
    script.write_text(WORK)
    command = [sys.executable, str(script), str(raw), str(out), str(workers)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder, hidden and temporary ones included."""
    return {
        str(path.relative_to(folder)): hashlib.blake2b(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run(raw: Path, out: Path, workers: int) -> float:
    """Prepare undisturbed; return the seconds it took."""
    started = time.perf_counter()
    process = start(raw, out, workers)
    process.communicate()
    if process.returncode:
        raise RuntimeError(f"the undisturbed run ended with {process.returncode}")
    return time.perf_counter() - started


def run_with_kills(
    raw: Path, out: Path, kills: int, seed: int, workers: int = 2
) -> list[tuple[float, int]]:
    """Prepare `raw` into `out`, killed `kills` times, and into `measured` beside it undisturbed.

    Kills are spread so that most of them hit work in progress.

    Returns:
        for each kill, after how many seconds it came and how many cases were whole by then.
    """
    whole_run = run(raw, out.parent / "measured", workers)
    idle_run = run(raw, out.parent / "measured", workers)  # everything is there: start-up alone
    reach = idle_run + 4 * max(whole_run - idle_run, 0.1) / kills
    chance, moments = random.Random(seed), []
    for _ in range(kills):
        seconds = chance.uniform(0.4 * idle_run, reach)
        process = start(raw, out, workers)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        moments.append((seconds, len(list(out.glob("cases/[0-9]*.json")))))
    run(raw, out, workers)
    return moments


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw", type=Path)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "killed"
        moments = run_with_kills(options.raw, out, options.kills, options.seed)
        one, other = contents(Path(folder) / "measured"), contents(out)
    differing = sorted(
        name for name in one.keys() | other.keys() if one.get(name) != other.get(name)
    )
    print(f"{len(moments)} kills; seconds (cases whole by then):")
    print(", ".join(f"{seconds:.2f} ({cases})" for seconds, cases in moments))
    print(f"{len(one)} files; differing from the undisturbed run: {differing or 'none'}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
