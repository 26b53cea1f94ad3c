"""One case of the wide phantom, from its seed to the scan."""

from collections.abc import Sequence

import numpy as np

from .lesions import draw_lesions, paint_lesions
from .liver import paint_liver, shape_liver
from .organs import paint_organs, shape_organs
from .patient import draw_patient, draw_scan, draw_turn
from .scanner import acquire
from .scene import Scene, start_scene
from .space import make_space
from .trunk import paint_bones, paint_devices, paint_trunk, shape_trunk


def wide_case(
    seed: int | Sequence[int], shape: tuple[int, int, int] = (48, 256, 256)
) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float], dict]:
    """Make one patient, far more varied than real ones.

    Args:
        seed: random seed, or several numbers that together are one.
        shape: (Z, Y, X), each at least 8.

    Returns:
        hu (Z, Y, X) int16, -1024 to 3071; labels (Z, Y, X) uint8, 0 background, 1 liver, 2 tumor;
        spacing_mm (dz, dy, dx), dz between 0.5 and 10; facts: phase, size, HU of tissues, noise
        (HU), volumes (ml) and the lesions drawn.

    Raises:
        ValueError: a shape that cannot be.
    """
    if len(shape) != 3 or min(shape) < 8:
        raise ValueError(f"a case needs a shape (Z, Y, X) of at least 8 each, got {shape}")
    plan, lay, drawing = np.random.default_rng(seed).spawn(3)
    patient, lesions = draw_patient(plan), draw_lesions(plan)
    spacing_mm, middle_mm = draw_scan(patient, shape, plan)
    warp = (
        min(plan.gamma(2, 1.7), 9),
        min(plan.gamma(1.5, 0.4), 2.5),
        (plan.random() < 0.2) * plan.uniform(0, 2.5),
    )
    space = make_space(shape, spacing_mm, middle_mm, draw_turn(plan), patient.size, warp, lay)
    scene = start_scene(space, patient, drawing)
    labels = _draw(scene, lesions)
    hu = acquire(scene)
    labels[hu == -1024] = 0  # out of view
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    facts = {
        "phase": patient.phase,
        "size": patient.size,
        "tissue_hu": patient.tissue,
        "noise_hu": patient.noise_hu,
        "liver_ml": voxel_ml * int((labels >= 1).sum()),
        "tumor_ml": voxel_ml * int((labels == 2).sum()),
        "lesions": [(lesion.kind, lesion.diameter, lesion.contrast) for lesion in lesions],
    }
    return hu, labels, spacing_mm, facts


def _draw(scene: Scene, lesions) -> np.ndarray:
    """Paint the patient; return the labels (Z, Y, X) uint8."""
    shape_trunk(scene)
    paint_trunk(scene)
    organs = shape_organs(scene)
    paint_organs(scene, organs)
    liver = shape_liver(scene, organs)
    paint_liver(scene, organs, liver)
    paint_bones(scene)
    paint_devices(scene)
    tumor = paint_lesions(scene, liver, lesions)
    return liver.mask.astype(np.uint8) + tumor
