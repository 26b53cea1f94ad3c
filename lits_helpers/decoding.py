"""Decode the slices of many cases in parallel into compact arrays, in memory or on disk."""

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import torch
from tqdm.auto import tqdm

from .files import DISK_FULL, written_whole
from .pool import available_cores
from .ranks import processes_here
from .recipes import InputSpec
from .slices import UNREADABLE, CaseSlices, fingerprint

logger = logging.getLogger(__name__)

ARRAYS, TABLE = ("levels.npy", "labels.npy"), "table.npy"
CONTAINER = Path("/sys/fs/cgroup")  # where Linux states the memory of containers and jobs
OWN_GROUPS = Path("/proc/self/cgroup")  # whose of them this process's are
GROUP_FILES = (  # limit, use, and the name of what is given back when it is needed; versions 2, 1
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
DEVICE_SHARE = 0.4  # of the accelerator's free memory; the rest is for weights and activations
MEMORY_SHARE = 0.5  # of the free memory; the page cache and other processes want some too

Decoded = tuple[np.ndarray, np.ndarray, np.ndarray]  # levels, labels, table


def choose_home(cases: Sequence[CaseSlices], spec: InputSpec, device: torch.device) -> str:
    """Return where the slices fit: "device", else "memory", else "disk", by what is free now.

    A CPU is no device of its own: there it is "memory" or "disk". What goes to a device is decoded
    in memory first, and has to fit there too.
    """
    size_bytes = sum(np.prod(shape) * dtype.itemsize for shape, dtype in _shapes(cases, spec))
    if size_bytes > MEMORY_SHARE * free_memory_bytes() / processes_here():
        return "disk"
    on_device = device.type != "cpu" and size_bytes <= DEVICE_SHARE * free_device_bytes(device)
    return "device" if on_device else "memory"


def free_device_bytes(device: torch.device) -> int:
    """Return the accelerator's free memory; 0 where it cannot be asked."""
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()  # what torch holds in reserve, from a training before, is free
    return torch.cuda.mem_get_info(device)[0]


def free_memory_bytes() -> int:
    """Return the memory that may still be used: the machine's, a container's or a job's if less.

    Where neither can be read (no Linux) 4 GiB are assumed.
    """
    free = [_meminfo_bytes(), _container_bytes()]
    return min((value for value in free if value is not None), default=4 * 2**30)


def _meminfo_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration):
        return None


def _container_bytes() -> int | None:
    free = [_group_bytes(group, *names) for group in _own_groups() for names in GROUP_FILES]
    return min((value for value in free if value is not None), default=None)


def _own_groups() -> Iterator[Path]:
    """Yield the folders that may state this process's limits: its own groups' and those above."""
    yield CONTAINER
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):  # version 2, or version 1
            inside = PurePosixPath(path.lstrip("/"))
            for group in (inside, *inside.parents):
                yield CONTAINER / controllers / group


def _group_bytes(group: Path, limit: str, used: str, cached: str) -> int | None:
    try:
        free = int((group / limit).read_text()) - int((group / used).read_text())
        rows = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        return free + next(int(value) for name, value in rows if name == cached)
    except (OSError, ValueError, StopIteration):  # no such file, or "max"
        return None


def decoded_in_memory(
    cases: Sequence[CaseSlices], spec: InputSpec, workers: int | None = None
) -> Decoded:
    """Decode every slice of `cases`.

    Args:
        cases: from `find_slices`.
        spec: size and window.
        workers: threads, one case at a time each; None for one a core.

    Returns:
        levels: (N, size, size) uint8, or uint16 where `spec.window` is None.
        labels: (N, size, size) uint8.
        table: (N, 4) int64: position in `cases`, slice index, liver in it, tumor in it (at native
            size). Slices that cannot be read are absent; a warning names them.

    Raises:
        ValueError: no slice could be read.
    """
    levels, labels = (np.empty(shape, dtype) for shape, dtype in _shapes(cases, spec))
    table = _fill(levels, labels, cases, spec, workers)
    return levels[: len(table)], labels[: len(table)], table


def decoded_on_disk(
    folder: Path,
    cases: Sequence[CaseSlices],
    spec: InputSpec,
    workers: int | None = None,
    ranks=None,
) -> Decoded:
    """Decode as `decoded_in_memory`, into memory-mapped files that a second call finds.

    They lie under a hash of the slices' file names, sizes and times and the spec. Everything else
    in `folder`, which nobody but these `ranks` uses, is removed first.

    Raises:
        OSError: the disk has no room for them, or another rank does not see the folder.
    """
    place = folder / fingerprint(cases, spec)
    if ranks is None or ranks.writes:
        try:
            _mapped(place)
        except UNREADABLE:  # absent or damaged
            shutil.rmtree(folder, ignore_errors=True)
            _decode_into(place, cases, spec, workers)
    if ranks is not None:
        ranks.from_first(None)  # the others wait
    if not place.exists():
        raise OSError(
            f"what the first process decoded is not at {place}: choose a shared run folder"
        )
    levels, labels, table = _mapped(place)
    if len(table) < len(levels):
        logger.warning(
            "%d slices could not be read when %s was decoded and are left out (of case %s); "
            "delete that folder to try them again",
            len(levels) - len(table),
            place,
            ", ".join(_incomplete(cases, table)[:5]),
        )
    return levels[: len(table)], labels[: len(table)], table


