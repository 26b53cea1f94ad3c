"""The wide phantom's trunk: table, arms, skin, fat, muscles, lungs, heart, ribs, spine, pelvis."""

import numpy as np

from ..shapes import paint, smooth_max
from .scene import Scene
from .space import FAR, line


def shape_trunk(scene: Scene) -> None:
    """Shape the body's outline, the cavity within its wall and the diaphragm."""
    z, y, x = scene.space.points
    patient, rng = scene.patient, scene.rng
    power = rng.uniform(1.9, 2.7)
    belly = 1 + rng.uniform(0, 0.12) * np.clip((-z - 60) / 120, 0, 1) + 0.03 * np.sin(z / 70)
    half_y = np.where(y > 0, np.float32(patient.half_back), patient.half_front * belly)
    half_x = patient.half_width * (1 + 0.04 * np.sin(z / 90 + rng.uniform(0, 6)))
    norm = np.abs(x / half_x) ** power + np.abs(y / half_y) ** power
    rho = np.sqrt(x * x + y * y)
    body = rho / np.maximum(norm ** (1 / power), 1e-3) - rho
    scene.body = body.astype(np.float32)
    scene.skin = scene.body
    if rng.random() < 0.3:  # breasts
        for side in (-1, 1):
            place = (rng.uniform(20, 80), -patient.half_front + 2, side * 75)
            breast = scene.space.ellipsoid(place, rng.uniform(25, 60, 3))
            scene.skin = smooth_max(scene.skin, breast, 15.0)
    behind = np.clip(y / np.float32(patient.half_back) - 0.3, 0, 0.5) * 2
    back = rng.uniform(40, 62) * behind * np.exp(
        -((x / rng.uniform(52, 78)) ** 2)
    ) + 25 * behind * np.clip((-z - 230) / 60, 0, 1)
    wall = patient.wall * (1 + 0.15 * scene.noise(40.0)) + back
    scene.cavity = (scene.body - _fat_depth(scene) - wall).astype(np.float32)
    scene.thorax = _shape_diaphragm(scene)


def _fat_depth(scene: Scene) -> np.ndarray:
    z, y, _ = scene.space.points
    lower = np.clip(-(z + 60) / 200, -0.3, 0.6)
    along = 1 + 0.45 * lower + 0.25 * y / np.float32(scene.patient.half_back)
    return np.maximum(scene.patient.fat * along, 2.0)


def _shape_diaphragm(scene: Scene) -> np.ndarray:
    """Return the height above the diaphragm: a dome over the liver, another over the stomach."""
    z, y, x = scene.space.points
    patient, rng = scene.patient, scene.rng
    width, depth = patient.inner + 4, patient.half_back - patient.fat - 12
    domes = []
    for side, drop in ((-1, 0.0), (1, rng.uniform(-10, 35))):
        cx, cy = side * width * rng.uniform(0.4, 0.55), depth * rng.uniform(-0.3, 0.0)
        reach_x = np.where((x - cx) * side > 0, 0.58 * width, 1.0 * width).astype(np.float32)
        reach_y = np.where(y > cy, 1.0 * depth, 1.4 * depth).astype(np.float32)
        q = ((x - cx) / reach_x) ** 2 + ((y - cy) / reach_y) ** 2
        domes.append(-drop - rng.uniform(55, 115) * q ** np.float32(rng.uniform(1.0, 2.8)))
    return z - smooth_max(domes[0], domes[1], 18.0) + rng.uniform(1, 4) * scene.noise(40.0)


def paint_trunk(scene: Scene) -> None:
    """Paint what holds the organs: table, arms, skin, fat, muscles, lungs, heart and ribs."""
    patient, rng = scene.patient, scene.rng
    fat = _fat_depth(scene)
    _paint_table(scene)
    if patient.arms:
        _paint_arms(scene)
    scene.paint(scene.skin, rng.uniform(-20, 60))
    scene.paint(scene.skin - rng.uniform(1, 3), patient.fat_hu, grain=7)
    marbled = scene.tissue["muscle"] - rng.uniform(0, 45) * np.clip(
        scene.noise((25, 5, 9)) - 0.7, 0, 2
    )
    muscle = np.minimum(scene.body - fat, 5 - scene.cavity)
    scene.paint(muscle, marbled, grain=6)
    septa = rng.uniform(0, 1.2) - 10 * np.abs(scene.noise((60, 15, 15)))
    septa = np.minimum(np.minimum(septa, muscle - 2), scene.space.points[1] - 10)
    scene.paint(septa, patient.fat_hu + rng.uniform(0, 60))
    _paint_planes(scene, fat)
    strands = rng.uniform(20, 80) * np.clip(scene.noise((14, 6, 6)) - 1.3, 0, 2)
    scene.paint(scene.cavity, patient.fat_hu + rng.uniform(0, 12) + strands, grain=6)
    if scene.thorax.max() > -3:
        _paint_lungs(scene)
        _paint_heart(scene)
    _paint_ribs(scene, fat)


