"""The file border: NIfTI, DICOM and packed cases in, label volumes out.

Whatever axis order a file has, its volume inside is (Z, Y, X) on LPS+ axes; writing undoes the
same turn.
"""

import hashlib
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from ..machine import require, written_whole
from ..settings import hint
from .dicom import hash_of_files, is_dicom, read_dicom
from .dicom_masks import read_masks
from .dicom_seg import is_seg, read_dicom_seg, read_seg_geometry, write_dicom_seg
from .geometry import PLAUSIBLE_SPACING_MM, Geometry, matched_to, plain_geometry, same_grid
from .nifti import (
    NiftiSource,
    are_labels,
    meaning_of,
    open_nifti,
    read_hu,
    read_labels,
    read_stored,
    to_hu,
)
from .packed import SUFFIX, LazyVolume, PackedVolume, write_packed

PROBABILITY = b"probability: stored / 255"  # in the header


@dataclass(frozen=True)
class Volume:
    """A CT volume.

    Attributes:
        hu: (Z, Y, X) int16, Hounsfield units, C-contiguous.
        spacing_mm: (dz, dy, dx).
        path: the file, or the folder of DICOM, that it came from; None for an array.
        geometry: enough to write labels in the file's own grid; `geometry.spacing_trusted` says
            whether figures in mm mean anything.
        remarks: what is odd about it, a sentence each, where it was checked.
    """

    hu: np.ndarray
    spacing_mm: tuple[float, float, float]
    path: Path | None
    geometry: Geometry
    remarks: tuple[str, ...] = ()


def read_volume(
    path: str | os.PathLike, orientation: str | None = None, *, series: str | None = None
) -> Volume:
    """Read a CT volume from .nii, .nii.gz, a packed case or DICOM.

    Args:
        path: the file, or a folder or zip of DICOM; its content decides what it is, not its name. A
            DICOM file stands for its series.
        orientation: axis codes that override a wrong header, for example "LAS"; see
            `Case.orientation`.
        series: number or UID of a DICOM series; None takes the axial CT with the most slices.

    Raises:
        FileNotFoundError: no such file.
        ImportError: DICOM, and its packages are missing.
        ValueError: no readable volume, or an orientation for a packed case, which is the right way
            round; the message names the file and the fault.
    """
    path = Path(path)
    _require_dicom(path, series)
    if path.suffix == SUFFIX:
        if orientation:
            raise ValueError(f"{path} was put right when it was prepared; give no orientation")
        packed = PackedVolume(path)
        return Volume(packed.read(), packed.spacing_mm, path, packed.geometry)
    if is_dicom(path):
        hu, geometry = read_dicom(path, series, orientation)
        return Volume(hu, geometry.spacing_mm, path, geometry)
    with open_nifti(path) as source:
        geometry = source.geometry.with_orientation(orientation) if orientation else source.geometry
        return Volume(read_hu(source, geometry), geometry.spacing_mm, path, geometry)


def _require_dicom(path: Path, series: str | None) -> None:
    if series and path.exists() and not is_dicom(path):
        raise ValueError(f"{path} is no DICOM and has no series: leave {hint('series')} out")


def read_segmentation(
    path: str | os.PathLike, like: Volume | None = None, *, remarks: list[str] | None = None
) -> np.ndarray:
    """Read labels 0 background, 1 liver, 2 tumor; a dataset.json may give them other numbers.

    Args:
        path: .nii, .nii.gz, a packed `-labels.b2nd`, DICOM SEG, or a folder of masks (see
            `read_masks`).
        like: the CT it belongs to. If both headers describe one grid, the labels are turned by
            their own header; if the headers disagree, voxel by voxel as the CT.
        remarks: gets a sentence about what was mended in the labels.

    Returns:
        (Z, Y, X) uint8, the shape of `like.hu`.

    Raises:
        ValueError: other labels than 0, 1, 2 or than dataset.json names; or a shape that does not
            fit `like`.
    """
    path = Path(path)
    if like is not None:
        require(like, "geometry", "like", "the CT: read_volume(path)")
    if path.suffix == SUFFIX:
        labels = PackedVolume(path).read()
        if like is not None and labels.shape != like.geometry.shape:
            raise ValueError(f"{path} has shape {labels.shape}, its CT {like.geometry.shape}")
        return labels
    if path.is_dir():
        return read_masks(path, like)
    if is_dicom(path):
        return read_dicom_seg(path, like and like.geometry)
    meaning = meaning_of(path)
    if meaning and meaning.differs and remarks is not None:
        remarks.append(meaning.text)
    numbers = meaning.labels if meaning and meaning.differs else None
    with open_nifti(path) as source:
        geometry = source.geometry if like is None else _paired(source, like.geometry)
        return read_labels(source, geometry, remarks, numbers)


