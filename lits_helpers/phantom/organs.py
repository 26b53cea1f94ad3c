"""The phantom beside its liver: stomach, spleen, kidneys, bowel, pancreas, vessels, spine."""

from dataclasses import dataclass

import numpy as np

from .body import Scene
from .shapes import capsule, coverage, ellipsoid, paint, smooth_max


@dataclass(frozen=True)
class Organs:
    """The liver's neighbours; shapes are (Z, Y, X) float32 mm, positive inside."""

    stomach: np.ndarray
    spleen: np.ndarray
    kidneys: np.ndarray
    midline: np.ndarray  # spine and aorta with what surrounds them
    renal_bed: np.ndarray  # where the right kidney lies in its fat
    cava_mm: tuple[float, float]  # (y, x) of the inferior vena cava behind the liver


def shape_organs(scene: Scene) -> Organs:
    """Shape the organs, cut off where they would run into each other or leave the cavity."""
    spine_y = scene.patient.spine_y
    room = np.minimum(scene.cavity - 2, -scene.thorax - 4)
    stomach = np.minimum(_stomach(scene), room)
    kidneys, renal_bed = _kidneys(scene)
    kidneys = np.minimum(kidneys, room - 1)
    apart = 6 * scene.patient.visceral_fat
    spleen = np.minimum(np.minimum(_spleen(scene), room), np.minimum(-stomach, -kidneys) - apart)
    cava = (spine_y - scene.draw(24, 30), -scene.draw(14, 24))
    midline = scene.ellipsoid((-100, spine_y + 6, scene.draw(-4, 6)), (2e3, 44, 38))
    return Organs(stomach, spleen, kidneys, midline, renal_bed, cava)


def _stomach(scene: Scene) -> np.ndarray:
    """Fundus under the left diaphragm, body to the front, antrum across the midline."""
    inner = scene.patient.inner
    front = scene.patient.front
    size = scene.draw(0.65, 1.15)
    fundus = (scene.draw(-55, -35), scene.draw(0, 25), inner * scene.draw(0.38, 0.5))
    body_y = -front * scene.draw(0.45, 0.65)
    body = (scene.draw(-105, -75), body_y, inner * scene.draw(0.36, 0.5))
    antrum = (body[0] - scene.draw(10, 40), -front * scene.draw(0.45, 0.6), scene.draw(-15, 15))
    upper = scene.capsule(fundus, body, 38 * size, 30 * size)
    stomach = smooth_max(upper, scene.capsule(body, antrum, 28 * size, 16 * size), 14.0)
    return stomach + 3.5 * scene.noise(26.0)


def _spleen(scene: Scene) -> np.ndarray:
    patient = scene.patient
    y, x = patient.half_back * scene.draw(0.2, 0.35), patient.inner * scene.draw(0.74, 0.84)
    size = scene.draw(0.8, 1.3)
    radii = (scene.draw(42, 65) * size, 52 * size, 27 * size)
    return scene.ellipsoid((scene.draw(-85, -50), y, x), radii, scene.draw(0.2, 0.6))


