"""Kill a download with SIGKILL again and again; what is there in the end must be as if undisturbed.

    python benchmarks/kill_download.py --kills 25

Stand-ins for Kaggle and for the server of the MSD archive on loopback serve a few tiny cases
slowly, one of Kaggle's zipped. Of each, two ways are killed: cases kept raw, and cases handed over
and deleted.
"""

import argparse
import hashlib
import itertools
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from tqdm.auto import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from helpers.kaggle_stand_in import TOKEN, StandIn, lits_sets, point_client_at, serving  # noqa: E402
from helpers.msd_stand_in import (  # noqa: E402
    SERVERS,
    Shelf,
    liver_files,
    tar_of,
)

from lits_helpers.download import (  # noqa: E402
    KaggleClient,
    MsdArchive,
    fetch_cases,
    transfer,
)
from lits_helpers.download.source import Patience  # noqa: E402
from lits_helpers.machine import remove_leftovers, written_whole  # noqa: E402

NUMBERS = (3, 7, 60)
PACE_S = 0.004  # per chunk of 4 KiB


def fetch(addresses: tuple[str, ...], folder: Path, keep_raw: bool) -> None:
    """Fetch all cases that are not done, as the pipeline does, in the process that is killed."""

    def prepare(number: int, volume: Path, segmentation: Path) -> None:
        target = folder / "prepared" / f"{number}.txt"
        with written_whole(target) as out:
            out.write_text("".join(_hash(path) for path in (volume, segmentation)))

    os.environ |= {"HOME": str(folder.parent), "KAGGLE_API_TOKEN": TOKEN}
    transfer.CHUNK_BYTES = 1024  # the files are tiny
    tqdm.set_lock(threading.RLock())  # its own would be a semaphore that a kill leaks
    remove_leftovers(folder / "prepared")
    patience = Patience(tries=3, first_wait_s=0.0)
    if len(addresses) == 1:
        point_client_at(*addresses)
        source = KaggleClient(patience=patience)
    else:
        source = MsdArchive(folder / "raw", patience, addresses)
    done = {path.stem for path in folder.glob("prepared/*.txt")}
    numbers = [number for number in NUMBERS if keep_raw or str(number) not in done]
    on_case = (lambda *_: None) if keep_raw else prepare
    failed = fetch_cases(source, numbers, folder / "raw", on_case, keep_raw=keep_raw)
    assert not failed, failed


def storm(kills: int, seed: int, keep_raw: bool, source: str = "kaggle") -> dict[str, int]:
    """Fetch undisturbed, then again with `kills` kills at random moments; compare.

    Returns:
        Counts: "kills" that hit a running process, "resumed" requests that asked for a Range.

    Raises:
        AssertionError: the folders differ.
    """
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as top, _served(source) as server:
        server.pace_s = PACE_S
        assert _run(server, Path(top, "undisturbed"), keep_raw) == 0
        whole, hits, folder = server.sent, 0, Path(top, "killed")
        begun = _begins(server)
        server.seen.clear()
        while hits < kills:
            code = _run(server, folder, keep_raw, chance.uniform(0, 0.7) * whole, chance)
            assert code in (0, -signal.SIGKILL), f"the download ended with {code}"
            hits += code == -signal.SIGKILL
            if code == 0 and hits < kills:
                _take_away_some(folder, chance)
        assert _run(server, folder, keep_raw) == 0
        expected, found = (_contents(Path(top, name)) for name in ("undisturbed", "killed"))
        assert found == expected, f"differs: {sorted(set(found.items()) ^ set(expected.items()))}"
        kept_index = source == "msd"
        assert len(expected) == len(NUMBERS) * (2 if keep_raw else 1) + kept_index
        return {"kills": hits, "resumed": len(set(_begins(server)) - set(begun))}


def _served(source: str):
    if source == "kaggle":
        return serving(StandIn(lits_sets(NUMBERS, (7,))))
    archive = tar_of(liver_files(NUMBERS))
    return serving(Shelf(archive=archive, mirror=archive), SERVERS)


def _begins(server: StandIn) -> list:
    """Return where the requests for files began, with their files or Ranges."""
    if isinstance(server, Shelf):
        return [first for first, _ in server.member_spans()]
    return [entry for entry in server.gets() if entry[2]]


def _run(
    server: StandIn,
    folder: Path,
    keep_raw: bool,
    kill_after_bytes: float | None = None,
    chance: random.Random | None = None,
) -> int:
    """Run `fetch` in a process of its own; return its exit code, negative if a signal ended it."""
    folder.mkdir(exist_ok=True)
    addresses = server.addresses if isinstance(server, Shelf) else (server.url,)
    child = _context().Process(target=fetch, args=(addresses, folder, keep_raw))
    begun_bytes = server.sent
    child.start()
    if kill_after_bytes is not None:
        while child.is_alive() and server.sent - begun_bytes < kill_after_bytes:
            time.sleep(0.001)
        child.join(chance.uniform(0, 0.02))  # so that renaming and tidying are hit too
        child.kill()
    child.join()
    return child.exitcode


def _context():
    """Return a context whose processes start in milliseconds: forked from one that has imported."""
    context = multiprocessing.get_context("forkserver")
    folders = [str(Path(__file__).parent), *sys.path[:2], os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, folders)))
    context.set_forkserver_preload(["kill_download", "kagglesdk.kaggle_client"])
    return context


def _take_away_some(folder: Path, chance: random.Random) -> None:
    """Make work for the next kill once everything is there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in chance.sample(files, len(files) // 2 + 1):
        path.unlink()


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
    words = parser.parse_args()
    for source, keep_raw in itertools.product(("kaggle", "msd"), (True, False)):
        begun = time.monotonic()
        counts = storm(words.kills, words.seed, keep_raw, source)
        way = "kept raw" if keep_raw else "handed over and deleted"
        print(
            f"{source}, {way}: {counts['kills']} kills, {counts['resumed']} ranges resumed,"
            f" same files as undisturbed, {time.monotonic() - begun:.0f} s"
        )


if __name__ == "__main__":
    main()
