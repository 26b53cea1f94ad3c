"""Fetch any LiTS cases from any source, one by one, on a disk that holds only two."""

import logging
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from .listing import checked_numbers, missing_files, named_files, present_cases
from .source import FileUnavailable, PassingFailure, Source
from .transfer import Meter, Transfer, discard_temporaries

logger = logging.getLogger(__name__)

ANY_NUMBER = re.compile(r"(\d+)\.nii")  # of a case, in temporary names too
IN_TRANSIT = "in-transit"  # below the raw folder; everything in it may be deleted


def fetch_cases(
    source: Source,
    numbers: Iterable[int],
    folder: Path | str,
    on_case: Callable[[int, Path, Path], object],
    *,
    keep_raw: bool = False,
    mounted: Path | str | None = None,
) -> dict[int, str]:
    """Fetch case by case and hand each to `on_case(number, volume, segmentation)`.

    While `on_case` works on one case the next one is fetched; fetched files are deleted when their
    case is done, so at most two volumes lie on the disk. Files that were in `folder` or `mounted`
    before are used in place and never deleted. After a kill or failure the next call continues.

    Args:
        source: where they come from.
        numbers: case numbers. Leave out those that are prepared already.
        on_case: an error it raises ends the run; the case's raw files stay for the next one.
        keep_raw: keep the raw files below `folder`.
        mounted: a further folder with data, only read.

    Returns:
        number -> reason, for cases that the source cannot deliver while it delivers others.

    Raises:
        ValueError: a number out of 0..130.
        DownloadError: two cases in a row failed, or nothing can be fetched at all.
    """
    run = _Run(source, checked_numbers(numbers), Path(folder), keep_raw, mounted)
    with run.meter, ThreadPoolExecutor(1) as pool:
        try:
            coming = pool.submit(run.receive, run.numbers[:1])
            for position, number in enumerate(run.numbers):
                pair = run.settle(number, coming)
                coming = pool.submit(run.receive, run.numbers[position + 1 : position + 2])
                if pair:
                    on_case(number, *pair)
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
        source: Source,
        numbers: list[int],
        folder: Path,
        keep_raw: bool,
        mounted: Path | str | None,
    ):
        self.source = source
        self.numbers = numbers
        self.transit = folder / IN_TRANSIT
        self.stop = threading.Event()
        self.failed: dict[int, str] = {}
        self.interrupted: list[int] = []  # cases whose transfer may go on in the next run
        self._stuck = False  # whether the last case was interrupted
        _clear_transit(self.transit, [] if keep_raw else numbers)
        self.here = present_cases(source, folder, mounted, numbers=numbers)
        files = missing_files(numbers, self.here, source)
        self.meter = Meter(sum(file.size_bytes for file in files.values()), "LiTS")
        damaged = dict(named_files(source, folder))
        self.transfers: dict[int, dict[str, Transfer]] = {number: {} for number in numbers}
        for (kind, number), file in files.items():
            target = (folder if keep_raw else self.transit) / file.name
            target = damaged.get((kind, number), target)
            transfer = Transfer(source, file, target, self.meter, self.stop)
            self.transfers[number][kind] = transfer
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
                        f"{self.source.name} lists no {kind} {number}: leave this case out"
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
        for key, path in named_files(self.source, self.transit):
            if key[1] == number:
                path.unlink()


def _clear_transit(transit: Path, keep: Sequence[int]) -> None:
    """Remove files that an earlier run left in transit and that belong to no case to keep."""
    for path in sorted(transit.rglob("*")):
        match = ANY_NUMBER.search(path.name)
        if path.is_file() and not (match and int(match[1]) in keep):
            path.unlink()
