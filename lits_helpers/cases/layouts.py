"""How data sets name and place their files: the table of layouts.

To add a layout, write a function that tells the part of a case from a file's path, and add a line
to `LAYOUTS`. A part may be a folder: each of its files then names that folder.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..volumes import meaning_of

CT, REFERENCE, OTHER = "volume", "segmentation", "other"  # roles of a part
NIFTI = re.compile(r"(.+?)( \(\d+\))?\.nii(\.gz)?", re.IGNORECASE)  # " (1)" comes from browsers
LITS_STEM = re.compile(r"(volume|segmentation)-(\d+)")
LABEL_STEM = re.compile(r"(?:prediction-volume|prediction|volume|(?:test-)?segmentation)-(.+)")
LITS_TEST_STEM = re.compile(r"test-volume-(\d+)")
PROBABILITY = r".+_(liver|tumor)_probability"
PREDICTION_STEM = re.compile(rf"(prediction-|test-segmentation-).*|{PROBABILITY}")  # of this module
REFERENCE_STEM = re.compile(r"(.+)[-_.](seg|segmentation|labels?|masks?)", re.IGNORECASE)
CHANNEL_STEM = re.compile(r"(.+)_(\d{4})")
CT_FOLDERS = {"images", "image", "imgs", "ct", "cts", "volumes", "scans"}
REFERENCE_FOLDERS = {"labels", "label", "masks", "mask", "segmentations", "segmentation"}
CHAOS_FOLDERS = {("DICOM_anon", ".dcm"): CT, ("Ground", ".png"): REFERENCE}
MSD_FOLDERS = {"imagesTr": CT, "imagesTs": CT, "labelsTr": REFERENCE, "labelsTs": REFERENCE}


class Part(NamedTuple):
    """What a file is of a case.

    Attributes:
        role: `CT`, `REFERENCE`, or `OTHER` for what belongs to the layout and is not used.
        case: the same text for a CT and its reference; what follows its last "/" is the case id.
        path: the file, or a folder that holds it and is read as a whole.
    """

    role: str
    case: str
    path: Path


@dataclass(frozen=True)
class Layout:
    """One way to name and place files.

    Attributes:
        name: what `find_cases` and --layout call it.
        form: how its files look, for messages.
        part: tells the `Part` of a file's path, None for a file of no part.
        liver_only: its references do not show tumors.
    """

    name: str
    form: str
    part: Callable[[Path], Part | None]
    liver_only: bool = False


def stem_of(path: Path) -> str | None:
    """Return a NIfTI file's name without suffix and without a browser's " (1)"; None for others."""
    match = NIFTI.fullmatch(path.name)
    return match[1] if match else None


def is_unusual(path: Path) -> bool:
    """Tell whether a file is taken although its suffix is in capitals or a browser numbered it."""
    match = NIFTI.fullmatch(path.name)
    return match is not None and bool(match[2] or not path.name.endswith((".nii", ".nii.gz")))


def label_id(path: Path) -> str | None:
    """Return the case id of a file of labels, wherever it lies; None for any other file."""
    for part in (_totalsegmentator(path), _suffix(path)):
        if part and part.role == REFERENCE:
            return Path(part.case).name
    stem = path.stem if path.suffix.lower() == ".dcm" else stem_of(path)
    if stem and re.fullmatch(PROBABILITY, stem):
        return None
    match = LABEL_STEM.fullmatch(stem or "")
    return match[1] if match else stem


def is_liver_only(path: Path) -> bool:
    """Tell whether a file of labels shows no tumors: by its layout, or by its dataset.json."""
    part = _totalsegmentator(path)
    if part is not None and part.role == REFERENCE:
        return True
    try:
        meaning = meaning_of(path)
    except (OSError, ValueError):  # whoever reads the labels says why
        return False
    return meaning is not None and meaning.liver_only


def _lits(path: Path) -> Part | None:
    match = LITS_STEM.fullmatch(stem_of(path) or "")
    return Part(match[1], str(int(match[2])), path) if match else None


def _lits_test(path: Path) -> Part | None:
    match = LITS_TEST_STEM.fullmatch(stem_of(path) or "")
    return Part(CT, str(int(match[1])), path) if match else None


def _msd(path: Path) -> Part | None:
    stem = stem_of(path)
    role = MSD_FOLDERS.get(path.parent.name)
    return Part(role, f"{path.parent.parent}/{stem}", path) if stem and role else None


def _nnunet(path: Path) -> Part | None:
    part = _msd(path)
    if part is None or part.role == REFERENCE:
        return part
    match = CHANNEL_STEM.fullmatch(part.case)
    if match is None:
        return None
    return Part(CT if match[2] == "0000" else OTHER, match[1], path)


def _totalsegmentator(path: Path) -> Part | None:
    stem = stem_of(path)
    if stem == "ct":
        return Part(CT, path.parent.as_posix(), path)
    if stem and path.parent.name == "segmentations":
        return Part(REFERENCE if stem == "liver" else OTHER, path.parent.parent.as_posix(), path)
    return None


def _folders(path: Path) -> Part | None:
    stem = stem_of(path)
    folder = path.parent.name.lower()
    if not stem or folder not in CT_FOLDERS | REFERENCE_FOLDERS:
        return None
    match = REFERENCE_STEM.fullmatch(stem) if folder in REFERENCE_FOLDERS else None
    role = CT if folder in CT_FOLDERS else REFERENCE
    return Part(role, f"{path.parent.parent}/{match[1] if match else stem}", path)


def _suffix(path: Path) -> Part | None:
    stem = stem_of(path)
    if not stem or PREDICTION_STEM.fullmatch(stem):
        return None
    match = REFERENCE_STEM.fullmatch(stem)
    role = REFERENCE if match else CT
    return Part(role, f"{path.parent}/{match[1] if match else stem}", path)


def _ircadb(path: Path) -> Part | None:
    if path.parent.name == "PATIENT_DICOM":
        return Part(CT, path.parent.parent.as_posix(), path.parent)
    masks = path.parent.parent
    return Part(REFERENCE, masks.parent.as_posix(), masks) if masks.name == "MASKS_DICOM" else None


def _chaos(path: Path) -> Part | None:
    role = CHAOS_FOLDERS.get((path.parent.name, path.suffix.lower()))
    return Part(role, path.parent.parent.as_posix(), path.parent) if role else None


# Where several fit equally well, the first is taken: the special ones stand before the general.
LAYOUTS = (
    Layout("lits", "volume-N.nii[.gz] with segmentation-N.nii[.gz]", _lits),
    Layout("lits-test", "test-volume-N.nii[.gz]", _lits_test),
    Layout("nnunet", "imagesTr/NAME_0000.nii.gz with labelsTr/NAME.nii.gz", _nnunet),
    Layout("msd", "imagesTr/NAME.nii.gz with labelsTr/NAME.nii.gz", _msd),
    Layout(
        "totalsegmentator",
        "NAME/ct.nii.gz with NAME/segmentations/liver.nii.gz",
        _totalsegmentator,
        liver_only=True,
    ),
    Layout("ircadb", "NAME/PATIENT_DICOM with NAME/MASKS_DICOM/liver, livertumor01 ...", _ircadb),
    Layout(
        "chaos", "NAME/DICOM_anon/*.dcm with NAME/Ground/liver_GT_*.png", _chaos, liver_only=True
    ),
    Layout("folders", "images/NAME.nii.gz with labels/NAME.nii.gz or masks/", _folders),
    Layout("suffix", "NAME.nii.gz with NAME_seg.nii.gz (_label, _mask)", _suffix),
)