def read_geometry(path: str | os.PathLike) -> Geometry:
    """Read only the header of a NIfTI file or a DICOM SEG: where its voxels lie."""
    if is_seg(path):
        return read_seg_geometry(Path(path))
    with open_nifti(path) as source:
        return source.geometry


def common_geometry(path: str | os.PathLike, other: str | os.PathLike) -> Geometry:
    """Return the grid on which two files of labels can be compared.

    That of the first; of the other where the first is a DICOM SEG, which may be cropped; and of two
    DICOM SEG one that holds both.

    Raises:
        ValueError: two DICOM SEG with voxels at different places.
    """
    if not is_seg(path):
        return read_geometry(path)
    return read_seg_geometry(Path(path), Path(other)) if is_seg(other) else read_geometry(other)


def lies_on(path: str | os.PathLike, like: Geometry) -> bool:
    """Tell whether a segmentation's own header puts it onto the CT's voxels.

    DICOM and folders of masks are paired by position when they are read, or refused.
    """
    return is_dicom(path) or same_grid(read_geometry(path), like)


def write_segmentation(labels: np.ndarray, like: Volume, path: str | os.PathLike) -> Path:
    """Write labels as NIfTI in the grid of the CT's file, or as DICOM SEG.

    Shape, affine, header codes and voxel order equal the file's that `like` was read from. A DICOM
    SEG refers to the slices that `like` was read from, which must still be there.

    Args:
        labels: (Z, Y, X), values 0, 1, 2.
        like: the volume they belong to.
        path: .nii or .nii.gz; .dcm where the CT came from DICOM.

    Raises:
        ValueError: another shape than `like.hu`, other labels, or another suffix; .dcm for a CT
            that came from no DICOM.
    """
    require(like, "geometry", "like", "the CT: read_volume(path)")
    path = segmentation_path(path, like.path)
    if labels.shape != like.geometry.shape:
        raise ValueError(
            f"labels must be {like.geometry.shape} like the volume, got {labels.shape}"
        )
    if labels.size and not are_labels(labels):
        raise ValueError(f"labels must be 0, 1 or 2, got {np.unique(labels)[:6].tolist()}")
    if path.suffix == ".dcm":
        return write_dicom_seg(labels, like.geometry, like.path, path)
    return _write_like(labels.astype(np.uint8, copy=False), like.geometry, path)


def write_volume(volume: Volume, path: str | os.PathLike) -> Path:
    """Write a CT's HU as int16 NIfTI, .nii or .nii.gz, in the grid of the file it came from."""
    return _write_like(volume.hu, volume.geometry, Path(path))


def write_probability(values: np.ndarray, like: Volume, path: str | os.PathLike) -> Path:
    """Write a probability as 8-bit NIfTI in the grid of the CT's file.

    Its header's slope is 1/255, so that other programs show [0, 1]; `description` says so.

    Args:
        values: (Z, Y, X) uint8, probability times 255, as of `segment_volume`.
        like: the CT.
        path: .nii or .nii.gz.

    Raises:
        ValueError: another type or shape.
    """
    require(like, "geometry", "like", "the CT: read_volume(path)")
    if values.shape != like.geometry.shape or values.dtype != np.uint8:
        raise ValueError(
            f"a probability must be {like.geometry.shape} uint8 like the volume, got "
            f"{values.shape} {values.dtype}"
        )
    return _write_like(values, like.geometry, Path(path), 1 / 255, PROBABILITY)


