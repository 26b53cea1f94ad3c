"""Packed arrays: lossless blosc2 files, one chunk a slice, any slice in under a millisecond."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import blosc2
import numpy as np

from ..machine import file_hash, read_json, written_whole
from .geometry import Geometry

SUFFIX = ".b2nd"
LABELS_SUFFIX = "-labels.b2nd"


class LazyVolume:
    """A volume on disk that reads one slice at a time; unpickling opens the file again.

    Attributes:
        path: the file.
        shape: (Z, Y, X).
        geometry: where the voxels lie and how to write results back.
    """

    path: Path
    shape: tuple[int, int, int]
    geometry: Geometry

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.slice(k) for k in range(len(self)))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size (dz, dy, dx) in mm."""
        return self.geometry.spacing_mm

    @property
    def hu(self) -> np.ndarray:
        """The whole (Z, Y, X) array, read anew each time: what a `Volume` holds."""
        return self.read()

    def slice(self, k: int) -> np.ndarray:
        """Return axial slice `k` as (H, W): int16 HU, or uint8 labels."""
        if not 0 <= k < self.shape[0]:
            raise IndexError(f"{self.path.name} has slices 0 to {self.shape[0] - 1}, got {k}")
        return self._slice(k)

    def read(self) -> np.ndarray:
        """Return the whole (Z, Y, X) array."""
        return np.stack(list(self))


class PackedVolume(LazyVolume):
    """Lazy reader of a packed array, a .b2nd file."""

    def __init__(self, path: str | os.PathLike, geometry: Geometry | None = None):
        self.path = Path(path)
        self._array = _open(self.path)
        self.geometry = geometry or _recorded_geometry(self.path)
        self.shape = tuple(self._array.shape)

    def __reduce__(self):
        return PackedVolume, (self.path, self.geometry)

    def read(self) -> np.ndarray:
        """Return the whole (Z, Y, X) array."""
        return self._values(0, len(self))

    def _slice(self, k: int) -> np.ndarray:
        return self._values(k, k + 1)[0]

    def _values(self, start: int, stop: int) -> np.ndarray:
        try:
            return self._array[start:stop]
        except RuntimeError as error:
            raise ValueError(
                f"{self.path} is damaged ({error}); delete it and prepare the case again"
            ) from error


def write_packed(array: np.ndarray, path: str | os.PathLike) -> Path:
    """Write a (Z, Y, X) array of int16 HU or uint8 labels as .b2nd, whole or not at all.

    The same array gives the same bytes.

    Raises:
        ValueError: not three axes, or another dtype.
    """
    if array.ndim != 3 or array.dtype not in (np.int16, np.uint8):
        raise ValueError(
            f"a packed array must be (Z, Y, X) int16 or uint8, got {array.dtype} {array.shape}"
        )
    cparams = blosc2.CParams(codec=blosc2.Codec.ZSTD, clevel=1, nthreads=1)
    chunk = (1, *array.shape[1:])
    with written_whole(path) as temporary:
        packed = blosc2.asarray(array, chunks=chunk, blocks=chunk, cparams=cparams)
        temporary.write_bytes(packed.to_cframe())
    return Path(path)


def is_whole(path: Path) -> bool:
    """Tell whether a packed array exists and opens; damage inside shows only when it is read."""
    try:
        return bool(_open(path).shape)
    except (OSError, ValueError):
        return False


def _open(path: Path) -> blosc2.NDArray:
    if not path.is_file():
        raise FileNotFoundError(f"no packed case at {path}")
    try:
        return blosc2.open(str(path), mode="r", dparams=blosc2.DParams(nthreads=1))
    except (RuntimeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path} is no whole packed array ({error}); prepare the case again"
        ) from error


def hash_of_packed(path: Path) -> str:
    """Return a hash of a packed CT, and of what its record says of places and findings.

    The same voxels may have other millimetres, or lie elsewhere.
    """
    content = file_hash(path)
    try:
        record = read_json(_record_of(path))
        told = [record.get(name) for name in ("geometry", "findings")]
    except (OSError, ValueError, AttributeError):  # none, or torn: then only the voxels are known
        return content
    told = f"{content} {json.dumps(told, sort_keys=True)}"
    return hashlib.sha1(told.encode(), usedforsecurity=False).hexdigest()


def _record_of(path: Path) -> Path:
    case_id = path.name.removesuffix(LABELS_SUFFIX).removesuffix(SUFFIX)
    return path.with_name(f"{case_id}.json")


def _recorded_geometry(path: Path) -> Geometry:
    record = _record_of(path)
    if not record.is_file():
        raise FileNotFoundError(f"{path} has no {record.name} beside it; prepare the case again")
    return Geometry.from_dict(read_json(record)["geometry"])
