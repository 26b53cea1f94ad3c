"""Say how far to trust labels, from evidence in labels, CT and model, in one word.

Every piece of evidence is divided by the limit at which it becomes a reason to look. The largest
quotient is the score; the limits were chosen on generated patients (`benchmarks/flags.py`).
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..cases import Finding, coarse_copy, liver_fit
from ..volumes import aspect_of_pixel
from .measurements import looked_for

WORDS = ("sound", "look at it", "do not use")
LOOK, REFUSE = 1.0, 2.5  # scores from which the second and the third word hold
LIVER_ML = (500.0, 4000.0)  # of adults, enlarged and shrunken ones included
LIVER_HU = (-140.0, 340.0)  # median; with every shift that generated patients for training have
CUT_ML = 5.0  # least of a liver that the scan cuts: less is a scrap at the scan's end
CUT_SHARE = 0.1  # of the largest slice's liver, in the first or last slice
NOISE_HU = 10.0  # least of a CT; generated patients may have less
RIM_PIXELS = 2


@dataclass(frozen=True)
class Flag:
    """A reason to distrust labels: the limit of its evidence, and what to say beyond it."""

    limit: float
    text: str
    shown: Callable[[float], str] = "{:.0%}".format


FLAGS = {
    "liver_unsure": Flag(0.06, "the model is unsure of the liver ({} of it)"),
    "liver_disagreement": Flag(0.06, "turned slices give another liver (they differ by {})"),
    "models_disagreement": Flag(0.1, "several models give another liver each (they differ by {})"),
    "liver_removed": Flag(0.2, "large pieces were removed ({} of what the model called liver)"),
    "tumor_unsure": Flag(0.12, "the model is unsure of the tumor ({} of it)"),
    "liver_jump": Flag(0.45, "the liver jumps from slice to slice (by {} of its area)"),
    "liver_misfit": Flag(1.0, "the liver is not of one tissue (misfit {})", "{:.2f}".format),
    "liver_end": Flag(
        3.0,
        "where the scan ends it shows other tissue as liver ({} times its noise)",
        "{:.1f}".format,
    ),
    "liver_volume": Flag(1.0, "the liver's volume is outside 500 to 4000 ml"),
    "liver_hu": Flag(1.0, "the liver's brightness is outside -140 to 340 HU"),
    "tumor_rim": Flag(0.9, "the tumor lies along the liver's rim only ({} of it)"),
    "burden": Flag(0.7, "most of the liver is called tumor ({})"),
    "liver_unsought": Flag(1.0, "the liver was not looked for: no flag can judge these labels"),
}


def look(
    hu: np.ndarray, labels: np.ndarray, spacing_mm: tuple | None, makers: Mapping | None = None
) -> dict[str, float]:
    """Return what labels and CT alone say of their quality.

    Args:
        hu: (Z, Y, X) int16.
        labels: (Z, Y, X) 0, 1, 2.
        spacing_mm: (dz, dy, dx), or None if it cannot be trusted.
        makers: of `measurements.looked_for`; without a liver there is nothing to judge.

    Returns:
        Evidence for `judge`. ``cut`` is 1 where the scan ends within the liver.
    """
    if "liver" not in looked_for(labels, makers):
        return {"liver_unsought": 1.0}
    liver = labels > 0
    areas = liver.sum(axis=(1, 2))
    if not areas.any():
        return {"empty": 1.0}
    tumor = labels == 2
    cut = max(areas[0], areas[-1]) > CUT_SHARE * areas.max()
    found = {
        "cut": float(cut),
        "liver_jump": _jump(liver, areas),
        "liver_hu": _outside(float(np.median(hu[liver])), LIVER_HU),
        "burden": float(tumor.sum() / areas.sum()),
    }
    if cut and (labels == 1).any():
        found["liver_end"] = _other_tissue(hu, labels == 1, areas)
    aspect = aspect_of_pixel(*spacing_mm[1:]) if spacing_mm else 1.0
    fit = liver_fit(coarse_copy(hu, labels, aspect))
    if fit > -1:  # -1: not judged, no liver's brightness
        found["liver_misfit"] = 1 - fit
    if spacing_mm:
        ml = float(areas.sum() * np.prod(spacing_mm) / 1000)
        found["liver_volume"] = max(ml / LIVER_ML[1], (CUT_ML if cut else LIVER_ML[0]) / ml)
    if tumor.any():
        found["tumor_rim"] = _rim_share(liver, tumor, aspect)
    return {name: round(float(value), 4) for name, value in found.items()}


def judge(evidence: Mapping[str, float], findings: Iterable[Finding] = ()) -> dict:
    """Return one word for how far to trust labels, its score and its reasons.

    Args:
        evidence: of `look`, and of `inference.second_look` where the model was at hand. What is not
            there is not judged.
        findings: about the file; a harmful one forbids the use.

    Returns:
        ``word`` one of WORDS; ``score`` from 0, where 1 is the limit to "look at it" and 2.5 the
        one to "do not use"; ``reasons`` and ``remarks``, sentences: remarks change no word.
    """
    findings = list(findings)
    remarks = [finding.text for finding in findings if not finding.harmful]
    if evidence.get("cut"):
        remarks.insert(0, "the scan ends within the liver: its volume is a lower bound")
    scores = {name: evidence[name] / flag.limit for name, flag in FLAGS.items() if name in evidence}
    reasons = [
        FLAGS[name].text.format(FLAGS[name].shown(evidence[name]))
        for name, value in sorted(scores.items(), key=lambda item: -item[1])
        if value >= LOOK
    ]
    score = max(scores.values(), default=0.0)
    certain = [finding.text for finding in findings if finding.harmful]
    if evidence.get("empty"):
        certain.insert(0, "no liver was found")
    if certain:
        reasons, score = certain + reasons, max(score, 2 * REFUSE)
    word = WORDS[(score >= LOOK) + (score >= REFUSE)]
    return {"word": word, "score": round(score, 3), "reasons": reasons, "remarks": remarks}


def sentences(judged: Mapping) -> list[str]:
    """Return what `judge` gave as sentences: the word with its reasons, and the remarks."""
    reasons = "; ".join(judged["reasons"]) or "no reason was found to distrust these labels"
    return [f"{judged['word']}: {reasons}", *judged["remarks"]]


def _jump(liver: np.ndarray, areas: np.ndarray) -> float:
    """Return 1 - Dice of neighbouring slices, over the whole liver."""
    filled = np.flatnonzero(areas)
    part = liver[filled[0] : filled[-1] + 1]
    changed = sum(np.count_nonzero(one ^ other) for one, other in itertools.pairwise(part))
    total = 2 * areas.sum() - areas[filled[0]] - areas[filled[-1]]
    return changed / total if total else 0.0


def _other_tissue(hu: np.ndarray, healthy: np.ndarray, areas: np.ndarray) -> float:
    """Return how far the liver of a slice that cuts it is from the whole liver's brightness.

    Args:
        hu: (Z, Y, X).
        healthy: (Z, Y, X) bool, the liver without tumors; somewhere True.
        areas: (Z,) of the whole liver.

    Returns:
        Distance of the medians, by the liver's standard deviation as its quartiles tell it.
    """
    low, middle, high = np.quantile(hu[healthy], (0.25, 0.5, 0.75))
    cutting = [k for k in (0, -1) if areas[k] > CUT_SHARE * areas.max() and healthy[k].any()]
    away = [abs(float(np.median(hu[k][healthy[k]])) - middle) for k in cutting]
    return max(away, default=0.0) / max((high - low) / 1.349, NOISE_HU)


def _outside(value: float, limits: tuple[float, float]) -> float:
    """Return the distance from the middle of `limits`, 1 at either end."""
    low, high = limits
    return abs(value - (low + high) / 2) / ((high - low) / 2)


def _rim_share(liver: np.ndarray, tumor: np.ndarray, pixel_aspect: float) -> float:
    """Return the share of the tumor within RIM_PIXELS of the liver's outline in its slice.

    Of pixels that are not square, their shorter side counts; a pixel is the least rim.
    """
    sides = np.array([pixel_aspect, 1.0]) / min(pixel_aspect, 1.0)
    down, across = (max(1, round(RIM_PIXELS / side)) for side in sides)
    y, x = np.ogrid[-down : down + 1, -across : across + 1]
    near = np.abs(y) / down + np.abs(x) / across <= 1
    inner = 0
    for k in np.flatnonzero(tumor.any(axis=(1, 2))):
        inner += np.count_nonzero(ndimage.binary_erosion(liver[k], near) & tumor[k])
    return 1 - inner / np.count_nonzero(tumor)
