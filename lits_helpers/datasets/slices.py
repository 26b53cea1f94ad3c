"""Slices of packed cases, PNG folders and NIfTI pairs, and lazy torch data sets of them."""

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from nibabel.filebasedimages import ImageFileError
from torch import Tensor
from torch.utils.data import Dataset

from ..cases import Case, find_cases
from ..machine import few
from ..metrics import label_mask
from ..preprocess import CaseFiles, PreparedCase, prepared_cases
from ..recipes import InputSpec
from ..settings import hint
from ..volumes import (
    LABELS_SUFFIX,
    Frame,
    PackedVolume,
    liver_frame,
    meaning_of,
    numbered_pngs,
    open_volume,
    packed_copy,
    png_pixel_aspect,
    png_size,
    read_png,
    read_segmentation,
    resize_image,
    resize_mask,
    slice_levels,
    to_levels,
    write_packed,
)
from .inputs import model_input

logger = logging.getLogger(__name__)

UNREADABLE = (OSError, EOFError, ValueError, MemoryError, RuntimeError, ImageFileError)


class CaseSlices(ABC):
    """The slices of one case, read one at a time. Made by `find_slices`.

    Attributes:
        case_id, patient: names.
        slice_indices: (n,) int64, ascending; a PNG folder may leave gaps.
        files: the files that are read, for messages and for telling whether they changed.
        pixel_aspect: height of a pixel by its width; 1 where that is not known.
        liver_only: whether the labels show no tumors, although there may be some.
    """

    liver_only = False

    def __init__(self, case_id: str, patient: str, files: Sequence[Path], pixel_aspect: float):
        self.case_id = case_id
        self.patient = patient
        self.files = tuple(files)
        self.pixel_aspect = pixel_aspect
        self._frame: tuple[InputSpec, Frame] | None = None

    @abstractmethod
    def levels(self, slice_index: int, spec: InputSpec) -> np.ndarray:
        """Return one slice as (size, size) uint8 or uint16, see `InputSpec`."""

    @abstractmethod
    def labels(self, slice_index: int) -> np.ndarray:
        """Return one slice's labels as (H, W) uint8 at native size."""

    def working_labels(self, slice_index: int, spec: InputSpec) -> np.ndarray:
        """Return one slice's labels as (size, size) uint8, cut and resized as its levels are."""
        frame = self.frame(spec)
        return resize_mask(frame.shown(self.labels(slice_index)), spec.size, frame.pixel_aspect)

    def frame(self, spec: InputSpec) -> Frame:
        """Return how `spec` looks at this case; the liver is the reference's."""
        if self._frame is None or self._frame[0] != spec:
            slices = self.hu, self.labels, self.slice_indices.tolist()
            self._frame = spec, liver_frame(*slices, spec, self.pixel_aspect)
        return self._frame[1]

    def hu(self, slice_index: int) -> np.ndarray:
        """Return one slice in HU as (H, W) int16.

        Raises:
            ValueError: the source holds grey levels only.
        """
        raise ValueError(
            f"case {self.case_id} holds 8-bit slices, not HU; this recipe needs prepared cases"
        )


class _VolumeSlices(CaseSlices):
    """Slices of a packed volume and its packed segmentation, in the same grid."""

    def __init__(self, case: Case | PreparedCase, volume: PackedVolume, segmentation: PackedVolume):
        files = volume.path, segmentation.path
        super().__init__(case.id, case.patient, files, volume.geometry.pixel_aspect)
        self.liver_only = case.liver_only
        if volume.shape != segmentation.shape:
            raise ValueError(
                f"{volume.path} has shape {volume.shape}, its segmentation {segmentation.shape}"
            )
        self._volume = volume
        self._segmentation = segmentation
        self.slice_indices = np.arange(len(volume))

    def levels(self, slice_index: int, spec: InputSpec) -> np.ndarray:
        return slice_levels(self.hu(slice_index), spec, self.frame(spec))

    def hu(self, slice_index: int) -> np.ndarray:
        return self._volume.slice(slice_index)

    def labels(self, slice_index: int) -> np.ndarray:
        return self._segmentation.slice(slice_index).astype(np.uint8, copy=False)