def _mapped(place: Path) -> Decoded:
    # copy on write: nothing writes, and torch warns about read-only arrays
    levels, labels = (np.load(place / name, mmap_mode="c") for name in ARRAYS)
    return levels, labels, np.load(place / TABLE)


def _incomplete(cases: Sequence[CaseSlices], table: np.ndarray) -> list[str]:
    """Return the cases of which slices are missing."""
    counts = np.bincount(table[:, 0], minlength=len(cases))
    return [c.case_id for c, n in zip(cases, counts, strict=True) if n < len(c.slice_indices)]


def _decode_into(place: Path, cases, spec: InputSpec, workers: int | None) -> None:
    with written_whole(place) as folder:
        folder.mkdir()
        levels, labels = (
            np.lib.format.open_memmap(folder / name, "w+", dtype, shape)
            for name, (shape, dtype) in zip(ARRAYS, _shapes(cases, spec), strict=True)
        )
        _reserve([folder / name for name in ARRAYS])
        np.save(folder / TABLE, _fill(levels, labels, cases, spec, workers))
        levels.flush()
        labels.flush()


def _reserve(paths: Sequence[Path]) -> None:
    """Claim the room of files that are mapped: without it a full disk would kill the process."""
    if not hasattr(os, "posix_fallocate"):
        return
    size_bytes = sum(path.stat().st_size for path in paths)
    try:
        for path in paths:
            with open(path, "r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    except OSError as error:
        if error.errno not in DISK_FULL:  # a file system that cannot reserve
            return
        raise OSError(
            error.errno,
            f"the slices do not fit into memory, and the disk has no {size_bytes / 1e9:.1f} GB for "
            "them: free some, or train with a smaller InputSpec.size or on fewer cases",
            str(paths[0].parent),
        ) from error


def _shapes(cases: Sequence[CaseSlices], spec: InputSpec) -> list[tuple[tuple, np.dtype]]:
    shape = (sum(len(case.slice_indices) for case in cases), spec.size, spec.size)
    return [
        (shape, np.dtype(np.uint8 if spec.levels == 255 else np.uint16)),
        (shape, np.dtype(np.uint8)),
    ]


def _fill(levels, labels, cases: Sequence[CaseSlices], spec: InputSpec, workers) -> np.ndarray:
    """Fill the arrays from the front; return the table of the rows that are filled."""
    starts = np.cumsum([0] + [len(case.slice_indices) for case in cases])

    def fill_case(number: int) -> np.ndarray:
        end = starts[number + 1]
        rows = slice(starts[number], end)
        return _fill_case(levels[rows], labels[rows], number, cases[number], spec)

    with ThreadPoolExecutor(workers or available_cores()) as pool, _single_threaded_cv2():
        tables = pool.map(fill_case, range(len(cases)))
        tables = list(tqdm(tables, "caching", len(cases), unit="case", leave=False, delay=2))
    table = np.concatenate(tables)
    readable = np.flatnonzero(table[:, 1] >= 0)
    if not len(readable):
        raise ValueError(f"none of the {len(table)} slices could be read; see the warnings above")
    if len(readable) < len(table):
        for new, old in enumerate(readable):
            levels[new], labels[new] = levels[old], labels[old]
    return table[readable]


def _fill_case(levels, labels, number: int, case: CaseSlices, spec: InputSpec) -> np.ndarray:
    """Fill one case's rows; return its part of the table, with -1 where a slice is unreadable."""
    table = np.full((len(case.slice_indices), 4), -1, np.int64)
    for row, slice_index in enumerate(case.slice_indices.tolist()):
        try:
            native = case.labels(slice_index)
            levels[row] = case.levels(slice_index, spec)
            labels[row] = case.working_labels(slice_index, spec)
            table[row] = number, slice_index, native.any(), (native == 2).any()
        except UNREADABLE as error:
            logger.warning(
                "slice %d of case %s cannot be read and is left out: %s",
                slice_index,
                case.case_id,
                error,
            )
    return table


class _single_threaded_cv2:
    """OpenCV's own threads would fight with ours over the cores."""

    def __enter__(self):
        self.before = cv2.getNumThreads()
        cv2.setNumThreads(1)

    def __exit__(self, *error):
        cv2.setNumThreads(self.before)
