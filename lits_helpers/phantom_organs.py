"""The phantom's organs other than the liver: stomach, spleen, kidneys, bowel, pancreas and the great vessels."""

from dataclasses import dataclass

import numpy as np

from lits_helpers.phantom_body import Frame, Patient, tube
from lits_helpers.phantom_shapes import (
    Grid,
    capsule,
    coverage,
    ellipsoid,
    paint,
    smooth_max,
    smooth_noise,
)


@dataclass(frozen=True)
class Organs:
    """Shapes of the liver's neighbours, (Z, Y, X) float32 mm, positive inside."""

    stomach: np.ndarray
    spleen: np.ndarray
    kidneys: np.ndarray
    vessels: np.ndarray  # aorta and inferior vena cava with their surroundings
    cava_mm: tuple[float, float]  # (y, x) of the inferior vena cava behind the liver


def shape_organs(grid: Grid, patient: Patient, frame: Frame, rng: np.random.Generator) -> Organs:
    """Draw the organs' shapes; what they must not touch is cut off."""
    inner = patient.half_width - patient.fat - patient.wall
    room = np.minimum(frame.cavity - 2, -frame.thorax - 4)
    stomach = np.minimum(_stomach(grid, patient, inner, rng), room)
    kidneys = np.minimum(_kidneys(grid, patient, rng), room - 3)
    spleen = np.minimum(_spleen(grid, patient, inner, rng), room)
    spleen = np.minimum(spleen, np.minimum(-stomach, -kidneys) - 6 * patient.visceral_fat)
    cava = (patient.spine_y - rng.uniform(24, 30), -rng.uniform(14, 24))
    aorta = ellipsoid(grid.warped, (-100, patient.spine_y - 24, 10), (1000, 15, 15))
    behind = np.minimum(32 - np.abs(grid.warped[2] + 2), grid.warped[1] - patient.spine_y + 34)
    return Organs(stomach, spleen, kidneys, np.maximum(aorta, behind), cava)


def _stomach(grid: Grid, patient: Patient, inner: float, rng: np.random.Generator) -> np.ndarray:
    """Fundus under the left diaphragm, body to the front, antrum across the midline."""
    size = rng.uniform(0.65, 1.15)
    front = patient.half_front - patient.fat - patient.wall
    fundus = (rng.uniform(-55, -35), rng.uniform(0, 25), inner * rng.uniform(0.38, 0.5))
    body = (
        rng.uniform(-105, -75),
        -front * rng.uniform(0.45, 0.65),
        inner * rng.uniform(0.36, 0.5),
    )
    antrum = (body[0] - rng.uniform(10, 40), -front * rng.uniform(0.45, 0.6), rng.uniform(-15, 15))
    upper = capsule(grid.warped, fundus, body, 38 * size, 30 * size)
    stomach = smooth_max(upper, capsule(grid.warped, body, antrum, 28 * size, 16 * size), 14.0)
    return stomach + 3.5 * smooth_noise(grid, 26.0, rng)


def _spleen(grid: Grid, patient: Patient, inner: float, rng: np.random.Generator) -> np.ndarray:
    centre = (
        rng.uniform(-85, -50),
        patient.half_back * rng.uniform(0.2, 0.35),
        inner * rng.uniform(0.74, 0.84),
    )
    size = rng.uniform(0.8, 1.25)
    radii = (rng.uniform(42, 65) * size, 52 * size, 27 * size)
    return ellipsoid(grid.warped, centre, radii, tilt=rng.uniform(0.2, 0.6))


