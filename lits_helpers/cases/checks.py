"""What is wrong with a case, told from its voxels rather than believed from its header.

The rules, in this order:

* Unreadable files, labels other than 0, 1, 2, shapes that differ, an empty liver and values that
  are no Hounsfield units are harmful.
* A mask whose header differs from its CT's is paired voxel by voxel and takes the CT's geometry.
* The mask must outline liver-like tissue in the CT. If it does not, or outlines more of it when
  turned, CT and mask do not belong together as they are: harmful.
* CT and mask are turned until the anatomy is right; `turns.py` says when that overrules a header.
* The body, and the liver's volume, must make sense in the header's millimetres (`values.py`).
* What the user accepts or states overrules findings and turns; the findings say so.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..machine import require
from ..settings import hint
from ..volumes import Volume, lies_on, read_segmentation, read_volume, reversing, size_text
from .anatomy import Coarse, Flips, coarse_copy, liver_fit
from .case import UNREAD, Case, Finding
from .turns import with_axes_in_order, wrong_way
from .values import are_shuffled, doubt_about_liver, doubt_about_size, not_hounsfield

MIN_LIVER_FIT = 0.35
DOUBTFUL_LIVER_FIT = 0.52
BETTER_FIT = 0.05
EXTREME_HU = (-5000, 10000)
MAX_ASPECT = 4  # of a slice, longer side by shorter
LITS_CASES = 131
LITS_SLICES = 58638
LITS_DEPTHS = (74, 987)  # slices of the shortest and the longest case
LITS_WITHOUT_TUMOR = {32, 34, 38, 41, 47, 87, 89, 91, 105, 106, 114, 115, 119}
UNTURNED: Flips = (False, False, False)


def check_case(case: Case) -> list[Finding]:
    """Read a case and return what is odd about it; a sound case has no finding.

    Raises for no content of a file: an unreadable file is a harmful finding.
    """
    try:
        return load_case(case)[2]
    except UNREAD as error:
        return [Finding("unreadable", True, str(error))]


def load_case(case: Case) -> tuple[Volume, np.ndarray | None, list[Finding]]:
    """Read, check and mend a case in one pass.

    Returns:
        The volume and the labels, turned as the findings say, and the findings, which the volume's
        `remarks` repeat. A finding that the case accepts turns nothing and is not harmful.

    Raises:
        OSError, ValueError: a file cannot be read.
    """
    volume, labels, findings = _load_case(case)
    remarks = tuple(found.text for found in findings if found.code != "no_segmentation")
    return replace(volume, remarks=remarks), labels, findings


def _load_case(case: Case) -> tuple[Volume, np.ndarray | None, list[Finding]]:
    require(case, "segmentation", "case", "a Case, as find_cases(folder) returns them")
    remarks: list[str] = []
    volume = read_volume(case.volume, case.orientation, series=case.series)
    labels = None
    if case.segmentation:
        labels = read_segmentation(case.segmentation, like=volume, remarks=remarks)
    found = [Finding("labels_mended", False, text) for text in remarks]
    found += _header_findings(case, volume)
    coarse = None
    if not case.orientation:
        mended, mended_labels, reordered, coarse = with_axes_in_order(volume, labels)
        found += [reordered] if reordered else []
        if reordered and reordered.code not in case.accepted:
            volume, labels = mended, mended_labels
    found += _value_findings(volume)
    if labels is not None and not labels.any():
        found.append(Finding("empty_liver", True, "the segmentation holds no liver"))
    elif labels is not None and 2 * np.count_nonzero(labels == 2) > np.count_nonzero(labels):
        text = "more than half of the liver is labelled tumor: are its numbers swapped?"
        found.append(Finding("tumor_doubtful", False, text))
    findings = _decided(found, case)
    if not any(finding.harmful for finding in findings):
        coarse = coarse_copy(volume.hu, labels, volume.geometry.pixel_aspect, coarse)
        findings += _decided(_placing_findings(coarse), case)
    if any(finding.harmful for finding in findings) or not coarse.has_body:
        volume, sized = _sized(volume, labels, None, case.accepted)
        return volume, labels, findings + _decided(sized, case)
    volume, sized = _sized(volume, labels, coarse, case.accepted)
    findings += _decided(sized, case)
    volume, turning = _put_right(case, volume, labels, coarse)
    return volume, labels, findings + _decided(turning, case)


def _decided(findings: Iterable[Finding], case: Case) -> list[Finding]:
    """Mark the findings that the case accepts, and make them harmless; return all."""
    return [
        _with_words(replace(finding, harmful=False), "(accepted by the user)")
        if finding.code in case.accepted
        else finding
        for finding in findings
    ]


def _put_right(
    case: Case, volume: Volume, labels: np.ndarray | None, coarse: Coarse
) -> tuple[Volume, list[Finding]]:
    """Reverse axes of the case's arrays, in place, as its anatomy says."""
    geometry = volume.geometry
    believed = case.orientation is not None or geometry.orientation_trusted
    flips, reasons, asked = wrong_way(
        coarse, geometry, believed=believed, has_mask=labels is not None
    )
    turned = geometry.reversed_along(flips)
    if case.orientation:
        if any(flips):
            text = f"its anatomy looks like {turned.orientation}: {', '.join(reasons)}"
            asked.append(Finding("turned", False, text))
        return volume, [_with_words(found, "(the user's orientation stays)") for found in asked]
    cure = f"Nothing was turned; look at it, then give {hint('way')}"
    asked = [_with_words(found, cure) for found in asked]
    if "turned" in case.accepted:
        flips, turned = UNTURNED, geometry
    if any(flips):
        for array in (volume.hu, labels):
            if array is not None:
                _reverse(array, flips)
    if reasons:
        text = f"read as {turned.orientation}: {', '.join(reasons)}"
        asked.append(Finding("turned", False, text, turned.orientation))
    return replace(volume, geometry=turned), asked


