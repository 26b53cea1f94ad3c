"""The series among DICOM headers: which slices make one volume, and where its voxels lie."""

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..machine import few
from ..settings import hint
from .geometry import Geometry, geometry_of_affine
from .nifti import MAX_VOXELS

if TYPE_CHECKING:
    from pydicom import Dataset

logger = logging.getLogger(__name__)

ACQUISITIONS = (  # of files of one slice, and of frames
    "AcquisitionNumber", "FrameAcquisitionNumber", "TemporalPositionIdentifier",
    "TemporalPositionIndex",
)  # fmt: skip
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MIN_AXIAL = 0.7  # cosine between the slices' normal and the body's axis
MAX_OFF_GRID = 0.1  # of a slice's distance; scanners round positions
FEWEST_IN_PART = 3  # slices of an acquisition, on average; some scanners number each slice
MAX_SHEAR_PIXELS = 0.5  # between first and last slice
LONGEST = 32767  # pixels or slices that a NIfTI header can state
PLACING = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}  # numbers
ABOVE_0 = {"PixelSpacing", "Rows", "Columns", "SliceThickness", "RescaleSlope"}


@dataclass(frozen=True)
class Slice:
    """One slice: a file, or a frame of a file of several.

    Attributes:
        name: of the file, within its folder or zip.
        frame: of a file of several, from 0 on; None where the file is one slice.
        uid: of the instance; with "#" and the frame's number where it has several.
        acquisition: numbers of acquisition and point in time, as text; often empty.
        patient: the id, to be compared only.
        position: (3,) mm, LPS, of the first pixel's centre.
        plane: direction of rows and of columns (6), row and column spacing in mm, rows, columns.
        thickness_mm: of the slice; 1 where it is not stated.
        slope, intercept: from stored numbers to HU.
    """

    name: str
    frame: int | None
    uid: str
    acquisition: str
    patient: str
    position: tuple[float, ...]
    plane: tuple[float, ...]
    thickness_mm: float
    slope: float
    intercept: float

    @property
    def place(self) -> str:
        """What messages call it."""
        return self.name if self.frame is None else f"{self.name} frame {self.frame + 1}"

    @property
    def normal(self) -> np.ndarray:
        """(3,) unit vector, LPS, that slices are stacked along."""
        return np.cross(self.plane[:3], self.plane[3:6])


@dataclass(frozen=True)
class Series:
    """The slices that make one volume, in the order of their positions.

    Attributes:
        label: the series number; with ":" and the acquisition's where one number holds several.
        uid, study: of the series and of its study.
        description: as the scanner named it.
        fault: why it is no axial CT, or "".
        slices: none where they have no place in the patient.
        names: of its files.
    """

    label: str
    uid: str
    study: str
    description: str
    fault: str
    slices: tuple[Slice, ...]
    names: tuple[str, ...]

    def text(self) -> str:
        """Return one short line for lists."""
        count = len(self.slices) or len(self.names)
        parts = [f"{count} slices", self.description, self.fault]
        return f"{self.label} ({', '.join(filter(None, parts))})"


@dataclass
class Study:
    """What the headers of a study's files say.

    Attributes:
        uid: of the study.
        patient: the id, to be compared only.
        names: words of the patient's name, to be compared only.
        date: the day, to be compared only.
        series: {series UID: its files of axial CT}, the longest first.
        frames: {series UID: UID of the frame that its positions are in}.
        references: {series UID: DICOM SEG that were drawn on it}.
        others: files of no axial CT, and what they are.
    """

    uid: str
    patient: str = ""
    names: set[str] = field(default_factory=set)
    date: str = ""
    series: dict[str, list[Path]] = field(default_factory=dict)
    frames: dict[str, str] = field(default_factory=dict)
    references: dict[str, list[Path]] = field(default_factory=dict)
    others: list[tuple[Path, str]] = field(default_factory=list)


