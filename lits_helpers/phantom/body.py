"""The phantom's patient and frame: table, skin, fat, muscles, ribs, lungs and heart."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .shapes import (
    WIDEST,
    Grid,
    bounds,
    capsule,
    coverage,
    ellipsoid,
    paint,
    smooth_max,
    smooth_noise,
)


@dataclass(frozen=True, kw_only=True)
class Trunk:
    """What frozen and wide patients share. Lengths in mm, tissues in HU."""

    half_width: float  # of the trunk with its fat
    half_front: float  # from the middle to the belly's skin
    half_back: float
    fat: float  # under the skin
    wall: float  # muscle and ribs
    visceral_fat: float  # [0, 1], how far organs stand apart
    liver_height: float
    fat_hu: float
    noise_hu: float  # deviation

    @property
    def inner(self) -> float:
        """Half width of the cavity."""
        return self.half_width - self.fat - self.wall

    @property
    def front(self) -> float:
        """From the middle to the cavity's front."""
        return self.half_front - self.fat - self.wall


@dataclass(frozen=True, kw_only=True)
class Patient(Trunk):
    """What makes one patient differ from the next."""

    liver_hu: float
    vein_hu: float  # vessels in the liver
    blood_hu: float  # aorta
    muscle_hu: float

    @property
    def spine_y(self) -> float:
        """Middle of the vertebral bodies."""
        return self.half_back - 1.2 * self.fat - 66.0


@dataclass(frozen=True)
class Scene:
    """A patient being painted. Shapes are (Z, Y, X) float32 mm, positive inside."""

    hu: np.ndarray  # (Z, Y, X) float32, painted in place
    grid: Grid
    patient: Patient
    body: np.ndarray  # depth below the skin
    cavity: np.ndarray  # within the muscular wall
    thorax: np.ndarray  # above the diaphragm
    rng: np.random.Generator

    def noise(self, pitch_mm) -> np.ndarray:
        """Return new smooth noise (Z, Y, X) of deviation 1 over the whole grid."""
        return smooth_noise(self.grid, pitch_mm, self.rng)

    def draw(self, low, high, size: int | None = None):
        """Draw a number between `low` and `high`, or `size` of them, or one for each of arrays."""
        return self.rng.uniform(low, high, size)

    def ellipsoid(self, centre_mm, radii_mm, tilt: float = 0.0) -> np.ndarray:
        """Return an ellipsoid on the whole grid, as `shapes.ellipsoid` does."""
        return ellipsoid(self.grid.warped, centre_mm, radii_mm, tilt)

    def capsule(self, start_mm, end_mm, start_radius: float, end_radius: float) -> np.ndarray:
        """Return a tapering tube on the whole grid, as `shapes.capsule` does."""
        return capsule(self.grid.warped, start_mm, end_mm, start_radius, end_radius)

    def paint(self, inside: np.ndarray, value) -> None:
        """Paint a shape; `value` in HU, one number or (Z, Y, X)."""
        box = bounds(inside > -WIDEST / 2)  # beyond, it covers nothing
        value = value[box] if isinstance(value, np.ndarray) else value
        paint(self.hu[box], coverage(inside[box]), value)

    def tube(self, nodes, radii, value: float, onto: np.ndarray | None = None) -> None:
        """Paint a tube through `nodes` (z, y, x) mm, with a radius at each, into `hu` or `onto`."""
        target = self.hu if onto is None else onto
        nodes = np.asarray(nodes, float)
        for (start, end), (r0, r1) in zip(pairwise(nodes), pairwise(radii), strict=True):
            box = self.grid.near((start + end) / 2, np.abs(start - end) / 2 + max(r0, r1))
            points = self.grid.warped[:, *box]
            if points.size:
                paint(target[box], coverage(capsule(points, start, end, r0, r1)), value)


def draw_patient(rng: np.random.Generator) -> Patient:
    """Draw a patient and the contrast phase of the scan."""
    fat = min(rng.gamma(3.0, 4.0) + 4.0, 36.0)
    half_width = rng.uniform(128, 152) + fat
    ratio = rng.uniform(0.64, 0.78)
    liver_hu, vein_hu, blood_hu = _draw_phase(rng)
    return Patient(
        half_width=half_width,
        half_front=half_width * ratio * rng.uniform(0.92, 1.1),
        half_back=half_width * ratio,
        fat=fat,
        wall=rng.uniform(11, 17),
        visceral_fat=float(np.clip(fat / 45 + rng.normal(0, 0.2), 0.0, 1)),
        liver_height=rng.uniform(115, 190),
        liver_hu=liver_hu,
        vein_hu=vein_hu,
        blood_hu=blood_hu,
        muscle_hu=rng.normal(63, 6),
        fat_hu=rng.normal(-103, 5),
        noise_hu=rng.uniform(8, 14),
    )


