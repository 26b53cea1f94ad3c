"""What is wrong with a case, told from its voxels rather than believed from its header."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .volumes import Volume, read_segmentation, read_volume

if TYPE_CHECKING:
    from .cases import Case


@dataclass(frozen=True)
class Finding:
    """One thing that is odd about a case.

    Attributes:
        code: short fixed name, for example "spacing_untrusted".
        harmful: the case must not be used; otherwise it was mended or is only worth knowing.
        text: one sentence.
        orientation: axis codes that mend the case, if that is the mend.
    """

    code: str
    harmful: bool
    text: str
    orientation: str | None = None


def check_case(case: "Case") -> list[Finding]:
    """Read a case and return what is odd about it; an empty list is a sound case.

    Never raises for what is in the files: an unreadable one is a harmful finding.
    """
    try:
        volume = read_volume(case.volume, case.orientation)
        labels = read_segmentation(case.segmentation, like=volume) if case.segmentation else None
    except (OSError, ValueError, MemoryError) as error:
        return [Finding("unreadable", True, str(error))]
    return check_arrays(volume, labels)


def check_arrays(volume: Volume, labels: np.ndarray | None) -> list[Finding]:
    """Return what is odd about a volume and its labels (None: no segmentation)."""
    findings = []
    if not volume.geometry.spacing_trusted:
        findings.append(
            Finding(
                "spacing_untrusted",
                False,
                f"voxel size {volume.spacing_mm} mm is not to be trusted",
            )
        )
    if labels is None:
        findings.append(
            Finding(
                "no_segmentation", False, "no segmentation: fine for inference, not for training"
            )
        )
    elif not labels.any():
        findings.append(Finding("empty_liver", True, "the segmentation holds no liver"))
    return findings
