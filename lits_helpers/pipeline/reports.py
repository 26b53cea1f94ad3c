"""Find the CT of each label volume, write a page for each and one table."""

import logging
from collections.abc import Mapping
from pathlib import Path

from tqdm.auto import tqdm

from ..cases import Case, Finding
from ..inference import find_volumes, read_ct, read_record
from ..machine import few, writable_folder
from ..preprocess import open_prepared
from ..recipes import SYSTEMS
from ..report import row_of, write_comparison, write_report, write_table
from ..settings import Settings, hint
from ..volumes import lies_on, read_segmentation
from .results import are_own, find_predictions

logger = logging.getLogger(__name__)


def report_files(
    settings: Settings,
    labels: Path | None = None,
    *,
    ct: Path | None = None,
    out: Path | None = None,
    meshes: bool = False,
) -> tuple[list[dict], dict[str, str]]:
    """Report a file of labels or a folder of predictions; `report_predictions` says what comes.

    Args:
        settings: its results and prepared cases are the defaults.
        labels, ct: see `named_predictions` and `cts_of`.
        out: default ``results/reports``; ``results/reported`` of labels that are not the run's own.
    """
    out = out or _place(settings, labels)
    rows, failed = report_predictions(*_found(settings, labels, ct), out, meshes=meshes)
    if rows:
        logger.info("the pages and report.csv are in %s", out)
    return rows, failed


def compare_files(
    settings: Settings,
    earlier: str,
    later: str,
    labels: Path | None = None,
    *,
    ct: Path | None = None,
    out: Path | None = None,
) -> Path:
    """Write one page on two dates of one patient; see `report.write_comparison`.

    Args:
        settings, labels, ct, out: as for `report_files`.
        earlier, later: ids of the two cases among the labels.

    Returns:
        The page.

    Raises:
        ValueError: no such labels or CT, or one that cannot be compared.
    """
    predictions, cts = _found(settings, labels, ct)
    if missing := [case_id for case_id in (earlier, later) if case_id not in predictions]:
        raise ValueError(
            f"no labels of case {' and '.join(missing)}; there are those of {few(predictions)}"
        )
    known = [_known(case_id, predictions[case_id], cts) for case_id in (earlier, later)]
    out = writable_folder(out or _place(settings, labels))
    return write_comparison(*known, out)[0]


def _place(settings: Settings, labels: Path | None) -> Path:
    """Return the folder of reports; labels of others may bear the ids of the run's own cases."""
    name = "reports" if are_own(settings, labels) else "reported"
    return settings.runs / "results" / name


def _found(
    settings: Settings, labels: Path | None, ct: Path | None
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return {case id: labels} and {case id: CT}, prepared ones where no CT is named."""
    predictions = named_predictions(labels or settings.runs / "results" / "predictions")
    if ct:
        return predictions, cts_of(predictions, ct, settings.layout)
    try:
        data = open_prepared(settings.prepared, validation=settings.validation_share)
    except FileNotFoundError as error:
        if labels is None:
            raise
        raise FileNotFoundError(f"no CT of {labels}: give {hint('ct')} ({error})") from error
    return predictions, {case.id: data.volume_path(case.id) for case in data.cases}


def named_predictions(labels: Path | str) -> dict[str, Path]:
    """Return {case id: file} of a file of labels, or of the predictions in a folder.

    Raises:
        FileNotFoundError: there is none.
    """
    labels = Path(labels)
    if not labels.is_file():
        return find_predictions(labels)
    name = labels.name.removesuffix(".gz").removesuffix(".nii").removesuffix(".dcm")
    return {name.removeprefix("prediction-volume-"): labels}


def cts_of(
    predictions: Mapping[str, Path], ct: Path | str, layout: str = "auto"
) -> dict[str, Path]:
    """Return {case id: CT}, found by name below a folder; a single CT is that of the only labels.

    Args:
        predictions: see `named_predictions`.
        ct, layout: as for `inference.find_volumes`.

    Raises:
        FileNotFoundError: no CT there.
        ValueError: one CT for the labels of several, or several CTs for one.
    """
    found = find_volumes(ct, layout=layout)
    if len(predictions) > 1 and Path(ct).is_file():
        raise ValueError(f"{ct} is one CT, the labels are of {len(predictions)}: name its folder")
    if len(predictions) == len(found) == 1:
        return {case_id: found[0].volume for case_id in predictions}
    for case_id in predictions:
        if len(same := {case.volume for case in found if case.id == case_id}) > 1:
            raise ValueError(
                f"several CTs are called {case_id}: {few(map(str, sorted(same)))}; name the folder "
                "of the one that the labels are of"
            )
    return {case.id: case.volume for case in found}


def report_predictions(
    predictions: Mapping[str, Path],
    cts: Mapping[str, Path],
    out: Path | str,
    *,
    meshes: bool = False,
) -> tuple[list[dict], dict[str, str]]:
    """Write ``CASE.html`` and ``CASE.json`` of each prediction, and report.csv of all.

    Where none can be read, an earlier report.csv stays as it is.
    The record beside a prediction says which models made it and how sure they were. Without one the
    flags are made of labels and CT alone.

    Args:
        predictions: {case id: file of labels}, NIfTI or DICOM SEG.
        cts: {case id: CT}, as `read_volume` takes it.
        out: folder.
        meshes: write STL files too.

    Returns:
        The lines of report.csv, and {case id: why it has no report}; the log says it too.

    Raises:
        OSError: `out` cannot be written.
    """
    out = writable_folder(out)
    rows = []
    failed = {}
    for case_id, path in tqdm(predictions.items(), desc="report", unit="case"):
        try:
            known = _known(case_id, Path(path), cts)
            _, report = write_report(out=out, meshes=meshes, **known)
            rows.append(row_of(case_id, report["measurements"], report["flags"]))
        except (OSError, ValueError) as error:  # one bad file must not end the others
            failed[case_id] = str(error)
            logger.warning("case %s has no report: %s", case_id, error)
    if rows:
        write_table(rows, out / "report.csv")
    return rows, failed


def _known(case_id: str, path: Path, cts: Mapping[str, Path]) -> dict:
    """Return the arguments of `report.report_of` for labels in a file.

    The CT is read as the prediction's record says. Findings are about its file and the labels.

    Raises:
        OSError, ValueError: no CT, a file cannot be read, or the labels lie on another grid.
    """
    record = read_record(path) or {}
    decisions = record.get("decisions", {})
    series = decisions.get("series", "").rpartition("/")[2]  # after the study's UID, if in a zip
    study = case_id.removesuffix(f"-series{series}") if series else case_id
    ct = cts.get(case_id) or cts.get(study)
    if ct is None:
        raise ValueError(f"{path}: no CT of case {case_id} was found: give {hint('ct')}")
    given = {name: decisions.get(name) for name in ("orientation", "series")}
    case = Case("ct", "ct", ct, accepted=tuple(decisions.get("accepted", ())), **given)
    volume, findings = read_ct(case)
    remarks: list[str] = []
    labels = read_segmentation(path, like=volume, remarks=remarks)
    if not lies_on(path, volume.geometry):
        raise ValueError(
            f"{path}: its header puts the voxels elsewhere than the CT {ct} does; give the "
            "labels of this very CT"
        )
    findings = [*findings, *(Finding("labels_mended", False, text) for text in remarks)]
    made = {system: record.get(system) for system in SYSTEMS}
    made = {s: each if isinstance(each, list) else [each] for s, each in made.items() if each}
    known = {"findings": findings, "evidence": record.get("evidence"), "makers": made}
    return {"volume": volume, "labels": labels, "case_id": case_id} | known