def _kidneys(grid: Grid, patient: Patient, rng: np.random.Generator) -> np.ndarray:
    """Two beans beside the spine, the right one lower; their hollow faces the middle."""
    both = None
    for side, drop in ((-1, rng.uniform(8, 30)), (1, 0.0)):
        middle = (-130 - drop, patient.spine_y + rng.uniform(-8, 4), side * rng.uniform(58, 70))
        size = rng.uniform(0.85, 1.15)
        bean = ellipsoid(grid.warped, middle, (54 * size, 31 * size, 26 * size), tilt=-side * 0.6)
        hollow = (middle[0], middle[1] - 10, middle[2] - side * 25 * size)
        bean = np.minimum(bean, -ellipsoid(grid.warped, hollow, (17, 14, 15)))
        both = bean if both is None else np.maximum(both, bean)
    return both


def paint_organs(
    hu, grid: Grid, patient: Patient, frame: Frame, organs: Organs, rng: np.random.Generator
) -> None:
    """Paint everything in the cavity but the liver, in place."""
    _paint_bowel(hu, grid, patient, frame, rng)
    _paint_pancreas(hu, grid, patient, rng)
    _paint_stomach(hu, grid, patient, organs.stomach, rng)
    spleen_hu = patient.liver_hu + rng.normal(2, 9)
    paint(hu, coverage(organs.spleen), spleen_hu + 3 * smooth_noise(grid, 14.0, rng))
    _paint_kidneys(hu, grid, patient, organs.kidneys, rng)


def _paint_stomach(hu, grid: Grid, patient: Patient, stomach, rng: np.random.Generator) -> None:
    """Wall, contents (water, food or contrast) and gas above the fluid level."""
    wall = rng.uniform(3, 7)
    paint(hu, coverage(stomach), patient.liver_hu + rng.normal(-5, 10))
    food = rng.choice(
        (rng.uniform(0, 30), rng.uniform(30, 75), rng.uniform(120, 260)), p=(0.45, 0.4, 0.15)
    )
    lumps = rng.uniform(2, 18) * smooth_noise(grid, 9.0, rng)
    paint(hu, coverage(stomach - wall), food + lumps)
    level = -patient.half_front * rng.uniform(0.15, 0.75)  # gas rises to the front
    gas = np.minimum(stomach - wall, level - grid.y[:, None])
    paint(hu, coverage(gas), -930.0)


def _paint_kidneys(hu, grid: Grid, patient: Patient, kidneys, rng: np.random.Generator) -> None:
    """Cortex and medulla near the liver's HU, fat and vessels in the hollow."""
    cortex = patient.liver_hu + rng.uniform(-10, 35)
    medulla = cortex - rng.uniform(0, 30)
    pyramids = coverage(3 * (smooth_noise(grid, 11.0, rng) - 0.1)) * coverage(kidneys - 6)
    paint(hu, coverage(kidneys), cortex)
    paint(hu, pyramids, medulla)
    sinus = kidneys - 15 + 3 * smooth_noise(grid, 8.0, rng)
    paint(hu, coverage(sinus), patient.fat_hu + 50)


def _paint_bowel(hu, grid: Grid, patient: Patient, frame: Frame, rng: np.random.Generator) -> None:
    """Loops that press against each other: each voxel belongs to its deepest loop, walls between."""
    first = np.full(grid.shape, -40.0, np.float32)
    second = first.copy()
    fill = np.zeros(grid.shape, np.float32)
    inner = patient.half_width - patient.fat - patient.wall
    front = patient.half_front - patient.fat - patient.wall
    for _ in range(int(rng.uniform(80, 130))):
        radius = rng.uniform(10, 22)
        start = rng.uniform(
            (-330, -front * 0.95, -inner * 0.92), (-95, patient.spine_y - 45, inner * 0.92)
        )
        end = start + rng.normal(0, (8, 14, 18))
        box = grid.near((start + end) / 2, np.abs(end - start) / 2 + radius)
        content = _content(rng)
        points = grid.warped[(slice(None), *box)]
        if not points.size:
            continue
        loop = capsule(points, start, end, radius, radius * rng.uniform(0.8, 1.1))
        deeper = loop > first[box]
        second[box] = np.where(deeper, first[box], np.maximum(second[box], loop))
        fill[box] = np.where(deeper, content, fill[box])
        first[box] = np.where(deeper, loop, first[box])
    apart = 0.5 + 2.5 * patient.visceral_fat
    loops = np.minimum(np.minimum(first, (first - second) / 2) - apart, frame.cavity - 3)
    loops = np.minimum(loops, -frame.thorax - 5)
    _paint_loops(hu, grid, patient, loops, fill, rng)


