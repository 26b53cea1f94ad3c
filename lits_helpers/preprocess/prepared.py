"""What a prepared/ folder holds: the record of each case, and the files that belong to it."""

import logging
import os
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..cases import Split, id_order, split_cases
from ..machine import few, read_json
from ..settings import hint
from ..volumes import (
    LABELS_SUFFIX,
    SUFFIX,
    is_whole,
    numbered_pngs,
    open_volume,
    png_size,
    read_png,
)

logger = logging.getLogger(__name__)

RECORD_VERSION = 1
RECORD_KEYS = set(
    "case_id patient shape spacing_mm has_segmentation liver_slices tumor_slices".split()
)
KNOWN_KEYS = RECORD_KEYS | {"version", "source_hash", "geometry", "findings", "png_window"}


@dataclass(frozen=True)
class PreparedCase:
    """A prepared case, as its record states it.

    Attributes:
        id, patient: as in `Case`.
        shape: (Z, Y, X).
        spacing_mm: (dz, dy, dx); None for a bare PNG folder.
        slices: the slice indices; a bare PNG folder may lack some.
        liver_slices, tumor_slices: the slice indices that hold liver (tumor).
        has_segmentation: whether there are labels.
        record: the whole JSON record; empty for a bare PNG folder.
    """

    id: str
    patient: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] | None
    slices: tuple[int, ...]
    liver_slices: tuple[int, ...]
    tumor_slices: tuple[int, ...]
    has_segmentation: bool
    record: dict = field(default_factory=dict, repr=False, compare=False)

    @property
    def liver_only(self) -> bool:
        """Whether the labels show no tumors, although there may be some."""
        return self.record.get("liver_only", False)


@dataclass(frozen=True)
class CaseFiles:
    """Where the files of one prepared case lie: below cases/, images/ and masks/."""

    root: Path
    case_id: str

    @property
    def volume(self) -> Path:
        return self.root / "cases" / f"{self.case_id}{SUFFIX}"

    @property
    def labels(self) -> Path:
        return self.root / "cases" / f"{self.case_id}{LABELS_SUFFIX}"

    @property
    def record(self) -> Path:
        return self.root / "cases" / f"{self.case_id}.json"

    @property
    def images(self) -> Path:
        return self.root / "images" / self.case_id

    @property
    def masks(self) -> Path:
        return self.root / "masks" / self.case_id

    def known(self) -> dict | None:
        """Return the record if the case is there, whole, and of this version."""
        try:
            record = read_json(self.record)
        except (FileNotFoundError, ValueError):
            return None
        if not isinstance(record, dict) or KNOWN_KEYS - set(record):
            return None
        needed = [self.volume, self.labels] if record["has_segmentation"] else [self.volume]
        whole = all(is_whole(path) for path in needed)
        return record if whole and record["version"] == RECORD_VERSION else None

    def has_png(self, record: dict, window: tuple[float, float]) -> bool:
        """Tell whether the PNG slices are there with this window."""
        if record["png_window"] != list(window) or not self.images.is_dir():
            return False
        return self.masks.is_dir() or not record["has_segmentation"]

    def remove(self) -> None:
        """Remove all files of the case, the record first."""
        for path in (self.record, self.volume, self.labels):
            path.unlink(missing_ok=True)
        for folder in (self.images, self.masks):
            shutil.rmtree(folder, ignore_errors=True)


def prepared_cases(root: str | os.PathLike) -> list[PreparedCase]:
    """List the cases below a prepared/ folder, or below a bare PNG folder (images/, masks/).

    In a bare PNG folder each folder of slices is a case and a patient, and masks show the liver
    only. A case that cannot be understood is left out with a warning that names it.

    Raises:
        FileNotFoundError: no case is there.
    """
    root = Path(root)
    records = list((root / "cases").glob("[!.]*.json"))
    folders = [path for path in (root / "images").glob("[!.]*") if path.is_dir()]
    found = []
    faults = []
    for path in records or folders:
        try:
            found.append(_from_record(path) if records else _from_png(path, root / "masks"))
        except (ValueError, TypeError, OSError) as error:  # one bad case must not end the others
            faults.append(error)
            logger.warning("%s is left out: %s", path, error)
    if not found:
        reason = f" ({faults[0]})" if faults else ""
        raise FileNotFoundError(
            f"no prepared case under {root}: expected cases/<case>.json or images/<case>/<k>.png"
            f"{reason}; {hint('prepare')}"
        )
    return sorted(found, key=lambda case: id_order(case.id))


