"""Cases among DICOM files: a study is a CT, a DICOM SEG drawn on it its reference.

Headers tell what belongs together, wherever the files lie. They do not tell a case's id: that is
the folder's name, or of the study's UID where the folder bears the patient's name.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from zlib import crc32

from ..machine import few
from ..volumes import Study, described_labels, find_studies, words_of
from .case import Case

BY_HEADERS = "dicom"
NOBODY = set("anon anonymized anonymous case liver name none patient phantom subject test".split())
LONG = 5  # letters of a name that are found within a word too
FORM = "folders of DICOM, a CT each, with a DICOM SEG"


def cases_of_studies(
    files: Iterable[Path], root: Path, *, references: bool = True
) -> tuple[list[Case], list[str]]:
    """Return the cases among DICOM files, and notes on what was left aside.

    A study is named after its folder, and stands there for all below it. Where a folder holds
    several, a file of each stands for its longest series. Studies of one patient share it.

    Args:
        files: of any kind.
        root: the folder that they lie below.
        references: make a case of each series that a DICOM SEG was drawn on; without, of each
            study, whose longest series it then is.
    """
    studies = find_studies(files)
    folders = Counter(parent for study in studies for parent in _folders(study, root))
    notes = [note for study in studies if (note := _left_aside(study, root, folders))]
    studies = [study for study in studies if study.series]
    cases: dict[str, Case] = {}
    owners: list[tuple[str, str]] = []
    hidden: list[str] = []
    for study in studies:
        place = Path(os.path.commonpath([path.parent for path in _slices(study)]))
        drawn = _drawn(study, notes, root) if references else {}
        for uid in drawn or list(study.series)[:1]:
            volume = place if folders[place] == 1 else study.series[uid][0]
            name = _named_after(volume, root)
            case_id = without_name(name, study)
            hidden += [case_id] if case_id != name else []
            case_id = _not_among(cases, case_id)
            reference, liver_only = drawn.get(uid, (None, False))
            case = Case(case_id, case_id, volume, reference, liver_only=liver_only)
            cases[case_id] = replace(case, series=uid) if drawn else case
            owners.append((study.patient, study.uid or str(place)))
    if hidden:
        notes.append(f"folders that bear a patient's name become the cases {few(hidden)}")
    return _of_one_patient_together(list(cases.values()), owners, notes), notes


def _not_among(taken: Collection[str], case_id: str) -> str:
    """Return a case id, with the first number from 2 on that makes it one of its own."""
    numbered = (f"{case_id}-{number}" for number in count(2))
    return next(name for name in chain([case_id], numbered) if name not in taken)


def _of_one_patient_together(
    cases: list[Case], owners: list[tuple[str, str]], notes: list[str]
) -> list[Case]:
    """Return the cases, those of one patient id with the first one's case id as patient.

    Args:
        cases: the cases.
        owners: (patient id or "", study) of each.
        notes: gets one where all studies have one id.
    """
    studies = [study for _, study in owners]
    patients = [patient or study for patient, study in owners]
    apart = len(set(studies))
    if apart > 2 and len(set(patients)) == 1:
        notes.append(
            f"all {apart} studies have one patient id, which is believed to stand for none: "
            "each counts as a patient of its own, unless a patients.csv says otherwise"
        )
        patients = studies
    first: dict[str, str] = {}
    for patient, case in sorted(zip(patients, cases, strict=True), key=lambda pair: pair[1].id):
        first.setdefault(patient, case.id)
    pairs = zip(patients, cases, strict=True)
    return [replace(case, patient=first[patient]) for patient, case in pairs]


def without_name(case_id: str, study: Study | None) -> str:
    """Return a case id; where it holds the patient's name one made of the study's UID."""
    there = words_of(case_id)
    names = study.names - NOBODY if study else set()
    within = any(name in word for name in names if len(name) >= LONG for word in there)
    return f"study-{crc32(study.uid.encode()):08x}" if names & there or within else case_id


def _drawn(study: Study, notes: list[str], root: Path) -> dict[str, tuple[Path, bool]]:
    """Return {series UID: (its DICOM SEG, whether of the liver alone)}; note what is no reference.

    A segmentation without the liver is none: its tumors would pass for the whole organ.
    """
    drawn = {}
    for uid, paths in study.references.items():
        usable = []
        for path in paths:
            try:
                labels, ours = described_labels(path)
            except (OSError, ValueError) as error:
                notes.append(f"left aside: {error}")
                continue
            if ours or 1 not in labels:
                reason = "made by this program" if ours else "without a liver"
                notes.append(f"left aside, a DICOM SEG {reason}: {_names([path], root)}")
            else:
                usable.append((path, 2 not in labels))
        if len(usable) == 1:
            drawn[uid] = usable[0]
        elif usable:
            names = _names([path for path, _ in usable], root)
            notes.append(f"several DICOM SEG of one CT, left aside: {names}; keep one of them")
    return drawn


def _left_aside(study: Study, root: Path, folders: Collection[Path]) -> str:
    """Return a note on a study without axial CT, or on lost SEG of another; "" where is neither."""
    others = [
        (path, kind)
        for path, kind in study.others
        if (kind.startswith("SEG ") if study.series else study.uid or path.parent not in folders)
    ]
    if not others:
        return ""
    kinds = Counter(kind for _, kind in others)
    there = few([f"{times} {kind}" for kind, times in kinds.most_common()])
    what = "" if study.series else ", a study without axial CT"
    place = os.path.relpath(os.path.commonpath([path.parent for path, _ in others]), root)
    return f"left aside{what} in {place}: {there}"


def _slices(study: Study) -> list[Path]:
    return [path for paths in study.series.values() for path in paths]


def _folders(study: Study, root: Path) -> set[Path]:
    """Return the folders below `root`, and `root`, that hold one of its slices at any depth."""
    above = (parent for path in _slices(study) for parent in path.parents)
    return {parent for parent in above if parent.is_relative_to(root)}


def _named_after(volume: Path, root: Path) -> str:
    """Return the case id that a folder or a file gives; many files are named by a UID's numbers."""
    bare = volume.with_suffix("") if volume.suffix.lower() == ".dcm" else volume
    name = os.path.relpath(volume if volume.is_dir() else bare, root)
    return root.name if name == "." else name.replace(os.sep, "-")


def _names(paths: list[Path], root: Path) -> str:
    return few([os.path.relpath(path, root) for path in paths], 3)
