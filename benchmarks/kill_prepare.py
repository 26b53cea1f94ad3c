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


def run_with_kills(raw: Path, out: Path, kills: int, seed: int, workers: int = 2) -> list[float]:
    """Prepare `raw` into `out`, killed `kills` times; return the seconds each attempt was given.

    A killed attempt that had already finished counts too: the folder must stay as it is.
    """
    chance, survived = random.Random(seed), []
    started = time.perf_counter()
    undisturbed = start(raw, out.parent / "measured", workers)
    undisturbed.communicate()
    length = time.perf_counter() - started
    for _ in range(kills):
        survived.append(chance.uniform(0.05, 1.0) * length)
        process = start(raw, out, workers)
        time.sleep(survived[-1])
        process.send_signal(signal.SIGKILL)
        process.communicate()
    last = start(raw, out, workers)
    last.communicate()
    if last.returncode:
        raise RuntimeError(f"the undisturbed attempt ended with {last.returncode}")
    return survived


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw", type=Path)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "killed"
        times = run_with_kills(options.raw, out, options.kills, options.seed)
        one, other = contents(Path(folder) / "measured"), contents(out)
    differing = sorted(
        name for name in one.keys() | other.keys() if one.get(name) != other.get(name)
    )
    moments = ", ".join(f"{seconds:.2f}" for seconds in times)
    print(f"{len(times)} kills, after {moments} s")
    print(f"{len(one)} files; differing from the undisturbed run: {differing or 'none'}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
