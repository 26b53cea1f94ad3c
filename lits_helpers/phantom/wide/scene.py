"""Paint a patient: the voxels, the brushes, and what the parts must know of each other."""

from dataclasses import dataclass, field

import numpy as np

from ..shapes import paint
from .patient import Patient
from .space import Space, smooth_noise
from .vessels import stroke

GRAINS_MM = (3.0, 7.0, 18.0)  # pitches of the textures, adult size


@dataclass
class Scene:
    """What is painted so far. Shapes are coarse (z, y, x) float32 mm, positive inside."""

    space: Space
    patient: Patient
    rng: np.random.Generator
    hu: np.ndarray  # (Z, Y, X) float32, painted in place
    grains: list[np.ndarray] = field(default_factory=list)  # textures (Z, Y, X), deviation 1
    body: np.ndarray | None = None  # depth below the trunk's surface
    skin: np.ndarray | None = None  # the same, breasts included
    cavity: np.ndarray | None = None  # within the muscular wall
    thorax: np.ndarray | None = None  # height above the diaphragm
    metal: list[np.ndarray] = field(default_factory=list)  # scan mm, what throws streaks

    @property
    def tissue(self) -> dict[str, float]:
        return self.patient.tissue

    def noise(self, pitch_mm) -> np.ndarray:
        """Return new coarse smooth noise of deviation 1."""
        return self.space.noise(pitch_mm, self.rng)

    def grain(self, box, pitch: int = 1) -> np.ndarray:
        """Return a fine texture of deviation 1 for a box of voxels: one of GRAINS_MM, mirrored."""
        texture = self.grains[pitch]
        flips = self.rng.integers(0, 2, 2) * 2 - 1
        return texture[:, :: flips[0], :: flips[1]][box]

    def paint(self, inside, value, grain: float = 0.0, pitch: int = 1, softness: float = 0.0):
        """Paint a shape with `value` HU, a number or coarse (z, y, x), and texture of `grain` HU.

        Args:
            softness: width over which the edge fades, mm, beside what the slice blurs.
        """
        coarse, cover = self.space.cover(inside, softness)
        box = self.space.voxels(coarse)
        if isinstance(value, np.ndarray):
            value = self.space.enlarge(value, coarse)
        if grain:
            value = value + np.float32(grain) * self.grain(box, pitch)
        paint(self.hu[box], cover, value)

    def tube(self, nodes, radii, value: float) -> None:
        """Paint a tube through patient points (N, 3) with a radius (mm) at each."""
        nodes, size = self.space.locate(nodes), self.space.size
        for start, end, r0, r1 in zip(nodes[:-1], nodes[1:], radii[:-1], radii[1:], strict=True):
            stroke(self.hu, self.space.axes, start, end, (r0 + r1) / 2 * size, value)


def start_scene(space: Space, patient: Patient, rng: np.random.Generator) -> Scene:
    """Return a scene of air, with its textures."""
    pitches = [[mm * space.size / step for step in space.spacing_mm] for mm in GRAINS_MM]
    grains = [smooth_noise(space.shape, pitch, rng) for pitch in pitches]
    return Scene(space, patient, rng, np.full(space.shape, -1000.0, np.float32), grains)