@dataclass(frozen=True)
class Prepared:
    """The prepared data of a run.

    Attributes:
        root: prepared/ folder, or a folder of PNG slices.
        cases: every case in it.
        split: the cases with a segmentation, for training, validation and test, by patient.
    """

    root: Path
    cases: list[PreparedCase]
    split: Split

    def case(self, case_id: str) -> PreparedCase:
        """Return the case of that id.

        Raises:
            KeyError: there is none; names all cases.
        """
        for case in self.cases:
            if case.id == case_id:
                return case
        raise KeyError(
            f"no case {case_id!r} in {self.root}; there are {few(c.id for c in self.cases)}"
        )

    def volume_path(self, case_id: str) -> Path:
        """Return the packed CT of a case, for `volumes.open_volume` and `read_volume`."""
        return CaseFiles(self.root, self.case(case_id).id).volume

    def labels_path(self, case_id: str) -> Path:
        """Return the packed reference segmentation of a case."""
        return CaseFiles(self.root, self.case(case_id).id).labels


def open_prepared(
    root: Path | str,
    *,
    validation: float = 0.15,
    test: float = 0.0,
    fold: int | None = None,
    case_ids: Collection[str] | None = None,
) -> Prepared:
    """Open a prepared/ folder (or a folder of PNG slices) and split its cases by patient.

    Args:
        root: the folder.
        validation, test, fold: as for `cases.split_cases`.
        case_ids: only these cases; None takes all.

    Raises:
        FileNotFoundError: nothing prepared is there; says how to prepare.
    """
    cases = [c for c in prepared_cases(root) if case_ids is None or c.id in case_ids]
    split = split_cases([case for case in cases if case.has_segmentation], validation, test, fold)
    return Prepared(Path(root), cases, split)


def example_case(data: Prepared) -> PreparedCase:
    """Return a case to look at: much tumor, darker than its liver, as most tumors are.

    It is the one with most tumor slices whose tumor's median HU lies below that of the healthy
    liver by the liver's own standard deviation; if no tumor is so dark, the one with most slices.
    """
    ranked = sorted(
        data.cases, key=lambda case: (len(case.tumor_slices), case.has_segmentation), reverse=True
    )
    return next((case for case in ranked if _has_dark_tumor(data, case)), ranked[0])


def _has_dark_tumor(data: Prepared, case: PreparedCase) -> bool:
    if not case.tumor_slices:
        return False
    hu = open_volume(data.volume_path(case.id)).read()
    labels = open_volume(data.labels_path(case.id)).read()
    liver = hu[labels == 1]
    return bool(liver.size and np.median(hu[labels == 2]) <= np.median(liver) - liver.std())


def data_hashes(prepared: Path | str, case_ids: Sequence[str]) -> dict[str, str | None]:
    """Return {case id: `source_hash` of its record}; None for a bare PNG folder."""
    hashes = {}
    for case_id in case_ids:
        record = CaseFiles(Path(prepared), str(case_id)).record
        content = read_json(record) if record.is_file() else {}
        hashes[str(case_id)] = content.get("source_hash")
    return hashes


def hash_of_ct(source_hash: str) -> str:
    """Return the part of a record's `source_hash` that identifies the CT's content."""
    return source_hash.split("-")[0]


def _from_record(path: Path) -> PreparedCase:
    record = read_json(path)
    if not isinstance(record, dict) or RECORD_KEYS - set(record):
        raise ValueError("it is no record of a prepared case")
    if record.get("version", RECORD_VERSION) != RECORD_VERSION:
        raise ValueError(f"of version {record['version']}; {hint('prepare')} again")
    shape = tuple(record["shape"])
    return PreparedCase(
        id=record["case_id"],
        patient=record["patient"],
        shape=shape,
        spacing_mm=tuple(record["spacing_mm"]),
        slices=tuple(range(shape[0])),
        liver_slices=tuple(record["liver_slices"]),
        tumor_slices=tuple(record["tumor_slices"]),
        has_segmentation=record["has_segmentation"],
        record=record,
    )


def _from_png(folder: Path, mask_root: Path) -> PreparedCase:
    images = numbered_pngs(folder)
    masks = numbered_pngs(mask_root / folder.name)
    if not images:
        raise ValueError("it holds no slice <k>.png")
    height, width = png_size(images[min(images)])
    return PreparedCase(
        id=folder.name,
        patient=folder.name,
        shape=(len(images), height, width),
        spacing_mm=None,
        slices=tuple(images),
        liver_slices=tuple(k for k in images if k in masks and _holds_liver(masks[k])),
        tumor_slices=(),
        has_segmentation=bool(masks),
    )


def _holds_liver(mask: Path) -> bool:
    try:
        return bool(read_png(mask).any())
    except OSError:  # the training names the file and leaves the case out
        return False