def _paint_table(scene: Scene) -> None:
    """A curved tray under a mattress, flat in the scan's own axes."""
    (_, y, x), rng, size = scene.space.axes, scene.rng, scene.space.size
    y, x = y[:, None], x[None]
    bottom = scene.patient.half_back * size
    gap, curve, width = rng.uniform(-4, 25), rng.uniform(-2e-4, 1.4e-3), rng.uniform(170, 260)
    surface = y - (bottom + gap + curve * (width**2 / 4 - x**2))
    thick, pixel = rng.uniform(8, 50), scene.space.spacing_mm[1]
    plank = np.minimum(np.minimum(surface, thick - surface), width - np.abs(x))
    shell = np.minimum(plank, rng.uniform(1, 4) - plank) / pixel + 0.5
    scene.hu[:, plank > 0] = rng.uniform(-960, -850)
    paint(scene.hu, np.clip(shell, 0, 1).astype(np.float32)[None], rng.uniform(-300, 600))


def _paint_arms(scene: Scene) -> None:
    """Arms beside the body: fat, muscle, one bone or two."""
    patient, rng = scene.patient, scene.rng
    for side in (-1, 1):
        radius = rng.uniform(30, 48)
        x = side * (patient.half_width + radius + rng.uniform(-4, 16))
        bent = rng.uniform((-10, 0.9), (50, 1.05))
        nodes = line((200, -420), (rng.uniform(-20, 40), bent[0]), (x, x * bent[1]))
        arm = scene.space.chain(nodes, (radius + 6, radius - 4))
        scene.paint(arm, patient.fat_hu)
        scene.paint(arm - rng.uniform(3, 14), scene.tissue["muscle"], grain=12, pitch=2)
        for aside in (0,) if rng.random() < 0.5 else (-11, 11):
            bone = scene.space.chain(nodes + np.array((0, aside / 2, aside)), (10, 10))
            scene.paint(bone, rng.uniform(700, 1300))
            scene.paint(bone - 4, rng.uniform(0, 200))


def _paint_planes(scene: Scene, fat: np.ndarray) -> None:
    """Fat between the layers of the abdominal wall and between the straight muscles in front."""
    z, y, x = scene.space.points
    patient, rng = scene.patient, scene.rng
    depth = scene.body - fat
    side = np.minimum(np.minimum(np.abs(x) - 50, 35 - y), -z - 80) / 8
    for level in (0.36, 0.68):
        plane = rng.uniform(0.4, 1.6) - np.abs(depth - level * patient.wall)
        scene.paint(np.minimum(plane, side), patient.fat_hu + 20)
    line = np.minimum(rng.uniform(1, 9) - np.abs(x), np.minimum(depth, -scene.cavity))
    scene.paint(np.minimum(line, np.minimum(-y, -z - 60)), patient.fat_hu + 40)


def _paint_lungs(scene: Scene) -> None:
    """Diaphragm, lungs with vessels, collapsed or consolidated lung at the base, effusions."""
    rng, (_, y, _) = scene.rng, scene.space.points
    space = np.minimum(scene.thorax, scene.cavity)
    scene.paint(np.minimum(scene.thorax + rng.uniform(1, 5), scene.cavity), scene.tissue["muscle"])
    lung = space - rng.uniform(0, 1.5)
    air = rng.uniform(-900, -740) + 60 * y / scene.patient.half_back
    air += 800 * np.clip(rng.uniform(0.6, 1.2) * (scene.noise((12, 7, 7)) - 1.7), 0, 1)
    scene.paint(lung, air, grain=rng.uniform(5, 40))
    if rng.random() < 0.25:  # dense lung on the diaphragm
        dense = rng.uniform(2, 18) - lung + 7 * scene.noise(18.0) + 6 * y / scene.patient.half_back
        scene.paint(np.minimum(lung, dense), rng.uniform(-500, 110), 25, softness=rng.uniform(0, 8))
    if rng.random() < 0.22:
        level = scene.patient.half_back * rng.uniform(0.05, 0.7)
        side = float(rng.choice((-1, 1))) * scene.space.points[2] + float(rng.choice((0, 400)))
        fluid = np.minimum(np.minimum(lung + 3, y - level), side)
        scene.paint(fluid, rng.uniform(-2, 35), grain=2)


