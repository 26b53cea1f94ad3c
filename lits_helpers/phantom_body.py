"""The phantom's frame: patient, table, skin, fat, muscles, ribs, spine, diaphragm, lungs and heart."""

from dataclasses import dataclass

import numpy as np

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
class Patient:
    """What makes one patient differ from the next. Lengths in mm, tissues in HU."""

    half_width: float  # of the trunk with its fat
    half_front: float  # from the middle to the belly's skin
    half_back: float
    fat: float  # under the skin
    wall: float  # muscle and ribs
    visceral_fat: float  # [0, 1], how far organs stand apart
    liver_height: float
    liver_hu: float
    muscle_hu: float
    fat_hu: float
    blood_hu: float  # aorta
    vein_hu: float  # vessels in the liver
    noise_hu: float  # deviation

    @property
    def spine_y(self) -> float:
        """Middle of the vertebral bodies."""
        return self.half_back - 1.2 * self.fat - 66.0


def draw_patient(rng: np.random.Generator) -> Patient:
    """Draw a patient and the contrast phase of the scan."""
    fat = rng.gamma(3.0, 4.0) + 4.0
    fat = min(fat, 36.0)
    half_width = rng.uniform(128, 152) + fat
    ratio = rng.uniform(0.64, 0.78)
    liver_hu, vein_hu, blood_hu = _phase(rng)
    return Patient(
        half_width=half_width,
        half_front=half_width * ratio * rng.uniform(0.92, 1.1),
        half_back=half_width * ratio,
        fat=fat,
        wall=rng.uniform(11, 17),
        visceral_fat=float(np.clip(fat / 36 + rng.normal(0, 0.2), 0.05, 1)),
        liver_height=rng.uniform(115, 190),
        liver_hu=liver_hu,
        muscle_hu=rng.normal(60, 5),
        fat_hu=rng.normal(-103, 5),
        blood_hu=blood_hu,
        vein_hu=vein_hu,
        noise_hu=rng.uniform(8, 14),
    )


def _phase(rng: np.random.Generator) -> tuple[float, float, float]:
    """Return HU of liver, liver vessels and aorta: mostly portal venous, some arterial or without contrast."""
    phase = rng.choice(3, p=(0.72, 0.16, 0.12))
    if phase == 0:
        liver = float(np.clip(rng.normal(98, 17), 62, 140))
        return liver, liver + rng.uniform(18, 50), liver + rng.uniform(25, 70)
    if phase == 1:
        liver = float(np.clip(rng.normal(72, 9), 52, 95))
        return liver, liver + rng.uniform(-4, 14), rng.uniform(190, 320)
    liver = float(np.clip(rng.normal(56, 8), 35, 70))
    return liver, min(liver - 8, rng.uniform(34, 44)), rng.uniform(34, 48)


@dataclass(frozen=True)
class Frame:
    """Shapes that organs are fitted into, each (Z, Y, X) float32 mm, positive inside."""

    body: np.ndarray  # depth below the skin
    cavity: np.ndarray  # within the muscular wall
    thorax: np.ndarray  # above the diaphragm


def make_frame(grid: Grid, patient: Patient, rng: np.random.Generator) -> Frame:
    """Return the shapes of body, cavity and thorax for a patient."""
    _, y, x = grid.warped
    power = rng.uniform(2.0, 2.4)
    half_y = np.where(y > 0, np.float32(patient.half_back), np.float32(patient.half_front))
    norm = (np.abs(x / np.float32(patient.half_width)) ** power + np.abs(y / half_y) ** power) ** (
        1 / power
    )
    rho = np.sqrt(x * x + y * y)
    body = rho / np.maximum(norm, 1e-3) - rho
    return Frame(body, body - _wall_depth(grid, patient, rng), _thorax(grid, patient, rng))


