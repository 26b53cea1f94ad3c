"""Which way a scan lies, told by its anatomy, and when that overrules its header.

A header that states an orientation is overruled where two independent cues agree: lungs below and
the liver's form; a liver mask on the patient's left and the bulkiest organ; a spine in front and
table, outline or liver. What one cue alone says becomes a finding that asks. A header that states
none (an identity affine, or no form) leaves it to anatomy, and a finding names what nothing shows.
"""

from dataclasses import replace

import numpy as np

from ..settings import hint
from ..volumes import Geometry, Volume, aspect_of_pixel
from .anatomy import (
    BONE_HU,
    Coarse,
    Flips,
    back_cue,
    body_threshold,
    bulk_cue,
    coarse_copy,
    end_shares,
    head_cue,
    liver_cue,
    lung_cue,
    spine_cue,
)
from .case import Finding

# Limits between the cues of sound scans, which anatomy.py states, and of turned scans.
SPINE_IN_FRONT = -0.08
BACK_IN_FRONT = -0.02
CLEARLY_IN_FRONT = -0.10  # of the back, where contrast pulls the spine's cue towards 0
LIVER_ON_THE_LEFT = 0.05
LUNGS_BELOW = -0.10
LUNGS_ABOVE = 0.05
HEAD_BELOW = -0.08
SHOWN = 0.05  # either way, of cues that decide where a header states nothing
OPEN_END = 0.4  # of `end_shares`: the scan ends within the body
AIR_END = 0.15
SIDEWAYS = 1.1  # a lying body is 1.15 to 1.65 times as wide as it is high
PREVIEW_VOXELS = 64  # along each axis
Verdict = tuple[bool, str, Finding | None]  # whether to reverse, why or what is open, a question


def wrong_way(
    coarse: Coarse, geometry: Geometry, *, believed: bool, has_mask: bool
) -> tuple[Flips, list[str], list[Finding]]:
    """Return the axes to reverse so that the anatomy is right, why, and what to ask the user.

    Args:
        coarse: with a body in it.
        geometry: how it was read.
        believed: whether the header states an orientation.
        has_mask: whether `coarse` has a liver mask.
    """
    decide = (_upside_down, _face_down) if believed else (_likely_upside_down, _likely_face_down)
    (below, *said_below), (in_front, *said_in_front) = (rule(coarse) for rule in decide)
    if has_mask:
        left, *said_left = _liver_on_the_left(coarse, believed)
    else:
        mirrored = geometry.mirrored ^ in_front ^ below
        left, *said_left = _left_without_mask(coarse, mirrored, believed, turned=in_front)
    said = [said_below, said_in_front, said_left]
    reasons = [reason for reason, _ in said if reason]
    return (below, in_front, left), reasons, [asked for _, asked in said if asked]


def _upside_down(coarse: Coarse) -> Verdict:
    lungs, head = lung_cue(coarse), head_cue(coarse)
    if lungs < LUNGS_BELOW and head < 0:
        return True, "the lungs were below", None
    if lungs < LUNGS_BELOW:
        text = "much gas lies below, but nothing else says that the scan is upside down (bowel?)"
        return False, "", Finding("lungs_doubtful", False, text)
    if lungs < LUNGS_ABOVE and head < HEAD_BELOW:
        text = "the liver looks upside down, but no lungs are there to tell"
        return False, "", Finding("head_doubtful", False, text)
    return False, "", None


def _likely_upside_down(coarse: Coarse) -> Verdict:
    lungs, head = lung_cue(coarse), head_cue(coarse)
    if abs(lungs) > LUNGS_ABOVE:
        return lungs < 0, "the lungs were below" if lungs < 0 else "", None
    if abs(head) > SHOWN:
        return head < 0, "the liver was upside down" if head < 0 else "", None
    return False, "head and feet as stored, not verified", None


def _face_down(coarse: Coarse) -> Verdict:
    spine, back = spine_cue(coarse), back_cue(coarse)
    if spine is None:
        return False, "", None
    both = spine < SPINE_IN_FRONT and back <= BACK_IN_FRONT
    if both or (spine < 0 and back < CLEARLY_IN_FRONT):
        return True, "the spine was in front", None
    if spine >= SPINE_IN_FRONT:
        return False, "", None
    text = "bone near the midline lies in front, but nothing else says that the patient does"
    return False, "", Finding("spine_doubtful", False, f"{text} (contrast in the bowel?)")


def _likely_face_down(coarse: Coarse) -> Verdict:
    spine = spine_cue(coarse)
    shown = back_cue(coarse) if spine is None else spine
    if abs(shown) > SHOWN:
        return shown < 0, "the spine was in front" if shown < 0 else "", None
    return False, "front and back as stored, not verified", None