def _kidneys(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Two beans beside the spine, the right one lower, and the fat behind the right one."""
    beans = []
    fat = 8 * scene.patient.visceral_fat
    for side, drop in ((-1, scene.draw(8, 30)), (1, 0.0)):
        y, x = scene.patient.spine_y + scene.draw(-8, 4), side * scene.draw(58, 70)
        size = scene.draw(0.85, 1.15)
        z = -125 - drop
        bean = scene.ellipsoid((z, y, x), (54 * size, 31 * size, 26 * size), tilt=-side * 0.6)
        hollow = scene.ellipsoid((z, y - 10, x - side * 25 * size), (17, 14, 15))
        beans.append(np.minimum(bean, -hollow))
        if side < 0:
            behind = (z, y + 22, x + 14)
            bed = scene.ellipsoid(behind, (66 + fat, 36 + fat, 40 + fat))
    return np.maximum(*beans), bed


def paint_organs(scene: Scene, organs: Organs) -> None:
    """Paint everything in the cavity but the liver."""
    _paint_bowel(scene)
    _paint_pancreas(scene)
    _paint_stomach(scene, organs.stomach)
    spleen_hu = scene.patient.liver_hu + scene.rng.normal(2, 8)
    scene.paint(organs.spleen, spleen_hu + 3 * scene.noise(14.0))
    _paint_kidneys(scene, organs.kidneys)
    _paint_great_vessels(scene, organs)


def _paint_stomach(scene: Scene, stomach: np.ndarray) -> None:
    """Wall, contents (water, food or contrast) and gas above the fluid level."""
    liver_hu = scene.patient.liver_hu
    lumen = stomach - scene.draw(3, 8)
    scene.paint(stomach, liver_hu + scene.rng.normal(-5, 10))
    choices = (scene.draw(0, 30), liver_hu - scene.draw(0, 30), scene.draw(120, 260))
    contents = scene.rng.choice(choices, p=(0.4, 0.45, 0.15))
    scene.paint(lumen, contents + scene.draw(2, 18) * scene.noise(9.0))
    level = -scene.patient.half_front * scene.draw(0.15, 0.75)  # gas rises to the front
    scene.paint(np.minimum(lumen, level - scene.grid.y[:, None]), -930.0)


def _paint_kidneys(scene: Scene, kidneys: np.ndarray) -> None:
    """Cortex and medulla near the liver's HU, fat and vessels in the hollow, some cysts."""
    cortex = scene.patient.liver_hu + scene.draw(-10, 35)
    scene.paint(kidneys, cortex)
    pyramids = coverage(3 * (scene.noise(11.0) - 0.1)) * coverage(kidneys - 6)
    paint(scene.hu, pyramids, cortex - scene.draw(0, 30))
    scene.paint(kidneys - 15 + 3 * scene.noise(8.0), scene.patient.fat_hu + 50)
    for _ in range(scene.rng.poisson(0.7)):
        side = scene.rng.choice((-1, 1))
        place = (scene.draw(-190, -90), scene.patient.spine_y + scene.draw(-20, 25), side * 70)
        cyst = scene.ellipsoid(place, scene.draw(5, 20) * scene.draw(0.8, 1.2, 3))
        scene.paint(np.minimum(cyst, kidneys + 12), scene.draw(-2, 15))


def _paint_bowel(scene: Scene) -> None:
    """Loops that press against each other: a voxel belongs to its deepest loop, walls between."""
    grid = scene.grid
    patient = scene.patient
    first = np.full(grid.shape, -40.0, np.float32)
    second = first.copy()
    fill = np.zeros(grid.shape, np.float32)
    low = (-340, -patient.front * 0.95, -patient.inner * 0.92)
    high = (-75, patient.spine_y - 42, patient.inner * 0.92)
    for _ in range(int(scene.draw(110, 190))):
        radius = scene.draw(9, 20)
        start = scene.draw(low, high)
        end = start + scene.rng.normal(0, (8, 14, 18))
        contents = _loop_contents(scene.rng)
        box = grid.near((start + end) / 2, np.abs(end - start) / 2 + radius)
        points = grid.warped[:, *box]
        if points.size:
            loop = capsule(points, start, end, radius, radius * 0.9)
            deeper = loop > first[box]
            second[box] = np.where(deeper, first[box], np.maximum(second[box], loop))
            fill[box] = np.where(deeper, contents, fill[box])
            first[box] = np.maximum(first[box], loop)
    apart = 0.2 + 2.5 * patient.visceral_fat
    loops = np.minimum(first, (first - second) / 2) - apart + 1.2 * scene.noise(12.0)
    _paint_loops(scene, np.minimum(loops, np.minimum(scene.cavity - 3, -scene.thorax - 5)), fill)


def _loop_contents(rng: np.random.Generator) -> float:
    """Return HU inside one loop: fluid, stool, gas or oral contrast."""
    choices = (rng.uniform(5, 50), rng.uniform(40, 115), -900.0, rng.uniform(120, 320))
    return float(rng.choice(choices, p=(0.32, 0.45, 0.13, 0.1)))


def _paint_loops(scene: Scene, loops: np.ndarray, fill: np.ndarray) -> None:
    wall = min(scene.patient.liver_hu, 105) - scene.draw(0, 25)
    scene.paint(loops, wall + 5 * scene.noise(8.0))
    scene.paint(loops - 2.2, np.maximum(fill + 14 * scene.noise(7.0), -950))
    bubbles = np.minimum(loops - 3, 3 * (scene.noise(9.0) - 1.7))
    paint(scene.hu, coverage(bubbles) * (fill > 40), -850.0)


def _paint_pancreas(scene: Scene) -> None:
    """A lobulated band from duodenum to spleen, and the mesenteric vessels before the aorta."""
    patient = scene.patient
    depth = patient.spine_y - scene.draw(48, 58)
    head = (-135, depth + 8, -38)
    neck = (-115, depth - 8, 0)
    tail = np.array((-95, depth + 22, 70)) + scene.rng.normal(0, 8, 3)
    band = smooth_max(scene.capsule(head, neck, 15, 9), scene.capsule(neck, tail, 9, 11), 6.0)
    scene.paint(band + 2.0 * scene.noise(9.0), min(patient.liver_hu, 110) - scene.draw(5, 25))
    artery = np.array([(-118, depth + 9, 8), (-150, depth + 4, 8), (-320, depth - 10, 5)])
    scene.tube(artery, (4, 4, 3), patient.blood_hu)
    vein_hu = max(patient.vein_hu, patient.liver_hu)
    scene.tube(artery - np.array((0, 4, 14)), (6, 6, 4), vein_hu)


def _paint_great_vessels(scene: Scene, organs: Organs) -> None:
    """Aorta, with plaques in some, the inferior vena cava and the renal veins."""
    patient = scene.patient
    depth = patient.spine_y - 28
    radius = scene.draw(9, 13)
    aorta = [(120, depth + 8, 14), (-60, depth, 10), (-180, depth, 6), (-390, depth, 2)]
    scene.tube(aorta, [radius] * 4, patient.blood_hu)
    if scene.rng.random() < 0.4:
        for height, around in zip(scene.draw(-250, 20, 12), scene.draw(0, 6.3, 12), strict=True):
            spot = (height, depth + radius * np.sin(around), 7 + radius * np.cos(around))
            scene.tube([spot, np.add(spot, (6, 1, 1))], (1.6, 1.6), 450.0)
    y, x = organs.cava_mm
    cava_hu = patient.liver_hu + scene.draw(-15, 25)
    cava = [(25, y - 14, x), (-40, y - 8, x), (-160, y, x), (-390, y + 4, x + 6)]
    scene.tube(cava, (12, 13, 12, 11), cava_hu)
    for side in (-1, 1):
        scene.tube([(-140, depth + 12, side * 50), (-136, depth, side * 12)], (4, 5), cava_hu)


def paint_spine(scene: Scene) -> None:
    """Vertebrae with discs, canal and processes, and the muscles in front (psoas, crura)."""
    patient = scene.patient
    z, y, x = scene.grid.warped
    mid_y = patient.spine_y
    scale = scene.draw(0.9, 1.12)
    for side in (-1, 1):
        scene.paint(scene.ellipsoid((-215, mid_y + 8, side * 36), (105, 20, 17)), patient.muscle_hu)
        scene.paint(scene.ellipsoid((-95, mid_y - 14, side * 21), (75, 16, 6)), patient.muscle_hu)
    pitch = 33.0 * scale
    step = z / pitch + scene.draw(0, 1)
    within = np.abs(step - np.round(step)) * pitch  # mm from the middle of a vertebra
    across = (np.zeros_like(z), y, x)  # the same outline in every slice
    body = ellipsoid(across, (0, mid_y, 0), (30, 17.5 * scale, 22 * scale))
    disc = within - (pitch / 2 - 4)
    hard = scene.draw(380, 620)
    scene.paint(body, hard)
    spongy = scene.draw(130, 230) + 22 * scene.noise(6.0)
    scene.paint(np.minimum(body - 2.2, -disc - 1.8), spongy)
    scene.paint(np.minimum(body - 0.5, disc), scene.draw(75, 105))
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
