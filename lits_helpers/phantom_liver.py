"""The phantom's liver: its shape, gallbladder, vessel trees and lesions."""

import numpy as np

from lits_helpers.phantom_body import Frame, Patient, tube
from lits_helpers.phantom_organs import Organs
from lits_helpers.phantom_shapes import (
    Grid,
    capsule,
    coverage,
    ellipsoid,
    paint,
    smooth_max,
    smooth_min,
    smooth_noise,
)


def shape_liver(
    grid: Grid, patient: Patient, frame: Frame, organs: Organs, rng: np.random.Generator
) -> np.ndarray:
    """Return the liver (Z, Y, X) float32 mm, positive inside: two lobes under the diaphragm, cut by neighbours."""
    lobes = smooth_max(_right_lobe(grid, patient, rng), _left_lobe(grid, patient, rng), 16.0)
    lobes = smooth_min(lobes, _visceral_surface(grid, patient, rng), 14.0)
    lobes += 2.0 * smooth_noise(grid, 18.0, rng)
    gap = rng.uniform(0, 5) * patient.visceral_fat
    neighbours = np.maximum(np.maximum(organs.stomach, organs.kidneys), organs.spleen) + gap
    liver = smooth_min(lobes, np.minimum(frame.cavity - 1.0 - gap, -frame.thorax - 3.5), 4.0)
    liver = smooth_min(liver, -neighbours, 4.0)
    liver = np.minimum(liver, -organs.vessels - 1)
    return np.minimum(liver, -_fissures(grid, patient, organs, rng))


def _right_lobe(grid: Grid, patient: Patient, rng: np.random.Generator) -> np.ndarray:
    inner = patient.half_width - patient.fat - patient.wall
    half = patient.liver_height / 2
    centre = (-half + 12, rng.uniform(-5, 18), -inner * rng.uniform(0.48, 0.6))
    radii = (half + 12, patient.half_back * rng.uniform(0.85, 1.05), inner * rng.uniform(0.58, 0.7))
    return ellipsoid(grid.warped, centre, radii)


def _left_lobe(grid: Grid, patient: Patient, rng: np.random.Generator) -> np.ndarray:
    """From a stump to a lobe that reaches the spleen."""
    inner = patient.half_width - patient.fat - patient.wall
    front = patient.half_front - patient.fat - patient.wall
    reach = inner * rng.uniform(0.1, 0.62)
    start = (rng.uniform(-65, -45), -front * rng.uniform(0.3, 0.45), -inner * 0.3)
    end = (rng.uniform(-65, -40), -front * rng.uniform(0.45, 0.65), reach)
    thick = rng.uniform(34, 52)
    return capsule(grid.warped, start, end, thick, thick * rng.uniform(0.3, 0.7))


def _visceral_surface(grid: Grid, patient: Patient, rng: np.random.Generator) -> np.ndarray:
    """The lower surface looks down, to the back and to the left."""
    z, y, x = grid.warped
    inner = patient.half_width - patient.fat - patient.wall
    normal = np.array((-1.0, rng.uniform(-0.2, 0.25), rng.uniform(0.35, 0.85)))
    normal /= np.linalg.norm(normal)
    tip = (-patient.liver_height * rng.uniform(0.85, 1.0), 0.0, -inner * 0.75)
    down = (z - tip[0]) * normal[0] + (y - tip[1]) * normal[1] + (x - tip[2]) * normal[2]
    return 12 * smooth_noise(grid, 60.0, rng) * 0.5 - down.astype(np.float32)


def hilum(patient: Patient, organs: Organs) -> np.ndarray:
    """Where the portal vein enters (z, y, x) mm."""
    return np.array((-0.47 * patient.liver_height, organs.cava_mm[0] - 30, organs.cava_mm[1] - 10))


def _fissures(grid: Grid, patient: Patient, organs: Organs, rng: np.random.Generator) -> np.ndarray:
    """Fat around the hilum, the groove of the round ligament and the bed of the vena cava."""
    z, y, x = grid.warped
    gate = hilum(patient, organs)
    porta = ellipsoid(grid.warped, gate + (-14, 0, 8), (20, 10, 24), tilt=0.3)
    groove_x = gate[2] + rng.uniform(12, 30)
    groove = np.minimum(
        rng.uniform(1.5, 4) - np.abs(x - groove_x - 0.2 * (y - gate[1])), gate[0] + 8 - z
    )
    groove = np.minimum(groove, gate[1] + 10 - y)
    cava = capsule(
        grid.warped,
        (20, organs.cava_mm[0] - 12, organs.cava_mm[1]),
        (-200, *organs.cava_mm),
        14,
        14,
    )
    return np.maximum(np.maximum(porta, groove), cava)


def paint_liver(
    hu, grid: Grid, patient: Patient, organs: Organs, liver, rng: np.random.Generator
) -> None:
    """Paint parenchyma, vessel trees and gallbladder, in place."""
    patchy = rng.uniform(0, 7) * smooth_noise(grid, 45.0, rng) + 3 * smooth_noise(grid, 7.0, rng)
    cover = coverage(liver)
    vessels = np.zeros_like(hu)
    gate = hilum(patient, organs)
    cava = np.array((-22.0, organs.cava_mm[0] - 8, organs.cava_mm[1]))
    _grow(vessels, grid, gate, np.array((0.1, -0.15, -1.0)), 46, 6.0, 4, rng)
    _grow(vessels, grid, gate, np.array((0.3, -0.9, 0.6)), 40, 4.5, 3, rng)
    for direction in ((-0.3, 0.1, -1.0), (-0.35, -0.8, -0.6), (-0.3, -0.9, 0.4)):
        _grow(vessels, grid, cava, np.array(direction), 48, 5.0, 3, rng)
    paint(hu, cover, patient.liver_hu + patchy + vessels * (patient.vein_hu - patient.liver_hu))
    tube(hu, grid, [gate + (-50, 6, 22), gate + (-12, 2, 6), gate], (7, 7, 6.5), patient.vein_hu)
    if rng.random() < 0.85:
        _paint_gallbladder(hu, grid, gate, liver, rng)