def _content(rng: np.random.Generator) -> float:
    """HU inside one loop: fluid, stool, gas or oral contrast."""
    kind = rng.choice(4, p=(0.5, 0.25, 0.15, 0.1))
    return float((rng.uniform(5, 50), rng.uniform(40, 90), -900.0, rng.uniform(120, 320))[kind])


def _paint_loops(hu, grid: Grid, patient: Patient, loops, fill, rng: np.random.Generator) -> None:
    wall = min(patient.liver_hu, 105) - rng.uniform(0, 25)
    stool = 14 * smooth_noise(grid, 7.0, rng)
    paint(hu, coverage(loops), wall)
    paint(hu, coverage(loops - 2.2), np.maximum(fill + stool, -950))
    bubbles = np.minimum(loops - 3, 3 * (smooth_noise(grid, 9.0, rng) - 1.7))
    paint(hu, coverage(bubbles) * (fill > 40), -850.0)


def _paint_pancreas(hu, grid: Grid, patient: Patient, rng: np.random.Generator) -> None:
    """A lobulated band from the duodenum to the spleen, and the mesenteric vessels before the aorta."""
    depth = patient.spine_y - rng.uniform(48, 58)
    head, neck = np.array((-135, depth + 8, -38)), np.array((-115, depth - 8, 0))
    tail = np.array((-95, depth + 22, 70)) + rng.normal(0, 8, 3)
    pancreas = smooth_max(
        capsule(grid.warped, head, neck, 15, 9), capsule(grid.warped, neck, tail, 9, 11), 6.0
    )
    pancreas += 2.0 * smooth_noise(grid, 9.0, rng)
    paint(hu, coverage(pancreas), min(patient.liver_hu, 110) - rng.uniform(5, 25))
    nodes = [(-118, depth + 9, 8), (-150, depth + 4, 8), (-320, depth - 10, 5)]
    tube(hu, grid, nodes, (4, 4, 3), patient.blood_hu)
    vein = np.asarray(nodes) + (0, -4, -14)
    tube(hu, grid, vein, (6, 6, 4), max(patient.vein_hu, patient.liver_hu))


def paint_great_vessels(
    hu, grid: Grid, patient: Patient, organs: Organs, rng: np.random.Generator
) -> None:
    """Aorta with plaques, the inferior vena cava, and the renal veins."""
    depth, radius = patient.spine_y - 28, rng.uniform(9, 13)
    aorta = [(90, depth + 8, 14), (-60, depth, 10), (-180, depth, 6), (-340, depth, 2)]
    tube(hu, grid, aorta, [radius] * 4, patient.blood_hu)
    if rng.random() < 0.4:  # calcified wall
        for height in rng.uniform(-250, 20, 12):
            around = rng.uniform(0, 2 * np.pi)
            spot = (height, depth + radius * np.sin(around), 7 + radius * np.cos(around))
            tube(hu, grid, [spot, np.add(spot, (6, 1, 1))], (1.6, 1.6), 450.0)
    y, x = organs.cava_mm
    cava_hu = patient.liver_hu + rng.uniform(-15, 25)
    tube(
        hu,
        grid,
        [(25, y - 14, x), (-40, y - 8, x), (-160, y, x), (-340, y + 4, x + 6)],
        (12, 13, 12, 11),
        cava_hu,
    )
    for side in (-1, 1):
        tube(hu, grid, [(-140, depth + 12, side * 50), (-136, depth, side * 12)], (4, 5), cava_hu)
