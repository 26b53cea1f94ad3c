"""The phantom's liver: its shape, gallbladder, vessel trees and lesions."""

import numpy as np
from scipy.ndimage import label

from .body import Scene
from .organs import Organs
from .shapes import Grid, coverage, ellipsoid, local_noise, smooth_max, smooth_min


def shape_liver(scene: Scene, organs: Organs) -> np.ndarray:
    """Return the liver (Z, Y, X) float32 mm: two lobes below the diaphragm, cut by neighbours."""
    lobes = smooth_max(_right_lobe(scene), _left_lobe(scene), 16.0)
    lobes = smooth_min(lobes, _lower_surface(scene), 14.0) + 2.0 * scene.noise(18.0)
    gap = scene.draw(-1.0, 4.0) * scene.patient.visceral_fat
    room = np.minimum(scene.cavity - 0.5 - max(gap, 0), -scene.thorax - 3.5)
    neighbours = np.maximum(np.maximum(organs.stomach, organs.kidneys), organs.spleen) + gap
    liver = smooth_min(smooth_min(lobes, room, 4.0), -neighbours, 3.0)
    liver = smooth_min(liver, -np.maximum(organs.midline, organs.renal_bed), 6.0)
    liver = np.minimum(liver, -_fissures(scene, organs))
    return np.where(_largest_part(liver > 0), liver, np.minimum(liver, -3))


def _largest_part(mask: np.ndarray) -> np.ndarray:
    parts, count = label(mask)
    return parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]) if count else mask


def _right_lobe(scene: Scene) -> np.ndarray:
    half = scene.patient.liver_height / 2
    inner = scene.patient.inner
    centre = (-half + 12, scene.draw(-5, 18), -inner * scene.draw(0.46, 0.58))
    width = inner * scene.draw(0.58, 0.7)
    radii = (half + 16, scene.patient.half_back * scene.draw(0.85, 1.05), width)
    return scene.ellipsoid(centre, radii)


def _left_lobe(scene: Scene) -> np.ndarray:
    """From a stump to a lobe that reaches the spleen."""
    inner = scene.patient.inner
    front = scene.patient.front
    start = (scene.draw(-65, -50), -front * scene.draw(0.25, 0.4), -inner * 0.3)
    end = (scene.draw(-65, -45), -front * scene.draw(0.4, 0.6), inner * scene.draw(0.12, 0.7))
    thick = scene.draw(36, 54)
    return scene.capsule(start, end, thick, thick * scene.draw(0.35, 0.7))


def _lower_surface(scene: Scene) -> np.ndarray:
    """The lower surface rises from the tip of the right lobe to the left."""
    z, y, x = scene.grid.warped
    rise = scene.draw(0.3, 0.75)
    slant = scene.draw(-0.25, 0.2)
    tip = -scene.patient.liver_height * scene.draw(0.85, 1.0)
    height = z - tip - rise * (x + 0.75 * scene.patient.inner) - slant * y
    return height / np.float32(np.sqrt(1 + rise**2 + slant**2)) + 5 * scene.noise(50.0)


def hilum_mm(scene: Scene, organs: Organs) -> np.ndarray:
    """Return where the portal vein enters the liver (z, y, x) mm."""
    y, x = organs.cava_mm
    return np.array((-0.47 * scene.patient.liver_height, y - 30, x - 10))


def _fissures(scene: Scene, organs: Organs) -> np.ndarray:
    """Fat around the hilum, the groove of the round ligament and the bed of the vena cava."""
    gate = hilum_mm(scene, organs)
    z, y, x = scene.grid.warped
    porta = scene.ellipsoid(gate + np.array((-14, 0, 8)), (20, 10, 24), tilt=0.3)
    aside = np.abs(x - (gate[2] + scene.draw(12, 30)) - 0.2 * (y - gate[1]))
    groove = np.minimum(scene.draw(1.5, 4) - aside, gate[0] + 8 - z)
    groove = np.minimum(groove, gate[1] + 10 - y)
    back_y, back_x = organs.cava_mm
    cava = scene.capsule((20, back_y - 12, back_x), (-200, back_y, back_x), 13, 13)
    return np.maximum(np.maximum(porta, groove), cava)


def paint_liver(scene: Scene, organs: Organs, liver: np.ndarray) -> np.ndarray:
    """Paint parenchyma, vessel trees and gallbladder; return the liver without the gallbladder."""
    patient = scene.patient
    gate = hilum_mm(scene, organs)
    if scene.rng.random() < 0.85:
        liver = _paint_gallbladder(scene, gate, liver)
    if scene.rng.random() < 0.1:  # ascites
        around = np.minimum(liver + scene.draw(4, 12), np.minimum(scene.cavity, -scene.thorax - 3))
        scene.paint(np.minimum(around, -liver), scene.draw(2, 18))
    veins = _grow_vessels(scene, organs, gate)
    patchy = scene.rng.gamma(2.0, 1.5) * scene.noise((30.0, 24.0, 24.0)) + 3 * scene.noise(7.0)
    liver_hu = patient.liver_hu + patchy + veins * (patient.vein_hu - patient.liver_hu)
    scene.paint(liver, liver_hu)
    stem = [gate + np.array(step) for step in ((-50, 6, 22), (-12, 2, 6), (0, 0, 0))]
    scene.tube(stem, (7, 7, 6.5), patient.vein_hu)
    return liver


