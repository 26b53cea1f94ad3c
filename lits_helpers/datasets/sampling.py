"""Which slices an epoch sees, and in which order."""

import numpy as np
import torch
from torch import Tensor

from ..recipes import Recipe, TumorRecipe


def epoch_order(cache, recipe: Recipe, *, seed: int, epoch: int) -> Tensor:
    """Return the slices of one epoch in random order.

    System A sees every slice once. System B does so with `sampling="all"`; "balanced" sees every
    slice with tumor once and as many others, see `balanced_indices` (all slices if none has tumor).

    Args:
        cache: a `SliceCache`, or anything with `patient_of`, `has_liver`, `has_tumor`.
        recipe: its `sampling` and `within_liver`, if it has them.
        seed, epoch: the order depends on nothing else.

    Returns:
        (n,) int64 indices into the cache.

    Raises:
        ValueError: a sampling rule that does not exist.
    """
    generator = np.random.default_rng([seed, epoch])
    indices = np.arange(len(cache.has_tumor))
    if isinstance(recipe, TumorRecipe) and recipe.sampling == "balanced":
        indices = _balanced(cache, recipe, generator)
    elif isinstance(recipe, TumorRecipe) and recipe.sampling != "all":
        raise ValueError(
            f'TumorRecipe.sampling must be "all" or "balanced", got {recipe.sampling!r}'
        )
    return torch.from_numpy(generator.permutation(indices))


def _balanced(cache, recipe: TumorRecipe, generator: np.random.Generator) -> np.ndarray:
    patient_of, has_tumor = _array(cache.patient_of), _array(cache.has_tumor)
    others = ~has_tumor
    if recipe.within_liver:  # elsewhere the loss is blind
        others &= _array(cache.has_liver)
    if not has_tumor.any():
        return np.arange(len(has_tumor))
    return balanced_indices(patient_of, has_tumor, others, generator)


def _array(values) -> np.ndarray:
    return np.asarray(values.cpu() if isinstance(values, Tensor) else values)


def balanced_indices(
    patient_of: np.ndarray,
    has_tumor: np.ndarray,
    eligible: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """Choose every slice with tumor and as many others, so that patients weigh equally.

    The others go to the patients with the fewest slices so far, until there are as many as slices
    with tumor: like water poured over a ground whose height is each patient's number of tumor
    slices. A patient whose slices are used up gets no more; nobody's slice is taken twice.

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
    """Return each patient's quota: the highest level all reach, the rest drawn among the open."""
    amount = min(amount, int(available.sum()))
    low, high = 0, int(ground.max()) + amount
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
