"""DICOM in: the series of a file, a folder or a zip, and the voxels of one of them.

pydicom is imported only when DICOM is met. Of a header only `TAGS` are looked at, so that no
message can hold a patient's name.
"""

import logging
import os
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha1
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from ..machine import file_hash, open_readable, safe_members
from ..settings import hint
from .dicom_series import (
    Series,
    Study,
    check_one_patient,
    choose_series,
    geometry_of_series,
    series_among,
    slices_of,
)
from .geometry import Geometry
from .nifti import WRITTEN_HERE
from .packed import SUFFIX, hash_of_packed

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

logger = logging.getLogger(__name__)

ZIP_MAGIC = b"PK\x03\x04"
CT_IMAGES = {f"1.2.840.10008.5.1.4.1.1.2{kind}" for kind in ("", ".1", ".2")}
PREAMBLE = 128  # bytes before "DICM"; old files begin with group 8 instead
DECODERS = 'pip install "pylibjpeg[all]"'
INSTALL = 'DICOM needs two packages: pip install highdicom "pylibjpeg[all]"'
TAGS = (
    "SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID SeriesNumber SeriesDescription "
    "AcquisitionNumber TemporalPositionIdentifier PatientID Modality ImageType SamplesPerPixel "
    "PixelRepresentation Rows Columns NumberOfFrames ImagePositionPatient ImageOrientationPatient "
    "PixelSpacing SliceThickness RescaleSlope RescaleIntercept SharedFunctionalGroupsSequence "
    "PerFrameFunctionalGroupsSequence"
).split()
HEADER_ONLY = {"stop_before_pixels": True, "specific_tags": TAGS}
DICOMDIR = "DICOMDIR, an index: copy the folders with the images too"
REFERRED = "ReferencedSeriesSequence"
FOR_STUDIES = HEADER_ONLY | {  # the name is compared with those of folders, and shown to nobody
    "specific_tags": [*TAGS, REFERRED, "FrameOfReferenceUID", "PatientName", "StudyDate"]
}
MOST_KNOWN = 1 << 18  # files
LARGE = 4096  # bytes of a value that is read when it is asked for

_series_known: dict[tuple[str, int, int], str] = {}  # of files as they are; "" for no image


def is_dicom(path: str | os.PathLike) -> bool:
    """Tell whether `path` is to be read as DICOM: a folder, a zip, or a DICOM file."""
    if os.path.isdir(path):
        return True
    if not os.path.isfile(path):
        return False
    block = _head(path)
    return block[:4] == ZIP_MAGIC or _starts_dicom(block)


def read_dicom(
    path: str | os.PathLike, series: str | None = None, orientation: str | None = None
) -> tuple[np.ndarray, Geometry]:
    """Read one series as (Z, Y, X) int16 HU and its geometry, whose grid is that of a NIfTI file.

    Args:
        path: a folder with anything below it, a zip, or a file, which stands for its series.
        series: number or UID; None takes the axial CT series with the most slices, and the log
            names the others.
        orientation: axis codes that override the header's.

    Raises:
        OSError, ValueError: no such series, or it is no volume; the message names series and file.
    """
    with opened(path) as store:
        chosen = choose_series(store.series(), path, series)
        store.check_read(chosen)
        check_one_patient(chosen)
        geometry = geometry_of_series(chosen)
        geometry = geometry.with_orientation(orientation) if orientation else geometry
        hu = np.empty(geometry.shape, np.int16)
        stored = geometry.as_stored(hu)
        for k, plane in enumerate(store.planes(chosen)):
            stored[..., k] = plane.T
    return hu, geometry


def source_headers(path: str | os.PathLike, geometry: Geometry) -> dict[str, "Dataset"]:
    """Return {file: whole header} of the DICOM files that a volume was read from, in its order.

    Raises:
        ValueError: the volume came from no DICOM, from one that no DICOM SEG can refer to, or its
            files are gone.
    """
    if not geometry.dicom or path is None:
        raise ValueError(f"{path} came from no DICOM: write .nii.gz ({hint('format')})")
    wanted = {uid.partition("#")[0]: None for uid in geometry.dicom}
    several = len(wanted) > 1 and any("#" in uid for uid in geometry.dicom)
    if several or len({*geometry.dicom}) < len(geometry.dicom):
        what = "lie in several files of frames" if several else "share one UID"
        raise ValueError(
            f"{path}: its slices {what}, to which no DICOM SEG can refer: write .nii.gz "
            f"({hint('format')})"
        )
    with opened(path) as store:
        for name in store.names():
            try:
                header = store.dataset(name, stop_before_pixels=True)
            except (OSError, ValueError):  # none of its slices, which were read before
                continue
            if header is not None and header.get("SOPInstanceUID") in wanted:
                wanted[header.SOPInstanceUID] = name, header
    if None in wanted.values():
        raise ValueError(f"{path} no longer holds the slices that were read from it")
    return dict(wanted.values())