def choose_series(
    found: Iterable[Series], path: str | os.PathLike, wanted: str | None = None
) -> Series:
    """Return the axial CT series with the most slices, or the wanted one.

    Args:
        found: all that there are.
        path: where; for messages.
        wanted: number or UID of a series; after a study's UID and "/" of one in that study, and
            nothing more than that chooses among its series.

    Raises:
        ValueError: there is none, or there are several patients to choose from.
    """
    study, _, wanted = str(wanted or "").rpartition("/")
    found = [one for one in found if study in ("", one.study)]
    found.sort(key=lambda one: -len(one.slices))
    listed = "; ".join(one.text() for one in found[:8]) or "none"
    if wanted:
        named = [one for one in found if one.slices and str(wanted) in (one.label, one.uid)]
        if not named:
            raise ValueError(f"{path} has no series {wanted} with slices; there are: {listed}")
        if len(uids := {one.uid: one for one in named}) > 1:
            raise ValueError(
                f"{path} has several series {wanted}: name one by its UID: {few(uids)}"
            )
        return named[0]
    usable = [one for one in found if not one.fault]
    if not usable:
        raise ValueError(f"{path} holds no axial CT series; there are: {listed}")
    if len({one.slices[0].patient for one in usable}) > 1:
        raise ValueError(
            f"{path} holds series of several patients: name one ({hint('series')}), or give each "
            f"patient's folder; there are: {listed}"
        )
    others = "; ".join(one.text() for one in found if one is not usable[0])
    studies = len({one.study for one in usable})
    taken = usable[0].text() + (f" of one of {studies} studies" if studies > 1 else "")
    level = logging.WARNING if studies > 1 else logging.INFO
    logger.log(level, "%s: series %s%s", path, taken, f"; not taken: {others}" if others else "")
    return usable[0]


def series_among(images: dict[str, tuple["Dataset", list[Slice]]]) -> list[Series]:
    """Return the series of all images.

    Args:
        images: {name of the file: its header, and its slices from `slices_of`}.
    """
    groups: dict[str, dict] = defaultdict(dict)
    for name, (header, slices) in images.items():
        groups[str(header.SeriesInstanceUID)][name] = header, slices
    return [series for group in groups.values() for series in _series_of(group)]


def _series_of(images: dict[str, tuple["Dataset", list[Slice]]]) -> list[Series]:
    """Return the volumes of one series UID: planes apart, acquisitions apart if they overlap."""
    faults: dict[str, list[str]] = defaultdict(list)
    for name, (header, _) in images.items():
        faults[fault_of(header)].append(name)
    made = []
    for fault, names in faults.items():
        slices = _without_copies(one for name in names for one in images[name][1])
        planes: dict[tuple, list[Slice]] = defaultdict(list)
        for one in slices:
            planes[tuple(np.round(one.plane, 3))].append(one)
        first = images[names[0]][0]
        plain = Series(
            str(first.get("SeriesNumber") or "-"),
            str(first.SeriesInstanceUID),
            str(first.get("StudyInstanceUID", "")),
            str(first.get("SeriesDescription", "")),
            fault,
            (),
            tuple(names),
        )
        for plane in planes.values():
            made += _acquisitions(plain, plane)
        if not planes:
            made.append(replace(plain, fault=fault or "without positions"))
    return made


def _acquisitions(plain: Series, slices: list[Slice]) -> list[Series]:
    """Split slices of one plane by acquisition where together they are no even stack."""
    if not plain.fault and abs(slices[0].normal[2]) < MIN_AXIAL:
        plain = replace(plain, fault="not axial")
    slices = [slices[k] for k in np.argsort(_heights(slices), kind="stable")]
    apart: dict[str, list[Slice]] = defaultdict(list)
    for one in slices:
        apart[one.acquisition].append(one)
    several = 1 < len(apart) <= len(slices) / FEWEST_IN_PART
    changes = sum(one.acquisition != after.acquisition for one, after in pairwise(slices))
    mixed = changes >= len(apart)  # else they follow each other, and one may lack a slice
    split = several and not _is_even(slices) and (mixed or all(map(_is_even, apart.values())))
    return [
        replace(
            plain,
            label=f"{plain.label}:{number}" if split else plain.label,
            slices=tuple(part),
            names=tuple(dict.fromkeys(one.name for one in part)),
        )
        for number, part in (apart if split else {"": slices}).items()
    ]


def _is_even(slices: list[Slice]) -> bool:
    """Tell whether sorted slices lie about equally far from each other."""
    gaps = _gaps(slices)
    usual = np.median(gaps) if len(gaps) else 0.0
    return bool(np.all(np.abs(gaps - usual) < MAX_OFF_GRID * usual))


