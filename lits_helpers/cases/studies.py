"""Cases among DICOM files: a study is a CT, a DICOM SEG drawn on it its reference.

Headers tell what belongs together, wherever the files lie. They do not tell a case's id: that is
the folder's name, or of the study's UID where the folder bears the patient's name.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

from ..machine import few
from ..volumes import (
    DICOMDIR,
    REFERRED,
    Study,
    described_labels,
    fault_of,
    study_headers,
    study_of,
    words_of,
)
from .case import Case

if TYPE_CHECKING:
    from pydicom import Dataset

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
    return _cases_among(
        find_studies(chain.from_iterable(map(study_headers, files))), root, references
    )


def cases_of_zip(path: Path, root: Path) -> tuple[list[Case], list[str]]:
    """Return a case of each study in a zip, named as if the zip were a folder, and notes.

    Where there are several, each has the zip as its volume and says which study of it it is.
    """
    studies: list[Study] = []
    with suppress(ImportError):  # reading it says so
        studies = find_studies(study_headers(path, zipped=True))
    cases, notes = _cases_among(studies, path, references=False)
    named = next((study for study in studies if study.names), None)
    if len(cases) < 2:
        name = without_name(path.stem, named)
        return [Case(name, name, path)], notes
    before = "" if path == root else without_name(_named_after(path.with_suffix(""), root), named)
    with_ct = [study for study in studies if study.series]
    shared = Counter(study.uid for study in with_ct)
    found = []
    for case, study in zip(cases, with_ct, strict=True):
        case_id = f"{before}-{case.id}" if before else case.id
        alone = study.uid and shared[study.uid] == 1
        series = f"{study.uid}/" if alone else next(iter(study.series))
        found.append(Case(case_id, case_id, path, series=series))
    return found, notes


def _cases_among(
    studies: list[Study], root: Path, references: bool
) -> tuple[list[Case], list[str]]:
    """Return the cases of studies, and notes; see `cases_of_studies`."""
    folders = Counter(parent for study in studies for parent in _folders(study, root))
    notes = [note for study in studies if (note := _left_aside(study, root, folders))]
    studies = [study for study in studies if study.series]
    cases: dict[str, Case] = {}
    owners: list[tuple[str, str, str]] = []
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
            owners.append((study.patient, study.uid or str(place), study.date))
    if hidden:
        notes.append(f"folders that bear a patient's name become the cases {few(hidden)}")
    return _of_one_patient_together(list(cases.values()), owners, notes), notes


def find_studies(files: Iterable[tuple[Path, "Dataset"]]) -> list[Study]:
    """Group files by study; a DICOM SEG goes to the series that it names, or that shares its frame.

    Args:
        files: of DICOM, with their headers, from `study_headers`.
    """
    studies: dict[tuple[str, str], Study] = {}
    first: dict[tuple[str, str], tuple[str, str]] = {}
    drawn: list[tuple[Path, Dataset, Study]] = []
    for path, header in files:
        found = study_of(header)
        series = str(header.get("SeriesInstanceUID", ""))
        # some tools that take names out give all patients one study's UID
        key = found.uid or str(path.parent), found.patient
        key = first.setdefault((key[0], series), key)  # another's slice is refused with its series
        study = studies.setdefault(key, found)
        study.names |= found.names
        if header.get("Modality") == "SEG":
            drawn.append((path, header, study))
        elif fault := DICOMDIR if path.name.upper() == "DICOMDIR" else fault_of(header):
            study.others.append((path, fault))
        else:
            study.series.setdefault(series, []).append(path)
            study.frames[series] = str(header.get("FrameOfReferenceUID") or "")
    for study in studies.values():
        study.series = dict(sorted(study.series.items(), key=lambda one: -len(one[1])))
    for path, header, study in drawn:
        _refer(path, header, study, studies.values())
    return list(studies.values())


def _refer(path: Path, header: "Dataset", own: Study, studies: Iterable[Study]) -> None:
    """Note a DICOM SEG of the study `own` with the series that it was drawn on."""
    named = [str(item.get("SeriesInstanceUID")) for item in header.get(REFERRED) or ()]
    if not named:
        frame = str(header.get("FrameOfReferenceUID") or "")
        named = [uid for uid in own.series if frame and own.frames[uid] == frame]
        if len(named) != 1:  # all phases of a study may share a frame
            own.others.append((path, "SEG that does not say which series it was drawn on"))
            return
    for study in (own, *studies):  # copies of a series may lie in other studies
        for uid in study.series:
            if uid in named:
                study.references.setdefault(uid, []).append(path)
                return
    own.others.append((path, "SEG of a series that is not here"))


def _not_among(taken: Collection[str], case_id: str) -> str:
    """Return a case id, with the first number from 2 on that makes it one of its own."""
    numbered = (f"{case_id}-{number}" for number in count(2))
    known = {name.lower() for name in taken}  # to some disks capitals make no difference
    return next(name for name in chain([case_id], numbered) if name.lower() not in known)


def _of_one_patient_together(
    cases: list[Case], owners: list[tuple[str, str, str]], notes: list[str]
) -> list[Case]:
    """Return the cases, those of one patient id with the earliest one's case id as patient.

    So a later study of a patient, or one of another, moves nobody in the split.

    Args:
        cases: the cases.
        owners: (patient id or "", study, its date) of each.
        notes: gets one where all studies have one id.
    """
    studies = [study for _, study, _ in owners]
    patients = [patient or study for patient, study, _ in owners]
    apart = len(set(studies))
    if apart > 2 and len(set(patients)) == 1:
        notes.append(
            f"all {apart} studies have one patient id, which is believed to stand for none: "
            "each counts as a patient of its own, unless a patients.csv says otherwise"
        )
        patients = studies
    first: dict[str, str] = {}
    ordered = zip((date for *_, date in owners), (case.id for case in cases), patients, strict=True)
    for _, case_id, patient in sorted(ordered):
        first.setdefault(patient, case_id)
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
        whole = [one for one in usable if not one[1]]  # with tumors
        chosen = whole if len(whole) == 1 else usable
        drawn |= {uid: chosen[0]} if len(chosen) == 1 else {}
        if left := [one[0] for one in usable if one != drawn.get(uid)]:
            cure = "" if uid in drawn else "; keep one of them"
            notes.append(f"several DICOM SEG of one CT, left aside: {_names(left, root)}{cure}")
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
