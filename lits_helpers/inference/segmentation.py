"""The front door of `lits_helpers`: a CT in, labels, report and viewer out."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..cases import Case, Finding, overruled, without_name
from ..checkpoints import (
    SYNTHETIC,
    LiverModel,
    TumorModel,
    has_synthetic,
    load_liver_model,
    load_tumor_model,
)
from ..machine import require
from ..recipes import SYSTEMS
from ..report import judge, look, sentences, write_report
from ..viewer import SliceViewer, uncertainty_of
from ..volumes import Volume, remove_probability, segmentation_path, study_in, write_segmentation
from .evidence import second_look
from .folders import read_checked, write_probabilities
from .provenance import described_model
from .segment import segment_volume

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Segmentation:
    """A segmented CT.

    Attributes:
        labels: (Z, Y, X) uint8: 0 background, 1 liver, 2 tumor.
        volume: the CT, turned where its header was wrong.
        models: system -> where its weights came from.
        findings: what is odd about the CT's file; none for a volume that was given.
        evidence: what a second look of the liver model says, for the report's flags.
        makers: system -> the models behind `models`, as a prediction's record describes them.
        probabilities: system -> (Z, Y, X) uint8, what its models say times 255, before any rule on
            labels; empty unless asked for.
    """

    labels: np.ndarray = field(repr=False)
    volume: Volume = field(repr=False)
    models: dict[str, str]
    findings: tuple[Finding, ...] = ()
    evidence: dict[str, float] = field(default_factory=dict, repr=False)
    makers: dict[str, list[dict]] = field(default_factory=dict, repr=False)
    probabilities: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def case_id(self) -> str:
        """The CT's file name without suffix; of DICOM never one with the patient's name in it."""
        path = Path(self.volume.path or "ct").absolute()
        name = path.name
        for suffix in (".gz", ".nii", ".zip", ".dcm"):
            name = name.removesuffix(suffix)
        return without_name(name, study_in(path)) if self.volume.geometry.dicom else name

    def save(self, path: Path | str) -> Path:
        """Write the labels in the CT's own grid, see `write_segmentation`.

        Probabilities, where they were kept, are written beside them, as
        ``NAME_liver_probability.nii.gz``; those of earlier labels there are removed.
        """
        path = write_segmentation(self.labels, self.volume, path)
        for system in {*SYSTEMS} - {*self.probabilities}:
            remove_probability(path, system)
        write_probabilities(self.probabilities, self.volume, path)
        return path

    def report(self, out: Path | str = ".", case_id: str | None = None) -> Path:
        """Write the page about this patient, see `report.write_report`; return its path.

        Args:
            out: folder.
            case_id: title and file name; default `case_id`.
        """
        known = {"findings": self.findings, "evidence": self.evidence}
        known["makers"] = self.makers
        page, _ = write_report(self.volume, self.labels, out, case_id or self.case_id, **known)
        return page

    @property
    def flags(self) -> dict:
        """How far to trust the labels, in one word, with its reasons: see `report.judge`."""
        spacing_mm = self.volume.geometry.trusted_spacing_mm
        seen = look(self.volume.hu, self.labels, spacing_mm, self.makers)
        return judge(seen | self.evidence, self.findings)

    def view(self) -> SliceViewer:
        """Return the slice viewer of CT and labels, flags above; display it in a notebook.

        Where the models are unsure is a layer, if probabilities were kept.
        """
        shown = {"uncertainty": uncertainty_of(self.probabilities), "notes": sentences(self.flags)}
        return SliceViewer(self.volume, {"prediction": self.labels}, **shown)


def segment(
    ct: Path | str | Volume,
    liver: LiverModel | Path | str | None = SYNTHETIC,
    tumor: TumorModel | Path | str | None = SYNTHETIC,
    out: Path | str | None = None,
    *,
    orientation: str | None = None,
    accept: Sequence[str] = (),
    probabilities: bool = False,
) -> Segmentation:
    """Segment one CT with the weights that come with the project, or with models of your own.

    Example::

        made = segment("my_ct.nii.gz", out="labels.nii.gz")
        made.report()  # my_ct.html; in a notebook made.view() shows the slices

    Args:
        ct: a file as `read_volume` takes it, or a volume.
        liver, tumor: a checkpoint, a loaded model, "synthetic", or None to leave that system out.
        out: also write the labels there, see `Segmentation.save`.
        orientation, accept: the user's word on a file, see `cases.Case`; of a volume neither is
            needed.
        probabilities: keep what the models say of each voxel, a byte each.

    Raises:
        TypeError: an array, or anything else that is neither a path nor a volume.
        ValueError: no readable CT, or nothing to segment with; or, before any work, an `out` that
            cannot hold its labels.
        FileNotFoundError: no such CT or checkpoint.
    """
    is_file = isinstance(ct, str | os.PathLike)
    if not is_file:
        require(ct, "hu", "ct", "a path, or a volume: volume_from_array(hu, spacing_mm)")
    if out is not None:
        out = segmentation_path(out, ct if is_file else ct.path)
    if tumor == SYNTHETIC and not has_synthetic("tumor"):
        logger.info("no synthetic tumor weights come with this version: the liver alone")
        tumor = None
    loaders = {"liver": (liver, load_liver_model), "tumor": (tumor, load_tumor_model)}
    models = {
        f"{name}_model": load(given) if isinstance(given, str | Path) else given
        for name, (given, load) in loaders.items()
    }
    findings = []
    if is_file:
        (case,) = overruled([Case("ct", "ct", Path(ct))], orientation, accept)
        ct, _, findings = read_checked(case)
    names = {
        name: str(given) if isinstance(given, str | Path) else "a loaded model"
        for name, (given, _) in loaders.items()
        if given is not None
    }
    say_synthetic(names.items())
    kept = {}
    given = kept if probabilities else None
    labels = segment_volume(ct, **models, checked=is_file, probabilities=given)
    evidence = second_look(ct, labels, **models)
    makers = {name: [described_model(models[f"{name}_model"])] for name in names}
    segmentation = Segmentation(labels, ct, names, tuple(findings), evidence, makers, kept)
    if out is not None:
        segmentation.save(out)
    return segmentation


def say_synthetic(chosen) -> None:
    """Log which of the pairs (system, its model) are weights that never saw a patient."""
    named = [name for name, given in chosen if str(given) == SYNTHETIC]
    if named:
        logger.info(
            "%s: the weights that come with lits_helpers, trained on generated patients alone; "
            "they never saw a real one",
            " and ".join(named),
        )
