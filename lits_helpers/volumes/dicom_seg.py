"""DICOM SEG: labels written beside the CT that they belong to, and segmentations of others read.

Both ways positions decide, never the order or the direction of slices.
"""

import itertools
import os
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import __version__
from ..machine import written_whole
from .dicom import (
    FOR_STUDIES,
    HEADER_ONLY,
    INSTALL,
    REFERRED,
    is_dicom,
    opened,
    source_headers,
)
from .geometry import Geometry, geometry_of_affine, internal_affine
from .nifti import PART, named_label

if TYPE_CHECKING:
    import highdicom
    from pydicom import Dataset

NAME = "lits-helpers"
COLORS = {1: (224, 129, 105), 2: (241, 211, 82)}  # label -> RGB; as in figures/palette.py
TUMOR_CODES = {"108369006", "4147007", "52988006", "86049000", "126851005"}
LIVER_CODE = "10200004"  # SNOMED CT
NAMELESS = re.compile(r"(?:segment|label|structure|region|roi)?[ _-]*\d*", re.I)  # the code decides
PRESENT = 0.5  # of a FRACTIONAL segment
REPEATED = (  # may be empty, not absent
    "PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime StudyID AccessionNumber"
).split()
NEAR = 0.02  # of a voxel; headers round positions
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])


def write_dicom_seg(labels: np.ndarray, geometry: Geometry, source: Path, path: Path) -> Path:
    """Write labels as a DICOM SEG that refers to every slice of its CT.

    The liver's segment holds its tumors too. BINARY, which all readers open.

    Args:
        labels: (Z, Y, X), values 0, 1, 2.
        geometry: of the CT, from `read_dicom`.
        source: where the CT was read from; its headers are read again.
        path: .dcm

    Raises:
        ImportError: a package is missing.
        ValueError: the CT came from no DICOM, or its files are gone.
    """
    with _highdicom() as highdicom:
        from pydicom.uid import ExplicitVRLittleEndian

        headers = [
            _completed(header, geometry) for header in source_headers(source, geometry).values()
        ]
        frames = _frames(labels, geometry)  # (frames, rows, columns)
        present = [label for label in (1, 2) if (frames == label).any()] or [1]
        masks = [frames >= 1 if label == 1 else frames == 2 for label in present]
        made = highdicom.seg.Segmentation(
            source_images=headers,
            pixel_array=np.stack(masks, axis=-1).astype(np.uint8),
            segmentation_type="BINARY",
            segment_descriptions=[_description(n + 1, label) for n, label in enumerate(present)],
            series_instance_uid=highdicom.UID(),
            series_number=1000 + int(headers[0].get("SeriesNumber") or 0),
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer=NAME,
            manufacturer_model_name=NAME,
            software_versions=__version__,
            device_serial_number="none",
            content_label="LIVER_AND_TUMOR",
            content_description="Liver and liver tumors, segmented automatically",
            transfer_syntax_uid=ExplicitVRLittleEndian,
            specific_character_set="ISO_IR 192",  # UTF-8, whatever the CT's is, or lacks
        )
        made.SeriesDescription = "Liver and tumor segmentation"
        with written_whole(path) as temporary:
            made.save_as(temporary)
    return path


def read_dicom_seg(path: Path, like: Geometry | None) -> np.ndarray:
    """Read liver and tumor of a DICOM SEG as labels (Z, Y, X) uint8.

    Args:
        path: the file.
        like: the geometry of the CT that it belongs to; None keeps its own extent.

    Raises:
        ValueError: it shows no liver and no tumor, or lies off the CT's voxels.
    """
    with _opened_seg(path) as seg:
        kinds = _kinds(seg)
        if not kinds:
            names = ", ".join(str(segment.SegmentLabel) for segment in seg.SegmentSequence)
            raise ValueError(f"{path} shows neither liver nor tumor; its segments: {names}")
        dtype = np.float32 if seg.segmentation_type.value == "FRACTIONAL" else np.uint8
        options = {"segment_numbers": list(kinds), "combine_segments": False, "dtype": dtype}
        try:
            volume = seg.get_volume(**options)
        except RuntimeError as error:
            raise ValueError(f"{path}: its slices are no even stack ({error})") from error
        if like is None:
            volume = volume.to_patient_orientation("HPL")
        else:
            volume = _placed(volume, like, path)
        labels = np.zeros(volume.array.shape[:3], np.uint8)
        for n, label in enumerate(kinds.values()):
            np.maximum(labels, np.uint8(label), out=labels, where=volume.array[..., n] >= PRESENT)
    return labels


