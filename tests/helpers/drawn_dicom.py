"""Small DICOM series, written with pydicom alone, for the tests of DICOM in and out."""

import random

import highdicom
import highdicom.seg
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

from .drawn import SPACING_MM, affine_of, stored_as

PATIENT = "Doe^Jane"
PARTS = ("Liver", "Mass")


def shuffled(count):
    """Numbers below `count` in an order that is neither theirs nor its reverse."""
    return random.Random(3).sample(range(count), count)


def header_of(series=4, patient="P1", study="study", **tags):
    """The tags that all slices of a series share."""
    header = Dataset()
    header.PatientName, header.PatientID = PATIENT, patient
    header.PatientBirthDate, header.PatientSex = "", ""
    header.StudyInstanceUID = generate_uid(entropy_srcs=[study])
    header.SeriesInstanceUID = generate_uid(entropy_srcs=[study, str(series)])
    header.FrameOfReferenceUID = generate_uid(entropy_srcs=[study, "frame"])
    header.StudyDate, header.StudyTime, header.StudyID = "20200101", "120000", ""
    header.AccessionNumber, header.ReferringPhysicianName = "", ""
    header.SOPClassUID, header.Modality = CTImageStorage, "CT"
    header.Manufacturer, header.SeriesNumber, header.SliceThickness = "", series, 5.0
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
    header.PixelRepresentation, header.RescaleSlope, header.RescaleIntercept = 1, 1, 0
    header.PositionReferenceIndicator = ""
    for name, value in tags.items():
        setattr(header, name, value)
    return header


def write_slice(path, pixels, position, direction, spacing, header, number=1, **tags):
    """Write one slice; return its dataset."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = (
        ExplicitVRLittleEndian,
        header.SOPClassUID,
    )
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    dataset.update(header)
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[header.SeriesInstanceUID, str(number)])
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.InstanceNumber = number
    dataset.ImagePositionPatient = [float(value) for value in np.round(position, 6)]
    dataset.ImageOrientationPatient = [float(value) for value in np.round(direction, 6)]
    dataset.PixelSpacing = [float(value) for value in spacing]
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return dataset


def grid_of(hu, orientation, spacing_mm):
    """Return a series' stored array (columns, rows, slices), LPS affine, direction and spacing."""
    stored = stored_as(hu, orientation)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_of(hu.shape, orientation, spacing_mm)
    lengths = np.linalg.norm(lps[:3, :3], axis=0)
    return stored, lps, [*(lps[:3, 0] / lengths[0]), *(lps[:3, 1] / lengths[1])], lengths[[1, 0]]


def write_series(
    folder, hu, orientation="LPS", order=None, change=None, spacing_mm=SPACING_MM, **tags
):
    """Write (Z, Y, X) int16 as a series whose columns, rows and slices grow as `orientation` says.

    Args:
        folder: of the files, ``IM001.dcm`` and so on.
        hu: the HU.
        orientation: axis codes of (columns, rows, slices).
        order: file number -> slice; None takes them as they lie, which says nothing about it.
        change: called with (slice, position) before a slice is written; returns further tags.
        spacing_mm: (dz, dy, dx).
        tags: other values of `header_of`.

    Returns:
        The files.
    """
    header = header_of(**tags)
    stored, lps, direction, spacing = grid_of(hu, orientation, spacing_mm)
    offset = round(float(header.RescaleIntercept))
    files = []
    for number, k in enumerate(order or range(stored.shape[2])):
        position = lps[:3, 3] + lps[:3, 2] * k
        path = folder / f"IM{number + 1:03d}.dcm"
        more = (change(k, position) if change else None) or {}
        pixels = (stored[..., k].T - offset).astype("<i2" if header.PixelRepresentation else "<u2")
        write_slice(path, pixels, position, direction, spacing, header, number + 1, **more)
        files.append(path)
    return files


def write_enhanced(path, hu, orientation="LPS", order=None, change=None, **tags):
    """Write an Enhanced CT: all slices as frames of one file, their places and HU frame by frame.

    Args:
        path: the file.
        hu, orientation, order, tags: as for `write_series`.
        change: called with the frame's number; returns (slope, intercept, acquisition).
    """
    header = header_of(SOPClassUID=EnhancedCTImageStorage, **tags)
    for name in ("SliceThickness", "RescaleSlope", "RescaleIntercept"):
        delattr(header, name)
    stored, lps, direction, spacing = grid_of(hu, orientation, SPACING_MM)
    groups, frames = [], []
    for number, k in enumerate(order or range(stored.shape[2])):
        slope, intercept, acquisition = change(number) if change else (1, 0, 1)
        frames.append(np.rint((stored[..., k].T - intercept) / slope).astype("<i2"))
        position = lps[:3, 3] + lps[:3, 2] * k
        parts = {
            "FrameContentSequence": {"FrameAcquisitionNumber": acquisition},
            "PlanePositionSequence": {"ImagePositionPatient": np.round(position, 6).tolist()},
            "PixelValueTransformationSequence": {
                "RescaleSlope": slope, "RescaleIntercept": intercept, "RescaleType": "HU",
            },
        }  # fmt: skip
        groups.append(_group(parts))
    shared = {
        "PixelMeasuresSequence": {"PixelSpacing": spacing.tolist(), "SliceThickness": 5.0},
        "PlaneOrientationSequence": {"ImageOrientationPatient": np.round(direction, 6).tolist()},
    }
    more = {"NumberOfFrames": len(frames), "PerFrameFunctionalGroupsSequence": Sequence(groups)}
    more["SharedFunctionalGroupsSequence"] = Sequence([_group(shared)])
    dataset = write_slice(path, frames[0], (0, 0, 0), direction, spacing, header)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(dataset, name)
    for name, value in (more | {"PixelData": np.stack(frames).tobytes()}).items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_seg(
    path,
    files,
    labels,
    orientation="LPS",
    kind="BINARY",
    parts=("Liver", "Mass"),
    order=None,
    **tags,
):
    """Write what another program makes of a series by `write_series` in the order of its slices.

    Args:
        path: the DICOM SEG.
        files: of the series.
        labels: (Z, Y, X), values 0, 1, 2.
        orientation, order: of the series.
        kind: BINARY, LABELMAP or FRACTIONAL.
        parts: names of the segments of labels 1, which holds 2 too, and 2; None leaves one out.
        tags: further values of the file.
    """
    order = list(order or range(len(files)))
    frames = np.ascontiguousarray(stored_as(labels, orientation).T[order])
    masks = dict(zip(parts, (frames > 0, frames == 2), strict=True))
    masks.pop(None, None)
    segments = [
        highdicom.seg.SegmentDescription(
            number, name, codes.SCT.AnatomicalStructure, codes.SCT.Spleen, "MANUAL"
        )
        for number, name in enumerate(masks, 1)
    ]
    dtype = np.float32 if kind == "FRACTIONAL" else np.uint8
    pixels = np.stack(list(masks.values()), axis=-1).astype(dtype)
    pixels = frames if kind == "LABELMAP" else pixels
    sources = [dcmread(file) for file in files]
    made = highdicom.seg.Segmentation(
        sources, pixels, kind, segments, generate_uid(), 90, generate_uid(), 1, "Another", "Tool",
        "1", "none",
    )  # fmt: skip
    for name, value in tags.items():
        setattr(made, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path)
    return path


def _group(parts):
    """Return a functional group of {sequence: values of its one item}."""
    group = Dataset()
    for name, values in parts.items():
        item = Dataset()
        for tag, value in values.items():
            setattr(item, tag, value)
        setattr(group, name, Sequence([item]))
    return group
