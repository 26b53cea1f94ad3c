"""The wide phantom's liver: shape, gallbladder, parenchyma, vessels, and what looks like a lesion.

Nothing painted here is labelled as a tumor: veins end on, fat and its sparing, fissures, perfusion,
bile ducts, shadows of the ribs.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import label

from ..shapes import paint, smooth_max, smooth_min
from .organs import Organs
from .scene import Scene
from .space import Space
from .vessels import grow_tree, stroke


@dataclass
class Liver:
    """Where the liver lies.

    Attributes:
        shape: coarse (z, y, x) float32 mm, positive inside.
        gate: (3,) patient mm, where the portal vein enters.
        fissure: coarse signed distance from the plane between the lobes, mm.
        mask: (Z, Y, X) bool, the liver's voxels, tumors to come included.
    """

    shape: np.ndarray
    gate: np.ndarray
    fissure: np.ndarray
    mask: np.ndarray


def shape_liver(scene: Scene, organs: Organs) -> Liver:
    """Return the liver: two lobes that fill the room below the diaphragm, cut by neighbours."""
    rng, patient = scene.rng, scene.patient
    _, y, x = scene.space.points
    cava_y, cava_x = organs.cava_mm
    gate = np.array((-rng.uniform(0.4, 0.55) * patient.liver_height, cava_y - 30, cava_x - 10))
    lobes = smooth_max(_right_lobe(scene), _left_lobe(scene), rng.uniform(8, 24))
    caudate = (gate[0] + rng.uniform(5, 25), cava_y - rng.uniform(10, 22), cava_x + 20)
    lobes = smooth_max(lobes, scene.space.ellipsoid(caudate, rng.uniform(8, 26, 3)), 6.0)
    lobes = smooth_min(lobes, _lower_surface(scene), rng.uniform(6, 20))
    lobes = lobes + rng.uniform(-2, 7) + rng.uniform(0, 6) * scene.noise(45.0)
    lobes = lobes + rng.uniform(0.5, 3.5) * scene.noise(18.0)
    if rng.random() < 0.2:  # nodular
        lobes = lobes + rng.uniform(0.8, 2.5) * scene.noise(8.0)
    if rng.random() < 0.04:  # a part was resected
        edge = x - rng.uniform(-0.7, -0.2) * patient.inner + 5 * scene.noise(30.0)
        lobes = np.minimum(lobes, edge * float(rng.choice((-1, 1))))
    liver = _cut(scene, organs, lobes, gate)
    parts, count = label(liver > 0)
    if count > 1:
        largest = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
        liver = np.where(largest, liver, np.minimum(liver, -3))
    fissure = x - (gate[2] + rng.uniform(8, 32)) - rng.uniform(0, 0.5) * (y - gate[1])
    fissure = (fissure + 5 * scene.noise(40.0)).astype(np.float32)
    return Liver(liver.astype(np.float32), gate, fissure, np.zeros(scene.space.shape, bool))


def _right_lobe(scene: Scene) -> np.ndarray:
    rng, patient = scene.rng, scene.patient
    half, inner = patient.liver_height / 2, patient.inner
    centre = (-half + rng.uniform(-8, 12), rng.uniform(-12, 22), -inner * rng.uniform(0.42, 0.6))
    radii = (
        half + rng.uniform(14, 34),
        patient.half_back * rng.uniform(0.8, 1.2),
        inner * rng.uniform(0.54, 0.82),
    )
    lobe = scene.space.ellipsoid(centre, radii)
    if rng.random() < 0.1:  # a tongue far down the side
        tip = (-patient.liver_height - rng.uniform(10, 70), rng.uniform(-20, 20), -inner * 0.8)
        tongue = scene.space.chain(np.array([centre, tip]), (40, rng.uniform(15, 28)))
        lobe = smooth_max(lobe, tongue, 12.0)
    return lobe


def _left_lobe(scene: Scene) -> np.ndarray:
    """From a stump to a lobe that wraps around the spleen."""
    rng, inner, front = scene.rng, scene.patient.inner, scene.patient.front
    start = (rng.uniform(-75, -40), -front * rng.uniform(0.25, 0.65), -inner * 0.3)
    reach = rng.uniform(0.0, 0.9)
    end = (rng.uniform(-90, -25), -front * rng.uniform(0.4, 0.95), inner * reach)
    thick = rng.uniform(26, 64)
    nodes, radii = [start, end], [thick, thick * rng.uniform(0.25, 0.7)]
    if reach > 0.5 and rng.random() < 0.6:
        nodes.append((end[0] + rng.uniform(-15, 20), rng.uniform(-0.1, 0.4) * front, inner * 0.85))
        radii.append(radii[-1] * rng.uniform(0.5, 0.9))
    lobe = scene.space.chain(np.array(nodes), radii)
    if rng.random() < 0.5:  # down along the front wall
        tip = (
            -rng.uniform(90, 160),
            -front * rng.uniform(0.6, 0.95),
            inner * rng.uniform(-0.35, 0.3),
        )
        tongue = scene.space.chain(np.array([start, tip]), (thick * 0.8, rng.uniform(12, 34)))
        lobe = smooth_max(lobe, tongue, 12.0)
    return lobe


def _lower_surface(scene: Scene) -> np.ndarray:
    """The lower surface rises from the tip of the right lobe to the left."""
    z, y, x = scene.space.points
    rng, patient = scene.rng, scene.patient
    rise, slant = rng.uniform(0.15, 0.8), rng.uniform(-0.2, 0.65)
    tip = -patient.liver_height * rng.uniform(0.8, 1.05)
    height = z - tip - rise * (x + 0.75 * patient.inner) - slant * y
    height = height / np.float32(np.sqrt(1 + rise**2 + slant**2))
    return height + rng.uniform(0, 9) * scene.noise(50.0)


def _cut(scene: Scene, organs: Organs, lobes: np.ndarray, gate: np.ndarray) -> np.ndarray:
    """Fit the lobes into the room their neighbours leave, in touch with them or in fat."""
    rng, patient = scene.rng, scene.patient
    gap = rng.uniform(-1, 4) * patient.visceral_fat * (0.6 + 0.6 * scene.noise(35.0))
    gap = np.maximum(gap, 0) + (rng.uniform(0, 22) * patient.fluid if patient.fluid else 0)
    to_wall = gap if patient.fluid or rng.random() < 0.35 else 0  # mostly it lies on the wall
    room = np.minimum(scene.cavity - to_wall, -scene.thorax - rng.uniform(1, 5))
    liver = smooth_min(lobes, room, rng.uniform(1, 6))
    liver = smooth_min(liver, -organs.renal_bed, 5.0)
    for neighbour, wins in ((organs.kidneys, 0.95), (organs.stomach, 0.6), (organs.spleen, 0.65)):
        if rng.random() < wins:
            liver = smooth_min(liver, -neighbour - gap, 3.0)
    if rng.random() < 0.6:  # bowel dents the rim but does not enter deep
        liver = smooth_min(liver, np.maximum(liver - rng.uniform(3, 15), 0) * 2 - organs.loops, 2.0)
    liver = smooth_min(liver, -organs.midline, 6.0)
    porta = scene.space.ellipsoid(
        gate + np.array((-14, 0, 8)), rng.uniform((8, 4, 10), (26, 14, 30)), 0.3
    )
    back_y, back_x = organs.cava_mm
    bed = np.array([(20, back_y - 12, back_x), (-200, back_y, back_x)])
    return np.minimum(liver, -np.maximum(porta, scene.space.chain(bed, (12, 12))))


def paint_liver(scene: Scene, organs: Organs, liver: Liver) -> None:
    """Paint gallbladder, parenchyma, vessels, ducts and fissures; set the liver's mask."""
    rng, space = scene.rng, scene.space
    coarse, cover = space.cover(liver.shape, rng.gamma(1.2, 0.8))
    box = space.voxels(coarse)
    if cover.size:
        value = space.enlarge(scene.tissue["liver"] + _shade(scene, liver), coarse)
        for pitch, amount in enumerate(rng.gamma(1.1, (1.2, 1.2, 1.3))):
            value += np.float32(amount) * scene.grain(box, pitch)
        axes = tuple(axis[part] for axis, part in zip(space.axes, box, strict=True))
        _paint_vessels(scene, organs, liver, axes, value)
        filled = cover.copy()
        for gap, hu, wide in _fissures(scene, liver, coarse):
            paint(value, gap, hu)
            filled *= 1 - gap * wide
        paint(scene.hu[box], cover, value)
        liver.mask[box] = filled >= 0.5
    _paint_gallbladder(scene, liver)