def _with_words(finding: Finding, words: str) -> Finding:
    return replace(finding, text=f"{finding.text} {words}")


def check_lits_set(cases: Sequence) -> list[Finding]:
    """Compare the complete training set of LiTS, prepared, with what is known about it.

    Args:
        cases: `PreparedCase` objects; other sets than the cases 0 to 130 give no finding.
    """
    if sorted(case.id for case in cases) != sorted(str(number) for number in range(LITS_CASES)):
        return []
    depths = [case.shape[0] for case in cases]
    without = {int(case.id) for case in cases if not case.tumor_slices}
    facts = [
        ("slices in all", sum(depths), LITS_SLICES),
        ("slices of the shortest and the longest case", (min(depths), max(depths)), LITS_DEPTHS),
        ("cases without tumor", sorted(without), sorted(LITS_WITHOUT_TUMOR)),
    ]
    return [
        Finding("lits_count", False, f"{name}: {found}, but LiTS has {known}")
        for name, found, known in facts
        if found != known
    ]


def _sized(
    volume: Volume, labels: np.ndarray | None, coarse: Coarse | None, accepted: Collection[str]
) -> tuple[Volume, list[Finding]]:
    """Return the volume, its millimetres trusted or not as the body says, and findings.

    Args:
        volume, labels: the case.
        coarse: with a body in it; None leaves the header's word.
        accepted: codes of findings that the user overrules.
    """
    doubt = doubt_about_size(volume, coarse) if coarse else volume.geometry.remark
    size = size_text(volume.spacing_mm[::-1])
    findings = []
    if doubt and (coarse or not volume.geometry.spacing_trusted):
        text = f"the voxel size {size} mm is not to be trusted ({doubt}); no figure in mm or ml is"
        findings.append(Finding("spacing_untrusted", False, text))
    elif labels is not None and coarse and (doubt := doubt_about_liver(volume, labels)):
        findings.append(Finding("liver_volume", False, f"{doubt}; no figure in mm or ml counts"))
    elif volume.geometry.remark and not doubt and volume.geometry.spacing_trusted:
        findings.append(Finding("form_unusable", False, volume.geometry.remark))
    trusted = all(finding.code in {*accepted, "form_unusable"} for finding in findings)
    return replace(volume, geometry=replace(volume.geometry, spacing_trusted=trusted)), findings


