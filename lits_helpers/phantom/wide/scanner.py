"""The wide phantom's scanner: blur, grain, streaks, shading, and the field of view."""

import cv2
import numpy as np

from .scene import Scene
from .space import smooth_noise


def acquire(scene: Scene) -> np.ndarray:
    """Return the scan (Z, Y, X) int16 HU."""
    rng, hu, pixel = scene.rng, scene.hu, scene.space.spacing_mm[1]
    if rng.random() < 0.5 and len(hu) > 2:  # slices thicker than their distance
        share = np.float32(rng.uniform(0, 0.3))
        hu[1:-1] += share * (0.5 * (hu[:-2] + hu[2:]) - hu[1:-1])
    if rng.random() < 0.5:
        shading = rng.gamma(1.2, 1.8) * scene.noise(rng.uniform(90, 250))
        hu += scene.space.enlarge(np.where(scene.body > 0, shading, 0).astype(np.float32))
    sigma = float(np.clip(rng.uniform(0.1, 1.1) / pixel, 0, 2.5))
    sharper = np.float32(rng.uniform(0.2, 0.9)) if rng.random() < 0.2 else 0
    for plane in hu:
        if sigma > 0.25:
            cv2.GaussianBlur(plane, (0, 0), sigma, dst=plane)
        if sharper:
            plane += sharper * (plane - cv2.GaussianBlur(plane, (0, 0), max(1.2 / pixel, 0.8)))
    for spot in scene.metal[:3]:
        _streak(scene, spot)
    if scene.patient.noise_hu:
        _add_grain(scene, scene.patient.noise_hu)
    _cut_view(scene)
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def _add_grain(scene: Scene, level: float) -> None:
    """Add noise of a random kernel: white, smooth, or with its low frequencies taken away.

    Deep in a large body there is more; between arms and hips it lies in horizontal streaks.
    """
    rng, hu = scene.rng, scene.hu
    white = rng.standard_normal(hu.shape, dtype=np.float32)
    if rng.random() < 0.4:
        white[1:] += np.float32(rng.uniform(0.2, 1)) * white[:-1]
    fine, coarse = rng.uniform(0, 1.3), rng.uniform(1.8, 4)
    small = tuple(max(2, int(n / coarse)) for n in hu.shape[:0:-1])
    lost = np.float32(rng.choice((0, rng.uniform(0.3, 0.95))))
    for plane in white:
        if fine > 0.3:
            cv2.GaussianBlur(plane, (0, 0), fine, dst=plane)
        if lost:
            low = cv2.resize(plane, small, interpolation=cv2.INTER_AREA)
            plane -= lost * cv2.resize(low, plane.shape[::-1])
    white *= np.float32(level / max(float(white[len(white) // 2].std()), 1e-6))
    if rng.random() < (0.7 if scene.patient.arms else 0.1):
        z, y, x = (1.5 / scene.space.spacing_mm[0], 1.2, 60 / scene.space.spacing_mm[2])
        white += np.float32(rng.uniform(2, 11)) * smooth_noise(hu.shape, (max(z, 0.5), y, x), rng)
    depth = np.clip(scene.body / 100, -0.4, 1.2) * np.float32(rng.uniform(0, 0.8))
    white *= scene.space.enlarge((0.75 + depth).astype(np.float32))
    hu += white


def _streak(scene: Scene, spot) -> None:
    """Add bright and dark rays around metal at a scan point (z, y, x) mm."""
    rng, (z, y, x) = scene.rng, scene.space.axes
    strength, reach_mm = rng.gamma(1.5, 20), rng.uniform(6, 45)
    reach = 0.7 * scene.space.spacing_mm[0] + 2.0
    for k in np.flatnonzero(np.abs(z - spot[0]) < reach):
        oy, ox = y[:, None] - np.float32(spot[1]), x - np.float32(spot[2])
        angle, away = np.arctan2(oy, ox), np.sqrt(oy * oy + ox * ox)
        rays = sum(np.cos(n * angle + rng.uniform(0, 6.3)) for n in rng.integers(2, 18, 5))
        scene.hu[k] += np.float32(strength) * rays * np.exp(-away / reach_mm)


def _cut_view(scene: Scene) -> None:
    """Blank what lies outside a round field of view, in some scans."""
    rng, (_, y, x) = scene.rng, scene.space.axes
    if rng.random() < 0.4:
        oy, ox = y - (y[0] + y[-1]) / 2, x - (x[0] + x[-1]) / 2
        away = np.sqrt(oy[:, None] ** 2 + ox**2)
        scene.hu[:, away > max(oy[-1], ox[-1]) * rng.uniform(0.93, 1.02)] = -1024