def _liver_on_the_left(coarse: Coarse, believed: bool) -> Verdict:
    if (liver_cue(coarse) or 0) <= LIVER_ON_THE_LEFT:
        return False, "", None
    if not believed or (bulk_cue(coarse) or 0) > 0:
        return True, "the liver was on the patient's left", None
    text = "the mask lies on the patient's left, but the bulkiest organ does not: of another organ?"
    return False, "", Finding("liver_doubtful", False, text)


def _left_without_mask(coarse: Coarse, mirrored: bool, believed: bool, turned: bool) -> Verdict:
    """Return the verdict where no mask shows the liver.

    Args:
        coarse: the scan.
        mirrored: whether the stored axes, as read and turned so far, are left-handed.
        believed: whether the header states an orientation.
        turned: whether front and back proved wrong: then left and right are in doubt too.
    """
    bulk = bulk_cue(coarse) or 0
    if believed and not turned:
        text = "the bulkiest organ (the liver?) lies on the patient's left: a mirrored copy?"
        asked = Finding("mirrored_doubtful", False, text) if bulk > LIVER_ON_THE_LEFT else None
        return False, "", asked
    if abs(bulk) > LIVER_ON_THE_LEFT:
        text = "left and right as the bulkiest organ (the liver?) shows them; look at it"
        return bulk > 0, text, None
    if believed:
        return False, "left and right as the header has them, not verified; look at it", None
    return not mirrored, "left and right as such files are mostly stored (LAS), not verified", None


def with_axes_in_order(
    volume: Volume, labels: np.ndarray | None
) -> tuple[Volume, np.ndarray | None, Finding | None, Coarse | None]:
    """Return a scan with its slices axial, where the file stores its axes in another order.

    Only a header that states no orientation is overruled; one that states another order than the
    anatomy shows makes a harmful finding.

    Returns:
        The volume, the labels, the finding, and the scan's copy without labels where one was made.
    """
    spacing_mm = volume.geometry.trusted_spacing_mm or (1.0, 1.0, 1.0)
    order, coarse = _axes_seen(volume.hu, spacing_mm)
    if order == (0, 1, 2):
        return volume, labels, None, coarse
    axes = tuple(volume.geometry.axes[axis] for axis in order)
    flips = tuple(volume.geometry.flips[axis] for axis in order)
    if not volume.geometry.orientation_trusted:
        flips = (False,) * 3  # an array that grows to head, back and left; cues turn it
    turned = replace(volume.geometry, axes=axes, flips=flips)
    said, seen = volume.geometry.orientation, turned.orientation
    if volume.geometry.orientation_trusted:
        text = f"its header says {said}, but its anatomy looks like {seen}: give {hint('way')}"
        return volume, labels, Finding("axes_doubtful", True, text, seen), None

    def reordered(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(turned.as_internal(volume.geometry.as_stored(array)))

    hu = reordered(volume.hu)
    labels = None if labels is None else reordered(labels)
    text = f"its axes are in another order than such files have; read as {seen} by its anatomy"
    volume = replace(volume, hu=hu, geometry=turned, spacing_mm=turned.spacing_mm)
    return volume, labels, Finding("axes_reordered", False, text, seen), None


def _axes_seen(hu: np.ndarray, spacing_mm: tuple) -> tuple[tuple[int, int, int], Coarse | None]:
    """Return which axes look like the patient's Z, Y and X, and the copy that was looked at.

    They are unchanged if that is unclear.
    """
    steps = [max(1, length // PREVIEW_VOXELS) for length in hu.shape]
    small = hu[:: steps[0], :: steps[1], :: steps[2]]
    ends = end_shares(small > body_threshold(small))
    along = int(np.argmax(ends))
    across = [axis for axis in range(3) if axis != along]
    if ends[along] < OPEN_END or max(ends[axis] for axis in across) > AIR_END:
        return (0, 1, 2), None
    order = (along, *across)
    aspect = aspect_of_pixel(*(spacing_mm[axis] for axis in across))
    coarse = coarse_copy(np.ascontiguousarray(hu.transpose(order)), None, aspect)
    if coarse.has_body and _lies_on_its_side(coarse):
        order = (along, *across[::-1])
    return order, coarse


def _lies_on_its_side(coarse: Coarse) -> bool:
    """Tell whether two cues agree that rows are columns: outline and bone."""
    rows = coarse.body.any(axis=2).sum(axis=1)  # (z,) height of the body
    columns = coarse.body.any(axis=1).sum(axis=1)
    if np.median(rows) < SIDEWAYS * np.median(columns):
        return False
    body = [np.nonzero(coarse.body)[axis] for axis in (1, 2)]
    bone = [np.nonzero(coarse.body & (coarse.hu > BONE_HU))[axis] for axis in (1, 2)]
    if not bone[0].size:
        return False
    shifts = [
        abs(places.mean() - (all_of.min() + all_of.max()) / 2) / max(1, np.ptp(all_of))
        for places, all_of in zip(bone, body, strict=True)
    ]
    return bool(shifts[1] > shifts[0])
