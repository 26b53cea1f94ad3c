"""The wide phantom's lesions: what is labelled as tumor."""

from dataclasses import dataclass, replace

import numpy as np

from ..shapes import paint
from .liver import Liver
from .scene import Scene
from .space import box_between, smooth_noise

KINDS = ("dark", "bright", "rim", "necrotic", "cystic", "calcified")
KIND_SHARE = (0.56, 0.1, 0.13, 0.11, 0.06, 0.04)
DIAMETER_MM = (3.0, 150.0)


@dataclass(frozen=True)
class Lesion:
    """One lesion before it is placed; mm in an adult, HU beside the liver around it."""

    kind: str
    diameter: float
    contrast: float
    softness: float  # width of its edge
    lobes: int
    ragged: float  # part of the radius by which the outline varies
    bulge: float  # mm beyond the liver's surface


def draw_lesions(rng: np.random.Generator) -> list[Lesion]:
    """Draw none for a fifth of the patients, one to thirty for the others, largest first."""
    if rng.random() < 0.2:
        return []
    many = rng.random() < 0.12
    count = int(rng.uniform(10, 30)) if many else 1 + min(rng.geometric(0.3) - 1, 9)
    common = str(rng.choice(KINDS, p=KIND_SHARE))
    middle, darker = rng.uniform(2.0, 3.5), 10 + 50 * rng.beta(2.0, 1.7)
    lesions = [_draw_lesion(common, middle - 0.5 * many, darker, rng) for _ in range(count)]
    return sorted(lesions, key=lambda lesion: -lesion.diameter)


def _draw_lesion(common: str, middle: float, darker: float, rng: np.random.Generator) -> Lesion:
    """Lesions of a patient resemble each other; one in eight patients' lesions is very large."""
    diameter = np.exp(rng.normal(middle, 0.55))
    if rng.random() < 0.04:
        diameter = rng.uniform(50, 150)
    kind = common if rng.random() < 0.75 else str(rng.choice(KINDS, p=KIND_SHARE))
    if kind == "bright" and diameter > 45:  # one bright throughout would pass for the liver
        kind = "necrotic"
    contrast = float(np.clip(darker + rng.normal(0, 8), 10, 70))
    return Lesion(
        kind=kind,
        diameter=float(np.clip(diameter, *DIAMETER_MM)),
        contrast=contrast if kind == "bright" else -contrast,
        softness=float(rng.gamma(1.5, 1.3)),
        lobes=1 if rng.random() < 0.65 else int(rng.integers(2, 7)),
        ragged=min(rng.gamma(2.0, 0.055), 0.35),
        bulge=rng.uniform(1, 12) if rng.random() < 0.15 else 0.0,
    )


def paint_lesions(scene: Scene, liver: Liver, lesions: list[Lesion]) -> np.ndarray:
    """Paint the lesions into the liver, growing its mask where they bulge; return their mask."""
    tumor = np.zeros(scene.space.shape, bool)
    places = np.argwhere(liver.shape > 0)
    voxel = np.prod([float(axis[1] - axis[0]) for axis in scene.space.coarse_axes])
    room = scene.rng.uniform(0.02, 0.55) * len(places) * voxel / scene.space.size**3  # mm3
    last, least = None, 0.1 * room
    for lesion in lesions if len(places) else ():
        widest = (2 * max(room, least)) ** (1 / 3)
        lesion = replace(lesion, diameter=min(lesion.diameter, max(widest, DIAMETER_MM[0])))
        room -= 0.5 * lesion.diameter**3
        last = _place(scene, liver, lesion, places, last)
        _paint_lesion(scene, liver, lesion, last, tumor)
    return tumor


def _place(scene: Scene, liver: Liver, lesion: Lesion, places, last) -> np.ndarray:
    """Return a centre (z, y, x) scan mm: anywhere, at the rim, or beside the last lesion."""
    rng, axes = scene.rng, scene.space.coarse_axes
    if last is not None and rng.random() < 0.15:
        return last + rng.normal(0, 0.4 * lesion.diameter * scene.space.size, 3)
    depth = liver.shape[tuple(places.T)]
    deep = min(rng.uniform(0, 1.0) * lesion.diameter / 2, 0.7 * float(depth.max()))
    allowed = places[depth >= deep]
    chosen = allowed[rng.integers(len(allowed))]
    return np.array([axis[n] for axis, n in zip(axes, chosen, strict=True)])


