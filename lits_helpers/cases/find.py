"""Find cases by the names of their files."""

import csv
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..machine import file_hash
from ..settings import hint
from ..volumes import parse_name
from .case import Case

PATIENTS = "patients.csv"  # columns case (its number) and patient; for patients with several scans


def find_cases(root: str | os.PathLike) -> list[Case]:
    """Find cases by their files' names, anywhere below `root`.

    The whole name counts: volume-N.nii[.gz] or segmentation-N.nii[.gz]. A patients.csv in `root`
    (columns case and patient) tells which cases are of one patient.

    Returns:
        Cases by number; `segmentation` is None where there is none. A segmentation without a
        volume is no case.

    Raises:
        FileNotFoundError: no volume below `root`.
        ValueError: two different files have one name, or patients.csv is wrong.
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
    patients = _patients(Path(root) / PATIENTS, numbers)
    return [
        Case(str(n), patients.get(n, str(n)), found["volume", n], found.get(("segmentation", n)))
        for n in numbers
    ]


def _patients(path: Path, numbers: Iterable[int]) -> dict[int, str]:
    """Return {case number: patient} of a patients.csv; {} where there is none.

    Args:
        numbers: cases found. One without a line is a patient of its own, whose name must be free.
    """
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as stream:
        rows = list(csv.DictReader(stream))
    patients = {}
    for row in rows:
        case, patient = [(row.get(name) or "").strip() for name in ("case", "patient")]
        if not case.isdecimal() or not patient or patients.get(int(case), patient) != patient:
            raise ValueError(
                f"{path}: {row} is wrong: wanted are the columns case (the N of volume-N.nii) and "
                "patient (any text), with commas between, and no case under two patients"
            )
        patients[int(case)] = patient
    for number in numbers:
        if number not in patients and str(number) in patients.values():
            raise ValueError(
                f"{path}: is patient {number} the patient of case {number}, which has no line? If "
                f'so, add "{number},{number}"; if not, give that patient another name'
            )
    return patients


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
    if not path.exists():
        return known
    if known.stat().st_size == path.stat().st_size and file_hash(known) == file_hash(path):
        return known
    raise ValueError(f"two files for one case: {known} and {path}; remove one of them")