def hash_of_files(path: Path) -> str:
    """Return a hash of all that a CT is read from, `file_hash` for a file that stands alone.

    Of a DICOM file it is that of its series, of a folder that of the DICOM in it, results of this
    module left aside. A prepared case's counts what its record says of places and findings.
    """
    if path.suffix == SUFFIX:
        return hash_of_packed(path)
    folder, files = path.parent, []
    with suppress(ImportError, OSError, ValueError):  # reading it says why
        if path.is_dir():
            folder = path
            files = [one for one in path.rglob("*") if one.is_file() and _is_source(one)]
        elif path.is_file() and _starts_dicom(_head(path)):
            with opened(path) as store:
                files = [path.parent / name for one in store.series() for name in one.names]
    if not files or files == [path]:
        return file_hash(path)
    lines = [f"{one.relative_to(folder).as_posix()} {file_hash(one)}" for one in sorted({*files})]
    return sha1("\n".join(lines).encode(), usedforsecurity=False).hexdigest()


def _is_source(path: Path) -> bool:
    return _starts_dicom(_head(path)) and not WRITTEN_HERE.fullmatch(path.name)


@contextmanager
def opened(path: str | os.PathLike) -> Iterator["DicomStore"]:
    """Open a file, a folder or a zip of DICOM for reading."""
    try:
        import pydicom  # noqa: F401
    except ImportError as error:
        raise ImportError(INSTALL) from error
    with ExitStack() as stack:
        # pydicom's warnings quote values of the header
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield DicomStore(Path(path), stack)