def _paint_gallbladder(scene: Scene, gate: np.ndarray, liver: np.ndarray) -> np.ndarray:
    neck = gate + np.array((-18, -8, -12))
    fundus = neck + scene.draw((-45, -50, -25), (-20, -25, 0))
    bladder = scene.capsule(neck, fundus, 6, scene.draw(10, 17))
    bladder = np.minimum(bladder, scene.cavity - 2)
    scene.paint(bladder, 70.0)
    scene.paint(bladder - 1.6, scene.draw(2, 20))
    return np.minimum(liver, -bladder)


def _grow_vessels(scene: Scene, organs: Organs, gate: np.ndarray) -> np.ndarray:
    """Return how much of each voxel portal and hepatic veins fill, [0, 1]."""
    veins = np.zeros_like(scene.hu)
    root = np.array((-22.0, organs.cava_mm[0] - 8, organs.cava_mm[1]))
    _grow(veins, scene, gate, np.array((0.1, -0.15, -1.0)), 46, 6.5, 4)
    _grow(veins, scene, gate, np.array((0.3, -0.9, 0.6)), 40, 4.5, 3)
    for direction in ((-0.3, 0.1, -1.0), (-0.35, -0.8, -0.6), (-0.3, -0.9, 0.4)):
        _grow(veins, scene, root, np.array(direction), 48, 5.5, 3)
    return veins


def _grow(veins, scene: Scene, start, direction, length: float, radius: float, forks: int) -> None:
    """Paint a bent vessel into `veins` in place, and let it fork `forks` times."""
    direction = direction / np.linalg.norm(direction)
    bend = start + direction * length / 2 + scene.rng.normal(0, 0.08 * length, 3)
    end = bend + direction * length / 2 + scene.rng.normal(0, 0.1 * length, 3)
    scene.tube([start, bend, end], (radius, radius * 0.85, radius * 0.75), 1.0, onto=veins)
    if forks:
        aside = scene.rng.normal(0, 1, 3)
        aside -= direction * (aside @ direction)
        aside *= scene.draw(0.5, 0.9) / np.linalg.norm(aside)
        for sign in (1.0, -0.7):
            shorter = length * scene.draw(0.65, 0.88)
            _grow(veins, scene, end, direction + sign * aside, shorter, radius * 0.74, forks - 1)


def draw_lesions(rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Draw (diameter mm, HU difference, softness mm) of zero to eight lesions, largest first.

    One patient in six has none. One lesion is large as a rule, so that most of the tumor lies where
    it can be found; small ones come with it, as metastases do.
    """
    if rng.random() < 1 / 6:
        return []
    count = int(rng.choice(8, p=(0.24, 0.2, 0.16, 0.12, 0.1, 0.07, 0.06, 0.05)))
    sizes = [rng.uniform(16, 45), *np.clip(np.exp(rng.normal(2.4, 0.55, count)), 3, 45)]
    darker = 24 + 34 * rng.beta(2.0, 2.0)
    lesions = []
    for size in sorted(sizes, reverse=True):
        contrast = -np.clip(darker + rng.normal(0, 6), 15, 60)
        if rng.random() < 0.12:
            contrast = rng.uniform(25, 55)
        lesions.append((float(size), float(contrast), float(rng.uniform(1.0, 3.5))))
    return lesions


def paint_lesions(scene: Scene, liver: np.ndarray, lesions) -> np.ndarray:
    """Paint lesions into the liver; return the tumor mask (Z, Y, X)."""
    tumor = np.zeros(scene.grid.shape, bool)
    if (liver > 0).any():
        cover = coverage(liver)
        for lesion in lesions:
            _paint_lesion(scene, liver, cover, tumor, *lesion)
    return tumor


def _paint_lesion(scene: Scene, liver, cover, tumor, diameter, contrast, softness) -> None:
    """Paint one lesion and add it to `tumor`, in place."""
    grid = scene.grid
    radius = diameter / 2
    centre = _place(grid, liver, radius, tumor, scene.rng)
    box = grid.near(centre, radius * 1.7, margin_mm=0.0)
    shape = _lesion_shape(grid, box, centre, radius, scene.rng)
    soft = np.clip(0.5 + shape / min(softness, radius), 0, 1)
    edge = np.minimum(coverage(shape), soft)
    texture = 1.0 + 0.1 * local_noise(grid, box, max(radius / 2, 4.0), scene.rng)
    if radius > 10 and scene.rng.random() < 0.35:  # the rim differs from the core
        texture *= np.where(shape > 0.45 * radius, 1.0, scene.draw(0.6, 0.9))
    scene.hu[box] += edge * cover[box] * contrast * texture
    tumor[box] |= (shape >= 0) & (liver[box] >= 0)


def _place(grid: Grid, liver, radius: float, tumor, rng: np.random.Generator) -> np.ndarray:
    """Return the centre (z, y, x) mm of a voxel in the liver, away from other lesions."""
    depth = min(0.6 * radius, 0.6 * float(liver.max()))
    allowed = np.flatnonzero((liver > depth) & ~tumor)
    if not allowed.size:
        allowed = np.flatnonzero(liver > 0)
    at = np.unravel_index(allowed[int(rng.random() * allowed.size)], grid.shape)
    return np.array([axis[i] for axis, i in zip((grid.z, grid.y, grid.x), at, strict=True)])


def _lesion_shape(grid: Grid, box, centre, radius: float, rng: np.random.Generator) -> np.ndarray:
    z, y, x = (axis[part] for axis, part in zip((grid.z, grid.y, grid.x), box, strict=True))
    points = np.stack(np.broadcast_arrays(z[:, None, None], y[:, None], x))
    radii = radius * np.exp(rng.normal(0, 0.12, 3))
    shape = ellipsoid(points, centre, radii, tilt=rng.uniform(0, np.pi))
    return shape + 0.13 * radius * local_noise(grid, box, max(radius * 0.8, 5.0), rng)