def _paint_gallbladder(scene: Scene, liver: Liver) -> None:
    """Paint the gallbladder and take it out of the liver's mask; clips where it was removed."""
    rng, space = scene.rng, scene.space
    neck = liver.gate + rng.normal((-18, -8, -12), 5)
    if rng.random() < 0.2:
        for _ in range(rng.integers(0, 5)):
            spot = neck + rng.normal(0, 7, 3)
            scene.tube([spot, spot + rng.normal(0, 3, 3)], (1, 1), 2500.0)
            scene.metal.append(space.locate(spot)[0])
        return
    fundus = neck + rng.uniform((-60, -60, -35), (-5, -15, 15))
    middle = (neck + fundus) / 2 + rng.normal(0, 6, 3)
    wide = rng.uniform(6, 22)
    bladder = space.chain(np.stack([neck, middle, fundus]), (rng.uniform(2, 6), 0.8 * wide, wide))
    bladder = np.minimum(bladder, scene.cavity - 2) + 0.7 * scene.noise(12.0)
    scene.paint(bladder, rng.uniform(20, 100))
    _fill_gallbladder(scene, bladder)
    coarse, cover = space.cover(bladder)
    liver.mask[space.voxels(coarse)] &= cover < 0.5


def _fill_gallbladder(scene: Scene, shape: np.ndarray) -> None:
    """Bile, at times dense or layered, and stones with or without lime."""
    rng = scene.rng
    lumen = shape - rng.uniform(0.5, 3)
    hu = scene.tissue["bile"] if rng.random() < 0.85 else rng.uniform(40, 300)
    scene.paint(lumen, hu, grain=2)
    if rng.random() < 0.2:
        z, y, x = (axis[lumen > 2] for axis in scene.space.points)
        for n in rng.integers(0, max(z.size, 1), rng.integers(1, 6) if z.size else 0):
            stone = scene.space.ellipsoid((z[n], y[n], x[n]), np.full(3, rng.uniform(2, 8)))
            stone = np.minimum(stone, lumen)
            scene.paint(stone, rng.uniform(60, 600))
            scene.paint(stone - rng.uniform(1, 4), rng.uniform(0, 200))


