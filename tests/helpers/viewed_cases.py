"""A drawn volume and labels to look at."""

from types import SimpleNamespace

import numpy as np

SHAPE, SPACING_MM = (12, 40, 48), (5.0, 0.7, 0.8)


def make_volume(trusted=True, seed=0):
    hu = np.random.default_rng(seed).integers(-50, 150, SHAPE).astype(np.int16)
    geometry = SimpleNamespace(spacing_trusted=trusted)
    return SimpleNamespace(hu=hu, spacing_mm=SPACING_MM, geometry=geometry)


def make_labels(shift=0) -> np.ndarray:
    """Liver in slices 3..8; a large tumor in 5..7 and a single voxel in 4."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:9, 10 + shift : 30 + shift, 6:26] = 1
    labels[5:8, 12 + shift : 18 + shift, 8:15] = 2
    labels[4, 25, 20] = 2
    return labels
