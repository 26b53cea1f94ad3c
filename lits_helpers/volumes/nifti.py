"""Read NIfTI files slab by slab, never twice in memory, and refuse broken ones.

The content decides what a file is, not its name: a gzip stream called .nii is read, a web page is
refused. A dataset.json of nnU-Net or MSD may give labels other numbers than LiTS: 0 background,
1 liver, 2 tumor.
"""

import gzip
import json
import math
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from ..machine import open_readable
from .geometry import Geometry, geometry_of_header, header_from_bytes

LITS_NAME = re.compile(r"(volume|segmentation)-(\d+)\.nii(\.gz)?")
LABEL_TOLERANCE = 0.001  # what scaled or resampled numbers are off
HEADER_BYTES = 540  # of NIfTI-2; NIfTI-1 has 348
GZIP_MAGIC = b"\x1f\x8b"
CONVERT = "convert it to .nii.gz, for example with SimpleITK or 3D Slicer"
FOREIGN = {  # how another format begins -> what it is and what to do
    GZIP_MAGIC: "packed with gzip twice: unpack it once (gunzip)",
    b"NRRD": f"NRRD: {CONVERT}",
    b"ObjectType": f"MetaImage (.mha, .mhd): {CONVERT}",
    b"\x89HDF\r\n": f"HDF5: {CONVERT}",
}
MAX_VOXELS = 2**30  # four times the longest LiTS case; a broken header claims more
MAX_DEFLATE_RATIO = 1040  # deflate cannot shrink more than about 1032 times
DATASET = "dataset.json"
REFERENCE_FOLDERS = {"labelsTr", "labelsTs"}  # the file that names their labels lies above them
WRITTEN_HERE = re.compile(r"(prediction|test-segmentation)-.*")  # labels as in LiTS, wherever put
WORD = r"(?:tumou?rs?|cancers?|lesions?|carcinomas?|metasta[a-z]*|hcc|neoplasms?|mass(?:es)?)"
TUMOR = re.compile(WORD, re.IGNORECASE)
PLAIN = re.compile(  # a tumor of no named organ
    rf"(?:(?:whole|all|primary|malignant|index)[ _-]*)?(?:{WORD}[ _-]*)+\d*", re.IGNORECASE
)
NEGATED = re.compile(
    rf"(?<![a-z])(?:non?|without|excluding)[ _-]*(?:(?:the|any)[ _-]*)?{WORD}", re.IGNORECASE
)
LIVER = re.compile(r"liver|hepat", re.IGNORECASE)
PART = re.compile(r"vessel|vein|arter|segment|duct", re.IGNORECASE)  # not the liver as a whole
IN_LITS = {0: 0, 1: 1, 2: 2}


def parse_name(name: str) -> tuple[str, int] | None:
    """Return ("volume" or "segmentation", number) of a file named as in LiTS, None for others.

    Args:
        name: without its folder.
    """
    match = LITS_NAME.fullmatch(name)
    return (match[1], int(match[2])) if match else None


