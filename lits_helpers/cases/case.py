"""What a case is, and what can be odd about it."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from ..volumes import LABELS_SUFFIX, SUFFIX, axes_of

# what reading a CT may end with; ImportError where the packages for DICOM are missing
UNREAD = (ImportError, MemoryError, OSError, ValueError)
CODES = (
    "axes_doubtful axes_reordered empty_liver extreme_hu form_unusable head_doubtful labels_mended "
    "lits_count liver_doubtful liver_only liver_volume lungs_doubtful mask_doubtful "
    "mask_header_differs mask_misplaced mask_turned mirrored_doubtful no_abdomen no_body "
    "no_segmentation not_hu orientation_given same_voxels slices_out_of_order spacing_untrusted "
    "spine_doubtful tumor_doubtful turned unreadable"
).split()  # of findings; docs/data.md says what each means
MOST_ID_BYTES = 200  # a case id becomes part of file names, of at most 255 bytes


@dataclass(frozen=True)
class Case:
    """One CT volume and what belongs to it.

    Attributes:
        id: text, unique in its data set: "17" for volume-17.nii, "liver_12" for liver_12.nii.gz.
        patient: cases of one patient stay in one part of a split; each case is a patient of its
            own, as in LiTS, unless a patients.csv says otherwise.
        volume: the CT's file.
        segmentation: the labels' file, or None.
        orientation: axis codes that override a wrong header, for example "LAS", and are not turned
            by anatomy; None believes the header unless anatomy contradicts.
        accepted: codes of findings that the user knows and overrules.
        liver_only: the segmentation does not show tumors, whether there are any or not.
        series: number or UID of the series to be read from DICOM; None takes the axial CT with the
            most slices.
    """

    id: str
    patient: str
    volume: Path
    segmentation: Path | None = None
    orientation: str | None = None
    liver_only: bool = False
    series: str | None = None
    accepted: tuple[str, ...] = ()


def overruled(
    cases: Iterable["Case"], orientation: str | None, accepted: Sequence[str]
) -> list["Case"]:
    """Return cases with the user's word on them: an orientation, findings that are accepted.

    Raises:
        ValueError: an orientation that is none, or a code that no finding has; what is prepared by
            other words would be replaced by nothing.
    """
    if orientation:
        axes_of(orientation)
    accepted = [accepted] if isinstance(accepted, str) else accepted
    for code in accepted:
        if code not in CODES:
            near = get_close_matches(code, CODES, 1)
            meant = f"did you mean {near[0]}? " if near else ""
            raise ValueError(f"no finding has the code {code!r}: {meant}docs/data.md lists them")
    return [
        replace(
            case,
            orientation=orientation or case.orientation,
            accepted=tuple(sorted({*case.accepted, *accepted})),
        )
        for case in cases
    ]


def fault_of_id(case_id: str) -> str:
    """Return why a case cannot be called so, and what to do; "" where it can."""
    if len(os.fsencode(case_id)) > MOST_ID_BYTES:
        return f"its name is too long: {case_id[:40]}...; give it a shorter one"
    if f"{case_id}{SUFFIX}".endswith(LABELS_SUFFIX):  # another case's reference is packed so
        return f"its name ends as that of a reference: {case_id[-40:]}; give it another one"
    return ""


def fault_of_names(case_ids: Iterable[str]) -> str:
    """Return which two cases some disks take for one, and what to do; "" where all differ."""
    known: dict[str, str] = {}
    for case_id in case_ids:
        other = known.setdefault(case_id.lower(), case_id)
        if other != case_id:
            return (
                f"cases {other} and {case_id} differ in capitals alone, and have one file where a "
                "disk takes these for the same (macOS, Windows): rename one, or name them in a "
                "cases.csv"
            )
    return ""


def id_order(case_id: str) -> list[str | int]:
    """Return a key that sorts case ids by the numbers in them: "liver_2" before "liver_12"."""
    parts = re.split(r"([0-9]+)", case_id)
    return [int(part) if k % 2 else part for k, part in enumerate(parts)]


@dataclass(frozen=True)
class Finding:
    """One thing that is odd about a case; docs/data.md lists the codes.

    Attributes:
        code: short fixed name, for example "spacing_untrusted".
        harmful: the case must not be used; otherwise it was mended or is only worth knowing.
        text: one sentence.
        orientation: axis codes that mend the case, if they do.
    """

    code: str
    harmful: bool
    text: str
    orientation: str | None = None


def copy_of(first: str) -> Finding:
    """Return the finding about a CT with the voxels of another case's."""
    text = (
        f"its CT has the voxels of case {first}: take one of them out, or give both one patient "
        "(patients.csv)"
    )
    return Finding("same_voxels", False, text)


ABOUT_LABELS = {  # codes of what is odd about the segmentation, not about the CT
    "no_segmentation",
    "labels_mended",
    "empty_liver",
    "mask_header_differs",
    "mask_turned",
    "mask_misplaced",
    "mask_doubtful",
    "tumor_doubtful",
    "liver_doubtful",
    "liver_only",
}


def about_ct(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that are about the CT, whatever its segmentation."""
    return [finding for finding in findings if finding.code not in ABOUT_LABELS]


LIVER_ONLY = Finding(
    "liver_only",
    False,
    "the reference shows the liver alone: left out of the tumor training and the tumor scores",
)