def _fat_depth(grid: Grid, patient: Patient, rng: np.random.Generator) -> np.ndarray:
    """Fat under the skin is thicker at the back and lower down."""
    z, y, _ = grid.warped
    lower = np.clip(-(z + 60) / 200, -0.3, 0.6)
    along = 1 + 0.45 * lower + 0.25 * y / np.float32(patient.half_back)
    return np.maximum(patient.fat * (along + 0.13 * smooth_noise(grid, 70.0, rng)), 3.0)


def _wall_depth(grid: Grid, patient: Patient, rng: np.random.Generator) -> np.ndarray:
    """Depth of the inside of the wall; the muscles beside the spine make it thick at the back."""
    _, y, x = grid.warped
    behind = np.clip(y / np.float32(patient.half_back) - 0.3, 0, 0.5) * 2
    back = 48 * behind * np.exp(-((x / 58) ** 2))
    return patient.fat + patient.wall * (1 + 0.1 * smooth_noise(grid, 40.0, rng)) + back


def _thorax(grid: Grid, patient: Patient, rng: np.random.Generator) -> np.ndarray:
    """Height above the diaphragm: a dome over the liver, a lower one over stomach and spleen."""
    z, y, x = grid.warped
    width, depth = patient.half_width - patient.fat - 12, patient.half_back - patient.fat - 12
    domes = []
    for side, drop in ((-1, 0.0), (1, rng.uniform(5, 28))):
        cx, cy = side * width * rng.uniform(0.44, 0.52), depth * rng.uniform(-0.15, 0.05)
        reach = np.where((x - cx) * side > 0, np.float32(0.58 * width), np.float32(0.85 * width))
        q = ((x - cx) / reach) ** 2 + ((y - cy) / (1.0 * depth)) ** 2
        domes.append(-drop - rng.uniform(70, 105) * q ** np.float32(1.2))
    ripple = 2.0 * smooth_noise(grid, 45.0, rng)
    return z - smooth_max(domes[0], domes[1], 18.0) + ripple


def paint_frame(
    hu: np.ndarray, grid: Grid, patient: Patient, frame: Frame, rng: np.random.Generator
) -> None:
    """Paint table, skin, fat, muscles, lungs, heart, ribs and spine into `hu` (Z, Y, X) float32, in place."""
    _paint_table(hu, grid, patient, rng)
    fat = _fat_depth(grid, patient, rng)
    fat_hu = patient.fat_hu + 7 * smooth_noise(grid, 9.0, rng)
    paint(hu, coverage(frame.body), 25.0)
    paint(hu, coverage(frame.body - 1.8), fat_hu)
    muscle_hu = patient.muscle_hu + 6 * smooth_noise(grid, 8.0, rng) - _marbling(grid, rng)
    paint(hu, coverage(np.minimum(frame.body - fat, -frame.cavity + 4)), muscle_hu)
    paint(hu, coverage(frame.cavity), fat_hu + 4)
    _paint_fat_planes(hu, grid, patient, frame, fat)
    _paint_lungs(hu, grid, patient, frame, rng)
    _paint_ribs(hu, grid, patient, frame, fat, rng)


