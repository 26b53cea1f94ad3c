"""The phantom's spine: vertebrae with discs and arches, and the muscles in front."""

import numpy as np

from lits_helpers.phantom_body import Scene
from lits_helpers.phantom_shapes import ellipsoid


def paint_spine(scene: Scene) -> None:
    """Vertebrae with discs, canal and processes, and the muscles in front (psoas, crura)."""
    rng, patient = scene.rng, scene.patient
    z, y, x = scene.grid.warped
    mid_y, scale = patient.spine_y, rng.uniform(0.9, 1.12)
    for side in (-1, 1):
        scene.paint(
            ellipsoid((z, y, x), (-215, mid_y + 8, side * 36), (105, 20, 17)), patient.muscle_hu
        )
        scene.paint(
            ellipsoid((z, y, x), (-95, mid_y - 14, side * 21), (75, 16, 6)), patient.muscle_hu
        )
    pitch = 33.0 * scale
    step = z / pitch + rng.uniform(0, 1)
    within = np.abs(step - np.round(step)) * pitch  # mm from the middle of a vertebra
    across = (np.zeros_like(z), y, x)  # the same outline in every slice
    body = ellipsoid(across, (0, mid_y, 0), (30, 17.5 * scale, 22 * scale))
    disc = within - (pitch / 2 - 4)
    hard = rng.uniform(380, 620)
    scene.paint(body, hard)
    spongy = rng.uniform(130, 230) + 22 * scene.noise(6.0)
    scene.paint(np.minimum(body - 2.2, -disc - 1.8), spongy)
    scene.paint(np.minimum(body - 0.5, disc), rng.uniform(75, 105))
    _paint_arch(scene, across, scale, within, hard)


def _paint_arch(scene: Scene, across, scale: float, within: np.ndarray, hard: float) -> None:
    """The bony arch around the spinal canal with its three processes."""
    _, y, x = across
    canal_y = scene.patient.spine_y + 26 * scale
    arch = ellipsoid(across, (0, canal_y, 0), (30, 14 * scale, 17 * scale))
    spinous = np.minimum(3.2 - np.abs(x), 14 - np.abs(y - canal_y - 22))
    bar = 4.5 - np.abs(y - canal_y + 1 - 0.25 * np.abs(x))
    bone = np.minimum(arch, 14.5 - within)
    bone = np.maximum(bone, np.minimum(spinous, 11 - within))
    bone = np.maximum(bone, np.minimum(np.minimum(bar, 36 - np.abs(x)), 7 - within))
    scene.paint(bone, 0.8 * hard)
    scene.paint(bone - 2.5, 0.4 * hard)
    canal = ellipsoid(across, (0, canal_y - 1, 0), (30, 8 * scale, 10.5 * scale))
    scene.paint(canal, 28.0)