class DicomStore:
    """The DICOM files below a folder, in a zip, or beside a file; made by `opened`."""

    def __init__(self, path: Path, stack: ExitStack):
        self.path = path
        self._archive: zipfile.ZipFile | None = None
        self._parsed: dict[str, Dataset] = {}
        self._unread: dict[str, OSError | ValueError] = {}
        self._header_only: dict = {"defer_size": LARGE}  # so that each file is parsed once
        if path.is_file() and _head(path)[:4] == ZIP_MAGIC:
            try:
                self._archive = stack.enter_context(zipfile.ZipFile(path))
                self._names = [member.filename for member in safe_members(self._archive)]
                self._header_only = HEADER_ONLY
            except zipfile.BadZipFile as error:
                raise ValueError(f"cannot read {path}: the zip is damaged or cut off") from error
            except ValueError as error:
                raise ValueError(f"cannot read {path}: {error}") from error

    def names(self) -> list[str]:
        """Return the files' names, in order; a file's siblings stand beside it.

        Raises:
            OSError: a folder cannot be read.
        """
        if self._archive:
            return sorted(self._names)
        if self.path.is_file():
            return sorted(entry.name for entry in os.scandir(self.path.parent) if entry.is_file())
        found = []
        for folder, _, names in os.walk(self.path, onerror=_raise):
            found += [os.path.relpath(os.path.join(folder, name), self.path) for name in names]
        return sorted(found)

    def place(self, name: str) -> str:
        """Return how messages call a file."""
        if self._archive:
            return f"{name} in {self.path}"
        return str((self.path.parent if self.path.is_file() else self.path) / name)

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading."""
        return self._archive.open(name) if self._archive else open_readable(self.place(name))

    def dataset(self, name: str, **options) -> "Dataset | None":
        """Read a file with pydicom; None if it is no DICOM.

        Raises:
            OSError, ValueError: it cannot be read; the message names it.
        """
        from pydicom import dcmread

        try:
            with self.open(name) as stream:
                if not _starts_dicom(stream.read(PREAMBLE + 4)):
                    return None
                stream.seek(0)
                header = dcmread(stream, force=True, **options)
                for tag in options.get("specific_tags", TAGS):  # only now it is understood
                    header.get(tag)
        except OSError as error:
            raise OSError(f"cannot read {self.place(name)}: {error.strerror or error}") from error
        except MemoryError:  # says nothing about the file
            raise
        except Exception as error:  # pydicom raises what the damage happens to cause
            raise ValueError(
                f"cannot read {self.place(name)}: damaged or cut off ({type(error).__name__})"
            ) from error
        if _ends_early(header, name):
            raise ValueError(f"cannot read {self.place(name)}: its header is damaged or cut off")
        return header

    def series(self) -> list[Series]:
        """Return the series of all images, a file's own only.

        Raises:
            OSError, ValueError: a file or a folder cannot be read.
        """
        if self.path.is_file() and not self._archive:
            own = self._headers([self.path.name]).get(self.path.name)
            uid = own and str(own.SeriesInstanceUID)
            headers = self._headers(name for name in self.names() if self._may_be_of(uid, name))
            headers = {name: one for name, one in headers.items() if one.SeriesInstanceUID == uid}
        else:
            headers = self._headers(self.names())
        images = {}
        for name, header in headers.items():
            try:
                images[name] = header, slices_of(name, header)
            except Exception as error:  # as in `dataset`, of frames
                self._unread[name] = ValueError(f"cannot read {self.place(name)}: {error}")
        if not images:
            unread = self._unread.get(self.path.name) or next(iter(self._unread.values()), None)
            raise unread or ValueError(f"{self.path} holds {self._what_else()}")
        self._parsed = headers if "defer_size" in self._header_only else {}
        return series_among(images)

    def _headers(self, names: Iterable[str]) -> dict[str, "Dataset"]:
        """Return {file: its header} of the images among files; note what cannot be read."""
        headers = {}
        for name in names:
            try:
                state = None if self._archive else self._state(name)
                header = self.dataset(name, **self._header_only)
            except (OSError, ValueError) as error:
                self._unread[name] = error
                continue
            image = header is not None and "Rows" in header and "SeriesInstanceUID" in header
            if image:
                headers[name] = header
            if state:
                _remember(state, str(header.SeriesInstanceUID) if image else "")
        return headers

    def _may_be_of(self, uid: str | None, name: str) -> bool:
        """Tell whether a file may be of a series, by what was read of it before as it is now."""
        try:
            return _series_known.get(self._state(name), uid) == uid
        except OSError:  # reading it says why
            return True

    def _state(self, name: str) -> tuple[str, int, int]:
        state = os.stat(self.place(name))
        return os.path.abspath(self.place(name)), state.st_size, state.st_mtime_ns

    def _what_else(self) -> str:
        """Return what is there where no image is, and what to do."""
        names = [Path(name).name.upper() for name in self.names()]
        if "DICOMDIR" in names:
            return f"only a {DICOMDIR}"
        if any(name.endswith(".ZIP") for name in names):
            return "no DICOM image but a zip: unpack that one"
        return "no DICOM image"

    def check_read(self, series: Series) -> None:
        """Refuse a series in whose folder a file could not be read; log those of other folders.

        Raises:
            OSError, ValueError: it may be a slice; the message names both.
        """
        folders = {Path(name).parent for name in series.names}
        for name, error in self._unread.items():
            if Path(name).parent in folders:
                text = f"series {series.label} may lack a slice: {error}; mend or remove that file"
                raise type(error)(text) from error.__cause__
            logger.warning("%s; left aside", error)

    def planes(self, series: Series) -> Iterator[np.ndarray]:
        """Yield the slices of a series as (rows, columns) int16 HU.

        Raises:
            OSError, ValueError: one cannot be read; the message names series and file.
        """
        name, frames = None, None
        for place in series.slices:
            if place.name != name:
                name, frames = place.name, self._pixels(series, place.name)
            stored = frames
            if place.frame is not None:  # of a single frame pydicom leaves their axis out
                stored = frames.reshape(-1, *frames.shape[-2:])[place.frame]
            if stored.shape != place.plane[8:]:
                raise ValueError(f"cannot read {self.place(name)}: its pixels are {stored.shape}")
            yield _hu(stored, place.slope, place.intercept)

    def _pixels(self, series: Series, name: str) -> np.ndarray:
        from pydicom.uid import ImplicitVRLittleEndian

        dataset = self._parsed.pop(name, None) or self.dataset(name)  # popped: it keeps its pixels
        if "TransferSyntaxUID" not in dataset.file_meta:  # of files without a preamble
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        try:
            return dataset.pixel_array
        except MemoryError:  # says nothing about the file
            raise
        except Exception as error:  # pydicom raises what the damage happens to cause
            where = f"cannot read series {series.label}, {self.place(name)}"
            if missing := _missing_decoder(dataset.file_meta.TransferSyntaxUID):
                raise ValueError(f"{where}: {missing}") from error
            raise ValueError(f"{where}: its pixels are damaged or cut off; get it again") from error


def study_headers(path: Path, zipped: bool = False) -> list[tuple[Path, "Dataset"]]:
    """Return a DICOM file, or those in a zip as if that were a folder, with what tells their study.

    What cannot be read is named in the log; reading the study says why.
    """
    found: list[tuple[Path, Dataset]] = []
    try:
        if not zipped and not _starts_dicom(_head(path)):
            return found
        with opened(path) as store:
            for name in store.names() if zipped else [path.name]:
                try:
                    header = store.dataset(name, **FOR_STUDIES)
                except (OSError, ValueError) as error:
                    logger.warning("%s", error)
                    continue
                if header is not None:
                    found.append((path / name if zipped else path, header))
    except (OSError, ValueError) as error:
        logger.warning("%s", error)
    return found


def study_in(path: Path) -> Study | None:
    """Return the study of a file, or of the first in a zip or folder that names a patient.

    It comes without its files; None where nobody is named.
    """
    with suppress(ImportError, OSError, ValueError), opened(path) as store:  # reading it says why
        for name in sorted(store.names(), key=lambda name: name != path.name):
            with suppress(OSError, ValueError):
                header = store.dataset(name, **FOR_STUDIES)
                if header is not None and header.get("PatientName"):
                    return study_of(header)
    return None


def study_of(header: "Dataset") -> Study:
    """Return an empty study with what a header says of it and its patient."""
    tags = ("StudyInstanceUID", "PatientID", "StudyDate", "PatientName")
    uid, patient, date, name = (str(header.get(tag) or "") for tag in tags)
    parts = [part for part in re.split(r"[\^=]", name) if not any(map(str.isdigit, part))]
    return Study(uid, patient, words_of(" ".join(parts)), date)  # HCC_015 is a number, no name


def words_of(text: str) -> set[str]:
    """Return the words of a name or of a file's name: its letters, in lower case, by three."""
    return {word for word in re.findall(r"[^\W\d_]+", text.lower()) if len(word) >= 3}


