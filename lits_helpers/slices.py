"""Find and read slices: packed cases, PNG folders, NIfTI; and how they become model input."""

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from nibabel.filebasedimages import ImageFileError
from torch import Tensor

from .cases import Case, find_cases
from .frames import LiverFrame, liver_frame
from .packed import LABELS_SUFFIX, PackedVolume
from .pngs import numbered_pngs, png_size, read_png
from .prepared import CaseFiles, PreparedCase, prepared_cases
from .recipes import InputSpec
from .volumes import (
    open_volume,
    packed_copy,
    read_segmentation,
    resize_image,
    resize_mask,
    slice_levels,
    to_levels,
    write_packed,
)

log = logging.getLogger(__name__)

UNREADABLE = (OSError, EOFError, ValueError, MemoryError, RuntimeError, ImageFileError)

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1], as torchvision's weights expect
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


def model_input(levels: Tensor, spec: InputSpec) -> Tensor:
    """Turn stored grey levels into what a model takes: the one place where this happens.

    Args:
        levels: (N, C, S, S) uint8 (windowed) or uint16 (min-max), C being 1 or `spec.channels`.
        spec: a single channel is repeated to fill `spec.channels`.

    Returns:
        (N, spec.channels, S, S) float32 on the levels' device; in [0, 1], or normalized as
        ImageNet.

    Raises:
        ValueError: levels of another rank or number of channels.
    """
    if levels.ndim != 4 or levels.shape[1] not in (1, spec.channels):
        raise ValueError(
            f"levels must be (N, 1 or {spec.channels}, S, S), got shape {tuple(levels.shape)}"
        )
    return normalized(levels.float().mul_(1 / spec.levels), spec)


def normalized(images: Tensor, spec: InputSpec) -> Tensor:
    """Repeat and normalize images (N, C, S, S) in [0, 1] as `model_input` does."""
    if images.shape[1] != spec.channels:
        images = images.expand(-1, spec.channels, -1, -1)
    if spec.normalization == "unit":
        return images.contiguous()
    offset, factor = _imagenet(images.device)
    return torch.addcmul(offset, images, factor)


