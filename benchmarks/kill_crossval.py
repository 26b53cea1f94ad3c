"""Kill a cross-validation with SIGKILL at random moments, restart it each time, compare the tables.

    python benchmarks/kill_crossval.py --kills 6

Two folds of small networks on drawn patients: once undisturbed, then in a process that is killed
and restarted. Scores, rules and table must agree to the byte.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from helpers.prepared_runs import write_prepared  # noqa: E402
from helpers.small_runs import small_liver, small_tumor  # noqa: E402

from lits_helpers.pipeline import cross_validate, crossval  # noqa: E402
from lits_helpers.settings import load_settings  # noqa: E402

COMPARED = ("table.txt", "metrics.csv", "summary.json")


def live(root: Path, runs: Path, seconds: float | None = None) -> float | None:
    """Cross-validate in a forked process; kill it after `seconds`.

    Returns:
        The seconds it took to its end; None if it was killed.
    """
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        crossval.liver_recipe = lambda *_, **__: small_liver(epochs=2)
        crossval.tumor_recipe = lambda *_, **__: small_tumor(epochs=2, batch_size=4)
        settings = load_settings(root, prepared=root / "prepared", runs=runs, device="cpu")
        done = 1
        try:
            done = 0 if cross_validate(settings, folds=2) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(done)
    while seconds is None or time.monotonic() - began < seconds:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            if status:
                raise RuntimeError("the cross-validation failed, see above")
            return time.monotonic() - began
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def main(kills: int, seed: int) -> int:
    """Return 0 if both tables agree."""
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_prepared(root, cases=4)
        calm, stormy = root / "calm" / "runs", root / "stormy" / "runs"
        took = live(root, calm)
        killed = sum(
            live(root, stormy, moments.uniform(0.1, 0.5) * took) is None for _ in range(kills)
        )
        live(root, stormy)
        pairs = [[runs / "crossval" / name for runs in (calm, stormy)] for name in COMPARED]
        differing = [one.name for one, other in pairs if one.read_bytes() != other.read_bytes()]
    print(
        f"{killed} kills within {took:.0f} s of work; differing: {', '.join(differing) or 'none'}"
    )
    return 1 if differing else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.exit(main(options.kills, options.seed))