class _PngSlices(CaseSlices):
    """`images/<case>/<k>.png`, windowed already, with the liver in `masks/<case>/<k>.png`."""

    liver_only = True

    def __init__(self, root: Path, case_id: str):
        self._images = numbered_pngs(root / "images" / case_id)
        self._masks = numbered_pngs(root / "masks" / case_id)
        kept = [k for k in self._images if k in self._masks]
        if len(kept) < len(self._images):
            lacking = len(self._images) - len(kept)
            logger.warning("case %s: %d slices without a mask left out", case_id, lacking)
        if not kept:
            raise ValueError(f"no <k>.png with a mask in {root / 'masks' / case_id}")
        files = [folder[k] for k in kept for folder in (self._images, self._masks)]
        super().__init__(case_id, case_id, files, png_pixel_aspect(files[0]))
        self.slice_indices = np.array(kept)

    def levels(self, slice_index: int, spec: InputSpec) -> np.ndarray:
        image = read_png(self._images[slice_index])
        frame = self.frame(spec)
        levels = to_levels(image, spec) if spec.window is None else image
        return resize_image(frame.shown(levels), spec.size, frame.pixel_aspect)

    def labels(self, slice_index: int) -> np.ndarray:
        mask = read_png(self._masks[slice_index])
        size = png_size(self._images[slice_index])
        if mask.shape != size:
            raise OSError(f"{self._masks[slice_index]} is {mask.shape}, its image {size}")
        return (mask > 0).astype(np.uint8)


def find_slices(
    root: Path | str, case_ids: Iterable[str], spec: InputSpec
) -> tuple[CaseSlices, ...]:
    """Find the labelled slices of the named cases, in the order of `case_ids`.

    Args:
        root: a prepared/ folder, a bare PNG folder (`images/`, `masks/`), or a folder with NIfTI
            pairs. A PNG folder holds liver masks only and keeps the window of its export.
        case_ids: which cases.
        spec: how slices become input. A case whose last slice cannot be read, or that has no
            segmentation, is left out with a warning.

    Raises:
        ValueError: a case id does not exist, or no case is left.
    """
    root = Path(root)
    case_ids = list(case_ids)
    openers = _openers(root)
    missing = [case_id for case_id in case_ids if case_id not in openers]
    if missing:
        raise ValueError(
            f"no case {', '.join(missing[:5])} in {root}, which holds {len(openers)} cases; "
            f"prepare it first ({hint('prepare')}) or take it out of the split"
        )
    opened = [_opened(case_id, openers[case_id], spec) for case_id in case_ids]
    kept = tuple(case for case in opened if case is not None)
    if not kept:
        raise ValueError(f"no readable case with a segmentation among {len(case_ids)} in {root}")
    return kept


def _opened(case_id: str, opener: Callable, spec: InputSpec) -> CaseSlices | None:
    try:
        case = opener()
        if case is None:
            logger.warning("case %s has no segmentation and is left out", case_id)
        else:
            last = int(case.slice_indices[-1])  # a truncated file lacks it
            case.levels(last, spec)
            case.labels(last)
        return case
    except UNREADABLE as error:
        logger.warning("case %s cannot be read and is left out: %s", case_id, error)
        return None


def _openers(root: Path) -> dict[str, Callable[[], CaseSlices | None]]:
    """Return {case id: what opens that case}; opened without a segmentation it is None."""
    if (root / "cases").is_dir():
        return {case.id: partial(_open_packed, root, case) for case in prepared_cases(root)}
    if (root / "images").is_dir():
        folders = [path.name for path in (root / "images").iterdir() if path.is_dir()]
        return {name: partial(_PngSlices, root, name) for name in folders}
    return {case.id: partial(_open_nifti, case) for case in find_cases(root)}


def _open_packed(root: Path, case: PreparedCase) -> CaseSlices | None:
    if not case.has_segmentation:
        return None
    files = CaseFiles(root, case.id)
    volume = open_volume(files.volume)
    return _VolumeSlices(case, volume, open_volume(files.labels))


def _open_nifti(case: Case) -> CaseSlices | None:
    """Open a CT and its labels through packed copies, keyed by all that each is made of."""
    if case.segmentation is None:
        return None
    volume = open_volume(case.volume, series=case.series)
    if not volume.geometry.orientation_trusted:
        raise ValueError(
            f"{case.volume} does not say which way its slices lie; prepare the cases first "
            f"({hint('prepare')}), which looks at the anatomy"
        )
    meaning = meaning_of(case.segmentation)
    numbers = repr(meaning.labels) if meaning and meaning.differs else None
    copy = packed_copy(case.volume, choice=case.series)
    labels = packed_copy(case.segmentation, choice=numbers)
    path = copy.with_name(f"{copy.stem}-{labels.stem}{LABELS_SUFFIX}")
    if not path.is_file():
        write_packed(read_segmentation(case.segmentation, like=volume), path)
    return _VolumeSlices(case, volume, PackedVolume(path, volume.geometry))