def _shade(scene: Scene, liver: Liver) -> np.ndarray:
    """Return what varies smoothly in the parenchyma, HU, coarse (z, y, x)."""
    rng, noise = scene.rng, scene.noise
    shade = rng.gamma(1.2, 1.2) * noise(35.0)
    near = np.exp(-np.abs(liver.fissure) / rng.uniform(8, 30))
    if rng.random() < 0.35:  # patches of fat, or of what it spares, beside the fissure
        patch = np.clip(3 * (noise(16.0) + 4 * near - rng.uniform(3.2, 4.6)), 0, 1)
        shade = shade + float(rng.choice((-1, -1, 1))) * rng.uniform(8, 45) * patch
    if rng.random() < 0.12:  # one lobe differs
        lobe = 0.5 + 0.5 * np.tanh(liver.fissure / rng.uniform(1, 8))
        shade = shade + rng.normal(0, 14) * lobe
    if rng.random() < 0.3:  # below the capsule
        shade = shade + rng.normal(0, 18) * np.exp(-np.maximum(liver.shape, 0) / rng.uniform(2, 9))
    if rng.random() < 0.25:  # shadows of ribs and arms
        shade = shade + rng.uniform(1, 7) * noise((25, 7, 70))
        shade = shade + rng.uniform(0, 5) * noise((25, 40, 8))
    if rng.random() < 0.15:  # mottled by congestion or by nodules
        shade = shade + rng.uniform(3, 14) * np.tanh(3 * noise(rng.uniform(7, 16)))
    for _ in range(rng.poisson(1.2) if rng.random() < 0.3 else 0):
        shade = shade + _wedge(scene, liver)
    return shade.astype(np.float32)


def _wedge(scene: Scene, liver: Liver) -> np.ndarray:
    """Return a wedge of other perfusion that opens towards the capsule, HU."""
    rng, places = scene.rng, np.argwhere(liver.shape > 10)
    if not len(places):
        return np.zeros(1, np.float32)
    tip = scene.space.points[:, *places[rng.integers(len(places))]]
    axis = tip - liver.gate
    axis /= max(float(np.linalg.norm(axis)), 1e-6)
    offset = scene.space.points - tip[:, None, None, None]
    along = np.einsum("i,izyx->zyx", axis.astype(np.float32), offset)
    aside = np.sqrt(np.maximum((offset**2).sum(0) - along**2, 0))
    inside = np.minimum(rng.uniform(0.25, 0.9) * along - aside, rng.uniform(25, 90) - along)
    change = float(rng.choice((-0.5, 1, 1))) * rng.uniform(8, 45)
    return change * np.clip(0.5 + inside / rng.uniform(2, 8), 0, 1)


