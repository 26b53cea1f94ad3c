"""The liver's neighbours: stomach, spleen, kidneys, bowel, pancreas, great vessels."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..shapes import capsule
from .scene import Scene
from .space import FAR, line


@dataclass
class Organs:
    """Shapes, coarse (z, y, x) float32 mm, positive inside."""

    stomach: np.ndarray
    spleen: np.ndarray
    kidneys: np.ndarray
    renal_bed: np.ndarray  # where the right kidney lies in its fat
    loops: np.ndarray  # bowel
    midline: np.ndarray  # spine and aorta with what surrounds them
    cava_mm: tuple[float, float]  # (y, x) of the inferior vena cava behind the liver


def shape_organs(scene: Scene) -> Organs:
    """Draw the organs' shapes; what they must not touch is cut off."""
    rng, space, spine_y = scene.rng, scene.space, scene.patient.spine_y
    room = np.minimum(scene.cavity - rng.uniform(0, 3), -scene.thorax - rng.uniform(1, 5))
    stomach = np.minimum(_shape_stomach(scene), room)
    kidneys, renal_bed = _shape_kidneys(scene)
    kidneys = np.minimum(kidneys, room - 1)
    apart = 6 * scene.patient.visceral_fat
    spleen = np.minimum(
        np.minimum(_shape_spleen(scene), room), np.minimum(-stomach, -kidneys) - apart
    )
    cava = (spine_y - rng.uniform(22, 32), -rng.uniform(12, 26))
    midline = space.chain(np.array([(200, spine_y + 6, 0), (-500, spine_y + 6, 0)]), (40, 40))
    return Organs(stomach, spleen, kidneys, renal_bed, np.full_like(room, FAR), midline, cava)


def _shape_stomach(scene: Scene) -> np.ndarray:
    """Fundus under the left diaphragm, body to the front, antrum across the midline."""
    rng, patient = scene.rng, scene.patient
    inner, front, size = patient.inner, patient.front, rng.uniform(0.4, 1.35)
    fundus = (rng.uniform(-60, -25), rng.uniform(-10, 30), inner * rng.uniform(0.35, 0.55))
    body = (rng.uniform(-120, -70), -front * rng.uniform(0.4, 0.7), inner * rng.uniform(0.3, 0.55))
    antrum = (body[0] - rng.uniform(0, 45), -front * rng.uniform(0.4, 0.65), rng.uniform(-30, 20))
    stomach = scene.space.chain(np.array([fundus, body, antrum]), np.array((40, 30, 18)) * size)
    return stomach + rng.uniform(1, 5) * scene.noise(24.0)


def _shape_spleen(scene: Scene) -> np.ndarray:
    """From a small spleen to one that fills the left side; a few patients have none."""
    rng, patient = scene.rng, scene.patient
    y, x = patient.half_back * rng.uniform(0.1, 0.38), patient.inner * rng.uniform(0.68, 0.86)
    size = rng.uniform(1.2, 2.1) if rng.random() < 0.2 else rng.uniform(0.55, 1.25)
    if rng.random() < 0.04:
        size = 0.05
    radii = np.array((rng.uniform(42, 65), 52, rng.uniform(20, 32))) * size
    spleen = scene.space.ellipsoid((rng.uniform(-95, -45), y, x), radii, rng.uniform(0, 0.8))
    return spleen + rng.uniform(1, 4) * scene.noise(28.0)


