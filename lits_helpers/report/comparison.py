"""Two dates of one patient: lesions paired by their place in the liver, and what changed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..machine import write_json, written_whole
from .comparison_page import DATES, DRAWN, comparison_page, lesion_of
from .pictures import LEAST_PIXELS, pictures_of
from .writing import report_of, require_own

REACH_MM = 15.0  # from a lesion's place at one date to the other's, beside its radius


def compare_dates(earlier: Mapping, later: Mapping) -> dict:
    """Return what changed between two scans of one patient, as plain values for JSON.

    The livers are laid onto each other by their centres, in mm. A lesion of one date belongs to the
    nearest of the other, if that lies within `REACH_MM` and the larger one's radius; each lesion
    has one partner at most, and the sum of the distances is the least possible.

    Args:
        earlier, later: the arguments of `report_of`, by name: volume, labels, case_id and, where
            known, findings, evidence and makers.

    Returns:
        ``earlier`` and ``later``, a report each (`report_of`), and ``pairs``, the largest lesion
        first: ``earlier`` and ``later`` number of the lesion there, None where it is new or has
        vanished; ``apart_mm`` between their places; ``ml_change`` and ``longest_mm_change``, None
        without a partner. No pairs where tumors were not looked for at one date.

    Raises:
        ValueError: labels of another shape or without liver, or a voxel size that cannot be
            trusted.
    """
    reports = [report_of(**given) for given in (earlier, later)]
    centers = [_center_mm(report, given["labels"])
               for report, given in zip(reports, (earlier, later), strict=True)]  # fmt: skip
    lesions = [report["measurements"]["lesions"] for report in reports]
    places = [
        np.array([lesion["center"] for lesion in each]).reshape(-1, 3) * _spacing(report) - center
        for report, each, center in zip(reports, lesions, centers, strict=True)
    ]
    sought = all(report["measurements"]["tumors_sought"] for report in reports)
    pairs = pair_lesions(*lesions, *places) if sought else []
    return {"earlier": reports[0], "later": reports[1], "pairs": pairs}


def pair_lesions(
    earlier: Sequence[Mapping], later: Sequence[Mapping], at: np.ndarray, then_at: np.ndarray
) -> list[dict]:
    """Pair lesions by their places (N, 3) and (M, 3) in mm from the liver's centre.

    Args:
        earlier, later: lesions of `measure`.
        at, then_at: where they lie, in their order.

    Returns:
        The pairs of `compare_dates`.
    """
    apart = np.linalg.norm(at[:, None] - then_at[None], axis=2)  # (N, M)
    radius = [np.array([_radius_mm(lesion) for lesion in each]) for each in (earlier, later)]
    reach = REACH_MM + np.maximum(radius[0][:, None], radius[1][None])
    # Beyond its reach a partner is worth as little as none.
    chosen = linear_sum_assignment(np.where(apart < reach, apart, reach.max(initial=0.0)))
    partners = {i: j for i, j in zip(*chosen, strict=True) if apart[i, j] < reach[i, j]}
    found = [
        (lesion, later[partners[i]], apart[i, partners[i]]) if i in partners else (lesion, None)
        for i, lesion in enumerate(earlier)
    ]
    found += [(None, lesion) for j, lesion in enumerate(later) if j not in partners.values()]
    found.sort(key=lambda pair: -max(lesion["ml"] for lesion in pair[:2] if lesion))
    return [_pair(*pair) for pair in found]


def write_comparison(earlier: Mapping, later: Mapping, out: Path | str) -> tuple[Path, dict]:
    """Write ``EARLIER-LATER.html`` and ``.json``, two dates of one patient side by side.

    Args:
        earlier, later: as for `compare_dates`.
        out: folder.

    Returns:
        The page, and what it says.

    Raises:
        ValueError: see `compare_dates`; or a foreign JSON of that name lies in `out`.
        OSError: `out` cannot be written.
    """
    name = f"{earlier['case_id']}-{later['case_id']}"
    require_own(Path(out) / f"{name}.json", "pairs")
    compared = compare_dates(earlier, later)
    write_json(Path(out) / f"{name}.json", compared)
    page = Path(out) / f"{name}.html"
    pictures = {
        date: _pictures(given, compared, date)
        for date, given in zip(DATES, (earlier, later), strict=True)
    }
    with written_whole(page) as temporary:
        temporary.write_text(comparison_page(compared, pictures), encoding="utf-8")
    return page, compared


def _pictures(given: Mapping, compared: Mapping, date: str) -> dict:
    """Return a date's pictures, both lesions of a pair at one scale."""
    lesions, lengths_mm = [], []
    least_mm = LEAST_PIXELS * max(min(_spacing(compared[each])[1:]) for each in DATES)
    for pair in compared["pairs"][:DRAWN]:
        both = {each: lesion_of(compared, pair, each) for each in DATES}
        if both[date]:
            lesions.append(both[date])
            longest = (lesion["longest_mm"] for lesion in both.values() if lesion)
            lengths_mm.append(max(least_mm, *longest))
    return pictures_of(given["volume"], given["labels"], lesions, lengths_mm)


def _spacing(report: Mapping) -> np.ndarray:
    return np.array(report["measurements"]["spacing_mm"])


def _center_mm(report: Mapping, labels: np.ndarray) -> np.ndarray:
    """Return the liver's centre (z, y, x) in mm from the first voxel."""
    if report["measurements"]["no_mm"]:
        raise ValueError(
            f"{report['case_id']}: two dates are compared in mm, and the file's voxel size cannot "
            "be trusted"
        )
    if not report["measurements"]["liver"]["voxels"]:
        raise ValueError(f"{report['case_id']}: no liver in its labels, so no place to pair by")
    axes = range(3)
    counts = [
        np.count_nonzero(labels, axis=tuple(other for other in axes if other != axis))
        for axis in axes
    ]
    return _spacing(report) * [np.average(np.arange(len(each)), weights=each) for each in counts]


def _radius_mm(lesion: Mapping) -> float:
    """Return the radius of a ball of the lesion's volume."""
    return float(np.cbrt(lesion["ml"] * 1000 * 3 / (4 * np.pi)))


def _pair(earlier: Mapping | None, later: Mapping | None, apart_mm: float | None = None) -> dict:
    both = earlier is not None and later is not None
    return {
        "earlier": earlier and earlier["number"],
        "later": later and later["number"],
        "apart_mm": float(apart_mm) if both else None,
        "ml_change": later["ml"] - earlier["ml"] if both else None,
        "longest_mm_change": later["longest_mm"] - earlier["longest_mm"] if both else None,
    }
