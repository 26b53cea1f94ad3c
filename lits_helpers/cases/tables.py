"""The two tables that may lie in a data folder: cases.csv names files, patients.csv patients."""

import csv
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..volumes import described_labels, is_seg, series_drawn_on
from .case import Case
from .layouts import is_liver_only

TABLE = "cases.csv"  # columns case, volume, segmentation, patient; the last two may be absent
MOST_SHOWN = 120  # characters of a path in a message
PATIENTS = "patients.csv"  # columns case and patient; for patients with several scans


def read_cases(path: Path) -> tuple[list[Case], list[str]]:
    """Return the cases that a cases.csv names, and notes on the lines that were left aside.

    Files are named from the table's folder on.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: it lacks a column or is no text.
    """
    cases: dict[str, Case] = {}
    notes = []
    for row in _rows(path, ("case", "volume")):
        name, volume, segmentation, patient = (
            row.get(column, "") for column in ("case", "volume", "segmentation", "patient")
        )
        files = [path.parent / text for text in (volume, segmentation) if text]
        missing = [_shown(file) for file in files if not _is_there(file)]
        fault = None
        if not name or not volume:
            fault = "it needs a case and a volume"
        elif name.startswith(".") or not name.isprintable() or {"/", "\\"} & set(name):
            fault = "a case is a name, no path"
        elif name in cases:
            fault = "this case has a line already"
        elif missing:
            fault = f"no file {' and no file '.join(missing)}"
        if fault:
            notes.append(f"{path.name}, case {name[:40] or '?'} left aside: {fault}")
            continue
        reference = files[1] if segmentation else None
        case = Case(name, patient or name, files[0], reference)
        cases[name] = _as_its_reference_says(case) if reference else case
    if not cases and not notes:
        raise ValueError(f"{path}: it has no line under its columns; each case needs one")
    return list(cases.values()), notes


def _is_there(file: Path) -> bool:
    try:
        return file.exists()
    except OSError:  # a name that no disk takes
        return False


def _shown(file: Path) -> str:
    return str(file) if len(str(file)) <= MOST_SHOWN else f"...{str(file)[-MOST_SHOWN:]}"


def _as_its_reference_says(case: Case) -> Case:
    """Return a case of the series that its DICOM SEG was drawn on; liver_only if it is so.

    The latter by the reference's place, dataset.json or DICOM segments.
    """
    path = case.segmentation
    with suppress(ImportError, OSError, ValueError):  # reading it later says why
        alone = is_liver_only(path) or (is_seg(path) and described_labels(path)[0] == {1})
        case = replace(case, liver_only=alone)
        return replace(case, series=series_drawn_on(path, case.volume))
    return case


def with_patients(root: Path, cases: list[Case]) -> list[str]:
    """Give cases the patients of the patients.csv in a folder, if there is one.

    A case without a line stays as it is: the patient that its DICOM names, or one of its own, whose
    name must be free.

    Args:
        root: the folder.
        cases: changed in place. One that another table gives another patient is taken out.

    Returns:
        Notes.

    Raises:
        ValueError: the table cannot be understood.
    """
    path = root / PATIENTS
    if not path.is_file():
        return []
    patients = _patients(path, cases)
    told = (root / TABLE).is_file()
    notes = []
    for place, case in reversed(list(enumerate(cases))):
        patient = patients.get(case.id, case.patient)
        if told and case.patient not in (case.id, patient):
            notes.append(
                f"case {case.id} left aside: its patient is {case.patient} in {TABLE} and "
                f"{patient} in {PATIENTS}; mend one of them"
            )
            del cases[place]
        else:
            cases[place] = replace(case, patient=patient)
    return notes


def _patients(path: Path, cases: Iterable[Case]) -> dict[str, str]:
    """Return {case id: patient} of the lines of a patients.csv that are about these cases."""
    ids = {_plain(case.id): case.id for case in cases}
    patients: dict[str, str] = {}
    for row in _rows(path, ("case", "patient")):
        case, patient = row["case"], row["patient"]
        name = ids.get(_plain(case), case)
        if not case or not patient or patients.get(name, patient) != patient:
            raise ValueError(
                f"{path}: {row} is wrong: wanted are the columns case (its id: the N of "
                "volume-N.nii) and patient, with commas between, and no case under two patients"
            )
        patients[name] = patient
    if patients.keys().isdisjoint(ids.values()):
        raise ValueError(
            f"{path}: no line is about a case here: wanted are the columns case (as "
            f"{next(iter(ids.values()))}) and patient, found the cases {', '.join(patients)[:80]}"
        )
    for name in ids.values():
        if name not in patients and name in patients.values():
            raise ValueError(
                f"{path}: is patient {name} the patient of case {name}, which has no line? If "
                f'so, add "{name},{name}"; if not, give that patient another name'
            )
    return patients


def _plain(case: str) -> str:
    """Return a case id as tables may write it: 7 for 007."""
    return case.lstrip("0") or "0" if case.isdecimal() else case


def _rows(path: Path, wanted: tuple[str, ...]) -> list[dict[str, str]]:
    """Return the lines of a table, their cells without blanks around."""
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as stream:
        reader = csv.DictReader(stream, skipinitialspace=True)
        try:
            rows = list(reader)
        except csv.Error as error:
            after = f"{error} after line {reader.line_num}"
            raise ValueError(f"{path}: {after}; is a quotation mark left open?") from error
    if rows and not set(wanted) <= set(rows[0]):
        raise ValueError(
            f"{path}: wanted are the columns {' and '.join(wanted)}, with commas between, in "
            f"UTF-8; it begins with {str(rows[0])[:100]}"
        )
    return [{str(key): str(cell or "").strip() for key, cell in row.items()} for row in rows]