def _gaps(slices: Sequence[Slice]) -> np.ndarray:
    """Return the distances in mm of sorted slices, along their normal."""
    return np.diff(_heights(slices))


def _heights(slices: Sequence[Slice]) -> np.ndarray:
    """Return the places in mm of slices of one plane, along their normal."""
    return np.array([one.position for one in slices]) @ slices[0].normal


def fault_of(header: "Dataset") -> str:
    """Return why a file is no slice of an axial CT, or ""."""
    if str(header.get("SOPClassUID")).startswith(SECONDARY_CAPTURE):
        return "secondary capture"
    if header.get("Modality") != "CT":
        return str(header.get("Modality") or "no modality")
    if header.get("SamplesPerPixel", 1) != 1:
        return "RGB"
    if "LOCALIZER" in (header.get("ImageType") or ()):
        return "localizer"
    several = "PerFrameFunctionalGroupsSequence" in header
    placed = several or all(header.get(tag) is not None for tag in PLACING)
    return "" if placed else "without positions"


def _without_copies(slices: Iterable[Slice]) -> list[Slice]:
    # places too: some tools that take names out give all slices one UID
    return list({(one.uid, one.position): one for one in slices}.values())


def slices_of(name: str, header: "Dataset") -> list[Slice]:
    """Return the slices of one file; none where it does not say where they lie.

    Raises:
        ValueError: a number of an axial CT makes no sense; the message names its tag.
    """
    try:
        return [one for one in _slices(name, header) if one]
    except ValueError:
        if fault_of(header):  # where a localizer lies matters to nobody
            return []
        raise


def _slices(name: str, header: "Dataset") -> Iterator[Slice | None]:
    if "PerFrameFunctionalGroupsSequence" not in header:
        yield _slice(name, None, header, [header])
        return
    shared = list(header.get("SharedFunctionalGroupsSequence") or ())
    for number, group in enumerate(header.PerFrameFunctionalGroupsSequence or ()):
        items = [item[0] for part in (group, *shared) for item in _sequences(part)]
        yield _slice(name, number, header, items)


def _sequences(group: "Dataset") -> Iterator:
    return (element.value for element in group if element.VR == "SQ" and element.value)


def _slice(name: str, frame: int | None, header: "Dataset", items: list) -> Slice | None:
    """Return one slice whose values stand in the first of `items` that has them."""

    def value(tag: str, default=None):
        found = (item.get(tag) for item in items)
        return next((one for one in found if one is not None), default)

    if any(value(tag) is None for tag in PLACING):
        return None
    position, *plane = (_numbers(tag, value(tag)) for tag in PLACING)
    plane += (_numbers(tag, header.get(tag)) for tag in ("Rows", "Columns"))
    thickness_mm = (1.0,)
    with suppress(ValueError):  # many files state 0
        thickness_mm = _numbers("SliceThickness", value("SliceThickness"))
    return Slice(
        name,
        frame,
        f"{header.get('SOPInstanceUID', '')}{'' if frame is None else f'#{frame + 1}'}",
        "-".join(str(found) for tag in ACQUISITIONS if (found := value(tag))),
        str(header.get("PatientID", "")),
        position,
        tuple(chain.from_iterable(plane)),
        *thickness_mm,
        *_numbers("RescaleSlope", value("RescaleSlope", 1)),
        *_numbers("RescaleIntercept", value("RescaleIntercept", 0)),
    )


def _numbers(tag: str, found: object) -> tuple[float, ...]:
    """Return the numbers of a tag.

    Raises:
        ValueError: too few or too many, not finite, or not above 0 where they must be.
    """
    try:
        numbers = np.atleast_1d(found).astype(np.float64)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    odd = numbers.shape != (PLACING.get(tag, 1),) or not np.isfinite(numbers).all()
    if odd or (tag in ABOVE_0 and numbers.min() <= 0):
        raise ValueError(f"its {tag} makes no sense: {str(found)[:60]}")
    return tuple(numbers.tolist())


def check_one_patient(series: Series) -> None:
    """Refuse a series with slices of several patients.

    Raises:
        ValueError: it names the first file of another one.
    """
    first = series.slices[0]
    other = next((one for one in series.slices if one.patient != first.patient), None)
    if other:
        raise ValueError(
            f"series {series.label}: {other.place} is of another patient than {first.place}; "
            "take it out"
        )