def read_seg_geometry(path: Path, also: Path | None = None) -> Geometry:
    """Return the extent of a DICOM SEG, which is often smaller than its CT.

    Args:
        path: the file.
        also: another DICOM SEG of the same CT: the extent then holds both.

    Raises:
        ValueError: the second lies off the voxels of the first.
    """
    grid = _grid_of(path)
    grid = grid if also is None else _grown(grid, _grid_of(also), also)
    affine = np.eye(4)
    affine[:3] = RAS_TO_LPS @ grid.affine[:3]
    return geometry_of_affine(grid.spatial_shape, affine)


def _grid_of(path: Path) -> "highdicom.VolumeGeometry":
    with _opened_seg(path) as seg:
        grid = seg.get_volume_geometry()
    if grid is None:
        raise ValueError(f"{path}: its slices are no even stack")
    return grid


def _grown(
    grid: "highdicom.VolumeGeometry", other: "highdicom.VolumeGeometry", path: Path
) -> "highdicom.VolumeGeometry":
    """Return a grid that holds both, on the voxels of the first."""
    ends = np.array(list(itertools.product(*((0, length - 1) for length in other.spatial_shape))))
    places = grid.map_reference_to_indices(other.map_indices_to_reference(ends))
    turn = grid.inverse_affine[:3, :3] @ other.affine[:3, :3]
    if np.abs(places - np.rint(places)).max() > NEAR or np.abs(turn - np.rint(turn)).max() > NEAR:
        raise ValueError(f"{path}: its voxels lie elsewhere than those of the other DICOM SEG")
    shape = np.array(grid.spatial_shape)
    before = np.maximum(0, -np.rint(places.min(axis=0))).astype(int)
    after = np.maximum(0, np.rint(places.max(axis=0)) - (shape - 1)).astype(int)
    return grid.pad(np.stack([before, after], axis=1).tolist())


def is_seg(path: str | os.PathLike) -> bool:
    """Tell whether a file is a DICOM SEG."""
    if not is_dicom(path) or os.path.isdir(path) or zipfile.is_zipfile(path):
        return False
    with opened(path) as store:
        header = store.dataset(Path(path).name, **HEADER_ONLY)
    return header.get("Modality") == "SEG"


def described_labels(path: str | os.PathLike) -> tuple[set[int], bool]:
    """Return the labels that a DICOM SEG has segments of, and whether this module wrote it.

    Raises:
        ImportError: a package is missing.
        OSError, ValueError: it cannot be read.
    """
    with _opened_seg(Path(path)) as seg:
        return set(_kinds(seg).values()), seg.get("Manufacturer") == NAME


def series_drawn_on(segmentation: Path, ct: Path) -> str | None:
    """Return the UID of the series of a CT that a DICOM SEG names; None where it names none of it.

    None of other files, too.

    Raises:
        ImportError, OSError, ValueError: one of both cannot be read.
    """
    if not (is_seg(segmentation) and is_dicom(ct)):
        return None
    with opened(segmentation) as store:
        header = store.dataset(segmentation.name, **FOR_STUDIES)
    with opened(ct) as store:
        there = {one.uid for one in store.series()}
    named = (str(item.get("SeriesInstanceUID")) for item in header.get(REFERRED) or ())
    return next((uid for uid in named if uid in there), None)


@contextmanager
def _highdicom() -> Iterator:
    """Yield highdicom; its warnings may quote a header."""
    try:
        import highdicom
        import highdicom.seg
    except ImportError as error:
        raise ImportError(INSTALL) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield highdicom


