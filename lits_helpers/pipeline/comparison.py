"""Compare any label files with their references: two files or two folders, not prepared."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..cases import (
    Case,
    doubt_about_liver,
    id_order,
    is_liver_only,
    label_id,
    search_cases,
    with_patients,
)
from ..inference import read_record, recorded_origins
from ..machine import few, writable_folder
from ..preprocess import prepared_cases
from ..volumes import Volume, common_geometry, is_seg, lies_on, read_segmentation, read_volume
from .results import score_cases, scored

logger = logging.getLogger(__name__)


def compare(
    predictions: Path | str,
    references: Path | str,
    results: Path | str,
    *,
    layout: str = "auto",
    prepared: Path | str | None = None,
) -> tuple[list[dict], dict]:
    """Compare label files with references; write metrics.csv and summary.json.

    Intervals draw whole patients. Which cases are of one patient says a patients.csv beside the
    references or the predictions, or the prepared case; others are patients of their own.

    Args:
        predictions: a file, or a folder of files named after their cases.
        references: a file, or a folder: of label files, or of cases in any layout.
        results: folder for the two tables.
        layout: of the references, as for `cases.find_cases`.
        prepared: folder of prepared cases; it need not be there.

    Returns:
        The rows and the summary, as of `results.evaluate`. Cases of patients that the models behind
        the predictions were trained on, by the records beside them, are left out of the means.

    Raises:
        FileNotFoundError: a file or folder is not there, or holds no label file.
        ValueError: two files of one case, or no prediction has a reference, or none can be compared
            with it, or a patients.csv cannot be understood.
    """
    writable_folder(results)  # before minutes of work
    found = _labeled(Path(predictions), layout)
    known = _labeled(Path(references), layout)
    patients = _patients(prepared, found, known)
    if len(found) == len(known) == 1 and Path(predictions).is_file():  # whatever their names
        known = dict(zip(found, known.values(), strict=True))
    pairs = {
        case: (found[case].segmentation, known[case])
        for case in sorted(found, key=id_order)
        if case in known
    }
    if not pairs:
        raise ValueError(
            f"no prediction has a reference: {few(found)} in {predictions}, {few(known)} in "
            f"{references}; files of one case need one name, as liver_12.nii.gz in both"
        )
    seen = _trained_on({case: path for case, (path, _) in pairs.items()}, patients)
    if seen:
        logger.warning("counted as training cases, by patient or by CT: %s", few(sorted(seen)))

    def compare_case(case: str) -> dict:
        about = {"patient": patients.get(case, case), "training_case": case in seen}
        return about | _compare_files(*pairs[case])

    liver_only = {case for case, (_, reference) in pairs.items() if reference.liver_only}
    return score_cases(pairs, compare_case, liver_only, set(found) - set(known), results)


def _patients(prepared: Path | str | None, *found: Mapping[str, Case]) -> dict[str, str]:
    """Return {case id: patient} of the cases that share one, or are called unlike it."""
    cases = []
    with suppress(FileNotFoundError):  # nothing is prepared
        cases += prepared_cases(prepared) if prepared else []
    cases += [case for each in found for case in each.values()]  # the last word is the references'
    return {case.id: case.patient for case in cases if case.patient != case.id}


def _labeled(place: Path, layout: str) -> dict[str, Case]:
    """Return {case id: a case with labels} of a file, a folder of labels, or a folder of cases."""
    if place.is_file():
        case = _case_of(place)
        return {case.id: case}
    if not place.is_dir():
        raise FileNotFoundError(f"there is no file or folder {place}")
    cases: list[Case] = []
    with suppress(FileNotFoundError):  # no CT: all are labels
        found = search_cases(place, layout, patients=False).cases
        cases = [case for case in found if case.segmentation]
    cases = cases or _label_files(place)
    for note in with_patients(place, cases):
        logger.warning("%s", note)
    return {case.id: case for case in cases}


def _label_files(place: Path) -> list[Case]:
    """Return a case of each label file below a folder."""
    named: dict[str, Case] = {}
    for path in sorted(place.rglob("[!.]*"), key=lambda path: (path.suffix == ".dcm", path)):
        if not (label_id(path) and path.is_file()) or (path.suffix == ".dcm" and not is_seg(path)):
            continue
        case = _case_of(path)
        known = named.setdefault(case.id, case).segmentation
        twin = path.suffix == ".dcm" and known.parent == path.parent  # `--format both`
        if known != path and not twin:
            raise ValueError(f"two label files of case {case.id}: {known} and {path}")
    if not named:
        raise FileNotFoundError(f"no label file in {place}: expected NIfTI files or DICOM SEG")
    return list(named.values())


def _case_of(path: Path) -> Case:
    """Return a case of a file of labels alone."""
    case_id = label_id(path) or path.name
    return Case(case_id, case_id, path, path, liver_only=is_liver_only(path))


def _trained_on(predictions: Mapping[str, Path], patients: Mapping[str, str]) -> set[str]:
    """Return the cases that models behind predictions were trained on, by patient or by CT."""
    origins = {
        folder: recorded_origins(folder) for folder in {p.parent for p in predictions.values()}
    }
    seen = set()
    for case, path in predictions.items():
        source = (read_record(path) or {}).get("source")
        for origin in origins[path.parent]:
            trained = {patients.get(known, known) for known in origin.training_ids}
            if patients.get(case, case) in trained or source in origin.training_cts:
                seen.add(case)
    return seen


def _compare_files(path: Path, reference: Case) -> dict:
    notes: list[str] = []
    if reference.segmentation.is_dir():  # of masks, which lie on their CT
        like = read_volume(reference.volume, reference.orientation, series=reference.series)
        geometry = like.geometry
    else:
        geometry = common_geometry(reference.segmentation, path)
        like = Volume(np.empty(0), geometry.spacing_mm, reference.volume, geometry)
    labels = read_segmentation(reference.segmentation, like=like, remarks=notes)
    prediction = read_segmentation(path, like=like, remarks=notes)
    if not lies_on(path, geometry):
        raise ValueError(
            f"{path}: its header puts the voxels elsewhere than {reference.segmentation.name} does;"
            " write it with the affine and axis order of the CT's file"
        )
    spacing_mm = geometry.trusted_spacing_mm
    if spacing_mm and (doubt := doubt_about_liver(like, labels)):
        notes.append(doubt)
        spacing_mm = None
    return scored(prediction, labels, spacing_mm, notes)
