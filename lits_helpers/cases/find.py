"""Find cases by the names of their files."""

import csv
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..machine import file_hash
from ..settings import hint
from ..volumes import parse_name
from .case import Case

PATIENTS = "patients.csv"  # columns case (its number) and patient, where some have several scans


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
            f"give the folder that holds them ({hint('raw')})"
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