def _paint_heart(scene: Scene) -> None:
    """Fat of the mediastinum down to the diaphragm, heart with its chambers, gullet, airways."""
    rng, patient, space = scene.rng, scene.patient, scene.space
    middle = rng.uniform((8, 44 - patient.front, 2), (40, 62 - patient.front, 32))
    behind = patient.spine_y - 42
    tilt, radii = rng.uniform(0, 0.7), np.array((50, 49, 62)) * rng.uniform(0.75, 1.3)
    heart = space.ellipsoid(middle, radii, tilt)
    apron = space.chain(np.stack([middle, (-50, 36 - patient.front, 4)]), (48, 30))
    column = space.chain(line((220, 60, -60), behind + np.array((0, 12, 20)), 4), (42, 26, 23))
    fat = smooth_max(np.maximum(heart + rng.uniform(0, 9), apron), column, 12.0)
    room = np.minimum(scene.thorax, scene.cavity)
    scene.paint(np.minimum(fat + 3 * scene.noise(20.0), room), patient.fat_hu + 12, grain=9)
    heart = np.minimum(heart, room - rng.uniform(0, 4))
    scene.paint(heart, scene.tissue["heart"], grain=4)
    wall = rng.uniform(5, 12) + rng.uniform(3, 9) * scene.noise(24.0)
    chambers = scene.tissue["blood"] + rng.uniform(0, 25) * scene.noise(45.0)
    scene.paint(np.minimum(heart - 5, np.abs(heart - 14 + wall) - wall / 2), chambers, softness=3)
    gullet = line((220, 90, -20, -45), behind - np.array((0, 0, 0, 10)), (2, 4, 8, 28))
    scene.tube(gullet, rng.uniform(5, 10, 4), rng.uniform(30, 80))
    if rng.random() < 0.3:
        scene.tube(gullet[:3], (3, 3, 3), -700.0)
    scene.tube(line((220, 110), behind - 14, 0), (9, 9), -950.0)


def _paint_ribs(scene: Scene, fat: np.ndarray) -> None:
    """Oblique ribs in the wall, bone behind, cartilage in front, and the breastbone."""
    z, y, x = scene.space.points
    rng, wall = scene.rng, scene.patient.wall
    turn = np.arctan2(np.abs(x), y)  # 0 at the spine, pi in front
    pitch, drop = rng.uniform(24, 34), rng.uniform(35, 95)
    level = (z + drop * turn) / np.float32(pitch) + rng.uniform(0, 1)
    across = (level - np.round(level)) * pitch
    margin = -170 + 110 * np.clip(turn - 1.7, 0, 1.4)
    into = scene.body - fat - 0.55 * wall + 6 * np.clip(0.5 - turn, 0, 1)
    thick = rng.uniform(2.8, 4.8)
    rib = 5.2 * (1 - np.sqrt((into / thick) ** 2 + (across / rng.uniform(5.5, 8)) ** 2))
    rib = np.minimum(rib, np.minimum(z - margin, 60 * (turn - 0.32))).astype(np.float32)
    bone = np.clip((rng.uniform(2.1, 2.6) - turn) / 0.15, 0, 1).astype(np.float32)
    hard = rng.uniform(250, 700)
    scene.paint(rib, 105 + bone * hard)
    scene.paint(rib - rng.uniform(1.2, 2.2), 100 + bone * rng.uniform(-60, 120))
    front = scene.space.ellipsoid((95, 6 - scene.patient.front - wall, 0), (90, 8, 19))
    scene.paint(front, hard)
    scene.paint(front - 3, rng.uniform(60, 180))


def paint_bones(scene: Scene) -> None:
    """Paint the spine with the muscles beside it, and the pelvis."""
    rng, space, mid_y = scene.rng, scene.space, scene.patient.spine_y
    muscle = scene.tissue["muscle"]
    for side in (-1, 1):
        aside = side * np.array((26, 38, 55))
        psoas = line((-110, -215, -330), mid_y + np.array((2, 6, -25)), aside)
        scene.paint(space.chain(psoas, rng.uniform(9, 21, 3)), muscle, grain=5)
        crus = space.ellipsoid((-95, mid_y - 14, side * 21), (75, 17, rng.uniform(4, 8)))
        scene.paint(crus, muscle)
    box = space.near([(220, mid_y, 0), (-400, mid_y + 10, 0)], 45)
    z, y, x = space.points[:, *box]
    if z.size:
        bend = rng.uniform(-14, 14) * np.sin(z / 75 + rng.uniform(0, 6))
        spine = _shape_spine(z, y - mid_y, x - bend, rng)
        hard = rng.uniform(300, 650)
        values = hard, rng.uniform(70, 260), rng.uniform(60, 110), 0.8 * hard, 0.4 * hard, 30.0
        whole = np.full(space.coarse_shape, FAR, np.float32)
        for n, (part, value) in enumerate(zip(spine, values, strict=True)):
            whole[box] = part
            scene.paint(whole, value, grain=rng.uniform(10, 40) * (n == 1), pitch=0)
    if space.points[0].min() < -200:
        _paint_pelvis(scene, rng.uniform(300, 650))