def read_probability(path: str | os.PathLike, like: Volume) -> np.ndarray:
    """Return what `write_probability` wrote: (Z, Y, X) uint8, probability times 255.

    Raises:
        ValueError: no such file, or another grid than the CT's.
    """
    with open_nifti(path) as source:
        if source.dtype != np.uint8 or not same_grid(source.geometry, like.geometry):
            raise ValueError(f"{path} is no probability on the grid of {like.path or 'the CT'}")
        return read_stored(source, matched_to(source.geometry, like.geometry))


def remove_probability(labels: str | os.PathLike, system: str) -> None:
    """Remove what `write_probability` wrote beside labels; a file of another program stays."""
    path = probability_path(labels, system)
    with suppress(OSError, EOFError, nib.filebasedimages.ImageFileError):  # none, or no NIfTI
        if nib.load(path).header["descrip"].item() == PROBABILITY:
            path.unlink()


def probability_path(labels: str | os.PathLike, system: str) -> Path:
    """Return the place of a probability beside its labels: ``NAME_liver_probability.nii.gz``."""
    path = Path(labels)
    name = path.name.removesuffix(".gz").removesuffix(".nii").removesuffix(".dcm")
    return path.with_name(f"{name}_{system}_probability.nii.gz")


def segmentation_path(path: str | os.PathLike, ct: str | os.PathLike | None = None) -> Path:
    """Return where the segmentation of a CT is to be written.

    Raises:
        ValueError: another suffix than .nii, .nii.gz or .dcm; .dcm for a CT that is no DICOM; the
            file of the CT itself; or a folder whose dataset.json gives labels other numbers.
    """
    if ct is not None and os.path.exists(path) and os.path.samefile(path, ct):
        raise ValueError(f"{path} is the CT itself, which its labels would replace: name another")
    if not str(path).endswith((".nii", ".nii.gz", ".dcm")):
        raise ValueError(
            "a segmentation is written as .nii, .nii.gz or (for a CT from DICOM) .dcm, got "
            f"{Path(path).name}"
        )
    numbered = not str(path).endswith(".dcm") and meaning_of(Path(path))
    if numbered and numbered.differs:
        raise ValueError(
            f"{numbered.source} gives labels in that place other numbers than 0, 1 and 2, and "
            "these would be misread: choose another folder"
        )
    if str(path).endswith(".dcm") and ct is not None and os.path.exists(ct) and not is_dicom(ct):
        raise ValueError(f"{ct} came from no DICOM: write .nii.gz ({hint('format')})")
    return Path(path)


