"""Which slices an epoch sees, and in which order."""

import numpy as np
import torch
from torch import Tensor

from ..recipes import Recipe, TumorRecipe


def epoch_order(cache, recipe: Recipe, *, seed: int, epoch: int) -> Tensor:
    """Return the slices of one epoch in random order.

    System A sees every slice once, system B too with `sampling="all"`. With "balanced" it sees
    every slice with tumor once and as many others, see `balanced_indices`; all slices if none has
    tumor.

    Args:
        cache: a `SliceCache`, or anything with `patient_of`, `has_liver`, `has_tumor`.
        recipe: a tumor recipe's `sampling` and `within_liver` count.
        seed, epoch: with cache and recipe they alone fix the order.

    Returns:
        (n,) int64 indices into the cache.

    Raises:
        ValueError: a sampling rule that does not exist.
    """
    generator = np.random.default_rng([seed, epoch])
    sampling = recipe.sampling if isinstance(recipe, TumorRecipe) else "all"
    if sampling not in ("all", "balanced"):
        raise ValueError(f'TumorRecipe.sampling must be "all" or "balanced", got {sampling!r}')
    has_tumor = _array(cache.has_tumor)
    indices = np.arange(len(has_tumor))
    if sampling == "balanced" and has_tumor.any():
        others = ~has_tumor
        if recipe.within_liver:  # elsewhere the loss is blind
            others &= _array(cache.has_liver)
        indices = balanced_indices(_array(cache.patient_of), has_tumor, others, generator)
    return torch.from_numpy(generator.permutation(indices))


def _array(values) -> np.ndarray:
    return np.asarray(values.cpu() if isinstance(values, Tensor) else values)


def balanced_indices(
    patient_of: np.ndarray,
    has_tumor: np.ndarray,
    eligible: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """Choose every slice with tumor and as many others, so that patients weigh equally.

    One by one, the other slices are taken from the patient with the fewest chosen so far: like
    water poured over a ground whose height is each patient's number of tumor slices. No slice is
    taken twice; a patient may run out of slices.

    Args:
        patient_of: (N,) int.
        has_tumor: (N,) bool.
        eligible: (N,) bool, the slices without tumor that may be chosen.
        generator: draws which of a patient's slices are taken.

    Returns:
        Indices, ascending.
    """
    patients = int(patient_of.max()) + 1
    ground = np.bincount(patient_of[has_tumor], minlength=patients)
    available = np.bincount(patient_of[eligible], minlength=patients)
    quota = _poured(ground, available, int(has_tumor.sum()), generator)
    shuffled = generator.permutation(np.flatnonzero(eligible))
    chosen = [shuffled[patient_of[shuffled] == p][: quota[p]] for p in range(patients)]
    return np.sort(np.concatenate([np.flatnonzero(has_tumor), *chosen]))


def _poured(ground, available, amount: int, generator: np.random.Generator) -> np.ndarray:
    """Return each patient's quota: the highest level `amount` fills, the rest drawn by lot."""
    amount = min(amount, int(available.sum()))
    low = 0
    high = int(ground.max()) + amount
    while low < high:
        level = (low + high + 1) // 2
        if np.clip(level - ground, 0, available).sum() <= amount:
            low = level
        else:
            high = level - 1
    quota = np.clip(low - ground, 0, available)
    still_open = np.flatnonzero((quota < available) & (ground <= low))
    quota[generator.permutation(still_open)[: amount - quota.sum()]] += 1
    return quota