def geometry_of_series(series: Series) -> Geometry:
    """Return where the voxels of a series lie.

    Raises:
        ValueError: the slices are no even, upright stack.
    """
    slices = series.slices
    first = slices[0]
    rows, columns = int(first.plane[8]), int(first.plane[9])
    sides = rows, columns, len(slices)
    if max(sides) > LONGEST or rows * columns * len(slices) > MAX_VOXELS:
        raise ValueError(f"series {series.label} has {len(slices)} slices of {rows} x {columns}")
    step_mm = _step_mm(series)
    _check_upright(series)
    lps = np.eye(4)
    lps[:3, 0] = np.array(first.plane[:3]) * first.plane[7]  # along a row, column to column
    lps[:3, 1] = np.array(first.plane[3:6]) * first.plane[6]
    lps[:3, 2] = first.normal * step_mm
    lps[:3, 3] = first.position
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps  # NIfTI's world is RAS+
    geometry = geometry_of_affine((columns, rows, len(slices)), affine)
    return replace(geometry, dicom=tuple(one.uid for one in slices))


def _step_mm(series: Series) -> float:
    """Return the distance of the slices.

    Raises:
        ValueError: two lie at one place, some are missing, or the distances differ.
    """
    slices = series.slices
    if len(slices) == 1:
        return slices[0].thickness_mm
    gaps = _gaps(slices)
    usual = float(np.median(gaps))
    nearest = int(gaps.argmin())
    if gaps[nearest] <= MAX_OFF_GRID * usual:  # both are 0 where all lie at one place
        pair = " and ".join(one.place for one in slices[nearest : nearest + 2])
        raise ValueError(
            f"series {series.label}: {pair} lie at one place and differ: remove one of the two sets"
        )
    steps = np.rint(gaps / usual)
    if steps.max() > 1 and np.abs(gaps - steps * usual).max() < MAX_OFF_GRID * usual:
        raise ValueError(_missing_text(series, steps.astype(int), usual))
    step = float(gaps.mean())
    off = np.abs(np.cumsum(gaps) - step * np.arange(1, len(slices)))
    if off.max() > MAX_OFF_GRID * step:
        change = int(np.abs(gaps - gaps[0]).argmax())
        raise ValueError(
            f"series {series.label}: its slices are {gaps.min():.4g} to {gaps.max():.4g} mm apart: "
            f"{gaps[0]:.4g} mm from {slices[0].place} on, {gaps[change]:.4g} mm after "
            f"{slices[change].place}; export a reconstruction of even spacing"
        )
    return step


def _missing_text(series: Series, steps: np.ndarray, usual_mm: float) -> str:
    """Return which slices are missing and what to do, one sentence.

    Args:
        series: the series.
        steps: how many distances lie between each slice and the next.
        usual_mm: one distance.
    """
    heights = []
    for k in np.flatnonzero(steps > 1):
        below, above = (series.slices[k + end].position[2] for end in (0, 1))
        heights += np.linspace(below, above, steps[k] + 1)[1:-1].tolist()
    first = int(steps.argmax())
    count = "a slice is" if len(heights) == 1 else f"{len(heights)} slices are"
    return (
        f"series {series.label}: {count} missing at z = {few([f'{z:.4g}' for z in heights])} mm "
        f"({series.slices[first].place} and {series.slices[first + 1].place} are "
        f"{steps[first] * usual_mm:.4g} mm apart, the others {usual_mm:.4g} mm); export the whole "
        "series again: an invented slice could hide or make a tumor"
    )


def _check_upright(series: Series) -> None:
    first, last = series.slices[0], series.slices[-1]
    way = np.subtract(last.position, first.position)
    aside = way - np.dot(way, first.normal) * first.normal
    if np.linalg.norm(aside) > MAX_SHEAR_PIXELS * min(first.plane[6:8]):
        degrees = np.degrees(np.arctan2(np.linalg.norm(aside), np.dot(way, first.normal)))
        raise ValueError(
            f"series {series.label}: its slices are tilted by {degrees:.1f} degrees against the "
            f"direction that they are stacked in (gantry tilt; {first.place} to {last.place}); "
            "export an upright reconstruction"
        )
