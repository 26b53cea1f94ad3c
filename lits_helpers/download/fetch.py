"""LiTS from Kaggle: any cases, one by one, on a disk that holds only two."""

import logging
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ..volumes import LITS_NAME, parse_name
from .client import FileUnavailable, KaggleClient, PassingFailure
from .listing import checked_numbers, missing_files, named_files, present_cases
from .transfer import Meter, Transfer, discard_temporaries

logger = logging.getLogger(__name__)

IN_TRANSIT = "in-transit"  # below the raw folder; everything in it may be deleted


def fetch_cases(
    numbers: Iterable[int],
    folder: Path | str,
    on_case: Callable[[Path, Path], object],
    *,
    keep_raw: bool = False,
    mounted: Path | str | None = None,
    client: KaggleClient | None = None,
) -> dict[int, str]:
    """Fetch case by case and hand each to `on_case(volume_path, segmentation_path)`.

    While `on_case` works on one case the next one is fetched; fetched files are deleted when their
    case is done, so at most two volumes lie on the disk. Files that were in `folder` or `mounted`
    before are used in place and never deleted. After a kill or failure the next call continues.

    Args:
        numbers: case numbers. Leave out those that are prepared already.
        on_case: an error it raises ends the run; the case's raw files stay for the next one.
        keep_raw: keep the raw files below `folder`.
        mounted: a further folder with data, only read.

    Returns:
        number -> reason, for cases that Kaggle cannot deliver while it delivers others.

    Raises:
        ValueError: a number out of 0..130.
        KaggleError: two cases in a row failed, or nothing can be fetched at all.
    """
    run = _Run(checked_numbers(numbers), Path(folder), keep_raw, mounted, client or KaggleClient())
    with run.meter, ThreadPoolExecutor(1) as pool:
        try:
            coming = pool.submit(run.receive, run.numbers[:1])
            for position, number in enumerate(run.numbers):
                pair = run.settle(number, coming)
                coming = pool.submit(run.receive, run.numbers[position + 1 : position + 2])
                if pair:
                    on_case(*pair)
                run.clear(number)
        finally:
            run.stop.set()
    if not keep_raw and not run.interrupted:
        shutil.rmtree(run.transit, ignore_errors=True)
    return run.failed


class _Run:
    """What `fetch_cases` holds while it works."""

    def __init__(
        self,
        numbers: list[int],
        folder: Path,
        keep_raw: bool,
        mounted: Path | str | None,
        client: KaggleClient,
    ):
        self.numbers = numbers
        self.transit = folder / IN_TRANSIT
        self.stop = threading.Event()
        self.failed: dict[int, str] = {}
        self.interrupted: list[int] = []  # cases whose transfer may go on in the next run
        self._stuck = False  # whether the last case was interrupted
        _clear_transit(self.transit, [] if keep_raw else numbers)
        self.here = present_cases(folder, mounted, numbers=numbers)
        files = missing_files(numbers, self.here, client)
        self.meter = Meter(sum(file.size_bytes for file in files), "LiTS")
        damaged = {path.name: path for path in named_files(folder)}
        self.transfers: dict[int, dict[str, Transfer]] = {number: {} for number in numbers}
        for file in files:
            target = (folder if keep_raw else self.transit) / file.name
            target = damaged.get(target.name, target)
            transfer = Transfer(client, file, target, self.meter, self.stop)
            self.transfers[file.number][file.kind] = transfer
        # a kill between renaming and tidying leaves temporary files beside whole ones
        for path in (path for case in self.here.values() for path in case.values()):
            if path.is_relative_to(folder):
                discard_temporaries(path)

    def receive(self, numbers: list[int]) -> None:
        """Receive the bytes of these cases (in the background)."""
        for number in numbers:
            for transfer in self.transfers[number].values():
                transfer.receive()

    def settle(self, number: int, coming: Future) -> tuple[Path, Path] | None:
        """Wait for a case, put its files in place and return them, or note why there are none."""
        found = dict(self.here.get(number, {}))
        try:
            coming.result()
            for kind, transfer in self.transfers[number].items():
                found[kind] = transfer.fetch()
            for kind in ("volume", "segmentation"):
                if kind not in found:
                    raise FileUnavailable(
                        f"Kaggle does not list {kind}-{number}.nii: leave this case out"
                    )
        except FileUnavailable as error:
            logger.warning("case %d is left out: %s", number, error)
            self.failed[number] = str(error)
            for transfer in self.transfers[number].values():
                transfer.discard()
            return None
        except PassingFailure as error:
            if self._stuck:  # two cases in a row: the connection is at fault, not the file
                raise
            logger.warning("case %d is left for the next run: %s", number, error)
            self.failed[number] = str(error)
            self._stuck = True
            self.interrupted.append(number)
            return None
        self._stuck = False
        return found["volume"], found["segmentation"]

    def clear(self, number: int) -> None:
        """Delete the files of a case that lie in transit."""
        for path in named_files(self.transit):
            if parse_name(path.name)[1] == number:
                path.unlink()


def _clear_transit(transit: Path, keep: Sequence[int]) -> None:
    """Remove files that an earlier run left in transit and that belong to no case to keep."""
    for path in sorted(transit.rglob("*")):
        match = LITS_NAME.search(path.name)  # temporary names too
        if path.is_file() and not (match and int(match[2]) in keep):
            path.unlink()
