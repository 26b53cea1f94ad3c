"""Write the report of one patient: gather what is known of the labels, then the files."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from .. import __version__
from ..cases import Finding
from ..machine import read_json, write_json, written_whole
from ..settings import hint
from ..volumes import Volume
from .measurements import lesion_parts, measure
from .meshes import write_stl
from .page import page_of
from .pictures import pictures_of
from .quality import judge, look

logger = logging.getLogger(__name__)

DRAWN = 4  # lesions that get a picture


def report_of(
    volume: Volume,
    labels: np.ndarray,
    case_id: str,
    *,
    findings: Iterable[Finding] = (),
    evidence: Mapping[str, float] | None = None,
    makers: Mapping[str, Sequence[Mapping]] | None = None,
) -> dict:
    """Return everything that a report says, as plain values for JSON.

    Args:
        volume: the CT.
        labels: (Z, Y, X) 0, 1, 2 of its shape.
        case_id: what to call the patient.
        findings: about the file, from `cases.load_case`.
        evidence: of `inference.second_look`, where the liver model was at hand.
        makers: {system: [{"weights", "training_ids"}]} of the models that made the labels.

    Returns:
        ``case_id``, ``version``, ``measurements`` of `measure`, ``flags`` of `judge`, ``evidence``
        and ``makers``.

    Raises:
        ValueError: the labels have another shape.
    """
    measured = measure(volume, labels, makers)
    seen = look(volume.hu, labels, volume.geometry.trusted_spacing_mm, makers)
    known = seen | dict(evidence or {})
    return {
        "case_id": case_id,
        "version": __version__,
        "measurements": measured,
        "flags": judge(known, findings),
        "evidence": known,
        "makers": makers and dict(makers),
    }


def write_report(
    volume: Volume,
    labels: np.ndarray,
    out: Path | str,
    case_id: str,
    *,
    meshes: bool = False,
    **known,
) -> tuple[Path, dict]:
    """Write ``CASE.html`` and ``CASE.json``, with meshes also ``CASE-liver.stl`` and lesions.

    Args:
        volume, labels, case_id: as for `report_of`.
        out: folder.
        meshes: write the liver and each lesion as STL (`write_stl`).
        known: findings, evidence and makers, see `report_of`.

    Returns:
        The page, and what it says.

    Raises:
        ValueError: the labels have another shape, or a foreign ``CASE.json`` lies in `out`.
        OSError: `out` cannot be written.
    """
    out = Path(out)
    require_own(out / f"{case_id}.json", "flags")
    report = report_of(volume, labels, case_id, **known)
    write_json(out / f"{case_id}.json", report)
    if meshes:
        _write_meshes(volume, labels, out, case_id)
    page = out / f"{case_id}.html"
    with written_whole(page) as temporary:
        pictures = pictures_of(volume, labels, report["measurements"]["lesions"][:DRAWN])
        temporary.write_text(page_of(report, pictures), encoding="utf-8")
    return page, report


def require_own(path: Path, key: str) -> None:
    """Refuse to write over a JSON that is no report, such as the one that comes beside a CT.

    Args:
        path: of the JSON that is about to be written.
        key: what the earlier one must hold.

    Raises:
        ValueError: a file without it is there.
    """
    there = read_json(path) if path.is_file() else {key: None}
    if not isinstance(there, dict) or key not in there:
        raise ValueError(
            f"{path} is no report and would be written over: choose {hint('out')}, where no other "
            "file has that name"
        )


def _write_meshes(volume: Volume, labels: np.ndarray, out: Path, case_id: str) -> None:
    """Write the liver, and the lesions by their number in the report; remove those of before."""
    ours = re.compile(rf"{re.escape(case_id)}-(liver|lesion-\d+)\.stl")
    for path in out.glob("*.stl"):
        if ours.fullmatch(path.name):
            path.unlink()
    if not volume.geometry.trusted_spacing_mm:
        logger.warning("case %s gets no meshes: its voxel size cannot be trusted", case_id)
        return
    if (labels == 1).any():
        write_stl(labels > 0, volume, out / f"{case_id}-liver.stl")
    for number, (mask, start) in enumerate(lesion_parts(labels), start=1):
        lesion = np.zeros(labels.shape, bool)
        lesion[tuple(slice(a, a + n) for a, n in zip(start, mask.shape, strict=True))] = mask
        write_stl(lesion, volume, out / f"{case_id}-lesion-{number}.stl")