class NiftiSource:
    """A NIfTI file, opened by `open_nifti` for one pass over its voxels.

    The attributes stay valid when the file is closed.

    Attributes:
        geometry: its `Geometry`, by the header.
        shape: the three axes as stored.
        dtype: type of the stored numbers.
        compressed: whether it is a gzip stream.
        offset: where the data begin, bytes.
        slope, intercept: scaling of the stored numbers; 1 and 0 where the file states none.
    """

    def __init__(self, stream: BinaryIO, file_bytes: int, compressed: bool):
        self._stream = stream
        self.compressed = compressed
        block = stream.read(HEADER_BYTES)
        header = _single_file_header(block)
        self.shape = _three_axes(header)
        self.dtype = _real_dtype(header)
        self.slope, self.intercept = _scaling(header)
        self.geometry = geometry_of_header(header)
        raw = header_from_bytes(block, mended=False)  # nibabel mends a size of 0 to 1 mm
        if raw["sform_code"] <= 0 and not raw["pixdim"][1:4].all():
            remark = "a side of its voxels is 0"
            self.geometry = replace(self.geometry, spacing_trusted=False, remark=remark)
        self.offset = _offset(header)
        needed = self.offset + int(np.prod(self.shape)) * self.dtype.itemsize
        most = file_bytes * MAX_DEFLATE_RATIO if compressed else file_bytes
        if needed > most:
            raise ValueError(
                f"it is truncated: its header claims {needed} bytes, there are at most {most}"
            )

    @property
    def scaled(self) -> bool:
        """Whether stored numbers differ from values."""
        return (self.slope, self.intercept) != (1.0, 0.0)

    def slabs(self, target: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the stored numbers, one (shape[0], shape[1]) array for each index of the last axis.

        Where `target` has the type and order of the file, each array is its part of `target`, read
        into place; elsewhere it is one array, filled anew each time. Reads to the end of the file,
        which verifies a gzip checksum.

        Args:
            target: array of `shape` that the numbers are meant for.

        Raises:
            ValueError: the data end early or are damaged.
        """
        in_place = target.flags.f_contiguous and target.dtype == self.dtype
        slab = np.empty(self.shape[:2], self.dtype, order="F")
        count = slab.nbytes
        self._stream.seek(self.offset)
        for k in range(self.shape[2]):
            slab = target[..., k] if in_place else slab
            if _read_into(self._stream, memoryview(slab.T.reshape(-1).view(np.uint8))) < count:
                raise ValueError(f"it is truncated: the data end in slab {k} of {self.shape[2]}")
            yield slab
        # reading to the end verifies the checksum of gzip
        if len(self._stream.read(max(count, 1 << 16))) >= count:
            raise ValueError(f"its header claims the shape {self.shape}, but more data follow")


@contextmanager
def open_nifti(path: str | os.PathLike) -> Iterator[NiftiSource]:
    """Open a .nii or .nii.gz file for one pass; faults are raised with its path.

    Raises:
        OSError: the file is absent, locked or no regular file.
        ValueError: the file is not a readable NIfTI volume; the message says why.
    """
    path = Path(path)
    with open_readable(path) as raw:
        compressed = raw.read(2) == GZIP_MAGIC
        file_bytes = raw.seek(0, os.SEEK_END)
        raw.seek(0)
        stream = gzip.GzipFile(fileobj=raw) if compressed else raw
        try:
            yield NiftiSource(stream, file_bytes, compressed)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(
                f"cannot read {path}: the gzip stream is damaged or cut ({error}); get it again"
            ) from error
        except MemoryError as error:
            raise ValueError(f"cannot read {path}: it does not fit into memory") from error
        except ValueError as error:
            raise ValueError(f"cannot read {path}: {error}") from error


def read_hu(source: NiftiSource, geometry: Geometry) -> np.ndarray:
    """Return the values as (Z, Y, X) int16 HU, see `to_hu`.

    Raises:
        ValueError: a value is not finite.
    """
    volume = np.empty(geometry.shape, dtype=np.int16)
    stored = geometry.as_stored(volume)
    for k, slab in enumerate(source.slabs(stored)):
        _put(to_hu(slab, source), stored[..., k])
    return volume


def read_stored(source: NiftiSource, geometry: Geometry) -> np.ndarray:
    """Return the numbers as they are stored, (Z, Y, X), whatever the header's slope."""
    values = np.empty(geometry.shape, source.dtype)
    stored = geometry.as_stored(values)
    for k, slab in enumerate(source.slabs(stored)):
        _put(slab, stored[..., k])
    return values


def read_labels(
    source: NiftiSource,
    geometry: Geometry,
    remarks: list[str] | None = None,
    meaning: Mapping[int, int] | None = None,
) -> np.ndarray:
    """Return labels as (Z, Y, X) uint8; values within `LABEL_TOLERANCE` of a label count as it.

    Args:
        source: the open file.
        geometry: how its voxels are turned.
        remarks: gets a sentence if values had to be rounded.
        meaning: number in the file -> label; None if they are the same.

    Raises:
        ValueError: a value is no label; the message lists those found.
    """
    known = np.array(sorted(meaning or (0, 1, 2)))
    table = np.array([meaning[number] for number in known], np.uint8) if meaning else None
    labels = np.empty(geometry.shape, dtype=np.uint8)
    stored = geometry.as_stored(labels)
    rounded = None
    for k, slab in enumerate(source.slabs(stored)):
        values = slab * source.slope + source.intercept if source.scaled else slab
        if table is not None or not are_labels(values):
            near = np.rint(values)
            if not np.isin(near, known).all() or np.abs(values - near).max() > LABEL_TOLERANCE:
                raise ValueError(f"labels must be {_named(meaning)}, found {_odd(values, known)}")
            if rounded is None and (near != values).any():
                rounded = float(values[values != near][0])
            values = near if table is None else table[np.searchsorted(known, near)]
        _put(values, stored[..., k])
    if rounded is not None and remarks is not None:
        remarks.append(f"label values such as {rounded:.10g} were rounded to 0, 1 or 2")
    return labels


def _named(meaning: Mapping[int, int] | None) -> str:
    if meaning is None:
        return "0 (background), 1 (liver) or 2 (tumor)"
    return f"one of {', '.join(map(str, sorted(meaning)))}, as dataset.json says"


def _odd(values: np.ndarray, known: np.ndarray) -> str:
    odd = np.setdiff1d(values, known)[:5].tolist()
    return ", ".join(f"{value:.9g}" for value in odd)  # 1.00000012 is not 1


def _put(values: np.ndarray, place: np.ndarray) -> None:
    if not np.may_share_memory(values, place):  # otherwise they are there already
        place[:] = values


def are_labels(values: np.ndarray) -> bool:
    """Tell whether all values are 0, 1 or 2."""
    if values.dtype.kind in "biu":  # two passes in place of five
        return bool(values.min() >= 0 and values.max() <= 2)
    return bool(((values == 0) | (values == 1) | (values == 2)).all())


def to_hu(stored: np.ndarray, source: NiftiSource) -> np.ndarray:
    """Return stored numbers as HU, scaled, rounded half up and limited to what int16 holds.

    Raises:
        ValueError: a value is not finite.
    """
    if source.dtype == np.int16 and not source.scaled:
        return stored
    values = stored
    if source.scaled or source.dtype.kind == "f":
        values = stored.astype(np.float64) * source.slope + source.intercept
        if not np.isfinite(values).all():
            raise ValueError(
                "it holds values that are not finite (NaN or infinity); set them to -1024, the HU "
                "of air, and save it again"
            )
        values = np.floor(values + 0.5)
    return np.clip(values, -32768, 32767)


def claimed_bytes(block: bytes) -> int:
    """Return how many bytes an uncompressed NIfTI file has at least, by its header.

    Args:
        block: the first `HEADER_BYTES` of the file, or all of a shorter one.

    Raises:
        ValueError: the block is no header of a single file, or makes no sense.
    """
    header = _single_file_header(block, mended=False)
    shape = header.get_data_shape()
    bits = int(header["bitpix"])
    if not 1 <= header["dim"][0] <= 7 or min(shape) < 1 or bits < 1:
        raise ValueError(f"its NIfTI header makes no sense (shape {shape}, {bits} bits)")
    return _offset(header) + math.prod(shape) * bits // 8


def _single_file_header(block: bytes, *, mended: bool = True) -> nib.Nifti1Header:
    if not block:
        raise ValueError("it is empty")
    for magic, what in FOREIGN.items():
        if block.startswith(magic):
            raise ValueError(f"it is no NIfTI file but {what}")
    if len(block) < 348:
        raise ValueError(
            f"it is truncated: {len(block)} bytes are less than a NIfTI header (or it is no NIfTI)"
        )
    header = header_from_bytes(block, mended=mended)
    if not header["magic"].tobytes().startswith((b"n+1", b"n+2")):
        raise ValueError("it is not a single NIfTI file (magic is not n+1)")
    return header


def _three_axes(header: nib.Nifti1Header) -> tuple[int, int, int]:
    shape = tuple(int(length) for length in header.get_data_shape())
    if len(shape) < 3 or any(length != 1 for length in shape[3:]):
        raise ValueError(f"a volume must have three axes, got shape {shape}")
    if min(shape) < 1 or int(np.prod(shape, dtype=object)) > MAX_VOXELS:
        raise ValueError(f"its header claims the impossible shape {shape}")
    return shape[:3]


def _real_dtype(header: nib.Nifti1Header) -> np.dtype:
    try:
        dtype = header.get_data_dtype()
    except HeaderDataError as error:
        raise ValueError(f"unknown data type: {error}") from error
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise ValueError(f"a volume must hold plain numbers, got {dtype}")
    return dtype


def _scaling(header: nib.Nifti1Header) -> tuple[float, float]:
    if np.isinf(header["scl_slope"]):  # NaN is what writers put for none
        raise ValueError("the header's slope is infinite")
    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError as error:
        raise ValueError(f"slope and intercept are broken: {error}") from error
    return (1.0, 0.0) if slope is None else (float(slope), float(intercept or 0.0))


def _offset(header: nib.Nifti1Header) -> int:
    offset = float(header["vox_offset"])
    if not 348 <= offset < 2**40:
        raise ValueError(f"its data offset {offset} is impossible")
    return int(offset)


def _read_into(stream: BinaryIO, memory: memoryview) -> int:
    """Fill `memory` as far as the stream goes; return the bytes read."""
    done = 0
    while done < len(memory):
        count = stream.readinto(memory[done:])
        if not count:
            break
        done += count
    return done


@dataclass(frozen=True)
class Meaning:
    """Labels of a data set.

    Attributes:
        labels: number in a file -> 0 background, 1 liver, 2 tumor.
        liver_only: the data set names no tumor.
        source: the file that says so.
    """

    labels: dict[int, int]
    liver_only: bool
    source: Path

    @property
    def differs(self) -> bool:
        """Whether a number means something else than in LiTS."""
        return any(IN_LITS.get(number) != label for number, label in self.labels.items())

    @property
    def text(self) -> str:
        """One sentence on numbers that mean something else than in LiTS."""
        numbers = {label: [n for n, to in self.labels.items() if to == label] for label in (1, 2)}
        liver, tumor = (", ".join(map(str, sorted(numbers[label]))) or "none" for label in (1, 2))
        return f"labels are read as {self.source.name} says: liver {liver}; tumor {tumor}"


def meaning_of(path: Path) -> Meaning | None:
    """Return what the dataset.json about a label file says; None where there is none.

    Raises:
        ValueError: it cannot be understood, or names no liver.
    """
    above = path.parent.name in REFERENCE_FOLDERS
    source = (path.parent.parent if above else path.parent) / DATASET
    if not source.is_file() or WRITTEN_HERE.fullmatch(path.name):
        return None
    return _read_meaning(source, source.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _read_meaning(source: Path, _changed: int) -> Meaning | None:
    try:
        named = json.loads(source.read_text(encoding="utf-8-sig")).get("labels")
        numbers = dict(map(_numbers_of, named.items())) if named else {}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(
            f'{source} cannot be understood: "labels" must name numbers, such as '
            f'{{"background": 0, "liver": 1, "tumor": 2}} ({str(error)[:80]})'
        ) from error
    if not numbers:
        return None
    whole = {name for name in numbers if named_label(name) == 1 and not PART.search(name)}
    if not whole:
        raise ValueError(
            f"{source} names no liver: its labels are {', '.join(numbers)[:120]}; call the liver "
            '"liver" there'
        )
    labels: dict[int, int] = {}
    for name, values in numbers.items():  # a region may hold others: liver [1, 2], tumor [2]
        label = named_label(name)
        labels |= {n: max(labels.get(n, 0), label) for n in values if name != "ignore"}
    return Meaning(labels, 2 not in labels.values(), source)


def _numbers_of(item: tuple) -> tuple[str, list[int]]:
    """Return name and numbers of a label as nnU-Net (name -> numbers) or MSD (number -> name)."""
    key, value = item
    if isinstance(value, str):
        return value, [int(key)]
    return str(key), [int(number) for number in (value if isinstance(value, list) else [value])]


def named_label(name: str) -> int:
    """Return 2 for a tumor of the liver or of no organ, 1 for liver and its parts, 0 for others."""
    liver = bool(LIVER.search(name))
    if TUMOR.search(name) and not NEGATED.search(name):
        return 2 if liver or PLAIN.fullmatch(name.strip()) else 0
    return int(liver)
