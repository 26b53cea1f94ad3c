"""Single cases of a prepared folder, and how models of the tests want to see them."""

import numpy as np

from helpers.drawn import SPACING_MM
from lits_helpers.machine import write_json
from lits_helpers.recipes import InputSpec
from lits_helpers.volumes import write_packed
from lits_helpers.volumes.geometry import plain_geometry

LIVER = InputSpec(size=32, window=(-200, 300))

TUMOR = InputSpec(size=64, window=None, channels=3, normalization="imagenet")

CONTEXT = InputSpec(size=64, window=(-100, 250), channels=3, context=1, normalization="imagenet")


def write_packed_case(root, case_id, hu, labels, patient=None, spacing_mm=SPACING_MM):
    """Write one case of a prepared/ folder; labels None for a case without segmentation."""
    write_packed(hu, root / "cases" / f"{case_id}.b2nd")
    if labels is not None:
        write_packed(labels, root / "cases" / f"{case_id}-labels.b2nd")
    present = np.zeros_like(hu, np.uint8) if labels is None else labels
    record = {
        "case_id": case_id,
        "patient": patient or case_id,
        "shape": list(hu.shape),
        "spacing_mm": list(spacing_mm),
        "geometry": plain_geometry(hu.shape, spacing_mm).to_dict(),
        "has_segmentation": labels is not None,
        "liver_slices": np.flatnonzero((present > 0).any((1, 2))).tolist(),
        "tumor_slices": np.flatnonzero((present == 2).any((1, 2))).tolist(),
    }
    write_json(root / "cases" / f"{case_id}.json", record)