def _fissures(scene: Scene, liver: Liver, coarse):
    """Yield clefts as (fine [0, 1], HU, whether the liver's mask leaves them out).

    Those of the round and the venous ligament, one between the lobes, and shallow ones anywhere.
    """
    rng, space, (z, y, x), gate = scene.rng, scene.space, scene.space.points, liver.gate
    z, y, x = z - np.float32(gate[0]), y - np.float32(gate[1]), x - np.float32(gate[2])
    in_front = np.minimum(rng.uniform(-10, 25) - z, 10 - y)
    behind = y + rng.uniform(0, 12) - 0.4 * x + 4 * scene.noise(25.0)
    to_the_left = np.minimum(np.minimum(x - 6, 58 - x), 55 - np.abs(z - 15))
    below = np.minimum(rng.uniform(-20, 30) - z, 40 - np.abs(y))
    shallow = rng.uniform(2, 12) - liver.shape
    clefts = [
        (liver.fissure, in_front, rng.gamma(1.5, 1.2), 0.8),
        (behind, to_the_left, rng.gamma(1.5, 0.6), 0.4),
        (liver.fissure + rng.uniform(35, 60), below, rng.gamma(1.5, 0.5), 0.2),
        (12 * scene.noise(rng.uniform(22, 45)), shallow, rng.uniform(0, 1.6), 0.4),
    ]
    for distance, limit, half, share in clefts:
        if rng.random() < share:
            hu = float(rng.choice((scene.patient.fat_hu + 15, rng.uniform(-60, 60))))
            sheet = half * space.size - np.abs(space.enlarge(distance, coarse))
            room = space.enlarge(np.clip(limit, -9, 9), coarse)
            inside = np.minimum(sheet / (space.spacing_mm[1] + 0.3), room / 4)
            yield np.clip(inside + 0.5, 0, 1), hu, half > 1.5


def _draw_points(space: Space, places: np.ndarray, count: int, rng) -> np.ndarray:
    """Return `count` scan points (N, 3) mm out of coarse voxels `places` (M, 3)."""
    chosen = places[rng.integers(0, len(places), count)]
    return np.stack([axis[n] for axis, n in zip(space.coarse_axes, chosen.T, strict=True)], 1)


def _paint_vessels(scene: Scene, organs: Organs, liver: Liver, axes, value: np.ndarray) -> None:
    """Paint portal and hepatic veins, arteries and bile ducts into `value` (z, y, x), in place."""
    rng, space, tissue = scene.rng, scene.space, scene.tissue
    places = np.argwhere(liver.shape > 4)
    if not len(places):
        return
    cava_y, cava_x = organs.cava_mm
    gate, top = space.locate(np.array([liver.gate, (-22.0, cava_y - 8, cava_x)]))
    size, wide = space.size, float(np.exp(rng.normal(0.1, 0.35)))
    stem = liver.gate + np.array(((-50, 6, 22), (-12, 2, 6), (0, 0, 0)))
    scene.tube(stem, np.full(3, 6.5 * wide), tissue["portal"])
    trees = [(top, tissue["hepatic"], 1.0, 40), (gate, tissue["portal"], 0.9, 50)]
    if scene.patient.phase == "arterial":
        trees.append((gate, tissue["aorta"], 0.35, 14))
    swollen = float(rng.choice((0, rng.uniform(1, 4.5)), p=(0.8, 0.2))) * size
    aside = rng.normal(0, 3, 3) * size * (rng.random() < 0.5)  # ducts beside, or a halo of fluid
    duct_hu = tissue["bile"] if rng.random() < 0.9 else -500.0
    for spot in _draw_points(space, places, rng.poisson(3) if rng.random() < 0.1 else 0, rng):
        stroke(value, axes, spot, spot + rng.normal(0, 2, 3), rng.uniform(0.5, 2) * size, 600.0)
    for root, hu, tip, count in trees:
        targets = _draw_points(space, places, int(count * rng.uniform(0.4, 1.8)), rng)
        pieces = grow_tree(root, targets, tip * wide * size, rng)
        if swollen and hu == tissue["portal"]:
            for start, end, radius in pieces:
                stroke(value, axes, start + aside, end + aside, radius + swollen, duct_hu)
        for start, end, radius in pieces:
            stroke(value, axes, start, end, radius, hu)
