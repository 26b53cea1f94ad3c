"""Which way a scan lies, told by its anatomy, and when that overrules its header.

A header that states an orientation is overruled by clear cues only: lungs below, a liver mask on
the patient's left, or a spine in front where another cue agrees. What one weak cue says becomes a
finding that asks. A header that states none (an identity affine, or no form) leaves it to anatomy.
"""

from dataclasses import replace

import numpy as np

from ..settings import hint
from ..volumes import Geometry, Volume
from .anatomy import (
    BONE_HU,
    Coarse,
    Flips,
    back_cue,
    body_threshold,
    bulk_cue,
    coarse_copy,
    end_shares,
    liver_cue,
    lung_cue,
    spine_cue,
)
from .case import Finding

# Limits between the cues of sound scans, which anatomy.py states, and of turned scans.
SPINE_IN_FRONT = -0.08
BACK_IN_FRONT = -0.02
LIVER_ON_THE_LEFT = 0.05
LUNGS_BELOW = -0.10
OPEN_END = 0.4  # of `end_shares`: the scan ends within the body
AIR_END = 0.15
SIDEWAYS = 1.1  # a lying body is 1.15 to 1.65 times as wide as it is high
PREVIEW_VOXELS = 64  # along each axis


def wrong_way(
    coarse: Coarse, geometry: Geometry, *, believed: bool, has_mask: bool
) -> tuple[Flips, list[str], list[Finding]]:
    """Return which of (Z, Y, X) must be reversed to put the anatomy right, why, and what is asked.

    Args:
        coarse: with a body in it.
        geometry: how it was read.
        believed: whether the header states an orientation.
        has_mask: whether `coarse` has a liver mask.
    """
    spine = spine_cue(coarse)
    liver = liver_cue(coarse)
    lungs_below = lung_cue(coarse) < LUNGS_BELOW
    in_front = spine is not None and spine < SPINE_IN_FRONT
    asked = []
    if in_front and believed and back_cue(coarse) > BACK_IN_FRONT:
        in_front = False
        text = "bone near the midline lies in front, but nothing else says that the patient does"
        asked.append(_asking("spine_doubtful", f"{text} (contrast in the bowel?)"))
    on_the_left = liver is not None and liver > LIVER_ON_THE_LEFT
    cues = {
        "the lungs were below": lungs_below,
        "the spine was in front": in_front,
        "the liver was on the patient's left": on_the_left,
    }
    reasons = [reason for reason, holds in cues.items() if holds]
    if not has_mask and (in_front or not believed):
        mirrored = geometry.mirrored ^ in_front ^ lungs_below
        on_the_left, reason = _side_without_mask(coarse, mirrored, believed)
        reasons.append(reason)
    elif not has_mask and (bulk_cue(coarse) or 0) > LIVER_ON_THE_LEFT:
        text = "the bulkiest organ (the liver?) lies on the patient's left: a mirrored copy?"
        asked.append(_asking("mirrored_doubtful", text))
    return (lungs_below, in_front, on_the_left), reasons, asked


def _asking(code: str, text: str) -> Finding:
    return Finding(code, False, f"{text} Nothing was turned; look at it, then give {hint('way')}")


def _side_without_mask(coarse: Coarse, mirrored: bool, believed: bool) -> tuple[bool, str]:
    """Return whether to reverse left and right where no mask shows the liver, and the reason."""
    bulk = bulk_cue(coarse)
    if bulk is not None and abs(bulk) > LIVER_ON_THE_LEFT:
        return bulk > 0, "left and right as the bulkiest organ (the liver?) shows them; look at it"
    if believed:
        return False, "left and right as the header has them, not verified; look at it"
    return not mirrored, "left and right as such files are mostly stored (LAS), not verified"


def with_axes_in_order(
    volume: Volume, labels: np.ndarray | None
) -> tuple[Volume, np.ndarray | None, Finding | None]:
    """Return a scan with its slices axial, where the file stores its axes in another order.

    Only a header that states no orientation is overruled; one that states another order than the
    anatomy shows makes a harmful finding.
    """
    order = _axes_seen(volume.hu)
    if order == (0, 1, 2):
        return volume, labels, None
    axes = tuple(volume.geometry.axes[axis] for axis in order)
    flips = tuple(volume.geometry.flips[axis] for axis in order)
    if not volume.geometry.orientation_trusted:
        flips = (False,) * 3  # an array that grows to head, back and left; cues turn it
    turned = replace(volume.geometry, axes=axes, flips=flips)
    said, seen = volume.geometry.orientation, turned.orientation
    if volume.geometry.orientation_trusted:
        text = f"its header says {said}, but its anatomy looks like {seen}: give {hint('way')}"
        return volume, labels, Finding("axes_doubtful", True, text, seen)

    def reordered(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(turned.as_internal(volume.geometry.as_stored(array)))

    hu = reordered(volume.hu)
    labels = None if labels is None else reordered(labels)
    text = f"its axes are in another order than such files have; read as {seen} by its anatomy"
    volume = replace(volume, hu=hu, geometry=turned, spacing_mm=turned.spacing_mm)
    return volume, labels, Finding("axes_reordered", False, text, seen)


def _axes_seen(hu: np.ndarray) -> tuple[int, int, int]:
    """Return which axes of an array look like the patient's (Z, Y, X); as they are if unclear."""
    steps = [max(1, length // PREVIEW_VOXELS) for length in hu.shape]
    small = hu[:: steps[0], :: steps[1], :: steps[2]]
    ends = end_shares(small > body_threshold(small))
    along = int(np.argmax(ends))
    across = [axis for axis in range(3) if axis != along]
    if ends[along] < OPEN_END or max(ends[axis] for axis in across) > AIR_END:
        return 0, 1, 2
    order = (along, *across)
    coarse = coarse_copy(np.ascontiguousarray(hu.transpose(order)), None)
    if coarse.has_body and _lies_on_its_side(coarse):
        order = (along, *across[::-1])
    return order


def _lies_on_its_side(coarse: Coarse) -> bool:
    """Tell whether two cues agree that rows are columns: outline and bone."""
    rows = coarse.body.any(axis=2).sum(axis=1)  # (z,) height of the body
    columns = coarse.body.any(axis=1).sum(axis=1)
    if np.median(rows) < SIDEWAYS * np.median(columns):
        return False
    shifts = []
    body = [np.nonzero(coarse.body)[axis] for axis in (1, 2)]
    bone = [np.nonzero(coarse.body & (coarse.hu > BONE_HU))[axis] for axis in (1, 2)]
    if not bone[0].size:
        return False
    shifts = [
        abs(places.mean() - (all_of.min() + all_of.max()) / 2) / max(1, np.ptp(all_of))
        for places, all_of in zip(bone, body, strict=True)
    ]
    return bool(shifts[1] > shifts[0])
