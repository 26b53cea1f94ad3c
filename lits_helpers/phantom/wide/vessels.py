"""Vessel trees that fill whatever shape the liver has, and the strokes they are drawn with."""

import numpy as np

from ..shapes import paint
from .space import segment, step_of


def stroke(target: np.ndarray, axes, start, end, radius: float, value: float) -> None:
    """Paint a straight tube between scan points (z, y, x) mm into `target`, in place.

    Args:
        target: (z, y, x) float32 HU.
        axes: voxel centres of `target` along z, y, x, mm.
        radius: mm; the edges fade over a voxel, and a tube that lies within a slice thicker than
            itself fills a part of it.
    """
    box, depth = segment(axes, start, end, radius)
    if depth.size:
        dz, dy = map(step_of, axes[:2])
        along = np.subtract(end, start)
        level = 1 - abs(along[0]) / max(float(np.linalg.norm(along)), 1e-6)
        width = dy + 0.6 * dz * level
        filled = depth / np.float32(width) + np.float32(0.5)
        cover = np.clip(filled, 0, min(1.0, 2 * radius / width))
        paint(target[box], cover, np.float32(value))


def grow_tree(root, targets: np.ndarray, tip_mm: float, rng: np.random.Generator) -> list:
    """Return a tree's pieces (start, end, radius), from `root` to every target.

    Each target, near ones first, is joined to the nearest node by a bent line; a node's radius
    follows from the number of tips it feeds, as vessels' do.

    Args:
        root: (3,) scan mm.
        targets: (N, 3) scan mm.
        tip_mm: radius of the last branches.

    Source: C. D. Murray, "The physiological principle of minimum work" (1926), exponent 2.4.
    """
    nodes, parents, tips = [np.asarray(root, float)], [-1], []
    away = np.linalg.norm(targets - root, axis=1) * np.exp(rng.normal(0, 0.25, len(targets)))
    for target in targets[np.argsort(away)]:
        near = int(np.argmin(((np.array(nodes) - target) ** 2).sum(1)))
        for node in _bend(nodes, parents, near, target, rng):
            nodes.append(node)
            parents.append(near)
            near = len(nodes) - 1
        tips.append(near)
    fed = np.zeros(len(nodes))
    fed[tips] = 1
    for n in range(len(nodes) - 1, 0, -1):
        fed[parents[n]] += fed[n]
    radii = tip_mm * fed ** (1 / 2.4)
    return [(nodes[parents[n]], nodes[n], radii[n]) for n in range(1, len(nodes))]


def _bend(nodes, parents, near: int, target, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the points of a curve that leaves `nodes[near]` in its direction for `target`."""
    start = nodes[near]
    length = float(np.linalg.norm(target - start))
    ahead = start - nodes[parents[near]] if parents[near] >= 0 else target - start
    ahead = ahead / max(float(np.linalg.norm(ahead)), 1e-6)
    knee = (start + target) / 2 + 0.22 * length * ahead + rng.normal(0, 0.06 * length, 3)
    steps = np.linspace(0, 1, 2 + int(length / 12))[1:, None]
    return list((1 - steps) ** 2 * start + 2 * steps * (1 - steps) * knee + steps**2 * target)