def _paint_lesion(scene: Scene, liver: Liver, lesion: Lesion, centre, tumor) -> None:
    """Paint one lesion and add it to `tumor`, in place."""
    space, size = scene.space, scene.space.size
    radius = lesion.diameter / 2 * size
    reach = 1.9 * radius
    coarse = box_between(space.coarse_axes, centre - reach - 6, centre + reach + 6)
    box = space.voxels(coarse)
    if min(part.stop - part.start for part in box) < 1:
        return
    inside, width = _shape(scene, lesion, centre, radius, box)
    organ = space.enlarge(liver.shape, coarse) * np.float32(size)
    before, mask = scene.hu[box], liver.mask[box]
    allowed = mask | ((organ > -lesion.bulge * size) & (before > -160) & (before < 200))
    if lesion.bulge == 0 or not mask.any():
        allowed = mask
    around = float(np.median(before[mask][::7])) if mask.any() else 0.0
    edge = np.clip(0.5 + inside / width, 0, 1)
    limit = np.clip(0.5 + (organ + lesion.bulge * size) / space.spacing_mm[1], 0, 1)
    edge *= np.where(allowed, 1, np.minimum(limit, 0.5)) * min(
        1.0, 2.4 * radius / space.spacing_mm[0]
    )
    paint(before, edge.astype(np.float32), _hu(scene, lesion, inside, radius, around, box))
    tumor[box] |= (inside >= 0) & allowed
    mask |= (inside >= 0) & allowed


def _shape(scene: Scene, lesion: Lesion, centre, radius: float, box):
    """Return depth below the lesion's surface (z, y, x) mm, and the width of its edge."""
    rng, space = scene.rng, scene.space
    z, y, x = (axis[part] for axis, part in zip(space.axes, box, strict=True))
    dz, dy, _ = space.spacing_mm
    inside = None
    for n in range(lesion.lobes):
        part = radius if lesion.lobes == 1 else radius * rng.uniform(0.45, 0.8)
        at = centre + (rng.normal(0, 0.38, 3) * radius if n else 0)
        stretch = np.exp(rng.normal(0, 0.2, 3)).astype(np.float32)
        skew = np.float32(rng.normal(0, 0.25))
        oz, oy, ox = (z - at[0])[:, None, None], (y - at[1])[:, None], x - at[2]
        squared = ((oz * stretch[0]) ** 2 + (oy * stretch[1] + skew * oz) ** 2) + (
            ox * stretch[2] + skew * oy
        ) ** 2
        lobe = np.float32(part) - np.sqrt(squared)
        inside = lobe if inside is None else np.maximum(inside, lobe)
    pitch = [max(radius * 0.7, 2.5 * space.size) / step for step in space.spacing_mm]
    inside = inside + np.float32(lesion.ragged * radius) * smooth_noise(inside.shape, pitch, rng)
    steep = np.minimum(np.abs(z - centre[0]) / max(radius, 1e-3), 1)[:, None, None]
    return inside.astype(np.float32), (dy + 0.8 * dz * steep + lesion.softness).astype(np.float32)


def _hu(scene: Scene, lesion: Lesion, inside, radius: float, around: float, box) -> np.ndarray:
    """Return the lesion's HU (z, y, x) by its kind; in a liver full of fat it is bright."""
    rng = scene.rng
    least = 8 + 0.5 * scene.patient.noise_hu  # nobody outlines what noise hides
    contrast = float(np.copysign(max(abs(lesion.contrast), least), lesion.contrast))
    if around + contrast < 0:
        contrast = abs(contrast)
    texture = np.float32(rng.gamma(1.5, 2.2)) * scene.grain(box, rng.integers(3))
    hu = around + contrast + texture
    rim = rng.uniform(0.12, 0.45) * radius
    inner = np.clip(0.5 + (inside - rim) / max(0.35 * rim, 0.7), 0, 1)
    if lesion.kind == "rim":  # a bright ring around a dark core
        hu = hu + (1 - inner) * (rng.uniform(5, 60) - contrast)
    elif lesion.kind == "bright" and rng.random() < 0.4:  # bright lumps at the border only
        lumps = np.clip(2 * scene.grain(box, 1) + 1.5 * (1 - inner), 0, 1)
        hu = hu + (lumps - 1) * 2 * contrast
    elif lesion.kind == "necrotic":  # a core as dark as water
        ragged = np.clip(inner + 0.25 * scene.grain(box, 1), 0, 1)
        hu = hu + ragged * (min(around + contrast, rng.uniform(-5, 30)) - hu)
    elif lesion.kind == "cystic":
        water = rng.uniform(-8, 25)
        hu = np.full_like(hu, water if abs(water - around) > 15 else around + contrast)
    elif lesion.kind == "calcified":
        spots = np.clip(3 * (scene.grain(box, rng.integers(2)) - rng.uniform(0.4, 1.6)), 0, 1)
        hu = hu + spots * rng.uniform(80, 700)
    elif rng.random() < 0.35:  # the core differs a little
        hu = hu + inner * rng.normal(0, 12)
    return hu
