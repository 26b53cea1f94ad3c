"""Cases -> prepared/: checked, turned, packed losslessly, exported as PNG.

Parallel over cases, resumable, each case whole or not at all. Imports no torch: workers are
spawned, and each would pay for it.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np

from ..cases import (
    LIVER_ONLY,
    UNREAD,
    Case,
    Finding,
    copy_of,
    fault_of_id,
    fault_of_names,
    id_order,
    load_case,
    voxel_hash,
)
from ..machine import (
    few,
    file_hash,
    locked_folder,
    remove_leftovers,
    require_each,
    run_jobs,
    writable_folder,
    write_json,
    written_whole,
)
from ..settings import hint
from ..volumes import (
    Geometry,
    PackedVolume,
    Volume,
    hash_of_files,
    meaning_of,
    window_to_uint8,
    write_packed,
    write_picture,
)
from .prepared import RECORD_VERSION, CaseFiles
from .summary import FAILED, Outcome, PreparationReport, outcome_of, recorded_findings, report_of

logger = logging.getLogger(__name__)

OPENCV_FILTERS = hasattr(cv2, "IMWRITE_PNG_FILTER")  # from 4.12 on
PNG_WINDOW = (-200, 300)  # HU, as system A was published
SOON_HASHED_BYTES = 2**28  # half a second
Window = tuple[float, float]
# Masks are encoded without differences of neighbours: a quarter faster, half as large.
FLAT = (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE) if OPENCV_FILTERS else ()


def prepare(
    cases: Iterable[Case],
    out: str | os.PathLike,
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    png: bool = True,
    window: Window = PNG_WINDOW,
) -> PreparationReport:
    """Prepare cases below `out`: packed and with a record in cases/, slices in images/, masks/.

    A case whose files are unchanged is left alone; a changed one is made again. A case with a
    harmful finding is skipped and named in the report. The next call continues an interrupted one.

    Args:
        cases: from `find_cases`.
        out: the prepared/ folder. Calls for one folder on one machine wait for each other.
        workers: spawned processes, by default one per core; 0 works in this process.
        executor: used instead of `workers`, for example of a cluster whose nodes share the folders.
        png: also write 8-bit slices and liver masks (system A's layout).
        window: HU (low, high) of the PNG slices.

    Raises:
        OSError: the disk is full or `out` cannot be written; finished cases stay valid.
        ValueError: several cases have one id, and would overwrite each other, on some disks by
            capitals alone; or an id cannot be a file's name.
    """
    cases = require_each(
        cases, "segmentation", "each case", "a Case, as find_cases(folder) returns them"
    )
    if twice := [name for name, times in Counter(c.id for c in cases).items() if times > 1]:
        raise ValueError(f"several cases are called {few(twice)}: name them in a cases.csv")
    if fault := next(filter(None, (fault_of_id(case.id) for case in cases)), ""):
        raise ValueError(f"a case cannot be prepared: {fault}")
    out = Path(out).absolute()
    before = {path.stem for path in (out / "cases").glob("[!.]*.json")}
    if fault := fault_of_names([*before, *(case.id for case in cases)]):
        raise ValueError(fault)
    writable_folder(out)
    if workers is None and _soon_compared(cases, before):
        workers = 0
    # largest first: a long case begun last would leave cores idle
    cases = sorted(cases, key=_size_bytes, reverse=True)
    jobs = [(case, out, window if png else None) for case in cases]
    with locked_folder(out):  # two trainings may prepare at once
        _remove_leftovers(out)
        results = run_jobs(prepare_case, jobs, workers=workers, executor=executor)
        outcomes = _with_copies_named(cases, list(map(outcome_of, cases, results)), out)
    return report_of(outcomes, out)


def _with_copies_named(cases: list[Case], outcomes: list[Outcome], out: Path) -> list[Outcome]:
    """Return outcomes with a finding on each CT that has the voxels of another patient's."""
    first: dict[str, Case] = {}
    told = dict(zip(cases, outcomes, strict=True))
    for case in sorted(cases, key=lambda case: id_order(case.id)):
        record = CaseFiles(out, case.id).known() if told[case].status != "skipped" else None
        voxels = record and record.get("voxels")
        known = first.setdefault(voxels, case) if voxels else case
        if known.patient != case.patient:
            findings = (*told[case].findings, copy_of(known.id))
            told[case] = replace(told[case], findings=findings)
    return list(told.values())


def prepare_case(case: Case, out: Path, window: Window | None) -> Outcome:
    """Prepare one case, in a worker.

    Args:
        case: the case.
        out: the prepared/ folder.
        window: HU (low, high) of the PNG slices; None writes none.

    Raises:
        OSError: `out` cannot be written.
    """
    cv2.setNumThreads(0)  # the cases run in parallel
    files = CaseFiles(out, case.id)
    try:
        source = _source_hash(case)
    except OSError as error:
        return _skipped(case, error)
    known = files.known()
    if known and known["source_hash"] == source:
        told = {"patient": case.patient, "liver_only": case.liver_only}
        if not told.items() <= known.items():  # patients.csv or the layout came later
            others = [found for found in known["findings"] if found["code"] != LIVER_ONLY.code]
            findings = [*others, *map(asdict, _liver_only(case))]
            known |= told | {"findings": findings}
            _write_record(files, known)
        try:
            return _refreshed(files, known, window)
        except (ValueError, MemoryError) as error:  # its packed arrays are damaged
            return _skipped(case, error)
    files.remove()
    try:
        volume, labels, findings = load_case(case)
    except UNREAD as error:
        return _skipped(case, error)
    if any(finding.harmful for finding in findings):
        return Outcome(case.id, "skipped", tuple(findings))
    findings += _liver_only(case)
    _write_case(files, volume, labels, window)
    _write_record(files, _record(case, source, volume, labels, findings, window))
    return Outcome(case.id, "prepared", tuple(findings))


def _liver_only(case: Case) -> list[Finding]:
    return [LIVER_ONLY] if case.liver_only and case.segmentation else []


def export_png(root: str | os.PathLike, case_id: str, window: Window = PNG_WINDOW) -> None:
    """Write a prepared case's PNG slices from its packed arrays; the original files are not needed.

    Raises:
        FileNotFoundError: the case is not prepared.
        OSError: the disk is full.
    """
    files = CaseFiles(Path(root), case_id)
    record = files.known()
    if record is None:
        raise FileNotFoundError(f"case {case_id} is not prepared in {root}; {hint('prepare')}")
    _refreshed(files, record, window)


def export_pngs(
    root: str | os.PathLike, case_ids: Iterable[str], *, workers: int | None = None
) -> None:
    """Write the PNG slices of the cases that lack them, in parallel."""
    root = Path(root).absolute()
    lacking = []
    for case_id in case_ids:
        files = CaseFiles(root, case_id)
        record = files.known()
        if record and not files.has_png(record, PNG_WINDOW):
            lacking.append(case_id)
    if not lacking:
        return
    with locked_folder(root):
        _remove_leftovers(root)
        jobs = [(root, case_id) for case_id in lacking]
        errors = run_jobs(export_png, jobs, workers=workers, label="PNG")
    for case_id, error in zip(lacking, errors, strict=True):
        if error is not None:
            logger.warning("case %s has no PNG slices: %s", case_id, error)


def write_png(
    files: CaseFiles,
    hu: Iterable,
    labels: Iterable | None,
    window: Window,
    geometry: Geometry | None = None,
) -> None:
    """Write windowed slices and, with labels, liver masks of 0 and 255.

    Slices whose pixels are not square in `geometry` tell their size: these may be all that is kept.
    """
    square = geometry is None or geometry.pixel_aspect == 1
    pixel_mm = None if square else geometry.spacing_mm[1:]
    with written_whole(files.images, lasting=False) as folder:
        folder.mkdir()
        for k, plane in enumerate(hu):
            write_picture(folder / f"{k}.png", window_to_uint8(plane, window), pixel_mm=pixel_mm)
    if labels is not None:
        with written_whole(files.masks, lasting=False) as folder:
            folder.mkdir()
            blank = None
            for k, plane in enumerate(labels):
                if plane.any():
                    write_picture(folder / f"{k}.png", (plane > 0).view(np.uint8) * 255, FLAT)
                else:  # most masks are empty, and encoded once
                    blank = cv2.imencode(".png", plane, FLAT)[1] if blank is None else blank
                    (folder / f"{k}.png").write_bytes(blank)


def _soon_compared(cases: list[Case], before: set[str]) -> bool:
    """Tell whether all were prepared and are hashed in less time than a worker takes to start."""
    known = all(case.id in before and case.volume.is_file() for case in cases)
    return known and sum(map(_size_bytes, cases)) < SOON_HASHED_BYTES


def _size_bytes(case: Case) -> int:
    try:
        return case.volume.stat().st_size
    except OSError:
        return 0


def _remove_leftovers(out: Path) -> None:
    """Remove what killed preparations left in the three folders that they write."""
    for part in ("cases", "images", "masks"):
        remove_leftovers(out / part)


def _source_hash(case: Case) -> str:
    """Return a text for all that a prepared case depends on: its files, and the user's word."""
    reference = file_hash(case.segmentation) if case.segmentation else "none"
    parts = [hash_of_files(case.volume), reference]
    parts += [case.series] if case.series else []
    parts += _meaning(case.segmentation)
    return "-".join([*parts, case.orientation or "header", *sorted(case.accepted)])


def _meaning(segmentation: Path | None) -> list[str]:
    """Return what a dataset.json says of labels, as far as it changes them."""
    try:
        meaning = meaning_of(segmentation) if segmentation else None
    except ValueError as error:  # whoever reads the labels says so
        return [str(error)]
    return [str(meaning.labels)] if meaning and meaning.differs else []


def _skipped(case: Case, error: Exception) -> Outcome:
    code = FAILED if _is_passing(error) else "unreadable"
    return Outcome(case.id, "skipped", (Finding(code, True, str(error)),))


def _is_passing(error: Exception) -> bool:
    """Tell whether disk, memory or a package failed, so that a later try may read the file."""
    cause = error.__cause__ or error
    return isinstance(cause, MemoryError | ImportError) or getattr(cause, "errno", None) is not None


def _refreshed(files: CaseFiles, record: dict, window: Window | None) -> Outcome:
    """Keep a known case, and write its PNG slices if they are missing or have another window."""
    if window and not files.has_png(record, window):
        _write_record(files, {**record, "png_window": None})
        labels = PackedVolume(files.labels) if record["has_segmentation"] else None
        packed = PackedVolume(files.volume)
        write_png(files, packed, labels, window, packed.geometry)
        _write_record(files, {**record, "png_window": _limits(window)})
    return Outcome(files.case_id, "unchanged", recorded_findings(record))


def _write_case(
    files: CaseFiles, volume: Volume, labels: np.ndarray | None, window: Window | None
) -> None:
    try:
        with ThreadPoolExecutor(1) as beside:  # waits for the disk while PNG are encoded
            packing = beside.submit(_pack, files, volume.hu, labels)
            if window:
                write_png(files, volume.hu, labels, window, volume.geometry)
            packing.result()
    except OSError:
        files.remove()  # a full disk needs the room
        raise


def _pack(files: CaseFiles, hu: np.ndarray, labels: np.ndarray | None) -> None:
    write_packed(hu, files.volume)
    if labels is not None:
        write_packed(labels, files.labels)


def _write_record(files: CaseFiles, record: dict) -> None:
    """Write a case's record; one that a power cut tore counts as none: the case is made again."""
    write_json(files.record, record, lasting=False)


def _record(case, source, volume, labels, findings, window) -> dict:
    return {
        "version": RECORD_VERSION,
        "case_id": case.id,
        "patient": case.patient,
        "source_hash": source,
        "voxels": voxel_hash(volume.hu),
        "shape": list(volume.hu.shape),
        "spacing_mm": list(volume.spacing_mm),
        "geometry": volume.geometry.to_dict(),
        "has_segmentation": labels is not None,
        "liver_only": case.liver_only,
        "liver_slices": _slices_with(labels, 1),
        "tumor_slices": _slices_with(labels, 2),
        "findings": [asdict(finding) for finding in findings],
        "png_window": _limits(window) if window else None,
    }


def _limits(window: Window) -> list[float]:
    return [float(limit) for limit in window]


def _slices_with(labels: np.ndarray | None, label: int) -> list[int]:
    """Return the slices whose highest label is at least `label`: a tumor is liver too."""
    if labels is None:
        return []
    return np.flatnonzero(labels.max(axis=(1, 2)) >= label).tolist()