def _grow(
    vessels, grid: Grid, start, direction, length: float, radius: float, depth: int, rng
) -> None:
    """Paint a branching vessel into `vessels` (coverage) and let it fork `depth` times."""
    direction = direction / np.linalg.norm(direction)
    bend = start + direction * length / 2 + rng.normal(0, 0.08 * length, 3)
    end = bend + direction * length / 2 + rng.normal(0, 0.1 * length, 3)
    tube(vessels, grid, [start, bend, end], (radius, radius * 0.85, radius * 0.75), 1.0)
    if depth:
        side = rng.normal(0, 1, 3)
        side -= direction * (side @ direction)
        side *= rng.uniform(0.5, 0.9) / np.linalg.norm(side)
        for sign, shrink in ((1, rng.uniform(0.65, 0.85)), (-0.7, rng.uniform(0.7, 0.9))):
            _grow(
                vessels,
                grid,
                end,
                direction + sign * side,
                length * shrink,
                radius * 0.74,
                depth - 1,
                rng,
            )


def _paint_gallbladder(hu, grid: Grid, gate, liver, rng: np.random.Generator) -> None:
    neck = gate + (-18, -8, -12)
    fundus = neck + rng.uniform((-45, -50, -25), (-20, -25, 0))
    bladder = capsule(grid.warped, neck, fundus, 6, rng.uniform(10, 17))
    liver[...] = np.minimum(liver, -bladder)
    paint(hu, coverage(bladder), 70.0)
    paint(hu, coverage(bladder - 1.6), rng.uniform(2, 20))


def draw_lesions(rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Draw (diameter mm, HU difference, softness mm) of zero to eight lesions, largest first.

    One patient in six has none. The first is large as a rule, so that most of the tumor lies in lesions that can be
    found; many small ones come with it, as in metastases.
    """
    if rng.random() < 1 / 6:
        return []
    count = int(rng.choice(8, p=(0.24, 0.2, 0.16, 0.12, 0.1, 0.07, 0.06, 0.05))) + 1
    sizes = [rng.uniform(16, 45)] + [
        float(np.clip(np.exp(rng.normal(2.4, 0.55)), 3, 45)) for _ in range(count - 1)
    ]
    darker = -rng.uniform(20, 55)
    lesions = []
    for size in sorted(sizes, reverse=True):
        contrast = np.clip(darker + rng.normal(0, 7), -60, -15)
        if rng.random() < 0.12:
            contrast = rng.uniform(18, 50)
        lesions.append((float(size), float(contrast), float(rng.uniform(1.0, 5.0))))
    return lesions


def paint_lesions(
    hu, grid: Grid, liver: np.ndarray, lesions, rng: np.random.Generator
) -> np.ndarray:
    """Paint lesions into the liver, in place; return the tumor mask (Z, Y, X)."""
    tumor = np.zeros(grid.shape, bool)
    if not (liver > 0).any():
        return tumor
    cover = coverage(liver)
    for diameter, contrast, softness in lesions:
        radius = diameter / 2
        centre = _place(grid, liver, radius, tumor, rng)
        box = grid.near(centre, radius * 1.7, margin_mm=0.0)
        shape = _lesion_shape(grid, box, centre, radius, rng)
        edge = (
            np.minimum(coverage(shape), np.clip(0.5 + shape / softness, 0, 1))
            if radius > softness
            else coverage(shape)
        )
        inside = 1.0 + 0.1 * smooth_noise(grid, max(radius / 2, 4.0), rng, box)
        rim = 1.0
        if radius > 10 and rng.random() < 0.35:  # a dead centre, darker than the rim
            rim = np.where(shape > 0.45 * radius, 1.0, rng.uniform(0.3, 0.7))
        hu[box] += edge * cover[box] * contrast * inside * rim
        tumor[box] |= (shape >= 0) & (liver[box] >= 0)
    return tumor


def _place(
    grid: Grid, liver: np.ndarray, radius: float, tumor: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the centre (z, y, x) mm of a voxel in the liver, mostly deep enough and away from other lesions."""
    depth = min(0.6 * radius, 0.6 * float(liver.max()))
    allowed = np.flatnonzero((liver > depth) & ~tumor)
    if not allowed.size:
        allowed = np.flatnonzero(liver > 0)
    at = np.unravel_index(allowed[int(rng.random() * allowed.size)], grid.shape)
    return np.array([axis[i] for axis, i in zip((grid.z, grid.y, grid.x), at, strict=True)])


def _lesion_shape(grid: Grid, box, centre, radius: float, rng: np.random.Generator) -> np.ndarray:
    points = np.stack(
        np.broadcast_arrays(grid.z[box[0], None, None], grid.y[box[1], None], grid.x[box[2]])
    )
    radii = radius * np.exp(rng.normal(0, 0.12, 3))
    shape = ellipsoid(points.astype(np.float32), centre, radii, tilt=rng.uniform(0, np.pi))
    return shape + 0.13 * radius * smooth_noise(grid, max(radius * 0.8, 5.0), rng, box)