def _header_findings(case: Case, volume: Volume) -> Iterator[Finding]:
    if case.orientation:
        text = f"read as {case.orientation}, as the user says; anatomy turned nothing"
        yield Finding("orientation_given", False, text)
    if case.segmentation is None:
        text = "no segmentation: fine for inference, left out of training"
        yield Finding("no_segmentation", False, text)
    elif not lies_on(case.segmentation, volume.geometry):
        text = (
            "the segmentation's header differs from its CT's: paired voxel by voxel, CT's geometry"
        )
        yield Finding("mask_header_differs", False, text)


def _value_findings(volume: Volume) -> Iterator[Finding]:
    hu = volume.hu
    height, width = hu.shape[1:]
    low = int(hu.min())
    high = int(hu.max())
    aspect = height * volume.geometry.pixel_aspect / width
    if not 1 / MAX_ASPECT <= aspect <= MAX_ASPECT or min(height, width) * MAX_ASPECT < len(hu) // 2:
        yield Finding("no_abdomen", True, f"slices of {height} x {width} pixels show no abdomen")
    elif reason := not_hounsfield(hu):
        yield Finding("not_hu", True, reason)
    elif low < EXTREME_HU[0] or high > EXTREME_HU[1]:
        text = f"extreme values {low}..{high} HU, kept as they are (windows clip them)"
        yield Finding("extreme_hu", False, text)
    if are_shuffled(hu):
        text = (
            "slices resemble others more than their neighbours: put together by name (1, 10, 2) "
            "rather than by position?"
        )
        yield Finding("slices_out_of_order", False, text)


def _placing_findings(coarse: Coarse) -> Iterator[Finding]:
    """Yield a finding if there is no body, or the mask does not lie on the liver of its CT."""
    if not coarse.has_body:
        text = "no body found in the scan; its orientation could not be verified"
        yield Finding("no_body", False, text)
    if coarse.liver is None or not coarse.liver.any():
        return
    fits = {flips: liver_fit(coarse, flips) for flips in itertools.product((False, True), repeat=3)}
    best = max(fits, key=fits.get)
    if fits[best] > max(fits[UNTURNED] + BETTER_FIT, MIN_LIVER_FIT):
        axes = [name for name, flip in zip("ZYX", best, strict=True) if flip]
        text = (
            "the mask does not lie on the liver; it fits the CT when reversed along "
            f"{' and '.join(axes)} (a turned or mirrored copy?)"
        )
        yield Finding("mask_turned", True, text)
    elif fits[UNTURNED] < MIN_LIVER_FIT:
        median = float(np.median(coarse.hu[coarse.liver]))
        text = (
            f"the mask does not outline liver-like tissue (median {median:.0f} HU, "
            f"fit {fits[UNTURNED]:.2f}); is it another case's?"
        )
        yield Finding("mask_misplaced", True, text)
    elif fits[UNTURNED] < DOUBTFUL_LIVER_FIT:
        text = f"the mask outlines the liver poorly (fit {fits[UNTURNED]:.2f}); look at it"
        yield Finding("mask_doubtful", False, text)


def _reverse(array: np.ndarray, flips: Flips) -> None:
    """Reverse axes of a (Z, Y, X) array in place, with no second copy of it."""
    within = reversing(flips[1:])
    for plane in array:
        plane[:] = plane[within].copy()
    for k in range(len(array) // 2 if flips[0] else 0):
        array[k], array[-1 - k] = array[-1 - k].copy(), array[k].copy()
