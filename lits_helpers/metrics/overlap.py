"""The labels of a segmentation, where they lie, and the Dice of two of them."""

import numpy as np

FIRST_LABEL = {"liver": 1, "tumor": 2}  # a structure is every label from here on


def dice_of(confusion: np.ndarray, structure: str) -> float:
    """Return the Dice of a structure from (3, 3) counts by predicted and reference label."""
    first = FIRST_LABEL[structure]
    shared, predicted, real = confusion[first:, first:], confusion[first:], confusion[:, first:]
    return dice(int(shared.sum()), int(predicted.sum()), int(real.sum()))


def slice_dice(prediction: np.ndarray, reference: np.ndarray, structure: str) -> float | None:
    """Return the Dice in one slice of labels (H, W), None where neither shows the structure."""
    predicted = label_mask(prediction, structure)
    real = label_mask(reference, structure)
    counts = [int(np.count_nonzero(mask)) for mask in (predicted & real, predicted, real)]
    return dice(*counts) if any(counts) else None


def label_mask(labels: np.ndarray, structure: str) -> np.ndarray:
    """Return the mask of "liver" (labels >= 1: a tumor is liver too) or "tumor" (labels == 2)."""
    if structure not in FIRST_LABEL:
        raise ValueError(f'structure must be "liver" or "tumor", got {structure!r}')
    return labels >= FIRST_LABEL[structure]


def dice(intersection: int, size_prediction: int, size_reference: int) -> float:
    """Return the Dice of two masks from their voxel counts; of two empty masks it is 1."""
    total = size_prediction + size_reference
    return 2 * intersection / total if total else 1.0


def filled_box(*arrays: np.ndarray) -> tuple[slice, slice, slice] | None:
    """Return the smallest box around what is not 0 in any of (Z, Y, X) arrays; None for nothing."""
    filled = np.logical_or.reduce([array.any(axis=(1, 2)) for array in arrays])
    planes = np.flatnonzero(filled)
    if not len(planes):
        return None
    flat = np.logical_or.reduce([array[planes[0] : planes[-1] + 1].any(axis=0) for array in arrays])
    extents = planes, np.flatnonzero(flat.any(axis=1)), np.flatnonzero(flat.any(axis=0))
    return tuple(slice(int(extent[0]), int(extent[-1]) + 1) for extent in extents)