def _remember(state: tuple[str, int, int], uid: str) -> None:
    """Keep a file's series, so that the cases of a flat folder do not each read all its headers."""
    if len(_series_known) >= MOST_KNOWN:
        _series_known.clear()
    _series_known[state] = uid


def _head(path: str | os.PathLike) -> bytes:
    with open_readable(path) as stream:
        return stream.read(PREAMBLE + 4)


def _starts_dicom(block: bytes) -> bool:
    return block[PREAMBLE:] == b"DICM" or block[:2] == b"\x08\x00"


def _ends_early(header: "Dataset", name: str) -> bool:
    """Tell whether a header lacks its end: pydicom returns what there is."""
    if "SOPClassUID" not in header:
        return bool(header.preamble) and Path(name).name.upper() != "DICOMDIR"
    return str(header.SOPClassUID) in CT_IMAGES and "PixelRepresentation" not in header


def _raise(error: OSError) -> None:
    raise OSError(f"cannot read {error.filename}: {error.strerror}") from error


def _missing_decoder(syntax: "UID") -> str:
    """Return why no package here decodes pixels so compressed, and what to install; mostly ""."""
    from pydicom.pixels import get_decoder

    try:
        return "" if get_decoder(syntax).is_available else f"{syntax.name} pixels want {DECODERS}"
    except NotImplementedError:
        return f"its pixels are stored as {syntax.name}, which nothing here reads; export it again"


def _hu(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Return stored numbers as int16 HU, rounded half up and limited to what int16 holds."""
    limits = np.iinfo(np.int16)
    if stored.dtype == np.int16 and (slope, intercept) == (1, 0):
        return stored
    if slope == 1 and intercept.is_integer() and limits.min <= intercept <= limits.max:
        low, high = int(stored.min()) + intercept, int(stored.max()) + intercept
        if limits.min <= low and high <= limits.max:  # then wrapping at 16 bits is right
            return stored.astype(np.int16, copy=False) + np.int16(intercept)
    values = np.floor(stored * slope + intercept + 0.5)
    return np.clip(values, limits.min, limits.max).astype(np.int16)