def _shape_kidneys(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Two beans beside the spine, either of which may be missing, and the fat behind the right."""
    rng, space = scene.rng, scene.space
    beans = np.full(space.coarse_shape, FAR, np.float32)
    bed, fat = beans, rng.uniform(-6, 9) * scene.patient.visceral_fat
    for side, drop in ((-1, rng.uniform(0, 45)), (1, rng.uniform(-10, 20))):
        if rng.random() < 0.04:
            continue
        y, x = scene.patient.spine_y + rng.uniform(-8, 16), side * rng.uniform(52, 75)
        size, z = rng.uniform(0.7, 1.25), rng.uniform(-140, -110) - drop
        bean = space.ellipsoid((z, y, x), np.array((54, 31, 26)) * size, tilt=-side * 0.6)
        hollow = space.ellipsoid((z, y - 10, x - side * 25 * size), (17, 14, 15))
        beans = np.maximum(beans, np.minimum(bean, -hollow))
        if side < 0:
            behind = (z, y + rng.uniform(10, 26), x + 14)
            bed = space.ellipsoid(behind, np.array((66, 36, 40)) * size + fat)
    return beans + rng.uniform(0, 2) * scene.noise(16.0), bed


def paint_organs(scene: Scene, organs: Organs) -> None:
    """Paint everything in the cavity but the liver, and what lies free in it."""
    if scene.patient.fluid:
        _paint_ascites(scene)
    organs.loops = _paint_bowel(scene)
    _paint_pancreas(scene)
    _paint_stomach(scene, organs.stomach)
    scene.paint(
        organs.spleen, _spleen_hu(scene), grain=3, pitch=2, softness=scene.rng.uniform(0, 2)
    )
    _paint_kidneys(scene, organs.kidneys)
    _paint_great_vessels(scene, organs)


def _spleen_hu(scene: Scene):
    """The spleen is striped early after contrast; at times it holds a cyst or an infarct."""
    if scene.patient.phase == "arterial":
        return scene.tissue["spleen"] + scene.rng.uniform(0, 40) * np.sin(3 * scene.noise(20.0))
    if scene.rng.random() < 0.1:
        return scene.tissue["spleen"] - scene.rng.uniform(10, 80) * (scene.noise(22.0) > 1.2)
    return scene.tissue["spleen"]


def _paint_ascites(scene: Scene) -> None:
    """Fluid along the wall, or in the whole cavity, with fat floating in it."""
    rng, (_, y, _) = scene.rng, scene.space.points
    reach = 80 * scene.patient.fluid
    fluid = reach - scene.cavity + 8 * scene.noise(30.0) + rng.uniform(-0.1, 0.4) * y
    fluid = np.minimum(np.minimum(fluid, scene.cavity - 1), -scene.thorax - 2)
    scene.paint(fluid, rng.uniform(-4, 28), grain=2)


def _paint_bowel(scene: Scene) -> np.ndarray:
    """Loops that press against each other, and the colon's frame; return the shape of all."""
    rng, patient, space = scene.rng, scene.patient, scene.space
    first = np.full(space.coarse_shape, FAR, np.float32)
    second, fill = first.copy(), np.zeros_like(first)
    size = rng.uniform(0.75, 1.35)
    for start, end, radius in _draw_loops(scene):
        radius *= size
        box = space.near([start, end], radius - 12)
        points = space.points[:, *box]
        if points.size:
            loop = capsule(points, start, end, radius, radius * rng.uniform(0.8, 1.1))
            deeper = loop > first[box]
            second[box] = np.where(deeper, first[box], np.maximum(second[box], loop))
            fill[box] = np.where(deeper, _loop_hu(points, start, radius, rng), fill[box])
            np.maximum(first[box], loop, out=first[box])
    apart = 0.2 + 2.5 * patient.visceral_fat
    loops = np.minimum(first, (first - second) / 2) - apart + rng.uniform(0, 2) * scene.noise(12.0)
    loops = np.minimum(loops, np.minimum(scene.cavity - rng.uniform(0, 3), -scene.thorax - 4))
    scene.paint(loops, scene.tissue["bowel"] + 8 * scene.noise(30.0), grain=6)
    lumen = loops - rng.uniform(0.8, 3.5)
    scene.paint(lumen, fill, grain=rng.uniform(4, 25))
    bubbles = np.minimum(lumen - 1, 3 * (scene.noise(8.0) - rng.uniform(1.2, 2.2)))
    scene.paint(np.where(fill > 25, bubbles, -60), -850.0)
    return loops


def _draw_loops(scene: Scene):
    """Yield start, end (z, y, x) and radius of each loop: small bowel, then the colon's frame."""
    rng, patient = scene.rng, scene.patient
    low = (-430, -patient.front * 0.95, -patient.inner * 0.92)
    high = (-60, patient.spine_y - 42, patient.inner * 0.92)
    low, high = np.sort((low, high), axis=0)  # some bodies are flat
    for _ in range(int(rng.uniform(60, 220))):
        start = rng.uniform(low, high)
        yield start, start + rng.normal(0, (8, 14, 18)), rng.uniform(7, 20)
    side, front = patient.inner * rng.uniform(0.7, 0.9), -patient.front * rng.uniform(0.6, 0.9)
    back, lift = patient.spine_y - 40, rng.uniform(-140, -70)
    frame = line(
        (-330, lift - 40, lift - 40, lift - rng.uniform(10, 120), lift + 10, -70, -330),
        (back - 20, back - 10, front, front, front * 0.7, back - 20, back),
        np.array((-1, -1, -0.7, 0, 0.8, 1, 1)) * side,
    )
    for start, end in pairwise(frame):
        radius = rng.uniform(10, 28)
        for part in np.arange(0, 1, 22 / max(np.linalg.norm(end - start), 22)):
            node = start + part * (end - start) + rng.normal(0, 4, 3)
            yield node, node + rng.normal(0, 6, 3), radius * rng.uniform(0.8, 1.1)


def _loop_hu(points, start, radius: float, rng: np.random.Generator):
    """Return HU inside one loop: fluid, stool, contrast or gas, with gas above a level."""
    kind = rng.choice(4, p=(0.34, 0.36, 0.18, 0.12))
    if kind == 2:
        return -930.0
    hu = (rng.uniform(0, 45), rng.uniform(25, 120), 0.0, rng.uniform(130, 700))[kind]
    if rng.random() < 0.2:
        return np.where(points[1] < start[1] - radius * rng.uniform(-0.4, 0.6), -930.0, hu)
    return hu


def _paint_pancreas(scene: Scene) -> None:
    """A lobulated band from duodenum to spleen, with vessels and fat between its lobules."""
    rng, patient = scene.rng, scene.patient
    depth = patient.spine_y - rng.uniform(45, 62)
    head, neck = (-140, depth + 8, -38), (-115, depth - 8, 0)
    tail = np.array((-95, depth + 22, 70)) + rng.normal(0, 10, 3)
    radii = np.array((15, 9, 11)) * rng.uniform(0.6, 1.4)
    band = scene.space.chain(np.array([head, neck, tail]), radii) + 2.5 * scene.noise(8.0)
    scene.paint(band, scene.tissue["pancreas"], grain=8)
    scene.paint(np.minimum(band, 3 * (scene.noise(6.0) - rng.uniform(0.6, 2))), patient.fat_hu + 40)


def _paint_stomach(scene: Scene, stomach: np.ndarray) -> None:
    """Wall, contents (water, food, contrast) and gas above its level."""
    rng, tissue = scene.rng, scene.tissue
    scene.paint(stomach, tissue["bowel"] + rng.normal(0, 10), softness=rng.uniform(0, 2))
    lumen = stomach - rng.uniform(2, 9) - rng.uniform(0, 3) * scene.noise(9.0)  # with folds
    kind = rng.choice(3, p=(0.4, 0.4, 0.2))
    hu = (rng.uniform(-5, 30), rng.uniform(20, 110), rng.uniform(130, 900))[kind]
    scene.paint(lumen, hu, grain=(3, rng.uniform(5, 60), 0.2 * hu)[kind], pitch=1)
    level = -scene.patient.half_front * rng.uniform(-0.1, 0.8)  # gas rises to the front
    gas = np.minimum(lumen, level - scene.space.points[1])
    scene.paint(gas, -960.0)


def _paint_kidneys(scene: Scene, kidneys: np.ndarray) -> None:
    """Cortex, pyramids, pelvis with fat and urine, cysts and stones."""
    rng, tissue = scene.rng, scene.tissue
    scene.paint(kidneys, tissue["cortex"], grain=4)
    pyramids = np.minimum(kidneys - rng.uniform(4, 7), 4 * (scene.noise(11.0) + 0.4))
    scene.paint(pyramids, tissue["medulla"], softness=2)
    pelvis = kidneys - rng.uniform(11, 16) + 4 * scene.noise(8.0)
    scene.paint(pelvis, scene.patient.fat_hu + rng.uniform(10, 60))
    scene.paint(pelvis - rng.uniform(2, 7), tissue["urine"])
    for _ in range(rng.poisson(0.8)):
        side, spine_y = rng.choice((-1, 1)), scene.patient.spine_y
        place = (rng.uniform(-190, -90), spine_y + rng.uniform(-30, 25), side * rng.uniform(55, 85))
        cyst = scene.space.ellipsoid(place, rng.uniform(4, 32) * rng.uniform(0.8, 1.2, 3))
        scene.paint(np.minimum(cyst, kidneys + 16), rng.uniform(-5, 50))


def _paint_great_vessels(scene: Scene, organs: Organs) -> None:
    """Aorta with plaques, vena cava, renal, splenic and mesenteric vessels, nodes around them."""
    rng, tissue, spine_y = scene.rng, scene.tissue, scene.patient.spine_y
    depth, radius = spine_y - rng.uniform(24, 32), rng.uniform(7, 14)
    aorta = line((200, 120, -60, -180, -290), depth + np.array((4, 8, 0, 0, 0)), (20, 14, 10, 6, 2))
    scene.tube(aorta, np.full(5, radius), tissue["aorta"])
    for _ in range(rng.poisson(12) if rng.random() < 0.35 else 0):
        around, height = rng.uniform(0, 6.3), rng.uniform(-250, 60)
        spot = np.array((height, depth + radius * np.sin(around), 8 + radius * np.cos(around)))
        scene.tube([spot, spot + rng.normal(0, 3, 3)], (1.6, 1.6), rng.uniform(250, 1000))
    (y, x), cava = organs.cava_mm, tissue["cava"]
    upper = line((25, -40, -110), y - np.array((14, 8, 0)), x)
    scene.tube(upper, (12, 13, 12), (cava + tissue["hepatic"]) / 2)
    lower = line((-110, -200, -290), y + np.array((0, 2, 4)), (x, x, x + 6))
    scene.tube(lower, rng.uniform(7, 13, 3), cava)
    for side in (-1, 1):
        renal = line((-140, -136), (depth + 12, depth), (side * 50, side * 12))
        scene.tube(renal, (4, 5), tissue["cortex"])
        iliac = line((-290, -420), (depth, depth - 30), (side * 10, side * 60))
        scene.tube(iliac, (7, 6), tissue["aorta"])
    mesenteric = line((-118, -150, -320), depth + np.array((9, -20, -30)), (8, 8, 5))
    scene.tube(mesenteric, (4, 4, 3), tissue["aorta"])
    scene.tube(mesenteric - np.array((0, 4, 14)), (6, 6, 4), tissue["portal"])
    hilum = 0.7 * scene.patient.inner
    splenic = line((-105, -95, -80), depth + np.array((-18, -5, 15)), (-8, 45, hilum))
    scene.tube(splenic, rng.uniform(3, 8, 3), tissue["portal"])
    _paint_mesentery(scene, depth)


def _paint_mesentery(scene: Scene, depth: float) -> None:
    """Vessels and lymph nodes scattered through the fat."""
    rng, patient = scene.rng, scene.patient
    reach = np.array((0, patient.front * 0.8, patient.inner * 0.8))
    low, high = np.sort((-reach, (0, depth - 5, reach[2])), axis=0)  # some bodies are flat
    low[0], high[0] = -400, -60
    for _ in range(int(rng.uniform(20, 140))):
        start = rng.uniform(low, high)
        end = start + rng.normal(0, 12, 3)
        value = rng.choice((patient.tissue["portal"], patient.tissue["aorta"], 45.0))
        scene.tube([start, end], np.full(2, rng.uniform(1, 3.5)), value)
    for _ in range(rng.poisson(6) if rng.random() < 0.3 else 0):
        spot = np.array((rng.uniform(-220, -60), depth - rng.uniform(0, 45), rng.uniform(-45, 45)))
        scene.paint(scene.space.ellipsoid(spot, rng.uniform(4, 16, 3)), rng.uniform(40, 110))