def _marbling(grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Fat between muscle fibres, HU to subtract."""
    return rng.uniform(5, 40) * np.clip(smooth_noise(grid, (25.0, 5.0, 9.0), rng) - 0.9, 0, 2)


def _paint_table(hu: np.ndarray, grid: Grid, patient: Patient, rng: np.random.Generator) -> None:
    """A curved tray: a thin shell around foam, with a mattress between it and the patient."""
    y, x = grid.y[:, None], grid.x[None]
    gap, curve, width = rng.uniform(4, 16), rng.uniform(0, 1.1e-3), rng.uniform(195, 250)
    surface = y - (
        patient.half_back + gap + curve * (width**2 / 4 - x**2)
    )  # depth below the tray's top
    thick = rng.uniform(20, 45)
    plank = np.minimum(np.minimum(surface, thick - surface), width - np.abs(x)).astype(np.float32)
    mattress = np.minimum(np.minimum(surface + gap + 8, -surface), width - 25 - np.abs(x)).astype(
        np.float32
    )
    paint(hu, coverage(mattress)[None], rng.uniform(-985, -900))
    shell = coverage(plank) - coverage(plank - 2.2)
    paint(hu, coverage(plank)[None], rng.uniform(-960, -880))
    paint(hu, shell[None], rng.uniform(-100, 600))


def _paint_fat_planes(hu, grid: Grid, patient: Patient, frame: Frame, fat: np.ndarray) -> None:
    """Thin fat between the layers of the abdominal wall, and in front between the two rectus muscles."""
    z, y, x = grid.warped
    depth = frame.body - fat
    abdomen = np.clip((-z - 90) / 30, 0, 1)
    side = np.clip((np.abs(x) - 45) / 20, 0, 1) * np.clip((40 - y) / 20, 0, 1)
    for level in (0.36, 0.68):
        plane = 0.9 - np.abs(depth - level * patient.wall)
        paint(hu, coverage(plane) * abdomen * side, patient.fat_hu + 20)
    white_line = np.minimum(5 - np.abs(x), np.minimum(depth, -frame.cavity))
    paint(hu, coverage(white_line) * (y < 0) * abdomen, patient.fat_hu + 40)


def _paint_lungs(hu, grid: Grid, patient: Patient, frame: Frame, rng: np.random.Generator) -> None:
    """Lungs with vessels, the muscle of the diaphragm, mediastinal fat and the heart."""
    chest = np.minimum(frame.thorax, frame.cavity)
    if chest.max() < -6:
        return
    paint(hu, coverage(np.minimum(frame.thorax + 3.5, frame.cavity)), patient.muscle_hu)
    lung = rng.uniform(-880, -800) + 12 * smooth_noise(grid, 30.0, rng)
    vessels = coverage(2.5 * (smooth_noise(grid, 9.0, rng) - 1.9))
    gradient = 40 * np.clip(grid.y / patient.half_back, -1, 1)[:, None]  # blood sinks to the back
    cover = coverage(chest - 1.0)
    paint(hu, cover, lung + gradient + vessels * 800)
    _, y, x = grid.warped
    middle = np.minimum(
        26 + 0.3 * np.clip(-y, 0, 60) - np.abs(x - 6 - 0.15 * np.clip(-y, 0, 80)), frame.thorax
    )
    paint(hu, coverage(np.minimum(middle, frame.cavity)), patient.fat_hu + 15)
    heart_y = -patient.half_front + patient.fat + patient.wall + rng.uniform(50, 60)
    heart = np.array((rng.uniform(24, 42), heart_y, rng.uniform(8, 28)))
    shape = ellipsoid(grid.warped, heart, (48, 50, 62), tilt=rng.uniform(0.2, 0.6))
    shape = np.minimum(np.minimum(shape, frame.thorax - 2), frame.cavity - 4)
    paint(
        hu, coverage(shape), patient.muscle_hu + 0.35 * max(patient.blood_hu - patient.muscle_hu, 0)
    )
    chambers = smooth_noise(grid, 30.0, rng) * 6 + 4
    blood = min(patient.blood_hu, rng.uniform(130, 180)) + 6 * smooth_noise(grid, 18.0, rng)
    paint(hu, coverage(np.minimum(shape - 7, chambers + 3)), blood)


def _paint_ribs(
    hu, grid: Grid, patient: Patient, frame: Frame, fat, rng: np.random.Generator
) -> None:
    """Oblique ribs in the wall, bone behind and cartilage in front, down to the costal margin."""
    z, y, x = grid.warped
    turn = np.arctan2(np.abs(x), y)  # 0 at the spine, pi in front
    pitch, drop = rng.uniform(26, 32), rng.uniform(36, 52)
    level = z + drop * turn + rng.uniform(0, pitch)
    across = (level / pitch - np.round(level / pitch)) * pitch
    margin = -170 + 110 * np.clip(turn - 1.7, 0, 1.4)
    into = frame.body - fat - 0.55 * patient.wall + 6 * np.clip(0.5 - turn, 0, 1)
    rib = 5.2 * (1 - np.sqrt((into / 4.8) ** 2 + (across / 6.8) ** 2))
    rib = np.minimum(rib, np.minimum(z - margin, 60 * (turn - 0.32)))
    bone = np.clip((2.35 - turn) / 0.15, 0, 1)  # further forward is cartilage
    paint(hu, coverage(rib), 105 + bone * rng.uniform(330, 520))
    paint(hu, coverage(rib - 2.0) * bone, rng.uniform(80, 200))


def paint_spine(hu: np.ndarray, grid: Grid, patient: Patient, rng: np.random.Generator) -> None:
    """Vertebrae with discs, canal and processes, and the muscles in front (psoas, crura)."""
    z, y, x = grid.warped
    mid_y, scale = patient.spine_y, rng.uniform(0.9, 1.12)
    pitch = 33.0 * scale
    step = (z + rng.uniform(0, pitch)) / pitch
    within = np.abs(step - np.round(step)) * pitch  # mm from the middle of a vertebra
    for side in (-1, 1):
        psoas = ellipsoid(grid.warped, (-215, mid_y + 8, side * 36), (105, 20, 17))
        paint(hu, coverage(psoas), patient.muscle_hu)
        crus = ellipsoid(grid.warped, (-95, mid_y - 14, side * 21), (75, 16, 6))
        paint(hu, coverage(crus), patient.muscle_hu)
    flat = np.zeros_like(z)  # cylinders: the same in every slice
    body = ellipsoid(np.stack((flat, y, x)), (0, mid_y, 0), (30, 17.5 * scale, 22 * scale))
    disc = within - (pitch / 2 - 4)
    bone_hu = rng.uniform(130, 230) + 22 * smooth_noise(grid, 6.0, rng)
    hard = rng.uniform(380, 620)
    paint(hu, coverage(body), hard)
    paint(hu, coverage(np.minimum(body - 2.2, -disc - 1.8)), bone_hu)
    paint(hu, coverage(np.minimum(body - 0.5, disc)), rng.uniform(75, 105))
    _paint_arch(hu, np.stack((flat, y, x)), mid_y, scale, within, hard)


def _paint_arch(hu, points: np.ndarray, mid_y: float, scale: float, within, hard: float) -> None:
    """The bony arch around the spinal canal with its three processes."""
    _, y, x = points
    canal_y = mid_y + 26 * scale
    arch = ellipsoid(points, (0, canal_y, 0), (30, 14 * scale, 17 * scale))
    canal = ellipsoid(points, (0, canal_y - 1, 0), (30, 8 * scale, 10.5 * scale))
    spinous = np.minimum(3.2 - np.abs(x), 14 - np.abs(y - canal_y - 22))
    spinous = np.minimum(spinous, 11 - within)
    transverse = np.minimum(4.5 - np.abs(y - canal_y + 1 - 0.25 * np.abs(x)), 36 - np.abs(x))
    transverse = np.minimum(transverse, 7 - within)
    bone = np.maximum(np.maximum(np.minimum(arch, 14.5 - within), spinous), transverse)
    paint(hu, coverage(np.maximum(bone, -1e3)), 0.8 * hard)
    paint(hu, coverage(bone - 2.5), 0.4 * hard)
    paint(hu, coverage(canal), 28.0)


def tube(hu: np.ndarray, grid: Grid, nodes, radii, value: float) -> None:
    """Paint a tube through `nodes` (z, y, x) mm with a radius at each node."""
    for start, end, r0, r1 in zip(nodes[:-1], nodes[1:], radii[:-1], radii[1:], strict=True):
        start, end = np.asarray(start, float), np.asarray(end, float)
        box = grid.near((start + end) / 2, np.abs(start - end) / 2 + max(r0, r1))
        points = grid.warped[(slice(None), *box)]
        if points.size:
            paint(hu[box], coverage(capsule(points, start, end, r0, r1)), value)
