"""Kill a download with SIGKILL again and again; what is there in the end must be as if undisturbed.

    python benchmarks/kill_download.py --kills 25

A stand-in for Kaggle on loopback serves a few tiny cases slowly, one of them zipped. Two ways are
killed: cases kept raw, and cases handed over and deleted.
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
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from kaggle_stand_in import TOKEN, StandIn, lits_sets, point_client_at, serving  # noqa: E402

NUMBERS = (3, 7, 60)


def fetch(url: str, folder: Path, keep_raw: bool) -> None:
    """Fetch all cases that are not done, as the pipeline does, in the process that is killed."""
    from lits_helpers import kaggle_transfer
    from lits_helpers.files import remove_leftovers, written_whole
    from lits_helpers.kaggle_data import KaggleClient, fetch_cases
    from lits_helpers.kaggle_errors import Patience

    def prepare(volume: Path, segmentation: Path) -> None:
        target = folder / "prepared" / f"{volume.stem}.txt"
        with written_whole(target) as out:
            out.write_text("".join(_hash(path) for path in (volume, segmentation)))

    kaggle_transfer.CHUNK_BYTES = 1024  # the files are tiny
    point_client_at(url)
    remove_leftovers(folder / "prepared")
    client = KaggleClient(patience=Patience(tries=3, first_wait_s=0.0))
    done = {path.stem for path in folder.glob("prepared/volume-*.txt")}
    numbers = [number for number in NUMBERS if keep_raw or f"volume-{number}" not in done]
    on_case = (lambda *_: None) if keep_raw else prepare
    failed = fetch_cases(numbers, folder / "raw", on_case, keep_raw=keep_raw, client=client)
    assert not failed, failed


def storm(kills: int, seed: int, keep_raw: bool, pace_s: float = 0.01) -> dict[str, int]:
    """Fetch undisturbed, then again with `kills` kills at random moments; compare.

    Returns:
        Counts: "kills" that hit a running process, "requests" that resumed by Range.

    Raises:
        AssertionError: the folders differ.
    """
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as top, serving(StandIn(lits_sets(NUMBERS, (7,)))) as kaggle:
        kaggle.pace_s = pace_s
        begun = time.monotonic()
        assert _run(kaggle.url, Path(top, "undisturbed"), keep_raw, None) == 0
        whole_s = time.monotonic() - begun
        kaggle.seen.clear()
        hits, folder = 0, Path(top, "killed")
        while hits < kills:
            code = _run(kaggle.url, folder, keep_raw, chance.uniform(0.3, 1.0) * whole_s)
            assert code in (0, -signal.SIGKILL), f"the download ended with {code}"
            hits += code == -signal.SIGKILL
            if code == 0 and hits < kills:
                _take_away_one(folder, chance)
        assert _run(kaggle.url, folder, keep_raw, None) == 0
        expected, found = (_contents(Path(top, name)) for name in ("undisturbed", "killed"))
        assert found == expected, f"differs: {sorted(set(found.items()) ^ set(expected.items()))}"
        assert len(expected) == len(NUMBERS) * (2 if keep_raw else 1)
        return {"kills": hits, "requests": sum(bool(entry[2]) for entry in kaggle.gets())}


def _run(url: str, folder: Path, keep_raw: bool, kill_after_s: float | None) -> int:
    """Run `fetch` in a process of its own; return its exit code, negative if a signal ended it."""
    folder.mkdir(exist_ok=True)
    surroundings = {**os.environ, "HOME": str(folder.parent), "KAGGLE_API_TOKEN": TOKEN}
    words = [sys.executable, __file__, "--fetch", url, str(folder), str(int(keep_raw))]
    child = subprocess.Popen(words, env=surroundings)
    try:
        child.wait(kill_after_s)
    except subprocess.TimeoutExpired:
        child.kill()
    return child.wait()


def _take_away_one(folder: Path, chance: random.Random) -> None:
    """Make work for the next kill once everything is there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    chance.choice(files).unlink()


def _contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): _hash(path) for path in files}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    """Run both storms and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fetch", nargs=3, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.fetch:
        fetch(words.fetch[0], Path(words.fetch[1]), words.fetch[2] == "1")
        return
    for keep_raw in (True, False):
        begun = time.monotonic()
        counts = storm(words.kills, words.seed, keep_raw)
        way = "kept raw" if keep_raw else "handed over and deleted"
        print(
            f"{way}: {counts['kills']} kills, {counts['requests']} requests resumed by Range,"
            f" same files as undisturbed, {time.monotonic() - begun:.0f} s"
        )


if __name__ == "__main__":
    main()