def _shape_spine(z, y, x, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Return vertebral bodies, their spongy inside, discs, arches, their inside, and the canal.

    Args:
        z, y, x: patient mm around the spine, y and x from the middle of its bodies.
    """
    scale = rng.uniform(0.8, 1.15)
    pitch = 33.0 * scale
    step = z / np.float32(pitch) + rng.uniform(0, 1)
    within = np.abs(step - np.round(step)) * pitch  # mm from a vertebra's middle
    body = 17 * scale * (1 - np.sqrt((y / (17.5 * scale)) ** 2 + (x / (22 * scale)) ** 2))
    body = np.minimum(body, z + 380)
    disc = within - (pitch / 2 - 4)
    spongy = np.minimum(body - 2.2, -disc - 1.8)
    aside, behind = np.abs(x), y - 26 * scale
    ring = 14 * scale * (1 - np.sqrt((behind / (14 * scale)) ** 2 + (x / (17 * scale)) ** 2))
    spinous = np.minimum(4.0 - aside, 14 - np.abs(behind - 22))
    bar = 5.0 - np.abs(behind + 1 - 0.25 * aside)
    bone = np.minimum(ring, 14.5 - within)
    bone = np.maximum(bone, np.minimum(spinous, 11 - within))
    bone = np.maximum(bone, np.minimum(np.minimum(bar, 36 - aside), 7 - within))
    canal = 8 * (1 - np.sqrt(((behind + 1) / (8 * scale)) ** 2 + (x / (10.5 * scale)) ** 2))
    return body, spongy, np.minimum(body - 0.5, disc), bone, bone - 2.5, canal


def _paint_pelvis(scene: Scene, hard: float) -> None:
    """Iliac wings, sacrum, heads of the femurs and bladder."""
    rng, space, mid_y = scene.rng, scene.space, scene.patient.spine_y
    wide = 0.62 * scene.patient.half_width
    for side in (-1, 1):
        wing = space.ellipsoid((-300, mid_y - 8, side * wide), (72, 58, 13), tilt=side * 0.7)
        head = space.ellipsoid((-420, mid_y - 40, side * (wide + 8)), (26, 25, 25))
        for bone in (wing + 2 * scene.noise(14.0), head):
            scene.paint(bone, hard)
            scene.paint(bone - 3, rng.uniform(60, 250), grain=20)
    sacrum = space.ellipsoid((-350, mid_y + 14, 0), (62, 26, 46))
    scene.paint(sacrum, hard)
    scene.paint(sacrum - 3, rng.uniform(60, 200), grain=20)
    bladder = space.ellipsoid((-410, -10, rng.uniform(-10, 10)), rng.uniform(18, 60, 3))
    scene.paint(bladder, 40.0)
    scene.paint(bladder - 3, float(rng.choice((rng.uniform(-5, 15), scene.tissue["urine"]))))


def paint_devices(scene: Scene) -> None:
    """Paint what others put there: leads on the skin, drains, screws, stents, joints of metal."""
    rng, patient = scene.rng, scene.patient
    wide, front = patient.half_width, patient.half_front
    for _ in range(rng.poisson(3) if rng.random() < 0.15 else 0):  # leads on the skin
        around = rng.uniform(0, np.pi)
        spot = np.array((rng.uniform(-200, 100), -front * np.sin(around), wide * np.cos(around)))
        scene.tube([spot, spot + rng.normal(0, 12, 3)], (1.5, 1.5), rng.uniform(300, 3000))
    for _ in range(rng.integers(1, 3) if rng.random() < 0.12 else 0):  # drains and tubes
        start = rng.uniform((-250, -front, -wide * 0.8), (100, 0, wide * 0.5))
        nodes = start + rng.normal(0, 25, (4, 3)).cumsum(0)
        scene.tube(nodes, np.full(4, rng.uniform(1.5, 4)), rng.uniform(80, 1500))
    if rng.random() < 0.06:  # screws in the spine, or a new hip
        height, side = rng.uniform(-420, 50), float(rng.choice((-1, 1)))
        aside = side * (12 if height > -340 else 0.62 * wide)
        spot = np.array((height, patient.spine_y + 10, aside))
        scene.tube([spot, spot + np.array((0, 35, side * 8))], (3.5, 3.5), 3000.0)
        scene.metal.insert(0, scene.space.locate(spot)[0])
