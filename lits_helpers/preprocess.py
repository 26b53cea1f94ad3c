"""Cases -> prepared/: checked, turned, packed losslessly, exported as PNG; parallel, resumable, whole or not at all.

Imports no torch: workers are spawned, and each would pay for it.
"""

import logging
import multiprocessing
import os
from collections.abc import Iterable
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
from tqdm.auto import tqdm

from .cases import Case, Finding
from .checks import check_arrays
from .files import file_hash, read_json, remove_leftovers, write_json, written_whole
from .packed import LABELS_SUFFIX, SUFFIX
from .volumes import read_segmentation, read_volume, window_to_uint8, write_packed

log = logging.getLogger(__name__)

PNG_WINDOW = (-200, 300)  # HU, as system A was published
RECORD_VERSION = 1


@dataclass(frozen=True)
class PreparedCase:
    """A prepared case, as its record states it.

    Attributes:
        id, patient: as in `Case`.
        shape: (Z, Y, X).
        spacing_mm: (dz, dy, dx), None for a bare PNG folder.
        slices: the slice indices there are (all of them, but in a bare PNG folder).
        liver_slices, tumor_slices: slice indices that hold liver (tumor).
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


@dataclass
class PreparationReport:
    """What became of each case.

    Attributes:
        prepared: ids of the cases that are ready, the unchanged ones included.
        unchanged: ids that were recognised and left alone.
        skipped: id -> reason.
        findings: id -> what was odd about the case.
    """

    prepared: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    findings: dict[str, list[Finding]] = field(default_factory=dict)

    def table(self) -> str:
        """Return one line for each case that has something to tell, and a sum."""
        lines = [f"{len(self.prepared)} cases prepared, {len(self.skipped)} skipped"]
        for case_id, reason in self.skipped.items():
            lines.append(f"case {case_id}: skipped: {reason}")
        for case_id, findings in self.findings.items():
            lines += [
                f"case {case_id}: {finding.text}" for finding in findings if not finding.harmful
            ]
        return "\n".join(lines)


def prepare(
    cases: Iterable[Case],
    out: str | os.PathLike,
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    png: bool = True,
    window: tuple[float, float] = PNG_WINDOW,
) -> PreparationReport:
    """Prepare cases below `out`, see DESIGN's "On disk".

    A case whose files have not changed is left alone. A harmful finding skips the case and names it.

    Args:
        cases: from `find_cases`.
        out: the prepared/ folder. Nothing else may write there meanwhile.
        workers: spawned processes; default one per core, at most one per case.
        executor: any other `concurrent.futures.Executor`, for example a cluster's; `workers` is then unused.
        png: also write 8-bit slices and liver masks (system A's layout).
        window: HU (low, high) of the PNG slices.

    Raises:
        OSError: the disk is full or the folder cannot be written; finished cases stay valid.
    """
    cases, out = list(cases), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    jobs = [(case, out, tuple(window) if png else None) for case in cases]
    if executor is not None:
        results = _run(executor, jobs)
    elif workers == 0:
        results = [prepare_case(*job) for job in tqdm(jobs, desc="prepare", unit="case")]
    else:
        with _local_pool(workers or os.cpu_count() or 1, len(jobs)) as pool:
            results = _run(pool, jobs)
    return _report(results)


def prepared_cases(root: str | os.PathLike) -> list[PreparedCase]:
    """List the cases below a prepared/ folder, or below a bare PNG folder (images/, masks/).

    Raises:
        FileNotFoundError: neither is there.
    """
    root = Path(root)
    records = sorted((root / "cases").glob("*.json"), key=lambda path: _by_number(path.stem))
    if records:
        return [_from_record(read_json(path)) for path in records]
    folders = sorted(
        (path for path in (root / "images").glob("*") if path.is_dir()),
        key=lambda path: _by_number(path.name),
    )
    if not folders:
        raise FileNotFoundError(
            f"no prepared case under {root}: expected cases/<case>.json or images/<case>/<k>.png; run notebook 01"
        )
    return [_from_png(folder, root / "masks" / folder.name) for folder in folders]


def prepare_case(case: Case, out: Path, window: tuple[float, float] | None) -> dict:
    """Prepare one case; the work of a worker.

    Returns:
        {"id", "status": "prepared" | "unchanged" | "skipped", "reason", "findings"}.
    """
    cv2.setNumThreads(0)
    record_file = out / "cases" / f"{case.id}.json"
    try:
        source = _source_hash(case)
        record = _known(record_file)
        if record and record["source_hash"] == source and record["png_window"] == _as_list(window):
            return _result(case, "unchanged", [Finding(**found) for found in record["findings"]])
        record_file.unlink(missing_ok=True)
        return _prepare(case, out, window, source)
    except (ValueError, FileNotFoundError, PermissionError, MemoryError) as error:
        return _result(case, "skipped", [Finding("unreadable", True, str(error))])


def _prepare(case: Case, out: Path, window: tuple[float, float] | None, source: str) -> dict:
    volume = read_volume(case.volume, case.orientation)
    labels = read_segmentation(case.segmentation, like=volume) if case.segmentation else None
    findings = check_arrays(volume, labels)
    if any(finding.harmful for finding in findings):
        return _result(case, "skipped", findings)
    folder = out / "cases"
    write_packed(volume.hu, folder / f"{case.id}{SUFFIX}")
    if labels is not None:
        write_packed(labels, folder / f"{case.id}{LABELS_SUFFIX}")
    if window:
        _write_png(volume.hu, labels, out, case.id, window)
    record = {
        "version": RECORD_VERSION,
        "case_id": case.id,
        "patient": case.patient,
        "shape": list(volume.hu.shape),
        "spacing_mm": list(volume.spacing_mm),
        "geometry": volume.geometry.to_dict(),
        "has_segmentation": labels is not None,
        "liver_slices": _slices_with(labels, 1),
        "tumor_slices": _slices_with(labels, 2),
        "findings": [asdict(finding) for finding in findings],
        "source_hash": source,
        "png_window": _as_list(window),
    }
    write_json(folder / f"{case.id}.json", record)
    return _result(case, "prepared", findings)


def _write_png(hu: np.ndarray, labels: np.ndarray | None, out: Path, case_id: str, window) -> None:
    with written_whole(out / "images" / case_id) as folder:
        folder.mkdir()
        for k, plane in enumerate(hu):
            _write_image(folder / f"{k}.png", window_to_uint8(plane, window))
    if labels is not None:
        with written_whole(out / "masks" / case_id) as folder:
            folder.mkdir()
            for k, plane in enumerate(labels):
                _write_image(folder / f"{k}.png", (plane > 0).astype(np.uint8) * 255)


def _write_image(path: Path, image: np.ndarray) -> None:
    path.write_bytes(cv2.imencode(".png", image)[1])  # imwrite would hide a full disk


def _source_hash(case: Case) -> str:
    """Return one hash of all that a prepared case depends on: both files' content, the orientation."""
    parts = [file_hash(path) if path else "none" for path in (case.volume, case.segmentation)]
    return "-".join([*parts, case.orientation or "header"])


def _known(record_file: Path) -> dict | None:
    """The record of an earlier run, if it can be used."""
    if not record_file.is_file():
        return None
    try:
        record = read_json(record_file)
    except ValueError:
        return None
    return record if record.get("version") == RECORD_VERSION else None


def _slices_with(labels: np.ndarray | None, label: int) -> list[int]:
    if labels is None:
        return []
    return [k for k, plane in enumerate(labels) if int(plane.max()) >= label]


def _as_list(window) -> list[float] | None:
    return [float(value) for value in window] if window else None


def _result(case: Case, status: str, findings: list[Finding]) -> dict:
    reason = "; ".join(finding.text for finding in findings if finding.harmful)
    return {"id": case.id, "status": status, "reason": reason, "findings": findings}


def _local_pool(workers: int, jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        max(1, min(workers, jobs)), mp_context=multiprocessing.get_context("spawn")
    )


def _run(executor: Executor, jobs: list[tuple]) -> list[dict]:
    futures = {executor.submit(prepare_case, *job): job[0] for job in jobs}
    progress = tqdm(as_completed(futures), total=len(futures), desc="prepare", unit="case")
    done = {futures[future].id: future.result() for future in progress}
    return [done[job[0].id] for job in jobs]


def _report(results: list[dict]) -> PreparationReport:
    report = PreparationReport()
    for result in results:
        if result["status"] == "skipped":
            report.skipped[result["id"]] = result["reason"]
        else:
            report.prepared.append(result["id"])
        if result["status"] == "unchanged":
            report.unchanged.append(result["id"])
        if result["findings"]:
            report.findings[result["id"]] = result["findings"]
    return report


def _from_record(record: dict) -> PreparedCase:
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


def _from_png(images: Path, masks: Path) -> PreparedCase:
    slices = sorted(int(path.stem) for path in images.glob("*.png") if path.stem.isdecimal())
    if not slices:
        raise ValueError(f"no slice <k>.png in {images}")
    first = cv2.imread(str(images / f"{slices[0]}.png"), cv2.IMREAD_GRAYSCALE)
    if first is None:
        raise ValueError(f"{images / f'{slices[0]}.png'} is no readable image")
    liver = [k for k in slices if _has_liver(masks / f"{k}.png")]
    return PreparedCase(
        id=images.name,
        patient=images.name,
        shape=(len(slices), *first.shape),
        spacing_mm=None,
        slices=tuple(slices),
        liver_slices=tuple(liver),
        tumor_slices=(),
        has_segmentation=masks.is_dir(),
    )


def _has_liver(path: Path) -> bool:
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if path.is_file() else None
    return mask is not None and bool(mask.any())


def _by_number(name: str) -> tuple:
    return (0, int(name), "") if name.isdecimal() else (1, 0, name)
