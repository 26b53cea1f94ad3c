"""What is wrong with a case, told from its voxels rather than believed from its header.

The rules, in this order:

* Unreadable files, labels other than 0, 1, 2, shapes that differ, an empty liver and values that
  are no Hounsfield units are harmful.
* A mask whose header differs from its CT's is paired voxel by voxel and takes the CT's geometry.
* The mask must outline liver-like tissue in the CT. If it does not, or outlines more of it when
  turned, CT and mask do not belong together as they are: harmful.
* CT and mask together are turned until the spine is at the back, the liver on the patient's right
  and the lungs above. Only clear cues count; a header that they contradict is overruled, and a
  finding says so.
* An identity affine does not tell left from right. Without a mask the bulkiest organ decides, and
  where none is bulky the file is read as LAS, as such files (LiTS 28-47) are stored.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..machine import require
from ..volumes import (
    Geometry,
    Volume,
    lies_on,
    read_segmentation,
    read_volume,
    reversing,
)
from .anatomy import Coarse, Flips, bulk_cue, coarse_copy, liver_cue, liver_fit, lung_cue, spine_cue
from .case import Case, Finding

# Limits between the cues of sound scans, which anatomy.py states, and of turned scans.
SPINE_IN_FRONT = -0.08
LIVER_ON_THE_LEFT = 0.05
LUNGS_BELOW = -0.10
MIN_LIVER_FIT = 0.35
DOUBTFUL_LIVER_FIT = 0.52
BETTER_FIT = 0.05
EXTREME_HU = (-5000, 10000)
MAX_ASPECT = 8  # of a slice, longer side by shorter
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
    except (OSError, ValueError, MemoryError) as error:
        return [Finding("unreadable", True, str(error))]


def load_case(case: Case) -> tuple[Volume, np.ndarray | None, list[Finding]]:
    """Read, check and mend a case in one pass.

    Returns:
        The volume and the labels, turned as the findings say, and the findings.

    Raises:
        OSError, ValueError: a file cannot be read.
    """
    require(case, "segmentation", "case", "a Case, as find_cases(folder) returns them")
    volume = read_volume(case.volume, case.orientation, series=case.series)
    labels = read_segmentation(case.segmentation, like=volume) if case.segmentation else None
    findings = [*_header_findings(case, volume), *_value_findings(volume.hu)]
    if labels is not None and not labels.any():
        findings.append(Finding("empty_liver", True, "the segmentation holds no liver"))
    if any(finding.harmful for finding in findings):
        return volume, labels, findings
    coarse = coarse_copy(volume.hu, labels)
    findings += [*_tissue_findings(coarse), *_placing_findings(coarse)]
    if any(finding.harmful for finding in findings) or not coarse.has_body:
        return volume, labels, findings
    believed = case.orientation is not None or volume.geometry.orientation_trusted
    flips, reasons = wrong_way(coarse, volume.geometry, believed)
    if any(flips):
        for array in (volume.hu, labels):
            if array is not None:
                _reverse(array, flips)
        volume = replace(volume, geometry=volume.geometry.reversed_along(flips))
    if reasons:
        text = f"read as {volume.geometry.orientation}: {', '.join(reasons)}"
        findings.append(Finding("turned", False, text, volume.geometry.orientation))
    return volume, labels, findings


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


def wrong_way(coarse: Coarse, geometry: Geometry, believed: bool) -> tuple[Flips, list[str]]:
    """Return which of (Z, Y, X) must be reversed to put the anatomy right, and why.

    Args:
        coarse: with a body in it.
        geometry: how it was read.
        believed: whether left and right are as read unless a cue contradicts.
    """
    spine = spine_cue(coarse)
    liver = liver_cue(coarse)
    lungs_below = lung_cue(coarse) < LUNGS_BELOW
    in_front = spine is not None and spine < SPINE_IN_FRONT
    on_the_left = liver is not None and liver > LIVER_ON_THE_LEFT
    cues = {
        "the lungs were below": lungs_below,
        "the spine was in front": in_front,
        "the liver was on the patient's left": on_the_left,
    }
    reasons = [reason for reason, holds in cues.items() if holds]
    if liver is None and (in_front or not believed):
        mirrored = geometry.mirrored ^ in_front ^ lungs_below
        on_the_left, reason = _side_without_mask(coarse, mirrored, believed)
        reasons.append(reason)
    return (lungs_below, in_front, on_the_left), reasons


def _side_without_mask(coarse: Coarse, mirrored: bool, believed: bool) -> tuple[bool, str]:
    """Return whether to reverse left and right where no mask shows the liver, and the reason."""
    bulk = bulk_cue(coarse)
    if bulk is not None and abs(bulk) > LIVER_ON_THE_LEFT:
        return bulk > 0, "left and right as the bulkiest organ (the liver?) shows them; look at it"
    if believed:
        return False, "left and right as the header has them, not verified; look at it"
    return not mirrored, "left and right as such files are mostly stored (LAS), not verified"


def _header_findings(case: Case, volume: Volume) -> Iterator[Finding]:
    if not volume.geometry.spacing_trusted:
        size = " x ".join(f"{step:g}" for step in volume.spacing_mm)
        text = (
            f"the voxel size {size} mm is not to be trusted; no figure in mm or ml of this case is"
        )
        yield Finding("spacing_untrusted", False, text)
    if case.segmentation is None:
        text = "no segmentation: fine for inference, left out of training"
        yield Finding("no_segmentation", False, text)
    elif not lies_on(case.segmentation, volume.geometry):
        text = (
            "the segmentation's header differs from its CT's: paired voxel by voxel, CT's geometry"
        )
        yield Finding("mask_header_differs", False, text)


def _value_findings(hu: np.ndarray) -> Iterator[Finding]:
    height, width = hu.shape[1:]
    low = int(hu.min())
    high = int(hu.max())
    if min(height, width) * MAX_ASPECT < max(height, width):
        yield Finding("no_abdomen", True, f"slices of {height} x {width} pixels show no abdomen")
    elif low == high:
        yield Finding("not_hu", True, f"every voxel of the volume is {low}")
    elif low >= 0:
        text = f"values {low}..{high} are no Hounsfield units (no air or fat below 0)"
        guess = (
            "it looks like a segmentation" if high <= 2 else "perhaps an offset of 1024 is missing"
        )
        yield Finding("not_hu", True, f"{text}; {guess}")
    elif low < EXTREME_HU[0] or high > EXTREME_HU[1]:
        text = f"extreme values {low}..{high} HU, kept as they are (windows clip them)"
        yield Finding("extreme_hu", False, text)


def _tissue_findings(coarse: Coarse) -> Iterator[Finding]:
    soft = float(np.mean((coarse.hu > -200) & (coarse.hu < 300)))
    dense = float(np.mean(coarse.hu > 3000))
    if soft < 0.01 or dense > 0.1:
        text = f"absurd values: {soft:.0%} of the scan is soft tissue, {dense:.0%} denser than bone"
        yield Finding("absurd_hu", True, text)
    elif not coarse.has_body:
        text = "no body found in the scan; its orientation could not be verified"
        yield Finding("no_body", False, text)


def _placing_findings(coarse: Coarse) -> Iterator[Finding]:
    """Yield a finding if the mask does not lie on the liver of its CT."""
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
