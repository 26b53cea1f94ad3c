"""Every slice decoded and resized once, then served in batches from compact tensors."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from .augmentation import Augmentation, augment_batch
from .decoding import choose_home, decoded_in_memory, decoded_on_disk
from .recipes import InputSpec
from .slices import CaseSlices, find_slices, model_input, nearest_neighbors, normalized

logger = logging.getLogger(__name__)


class SliceCache:
    """All slices of the named cases at working size, with their labels.

    Kept on the device, in memory or memory-mapped in `folder`, see `decoding.choose_home`; one line
    in the log says which. Slices that cannot be read are left out with a warning.

    Args:
        root, case_ids: as for `find_slices`.
        spec: size, window and context.
        device: where batches are wanted.
        folder: for the memory-mapped form, this cache's alone: found again there, or made in place
            of whatever it holds. None for a temporary folder that goes with the cache.
        workers: threads that decode; None for one a core.
        ranks: the processes that train together and all ask for this cache (`distributed.Ranks`):
            the first decodes into `folder`. None for this process alone.

    Attributes:
        levels: (N, S, S) uint8, or uint16 where `spec.window` is None.
        labels: (N, S, S) uint8: 0 background, 1 liver, 2 tumor.
        case_of, patient_of: (N,) int64, positions in `case_ids` and `patients`.
        case_ids, patients: tuples of names.
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
        self.patients = tuple(dict.fromkeys(case.patient for case in cases))
        began = time.perf_counter()
        self.home = choose_home(cases, spec, self.device)
        if ranks is not None and ranks.highest(int(self.home == "disk"), self.device):
            self.home = "disk"  # of all, if one of them has to
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
        self.case_of, self.slice_index = columns[0], columns[1]
        self.has_liver, self.has_tumor = columns[2].bool(), columns[3].bool()
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
        """Return planes[rows], (n, C, S, S), on the device; by pinned memory where that helps."""
        storage = planes.view(torch.int16) if planes.dtype == torch.uint16 else planes
        cuda = planes.device.type == "cuda"  # elsewhere copies may be late
        flat = rows.flatten().to(planes.device, non_blocking=cuda)
        pinned = self.device.type == "cuda" and planes.device.type == "cpu"
        out = torch.empty(
            (len(flat), *planes.shape[1:]),
            dtype=storage.dtype,
            device=planes.device,
            pin_memory=pinned,
        )
        torch.index_select(storage, 0, flat, out=out)
        out = out.to(self.device, non_blocking=pinned)  # `out` is let go before a copy is over
        return out.view(planes.dtype).view(*rows.shape, *planes.shape[1:])


def _context_rows(table: np.ndarray, context: int) -> Tensor:
    """Return (N, 2 * context + 1) rows: each slice between its neighbours in the same case."""
    rows = np.empty((len(table), 2 * context + 1), np.int64)
    for case in np.unique(table[:, 0]):
        members = np.flatnonzero(table[:, 0] == case)
        rows[members] = members[nearest_neighbors(table[members, 1], context)]
    return torch.from_numpy(rows)