def _draw_phase(rng: np.random.Generator) -> tuple[float, float, float]:
    """Return HU of liver, its vessels and the aorta: portal venous, arterial or no contrast."""
    phase = rng.choice(3, p=(0.72, 0.16, 0.12))
    if phase == 0:
        liver = float(np.clip(rng.normal(92, 20), 50, 140))  # a fatty liver is dark
        return liver, liver + rng.uniform(22, 55), liver + rng.uniform(30, 75)
    if phase == 1:
        liver = float(np.clip(rng.normal(72, 10), 48, 95))
        return liver, liver + rng.uniform(-4, 16), rng.uniform(190, 320)
    liver = float(np.clip(rng.normal(56, 8), 35, 70))
    return liver, min(liver - 8, rng.uniform(34, 44)), rng.uniform(34, 48)


def start_scene(grid: Grid, patient: Patient, rng: np.random.Generator) -> Scene:
    """Shape trunk, cavity and diaphragm; nothing but air is painted yet."""
    _, y, x = grid.warped
    power = rng.uniform(2.0, 2.4)
    half_y = np.where(y > 0, np.float32(patient.half_back), np.float32(patient.half_front))
    norm = np.abs(x / np.float32(patient.half_width)) ** power + np.abs(y / half_y) ** power
    rho = np.sqrt(x * x + y * y)
    body = rho / np.maximum(norm ** (1 / power), 1e-3) - rho
    cavity = body - _wall_depth(grid, patient, rng)
    return Scene(
        hu=np.full(grid.shape, -1000.0, np.float32),
        grid=grid,
        patient=patient,
        body=body,
        cavity=cavity,
        thorax=_thorax(grid, patient, rng),
        rng=rng,
    )


def _wall_depth(grid: Grid, patient: Patient, rng: np.random.Generator) -> np.ndarray:
    """Depth of the inside of the wall; the muscles beside the spine make it thick at the back."""
    _, y, x = grid.warped
    behind = np.clip(y / np.float32(patient.half_back) - 0.3, 0, 0.5) * 2
    back = 48 * behind * np.exp(-((x / 58) ** 2))
    return patient.fat + patient.wall * (1 + 0.1 * smooth_noise(grid, 40.0, rng)) + back


def _thorax(grid: Grid, patient: Patient, rng: np.random.Generator) -> np.ndarray:
    """Height above the diaphragm: a dome over the liver, a lower one over stomach and spleen.

    The domes fall steeply to the sides and the back, where the lungs reach far down around the
    organs, and gently to the middle and the front, where the heart lies on them.
    """
    z, y, x = grid.warped
    width = patient.inner + 4
    depth = patient.half_back - patient.fat - 12
    domes = []
    for side, drop in ((-1, 0.0), (1, rng.uniform(5, 28))):
        cx, cy = side * width * rng.uniform(0.44, 0.52), depth * rng.uniform(-0.25, -0.05)
        reach_x = np.where((x - cx) * side > 0, 0.58 * width, 1.0 * width).astype(np.float32)
        reach_y = np.where(y > cy, 1.0 * depth, 1.4 * depth).astype(np.float32)
        q = ((x - cx) / reach_x) ** 2 + ((y - cy) / reach_y) ** 2
        domes.append(-drop - rng.uniform(70, 105) * q ** np.float32(1.2))
    return z - smooth_max(domes[0], domes[1], 18.0) + 2.0 * smooth_noise(grid, 45.0, rng)


def paint_frame(scene: Scene) -> None:
    """Paint table, skin, fat, muscles, what fills the chest, and ribs."""
    patient = scene.patient
    _paint_table(scene)
    fat = _fat_depth(scene)
    fat_hu = patient.fat_hu + 7 * scene.noise(9.0)
    scene.paint(scene.body, 25.0)
    scene.paint(scene.body - 1.8, fat_hu)
    marbling = scene.draw(5, 40) * np.clip(scene.noise((25.0, 5.0, 9.0)) - 0.9, 0, 2)
    muscle_hu = patient.muscle_hu + 6 * scene.noise(8.0) - marbling
    scene.paint(np.minimum(scene.body - fat, -scene.cavity + 4), muscle_hu)
    strands = 60 * np.clip(scene.noise((14.0, 6.0, 6.0)) - 1.5, 0, 2)
    scene.paint(scene.cavity, fat_hu + 4 + strands)
    _paint_fat_planes(scene, fat)
    if scene.thorax.max() > 0:
        _paint_lungs(scene)
        _paint_heart(scene)
    _paint_ribs(scene, fat)


def _fat_depth(scene: Scene) -> np.ndarray:
    """Fat under the skin is thicker at the back and lower down."""
    z, y, _ = scene.grid.warped
    lower = np.clip(-(z + 60) / 200, -0.3, 0.6)
    along = 1 + 0.45 * lower + 0.25 * y / np.float32(scene.patient.half_back)
    return np.maximum(scene.patient.fat * (along + 0.13 * scene.noise(70.0)), 3.0)