def require_tumors(case_ids: Iterable[str]) -> None:
    """Refuse cases whose labels show no tumors: a model would learn that there are none.

    Args:
        case_ids: those whose slices are `liver_only`.

    Raises:
        ValueError: there is one.
    """
    if names := list(case_ids):
        raise ValueError(
            f"the labels of {few(names)} show the liver alone, whose tumors would count as none: "
            "take these cases out, or prepare them with labels 2 for tumors"
        )


def fingerprint(cases: Sequence[CaseSlices], spec: InputSpec) -> str:
    """Return a hash (32 hex digits) of the slices' names, sizes and times, pixels and spec."""
    digest = hashlib.blake2b(repr(spec).encode(), digest_size=16)
    for case in cases:
        digest.update(f"{case.pixel_aspect}\n".encode())
        for path in case.files:
            stat = path.stat()
            digest.update(
                f"{case.case_id} {path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode()
            )
    return digest.hexdigest()


def nearest_neighbors(slice_indices: np.ndarray, context: int) -> np.ndarray:
    """Return the positions of each slice's neighbours, from `context` below to `context` above.

    Args:
        slice_indices: (n,) ascending; gaps are allowed.
        context: neighbours on each side.

    Returns:
        (n, 2 * context + 1) positions in `slice_indices`. A neighbour beyond the end, or in a gap,
        is the nearest slice there is (of two equally near, the one nearer to the slice itself).
    """
    wanted = slice_indices[:, None] + np.arange(-context, context + 1)  # (n, 2c + 1)
    distance = np.abs(slice_indices - wanted[..., None])  # (n, 2c + 1, n)
    inward = np.abs(slice_indices - slice_indices[:, None])[:, None]  # (n, 1, n)
    return (distance * (len(slice_indices) + inward.max() + 1) + inward).argmin(-1)


class _Slices(Dataset):
    """Every slice of the named cases with the mask of a structure."""

    structure: str

    def __init__(self, root: Path | str, case_ids: Iterable[str], spec: InputSpec):
        self.spec = spec
        self.cases = find_slices(root, case_ids, spec)
        if self.structure == "tumor":
            require_tumors(case.case_id for case in self.cases if case.liver_only)
        self._items = []  # (case, slice index, those of the slice and its neighbours)
        for case in self.cases:
            around = case.slice_indices[nearest_neighbors(case.slice_indices, spec.context)]
            pairs = zip(case.slice_indices.tolist(), around.tolist(), strict=True)
            self._items += [(case, *pair) for pair in pairs]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"slice {index} of a data set of {len(self)} slices")
        case, slice_index, neighbors = self._items[index]
        try:
            levels = np.stack([case.levels(k, self.spec) for k in neighbors])
            labels = case.working_labels(slice_index, self.spec)
        except UNREADABLE as error:
            raise OSError(
                f"slice {slice_index} of case {case.case_id} cannot be read ({error}); "
                "prepare the case again or leave it out"
            ) from error
        image = model_input(torch.from_numpy(levels)[None], self.spec)[0]
        mask = label_mask(labels, self.structure).astype(np.float32)
        return image, torch.from_numpy(mask)[None]


class LiverSlices(_Slices):
    """Every slice of the named cases with its liver mask (labels >= 1).

    An item is (image, mask): (channels, size, size) float32, in [0, 1] unless the spec normalizes,
    and (1, size, size) float32 {0, 1}.

    Args:
        root, case_ids, spec: as for `find_slices`.

    Raises:
        ValueError: a case id does not exist, or no case is left.
        OSError: (when indexed) a slice cannot be read; the message names it.
    """

    structure = "liver"


class TumorSlices(_Slices):
    """Every slice of the named cases with its tumor mask (labels == 2), else as `LiverSlices`.

    Raises:
        ValueError: also of a case whose labels show the liver alone, as those of PNG folders do.
    """

    structure = "tumor"