@lru_cache(maxsize=4)  # made anew, they would make every batch wait for the GPU
def _imagenet(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return what ImageNet's normalization adds and multiplies by, (1, 3, 1, 1) each."""
    mean, deviation = (
        torch.tensor(values, device=device).view(1, 3, 1, 1)
        for values in (IMAGENET_MEAN, IMAGENET_DEVIATION)
    )
    return -mean / deviation, 1 / deviation


class CaseSlices(ABC):
    """The slices of one case, read one at a time. Made by `find_slices`.

    Attributes:
        case_id, patient: names.
        slice_indices: (n,) int64, ascending; a PNG folder may leave gaps.
        files: the files that are read, for messages and for telling whether they changed.
    """

    def __init__(self, case_id: str, patient: str, files: Sequence[Path]):
        self.case_id = case_id
        self.patient = patient
        self.files = tuple(files)
        self._frame: tuple[InputSpec, LiverFrame] | None = None

    @abstractmethod
    def levels(self, slice_index: int, spec: InputSpec) -> np.ndarray:
        """Return one slice as (size, size) uint8 or uint16, see `InputSpec`."""

    @abstractmethod
    def labels(self, slice_index: int) -> np.ndarray:
        """Return one slice's labels as (H, W) uint8 at native size."""

    def working_labels(self, slice_index: int, spec: InputSpec) -> np.ndarray:
        """Return one slice's labels as (size, size) uint8, cut and resized as its levels are."""
        labels, box = self.labels(slice_index), self.frame(spec).box
        return resize_mask(labels if box is None else labels[box.area], spec.size)

    def frame(self, spec: InputSpec) -> LiverFrame:
        """Return what of every slice `spec` asks for; the liver is the reference's."""
        if self._frame is None or self._frame[0] != spec:
            self._frame = spec, liver_frame(self.hu, self.labels, self.slice_indices.tolist(), spec)
        return self._frame[1]

    def hu(self, slice_index: int) -> np.ndarray:
        """Return one slice in HU as (H, W) int16.

        Raises:
            ValueError: the source holds grey levels only.
        """
        raise ValueError(
            f"case {self.case_id} holds 8-bit slices, not HU; this recipe needs prepared cases"
        )

    def check(self, spec: InputSpec) -> None:
        """Read the last slice, which is what a truncated file lacks; raise one of UNREADABLE."""
        last = int(self.slice_indices[-1])
        self.levels(last, spec)
        self.labels(last)


class _VolumeSlices(CaseSlices):
    """Slices of a packed volume and its packed segmentation, in the same grid."""

    def __init__(
        self, case_id: str, patient: str, volume: PackedVolume, segmentation: PackedVolume
    ):
        super().__init__(case_id, patient, (volume.path, segmentation.path))
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

    def __init__(self, root: Path, case_id: str):
        self._images = numbered_pngs(root / "images" / case_id)
        self._masks = numbered_pngs(root / "masks" / case_id)
        kept = [k for k in self._images if k in self._masks]
        if len(kept) < len(self._images):
            lacking = len(self._images) - len(kept)
            log.warning("case %s: %d slices without a mask left out", case_id, lacking)
        if not kept:
            raise ValueError(f"no <k>.png with a mask in {root / 'masks' / case_id}")
        files = [folder[k] for k in kept for folder in (self._images, self._masks)]
        super().__init__(case_id, case_id, files)
        self.slice_indices = np.array(kept)

    def levels(self, slice_index: int, spec: InputSpec) -> np.ndarray:
        image, box = read_png(self._images[slice_index]), self.frame(spec).box
        levels = to_levels(image, spec) if spec.window is None else image
        return resize_image(levels if box is None else levels[box.area], spec.size)

    def labels(self, slice_index: int) -> np.ndarray:
        mask, size = read_png(self._masks[slice_index]), png_size(self._images[slice_index])
        if mask.shape != size:
            raise OSError(f"{self._masks[slice_index]} is {mask.shape}, its image {size}")
        return (mask > 0).astype(np.uint8)


def find_slices(
    root: Path | str, case_ids: Iterable[str], spec: InputSpec
) -> tuple[CaseSlices, ...]:
    """Find the labelled slices of the named cases, in the order of `case_ids`.

    Args:
        root: a prepared/ folder, a bare PNG folder (`images/`, `masks/`), or a folder with NIfTI
            pairs. A PNG folder holds liver masks only, and its window is the one it was exported
            with.
        case_ids: which cases.
        spec: used to try each case's last slice; cases that cannot be read or have no segmentation
            are left out with a warning that names them.

    Raises:
        ValueError: a case id does not exist, or no case is left.
    """
    root, case_ids = Path(root), list(case_ids)
    openers = _openers(root)
    missing = [case_id for case_id in case_ids if case_id not in openers]
    if missing:
        raise ValueError(
            f"no case {', '.join(missing[:5])} in {root}, which holds {len(openers)} cases; "
            "prepare it first (notebook 01) or take it out of the split"
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
            log.warning("case %s has no segmentation and is left out", case_id)
        else:
            case.check(spec)
        return case
    except UNREADABLE as error:
        log.warning("case %s cannot be read and is left out: %s", case_id, error)
        return None


def _openers(root: Path) -> dict[str, Callable[[], CaseSlices | None]]:
    """Return for each case id a function that opens it (None where there is no segmentation)."""
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
    volume, labels = open_volume(files.volume), open_volume(files.labels)
    return _VolumeSlices(case.id, case.patient, volume, labels)


def _open_nifti(case: Case) -> CaseSlices | None:
    """Open a NIfTI pair through packed copies beside that of `open_volume`."""
    if case.segmentation is None:
        return None
    volume, copy = open_volume(case.volume), packed_copy(case.volume)
    if not volume.geometry.orientation_trusted:
        raise ValueError(
            f"{case.volume} does not say which way its slices lie; prepare the cases first "
            "(notebook 01), which looks at the anatomy"
        )
    path = copy.with_name(f"{copy.stem}-{packed_copy(case.segmentation).stem}{LABELS_SUFFIX}")
    if not path.is_file():
        write_packed(read_segmentation(case.segmentation, like=volume), path)
    return _VolumeSlices(case.id, case.patient, volume, PackedVolume(path, volume.geometry))


def fingerprint(cases: Sequence[CaseSlices], spec: InputSpec) -> str:
    """Return a hash (32 hex digits) of the slices' names, sizes and times and of the spec."""
    digest = hashlib.blake2b(repr(spec).encode(), digest_size=16)
    for case in cases:
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
