"""Slices as plain torch data sets, read lazily.

Everything that feeds a model can be imported from here: `model_input` (slices.py), `SliceCache`
(cache.py), `epoch_order` (sampling.py), `Augmentation` (augmentation.py).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .augmentation import Augmentation, augment_batch, augmentation_of
from .cache import SliceCache
from .recipes import InputSpec
from .sampling import epoch_order
from .slices import UNREADABLE, find_slices, model_input, nearest_neighbors

__all__ = [
    "Augmentation",
    "LiverSlices",
    "SliceCache",
    "TumorSlices",
    "augment_batch",
    "augmentation_of",
    "epoch_order",
    "model_input",
]


class _Slices(Dataset, ABC):
    """Every slice of the named cases; subclasses say which mask is wanted.

    Args:
        root: prepared/ folder, bare PNG folder, or folder with NIfTI pairs.
        case_ids: which cases. One that cannot be opened or has no segmentation is left out with a
            warning.
        spec: how slices become input.

    Raises:
        ValueError: a case id does not exist, or no case is left.
        OSError: (when indexed) a slice cannot be read; the message names it.
    """

    def __init__(self, root: Path | str, case_ids: Iterable[str], spec: InputSpec):
        self.spec = spec
        self.cases = find_slices(root, case_ids, spec)
        self._near = [nearest_neighbors(case.slice_indices, spec.context) for case in self.cases]
        self._ends = np.cumsum([len(case.slice_indices) for case in self.cases])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        case, position, near = self._find(index)
        slice_index = int(case.slice_indices[position])
        try:
            neighbors = case.slice_indices[near].tolist()
            levels = np.stack([case.levels(k, self.spec) for k in neighbors])
            labels = case.working_labels(slice_index, self.spec)
        except UNREADABLE as error:
            raise OSError(
                f"slice {slice_index} of case {case.case_id} cannot be read ({error}); "
                "prepare the case again or leave it out"
            ) from error
        image = model_input(torch.from_numpy(levels)[None], self.spec)[0]
        return image, torch.from_numpy(self._mask(labels).astype(np.float32))[None]

    def _find(self, index: int):
        if not -len(self) <= index < len(self):
            raise IndexError(f"slice {index} of a data set of {len(self)} slices")
        index %= len(self)
        number = int(np.searchsorted(self._ends, index, side="right"))
        case = self.cases[number]
        position = index - int(self._ends[number]) + len(case.slice_indices)
        return case, position, self._near[number][position]

    @abstractmethod
    def _mask(self, labels: np.ndarray) -> np.ndarray:
        """Return labels (S, S) as a mask, bool."""


class LiverSlices(_Slices):
    """Slices with their liver mask (labels >= 1).

    An item is (image, mask): (channels, size, size) float32, in [0, 1] unless the spec normalizes,
    and (1, size, size) float32 {0, 1}.
    """

    def _mask(self, labels: np.ndarray) -> np.ndarray:
        return labels >= 1


class TumorSlices(_Slices):
    """Slices with their tumor mask (labels == 2), as `LiverSlices` otherwise."""

    def _mask(self, labels: np.ndarray) -> np.ndarray:
        return labels == 2
