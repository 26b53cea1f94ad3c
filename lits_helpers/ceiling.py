"""What the working size alone costs: the Dice that a perfect model could reach."""

import numpy as np

from .pixels import resize_image, restore
from .recipes import InputSpec
from .summary import dice


def resize_ceiling(mask: np.ndarray, spec: InputSpec, *, threshold: float = 0.5) -> float:
    """Return the Dice of a model that knows everything about each pixel of the working size.

    Its output is the share of each pixel that the mask covers, and comes back as any probability
    does: bilinearly, then through the threshold. What is lost on the way no training wins back.

    Args:
        mask: (Z, Y, X) bool at native size: the liver mask with the liver model's spec, the tumor
            mask with the tumor model's.
        spec: how the model sees a slice; only its size matters here.
        threshold: probability from which a pixel counts.

    Returns:
        Dice in [0, 1]; 1 for an empty mask.

    Raises:
        ValueError: `mask` is not a bool volume.
    """
    mask = np.asarray(mask)
    if mask.ndim != 3 or mask.dtype != bool:
        raise ValueError(f"mask must be (Z, Y, X) bool, got shape {mask.shape}, {mask.dtype}")
    shared, predicted, real = 0, 0, 0
    for plane in mask[mask.any(axis=(1, 2))]:
        output = resize_image(plane.astype(np.float32), spec.size)
        back = restore(output, plane.shape) >= threshold
        shared += int(np.count_nonzero(back & plane))
        predicted += int(np.count_nonzero(back))
        real += int(np.count_nonzero(plane))
    return dice(shared, predicted, real)
