"""Every slice decoded and resized once, in memory or on disk, then served in batches."""

import logging
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..machine import DISK_FULL, available_cores, free_memory_bytes, processes_here, written_whole
from ..recipes import InputSpec
from .augmentation import Augmentation, augment_batch
from .inputs import model_input, normalized
from .slices import UNREADABLE, CaseSlices, find_slices, fingerprint, nearest_neighbors

logger = logging.getLogger(__name__)

ARRAYS = ("levels.npy", "labels.npy")
TABLE = "table.npy"
DEVICE_SHARE = 0.4  # of the accelerator's free memory; the rest is for weights and activations
MEMORY_SHARE = 0.5  # of the free memory; the page cache and other processes want some too
Decoded = tuple[np.ndarray, np.ndarray, np.ndarray]  # levels, labels, table


class SliceCache:
    """All slices of the named cases at working size, with their labels.

    They are kept on the device, in memory or memory-mapped in `folder`, see `choose_home`; the log
    says which. Slices that cannot be read are left out with a warning.

    Args:
        root, case_ids: as for `find_slices`.
        spec: size, window and context.
        device: where batches are wanted.
        folder: of memory-mapped slices, for this cache alone: they are found there, or replace
            whatever it holds. None takes a temporary folder that goes with the cache.
        workers: threads that decode; None for one a core.
        ranks: `training.distributed.Ranks`, where several processes ask for this cache: the first
            decodes into `folder`. None for one process.

    Attributes:
        levels: (N, S, S) uint8, or uint16 where `spec.window` is None.
        labels: (N, S, S) uint8: 0 background, 1 liver, 2 tumor.
        case_of, patient_of: (N,) int64, positions in `case_ids` and `patients`.
        case_ids, patients: tuples of names.
        liver_only: the cases whose labels show no tumors.
        slice_index: (N,) int64, k in its case.
        has_liver, has_tumor: (N,) bool, at native size.
        device: where batches are made.
        home: "device", "memory" or "disk".

    Raises:
        ValueError: see `find_slices`.
    """

    def __init__(
        self,
        root: Path | str,
        case_ids: Sequence[str],
        spec: InputSpec,
        *,
        device: torch.device | str = "cpu",
        folder: Path | str | None = None,
        workers: int | None = None,
        ranks=None,
    ):
        self.spec = spec
        self.device = torch.device(device)
        cases = find_slices(root, case_ids, spec)
        self.case_ids = tuple(case.case_id for case in cases)
        self.liver_only = tuple(case.case_id for case in cases if case.liver_only)
        self.patients = tuple(dict.fromkeys(case.patient for case in cases))
        began = time.perf_counter()
        self.home = choose_home(cases, spec, self.device)
        if ranks is not None and ranks.highest(int(self.home == "disk"), self.device):
            self.home = "disk"  # if one rank must, all do
        if self.home == "disk":
            if folder is None:
                self._temporary = TemporaryDirectory(prefix="lits-", ignore_cleanup_errors=True)
            folder = Path(folder or self._temporary.name)
            self._keep(*decoded_on_disk(folder, cases, spec, workers, ranks), cases)
        else:
            self._keep(*decoded_in_memory(cases, spec, workers), cases)
        self._say(time.perf_counter() - began)

    def _keep(self, levels, labels, table: np.ndarray, cases: Sequence[CaseSlices]) -> None:
        where = self.device if self.home == "device" else torch.device("cpu")
        self.levels = torch.from_numpy(levels).to(where)
        self.labels = torch.from_numpy(labels).to(where)
        columns = torch.from_numpy(np.ascontiguousarray(table.T))
        self.case_of, self.slice_index, has_liver, has_tumor = columns
        self.has_liver = has_liver.bool()
        self.has_tumor = has_tumor.bool()
        patient_of_case = [self.patients.index(case.patient) for case in cases]
        self.patient_of = torch.tensor(patient_of_case)[self.case_of]
        self._rows = _context_rows(table, self.spec.context)

    def _say(self, seconds: float) -> None:
        size = (self.levels.nbytes + self.labels.nbytes) / 2**20
        place = {"device": str(self.device), "memory": "memory", "disk": "a memory-mapped file"}
        logger.info(
            "%d slices of %d cases cached in %s: %.0f MB, %.1f s",
            len(self),
            len(self.case_ids),
            place[self.home],
            size,
            seconds,
        )

    def __len__(self) -> int:
        return len(self.case_of)

    def batch(
        self,
        indices: Tensor | Sequence[int],
        *,
        augment: Augmentation | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the slices at `indices` on the device.

        Args:
            indices: (n,) positions in the cache.
            augment: change them at random, this far; None leaves them as they are.
            generator: a CPU generator, needed to augment.

        Returns:
            images (n, channels, S, S) float32 as `model_input` makes them, labels (n, S, S) uint8.

        Raises:
            ValueError: augment without a generator.
        """
        if augment is not None and generator is None:
            raise ValueError("SliceCache.batch needs a torch.Generator to augment")
        indices = torch.as_tensor(indices, dtype=torch.int64, device="cpu")
        levels = self._gather(self.levels, self._rows[indices])
        if augment is None:
            labels = self._gather(self.labels, indices[:, None]).squeeze(1)
            return model_input(levels, self.spec), labels
        labels = self._gather(self.labels, self._rows[indices])
        images, labels = augment_batch(levels, labels, self.spec, generator, augment)
        return normalized(images, self.spec), labels

    def _gather(self, planes: Tensor, rows: Tensor) -> Tensor:
        """Return planes[rows], (n, C, S, S), on the device; through pinned memory to a GPU."""
        storage = planes.view(torch.int16) if planes.dtype == torch.uint16 else planes
        cuda = planes.device.type == "cuda"  # elsewhere a copy may come late
        flat = rows.flatten().to(planes.device, non_blocking=cuda)
        pinned = self.device.type == "cuda" and planes.device.type == "cpu"
        out = torch.empty(
            (len(flat), *planes.shape[1:]),
            dtype=storage.dtype,
            device=planes.device,
            pin_memory=pinned,
        )
        torch.index_select(storage, 0, flat, out=out)
        # torch keeps pinned memory until the copy is over, so the name can be taken again.
        out = out.to(self.device, non_blocking=pinned)
        return out.view(planes.dtype).view(*rows.shape, *planes.shape[1:])


def _context_rows(table: np.ndarray, context: int) -> Tensor:
    """Return (N, 2 * context + 1) rows: each slice between its neighbours in the same case."""
    rows = np.empty((len(table), 2 * context + 1), np.int64)
    for case in np.unique(table[:, 0]):
        members = np.flatnonzero(table[:, 0] == case)
        rows[members] = members[nearest_neighbors(table[members, 1], context)]
    return torch.from_numpy(rows)


def choose_home(cases: Sequence[CaseSlices], spec: InputSpec, device: torch.device) -> str:
    """Return where the slices fit by what is free now: "device", else "memory", else "disk".

    On a CPU it is "memory" or "disk". What goes to a device is decoded in memory first, and must
    fit there too.
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
    torch.cuda.empty_cache()  # torch holds an earlier training's memory in reserve
    return torch.cuda.mem_get_info(device)[0]


def decoded_in_memory(
    cases: Sequence[CaseSlices], spec: InputSpec, workers: int | None = None
) -> Decoded:
    """Decode every slice of `cases` in threads, each of which takes a case at a time.

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

    The files lie in a folder named by `fingerprint`. Everything else in `folder`, which only these
    `ranks` use, is removed first.

    Raises:
        OSError: the disk has no room for the files, or another rank does not see the folder.
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
        counts = np.bincount(table[:, 0], minlength=len(cases)).tolist()
        pairs = zip(cases, counts, strict=True)
        cut = [case.case_id for case, count in pairs if count < len(case.slice_indices)]
        logger.warning(
            "%d slices could not be read when %s was decoded and are left out (of case %s); "
            "delete that folder to try them again",
            len(levels) - len(table),
            place,
            ", ".join(cut[:5]),
        )
    return levels[: len(table)], labels[: len(table)], table


def _mapped(place: Path) -> Decoded:
    # Copy on write: nothing writes, but torch warns about read-only arrays.
    levels, labels = (np.load(place / name, mmap_mode="c") for name in ARRAYS)
    return levels, labels, np.load(place / TABLE)


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
    """Claim the room of mapped files; otherwise a full disk kills the process."""
    if not hasattr(os, "posix_fallocate"):
        return
    size_bytes = sum(path.stat().st_size for path in paths)
    try:
        for path in paths:
            with open(path, "r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    except OSError as error:
        if error.errno not in DISK_FULL:  # this file system cannot reserve
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

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # OpenCV's threads would fight with ours over the cores
    try:
        with ThreadPoolExecutor(workers or available_cores()) as pool:
            tables = pool.map(fill_case, range(len(cases)))
            tables = list(tqdm(tables, "caching", len(cases), unit="case", leave=False, delay=2))
    finally:
        cv2.setNumThreads(threads)
    table = np.concatenate(tables)
    readable = np.flatnonzero(table[:, 1] >= 0)
    if not len(readable):
        raise ValueError(f"none of the {len(table)} slices could be read; see the warnings above")
    if len(readable) < len(table):
        for new, old in enumerate(readable):
            levels[new] = levels[old]
            labels[new] = labels[old]
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