@contextmanager
def _opened_seg(path: Path) -> Iterator["highdicom.seg.Segmentation"]:
    """Yield a DICOM SEG; whatever its damage causes while it is open names it."""
    with _highdicom() as highdicom:
        try:
            yield highdicom.seg.segread(path)
        except (ImportError, MemoryError, OSError):
            raise
        except Exception as error:  # pydicom raises what the damage happens to cause
            if str(path) in str(error):
                raise
            raise ValueError(
                f"cannot read {path}: no DICOM SEG, or damaged ({type(error).__name__})"
            ) from error


def _completed(header: "Dataset", geometry: Geometry) -> "Dataset":
    """Add what a DICOM SEG must repeat of its CT, and what hospitals and tools leave out there."""
    from highdicom import PatientSexValues
    from pydicom.uid import generate_uid
    from pydicom.valuerep import DA, TM

    for tag in REPEATED:
        kind = DA if tag.endswith("Date") else TM if tag.endswith("Time") else str
        kind = PatientSexValues if tag == "PatientSex" else kind
        try:
            present = kind(header.get(tag, ""))
        except ValueError:  # 30 February, "W"
            present = None
        if not present:
            setattr(header, tag, "")
    for tag in ("StudyInstanceUID", "FrameOfReferenceUID"):
        if not header.get(tag):
            setattr(header, tag, generate_uid(entropy_srcs=[header.SeriesInstanceUID, tag]))
    stacked = geometry.axes.index(2)
    thickness_mm = header.get("SliceThickness")
    if not (isinstance(thickness_mm, float) and 0 < thickness_mm < np.inf):
        header.SliceThickness = geometry.spacing_mm[stacked]
    return header


def _frames(labels: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Return labels as (frames, rows, columns) in the order of the files, or of a file's frames."""
    frames = np.ascontiguousarray(geometry.as_stored(labels).T)
    numbers = [uid.partition("#")[2] for uid in geometry.dicom]
    if not numbers[0]:
        return frames
    ordered = np.zeros((max(map(int, numbers)), *frames.shape[1:]), frames.dtype)
    for number, frame in zip(numbers, frames, strict=True):
        ordered[int(number) - 1] = frame
    return ordered


def _description(number: int, label: int) -> "highdicom.seg.SegmentDescription":
    import highdicom
    from pydicom.sr.codedict import codes

    liver = codes.SCT.Liver
    kinds = {
        1: ("Liver", codes.SCT.AnatomicalStructure, liver),
        2: ("Liver tumor", codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Neoplasm),
    }
    name, category, kind = kinds[label]
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=NAME, version=__version__, family=codes.DCM.ArtificialIntelligence
        ),
        anatomic_regions=[liver] if label == 2 else None,
        display_color=highdicom.color.CIELabColor.from_rgb(*COLORS[label]),
    )


def _kinds(seg: "highdicom.seg.Segmentation") -> dict[int, int]:
    """Return {segment number: label} of the segments that are liver or tumor."""
    kinds = {}
    for number in seg.segment_numbers:
        segment = seg.get_segment_description(number)
        code = segment.segmented_property_type.value
        name = str(segment.segment_label)
        label = named_label(name)
        if label == 2 or (code in TUMOR_CODES and NAMELESS.fullmatch(name.strip())):
            kinds[int(number)] = 2
        elif code == LIVER_CODE or (label and not PART.search(name)):
            kinds[int(number)] = 1
    return kinds


def _placed(volume: "highdicom.Volume", like: Geometry, path: Path) -> "highdicom.Volume":
    """Return segments (Z, Y, X, segments) on the voxels of the CT."""
    import highdicom

    affine = np.eye(4)
    affine[:3] = RAS_TO_LPS @ internal_affine(like)
    grid = highdicom.VolumeGeometry(affine, like.shape, coordinate_system="PATIENT")
    try:
        placed = volume.match_geometry(grid, tol=NEAR)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{path}: its voxels lie elsewhere than those of the CT; give the CT it was drawn on"
        ) from error
    if np.count_nonzero(placed.array) != np.count_nonzero(volume.array):
        raise ValueError(f"{path} reaches beyond the CT; give the CT it was drawn on")
    return placed
