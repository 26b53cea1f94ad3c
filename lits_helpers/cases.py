"""Find, check and split cases: a case is one CT volume with, mostly, its segmentation."""

import csv
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .checks import Finding, check_case
from .files import file_hash
from .nifti import parse_name

__all__ = ["Case", "Finding", "Split", "check_case", "find_cases", "split_cases"]

PATIENTS = "patients.csv"  # columns case (its number) and patient, where some have several scans


@dataclass(frozen=True)
class Case:
    """One CT volume and what belongs to it.

    Attributes:
        id: the number in the file name, as text: "17" for volume-17.nii.
        patient: cases of one patient are never split; each is a patient of its own, as in LiTS,
            unless a patients.csv says otherwise.
        volume: the CT's file.
        segmentation: the labels' file, or None.
        orientation: axis codes that override a wrong header, for example "LAS"; None believes the
            header.
    """

    id: str
    patient: str
    volume: Path
    segmentation: Path | None = None
    orientation: str | None = None


@dataclass(frozen=True)
class Split:
    """Case ids for training, validation and test; no patient is in two of them."""

    training: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...] = ()


def find_cases(root: str | os.PathLike) -> list[Case]:
    """Find cases by their files' names, anywhere below `root`.

    Whole names count: volume-N.nii[.gz] and segmentation-N.nii[.gz], and nothing around them. A
    patients.csv in `root` (columns case and patient) says which cases are of one patient.

    Returns:
        cases by number; `segmentation` is None where there is none. A segmentation without a
        volume is no case.

    Raises:
        FileNotFoundError: no volume below `root`.
        ValueError: two different files claim the same place, or patients.csv cannot be understood.
    """
    found: dict[tuple[str, int], Path] = {}
    for path in _files_below(Path(root)):
        key = parse_name(path.name)
        if key:
            found[key] = _one_of(found.get(key), path)
    numbers = sorted(number for kind, number in found if kind == "volume")
    if not numbers:
        raise FileNotFoundError(
            f"no case under {root}: expected volume-N.nii[.gz] with segmentation-N.nii[.gz]; "
            "give the folder that holds them (RAW_FOLDER, LITS_RAW, in a shell --raw)"
        )
    patients = _patients(Path(root) / PATIENTS)
    _check_unlisted(Path(root) / PATIENTS, patients, numbers)
    return [
        Case(str(n), patients.get(n, str(n)), found["volume", n], found.get(("segmentation", n)))
        for n in numbers
    ]


def _patients(path: Path) -> dict[int, str]:
    """Return {case number: patient} of a patients.csv; {} where there is none."""
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as stream:
        rows = list(csv.DictReader(stream))
    patients = {}
    for row in rows:
        case, patient = [(row.get(name) or "").strip() for name in ("case", "patient")]
        if not (
            case.isdecimal() and patient and patients.setdefault(int(case), patient) == patient
        ):
            raise ValueError(
                f"{path}: {row} is wrong: wanted are the columns case (the N of volume-N.nii) and "
                "patient (any text), with commas between, and no case under two patients"
            )
    return patients


def _check_unlisted(path: Path, patients: dict[int, str], numbers: Iterable[int]) -> None:
    """Refuse a patient that is named like a case without a line, which is a patient of its own."""
    for number in numbers:
        if number not in patients and str(number) in patients.values():
            raise ValueError(
                f"{path}: is patient {number} the patient of case {number}, which has no line? If "
                f'so, add "{number},{number}"; if not, give that patient another name'
            )


def split_cases(
    cases: Iterable, validation: float = 0.15, test: float = 0.0, fold: int | None = None
) -> Split:
    """Split cases by a stable hash of their patient, so that adding a case moves no other.

    Fractions hold on average only. If no patient falls into a part that was asked for, the patient
    whose hash lies nearest goes there, as long as one remains for training; if none is left for
    training, the largest part gives one up. A fold without patients is refused instead: over all
    folds each patient validates once.

    Args:
        cases: anything with `.id` and `.patient`.
        validation: fraction of patients for validation, in [0, 1).
        test: fraction for test; never depends on `fold`.
        fold: which of the ``round((1 - test) / validation)`` equal parts validates
            (cross-validation).

    Raises:
        ValueError: fractions that leave no training, a fold that does not exist or has no patient.
    """
    if not (0 <= validation and 0 <= test and validation + test < 1):
        raise ValueError(f"validation + test must be in [0, 1), got {validation} + {test}")
    cases = list(cases)
    place = {case.patient: _place(case.patient) for case in cases}
    start, end = _validation_range(validation, test, fold)
    parts = {"test": (0.0, test), "validation": (start, end)}
    part_of = _assign(place, parts, fold)
    ids = {
        part: tuple(case.id for case in cases if part_of[case.patient] == part)
        for part in ("training", "validation", "test")
    }
    return Split(**ids)


def _validation_range(validation: float, test: float, fold: int | None) -> tuple[float, float]:
    if fold is None:
        return test, test + validation
    folds = round((1 - test) / validation) if validation else 0
    if not 0 <= fold < folds:
        raise ValueError(f"fold must be 0 to {folds - 1} for validation={validation}, got {fold}")
    width = (1 - test) / folds
    return test + fold * width, test + (fold + 1) * width


def _assign(
    place: dict[str, float], parts: dict[str, tuple[float, float]], fold: int | None
) -> dict[str, str]:
    part_of = dict.fromkeys(place, "training")
    for part, (start, end) in parts.items():
        for patient, u in place.items():
            if start <= u < end:
                part_of[patient] = part
    for part, (start, end) in parts.items():
        if end <= start or part in part_of.values():
            continue
        if part == "validation" and fold is not None:
            raise ValueError(f"fold {fold} holds none of the {len(place)} patients: leave it out")
        free = [p for p in place if part == "test" or part_of[p] == "training"]  # test: any fold's
        if len(free) > 1:
            middle = (start + end) / 2
            part_of[min(free, key=lambda patient: abs(place[patient] - middle))] = part
    if "training" not in part_of.values() and len(place) > 1:  # all hashed into the other parts
        members = {part: [p for p in place if part_of[p] == part] for part in parts}
        part_of[max(max(members.values(), key=len), key=place.__getitem__)] = "training"
    return part_of


def _place(patient: str) -> float:
    """Stable place of a patient in [0, 1)."""
    digest = hashlib.blake2b(patient.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _files_below(root: Path) -> Iterator[Path]:
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (Path(folder) / name for name in sorted(names))


def _one_of(known: Path | None, path: Path) -> Path:
    if known is None or not known.exists():  # a link into the void
        return path
    if not path.exists() or _same_content(known, path):
        return known
    raise ValueError(f"two files for one case: {known} and {path}; remove one of them")


def _same_content(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    return file_hash(one) == file_hash(other)