def _paint_table(scene: Scene) -> None:
    """A curved tray, a shell around foam, with a mattress between it and the patient."""
    y, x = scene.grid.y[:, None], scene.grid.x[None]
    gap = scene.draw(4, 16)
    curve = scene.draw(0, 1.1e-3)
    width = scene.draw(195, 250)
    surface = y - (scene.patient.half_back + gap + curve * (width**2 / 4 - x**2))
    ends = width - np.abs(x)
    thick = scene.draw(20, 45)
    plank = np.minimum(np.minimum(surface, thick - surface), ends).astype(np.float32)
    mattress = np.minimum(np.minimum(surface + gap + 8, -surface), ends - 25).astype(np.float32)
    paint(scene.hu, coverage(mattress)[None], scene.draw(-985, -900))
    paint(scene.hu, coverage(plank)[None], scene.draw(-960, -880))
    shell = coverage(plank) - coverage(plank - 3.2)
    paint(scene.hu, shell[None], scene.draw(100, 600))


def _paint_fat_planes(scene: Scene, fat: np.ndarray) -> None:
    """Thin fat between the layers of the abdominal wall, and between the rectus muscles."""
    z, y, x = scene.grid.warped
    patient = scene.patient
    depth = scene.body - fat
    abdomen = np.clip((-z - 90) / 30, 0, 1)
    side = np.clip((np.abs(x) - 45) / 20, 0, 1) * np.clip((40 - y) / 20, 0, 1)
    for level in (0.36, 0.68):
        plane = 0.9 - np.abs(depth - level * patient.wall)
        paint(scene.hu, coverage(plane) * abdomen * side, patient.fat_hu + 20)
    white_line = np.minimum(5 - np.abs(x), np.minimum(depth, -scene.cavity))
    paint(scene.hu, coverage(white_line) * (y < 0) * abdomen, patient.fat_hu + 40)


def _paint_lungs(scene: Scene) -> None:
    """Lungs with vessels, the muscle of the diaphragm, and in some patients fluid at the back."""
    y = scene.grid.y[:, None]
    scene.paint(np.minimum(scene.thorax + 3.5, scene.cavity), scene.patient.muscle_hu)
    lung = np.minimum(scene.thorax, scene.cavity) - 1.0
    sunk = 40 * np.clip(y / scene.patient.half_back, -1, 1)  # blood sinks to the back
    vessels = 800 * coverage(2.2 * (scene.noise((10.0, 6.0, 6.0)) - 2.1))
    scene.paint(lung, scene.draw(-880, -800) + 12 * scene.noise(30.0) + sunk + vessels)
    if scene.rng.random() < 0.12:
        level = scene.patient.half_back * scene.draw(0.25, 0.6)
        scene.paint(np.minimum(lung + 3, y - level), scene.draw(2, 22))


def _paint_heart(scene: Scene) -> None:
    """Mediastinal fat down to the diaphragm, heart muscle and chambers, esophagus."""
    patient = scene.patient
    middle = scene.draw((14, 48, 8), (36, 58, 26)) - (0, patient.front, 0)
    heart = scene.ellipsoid(middle, (50, 49, 62), tilt=scene.draw(0.2, 0.6))
    apron = scene.capsule(middle - np.array((0, 6, 0)), (-50, -patient.front + 36, 4), 48, 34)
    behind = scene.capsule((150, patient.spine_y - 26, 4), (-60, patient.spine_y - 22, 4), 23, 23)
    fat = smooth_max(np.maximum(heart + 5, apron), behind, 12.0) + 3 * scene.noise(20.0)
    room = np.minimum(scene.thorax, scene.cavity)
    scene.paint(np.minimum(fat, room), patient.fat_hu + 12 + 8 * scene.noise(8.0))
    heart = np.minimum(heart, room - scene.draw(0.5, 4))
    contrast = max(patient.blood_hu - patient.muscle_hu, 0)
    scene.paint(heart, patient.muscle_hu + 0.35 * contrast)
    blood = min(patient.blood_hu, scene.draw(130, 180)) + 6 * scene.noise(18.0)
    scene.paint(np.minimum(heart - 7, 7 + 6 * scene.noise(30.0)), blood)
    gullet = patient.spine_y - 42
    scene.tube([(90, gullet, 4), (-20, gullet, 8), (-45, gullet - 10, 28)], (7, 7, 8), 55.0)


def _paint_ribs(scene: Scene, fat: np.ndarray) -> None:
    """Oblique ribs in the wall, bone behind and cartilage in front, above the costal margin."""
    z, y, x = scene.grid.warped
    turn = np.arctan2(np.abs(x), y)  # 0 at the spine, pi in front
    pitch = scene.draw(26, 32)
    drop = scene.draw(36, 52)
    level = (z + drop * turn) / pitch + scene.draw(0, 1)
    across = (level - np.round(level)) * pitch
    margin = -170 + 110 * np.clip(turn - 1.7, 0, 1.4)
    into = scene.body - fat - 0.55 * scene.patient.wall + 6 * np.clip(0.5 - turn, 0, 1)
    rib = 5.2 * (1 - np.sqrt((into / 4.8) ** 2 + (across / 6.8) ** 2))
    rib = np.minimum(rib, np.minimum(z - margin, 60 * (turn - 0.32)))
    bone = np.clip((2.35 - turn) / 0.15, 0, 1)  # further forward is cartilage
    scene.paint(rib, 105 + bone * scene.draw(330, 520))
    paint(scene.hu, coverage(rib - 2.0) * bone, scene.draw(80, 200))