class MappedVolume(LazyVolume):
    """Lazy reader of an uncompressed .nii."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        with open_nifti(self.path) as source:
            self._source = source
        self.geometry = source.geometry
        self.shape = self.geometry.shape
        stored = np.memmap(
            self.path, source.dtype, "r", offset=source.offset, shape=source.shape, order="F"
        )
        self._volume = self.geometry.as_internal(stored)

    def __reduce__(self):
        return MappedVolume, (self.path,)

    def _slice(self, k: int) -> np.ndarray:
        return np.ascontiguousarray(to_hu(self._volume[k], self._source), dtype=np.int16)


def open_volume(
    path: str | os.PathLike, cache: str | os.PathLike | None = None, *, series: str | None = None
) -> LazyVolume:
    """Open a volume to read single slices in any order.

    Args:
        path: a packed case (volume or labels), .nii, .nii.gz or DICOM; what is compressed or DICOM
            is packed first, once.
        cache: folder for these packed copies, which take about half of the voxels' memory and are
            never deleted; None takes a folder of this user among the system's temporary files.
        series: of DICOM, as for `read_volume`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read; the message names it and the fault.
    """
    path = Path(path)
    _require_dicom(path, series)
    if path.suffix == SUFFIX:
        return PackedVolume(path)
    if is_dicom(path):
        hu, geometry = read_dicom(path, series)
        packed = packed_copy(path, cache, series)
        if not packed.is_file():
            write_packed(hu, packed)
        return PackedVolume(packed, geometry)
    with open_nifti(path) as source:
        if not source.compressed:
            return MappedVolume(path)
        packed = packed_copy(path, cache)
        if not packed.is_file():
            write_packed(read_hu(source, source.geometry), packed)
    return PackedVolume(packed, source.geometry)


def volume_from_array(
    hu: np.ndarray, spacing_mm: tuple[float, float, float] | None = None
) -> Volume:
    """Wrap a (Z, Y, X) array of HU as a `Volume` that could be written as an LPS file.

    Args:
        hu: any number type; fractions are rounded half up.
        spacing_mm: (dz, dy, dx); None if unknown: then 1 mm, not trusted.

    Raises:
        ValueError: not three axes, an impossible spacing, or values that int16 does not hold.
    """
    if hu.ndim != 3:
        raise ValueError(f"volume must be (Z, Y, X), got shape {hu.shape}")
    known = spacing_mm is not None
    spacing_mm = tuple(spacing_mm) if known else (1.0, 1.0, 1.0)
    if len(spacing_mm) != 3 or not all(0 < length < np.inf for length in spacing_mm):
        raise ValueError(f"spacing_mm must be (dz, dy, dx) above 0, got {tuple(spacing_mm)}")
    limits = np.iinfo(np.int16)
    if hu.size and not (limits.min <= hu.min() and hu.max() <= limits.max):  # NaN neither
        raise ValueError(
            f"HU must fit into int16, got {hu.min()} to {hu.max()}: set NaN to -1024, the HU of "
            "air, and clip the rest"
        )
    hu = np.floor(hu + 0.5) if hu.dtype.kind == "f" else hu
    hu = np.ascontiguousarray(hu, dtype=np.int16)
    low, high = PLAUSIBLE_SPACING_MM
    trusted = known and all(low <= length <= high for length in spacing_mm)
    geometry = replace(plain_geometry(hu.shape, spacing_mm), spacing_trusted=trusted, remark="")
    return Volume(hu, spacing_mm, None, geometry)


def packed_copy(
    path: Path, cache: str | os.PathLike | None = None, choice: str | None = None
) -> Path:
    """Return the place of a packed copy of a file's present content; never beside the file.

    Args:
        path, cache: as for `open_volume`.
        choice: what else decides on the content: a series, or what numbers mean.
    """
    user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
    folder = Path(cache) if cache else Path(tempfile.gettempdir()) / f"lits-packed{user}"
    if not cache:  # others use the same temporary folder
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    state = path.stat()
    many = is_dicom(path)  # a file then stands for its series
    changed = hash_of_files(path) if many else f"{state.st_size}:{state.st_mtime_ns}"
    identity = f"{path.resolve()}:{changed}{choice or ''}".encode()
    return folder / f"{hashlib.blake2b(identity, digest_size=12).hexdigest()}{SUFFIX}"


def _paired(source: NiftiSource, like: Geometry) -> Geometry:
    """Return the geometry that puts a mask's voxels onto the CT's."""
    if same_grid(source.geometry, like):
        return matched_to(source.geometry, like)
    if source.shape != like.stored_shape[:3]:
        raise ValueError(
            f"the segmentation's shape {source.shape} differs from its CT's {like.stored_shape[:3]}"
        )
    return replace(source.geometry, axes=like.axes, flips=like.flips)


def _write_like(
    values: np.ndarray, geometry: Geometry, path: Path, slope: float = 1.0, description: bytes = b""
) -> Path:
    """Write (Z, Y, X) values as NIfTI under the CT's header, in its voxel order."""
    stored = geometry.as_stored(values).reshape(geometry.stored_shape, order="F")
    header = geometry.nifti_header()
    header.set_data_dtype(values.dtype)
    header["cal_min"] = 0  # the CT's display range would hide labels
    header["cal_max"] = 0
    if description:
        header["descrip"] = description
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = kind(stored, None, header)  # no affine: the header's own codes stay
    image.header.set_slope_inter(slope, 0.0)  # the numbers are stored as they are
    with written_whole(path) as temporary:
        nib.save(image, temporary)
    return path
