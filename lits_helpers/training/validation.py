"""Score a model in training: Dice at working size over whole patients, and pictures."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .distributed import Ranks

BATCH_SIZE = 32
PICTURES = 4


@dataclass(frozen=True)
class ValidationScore:
    """The result of a validation.

    Attributes:
        dice: mean Dice over the cases that hold the target; NaN if none does, since a model that
            predicts nothing would score 1.
        dice_global: Dice of all cases' pixels taken together.
        predicted_pixels: number of pixels predicted in all cases.
    """

    dice: float
    dice_global: float
    predicted_pixels: int


def validation_score(
    predict: Callable[[Tensor, Tensor], Tensor],
    target: Callable[[Tensor], Tensor],
    cache,
    ranks: Ranks | None = None,
    batch_size: int = BATCH_SIZE,
) -> ValidationScore:
    """Score a model on every slice of every case of a cache.

    Args:
        predict: images (n, C, S, S) and labels (n, S, S) -> predicted masks (n, 1, S, S), bool.
        target: labels (n, S, S) -> reference masks (n, 1, S, S), bool.
        cache: a `SliceCache`.
        ranks: the processes that share the slices and add up their counts.
        batch_size: slices a forward pass.
    """
    ranks = ranks or Ranks()
    # Rows: overlap, predicted, reference.
    counts = torch.zeros(3, len(cache.case_ids), dtype=torch.float64)
    share = torch.arange(len(cache.case_of))[ranks.rank :: ranks.world]
    device = torch.device("cpu")
    for indices in share.split(batch_size):
        images, labels = cache.batch(indices)
        predicted = predict(images, labels)
        reference = target(labels)
        pixels = torch.stack([predicted & reference, predicted, reference]).sum((2, 3, 4))
        counts.index_add_(1, cache.case_of[indices].cpu(), pixels.cpu().double())
        device = images.device
    return _score(ranks.sum(counts.to(device if device.type == "cuda" else "cpu")).cpu())


def _score(counts: Tensor) -> ValidationScore:
    """Turn counts (3, cases) of overlap, predicted and reference pixels into Dice."""
    overlap, predicted, reference = counts
    sizes = predicted + reference
    holds = reference > 0
    total = sizes.sum()
    return ValidationScore(
        dice=(2 * overlap[holds] / sizes[holds]).mean().item(),  # NaN if no case holds it
        dice_global=(2 * overlap.sum() / total).item() if total > 0 else 1.0,
        predicted_pixels=int(predicted.sum()),
    )


def picture_indices(cache, target: Callable[[Tensor], Tensor]) -> Tensor:
    """Return a slice of each of PICTURES cases spread over the cache: the one with most target.

    Returns:
        (at most PICTURES,) int64 indices into the cache.
    """
    sizes = torch.cat([target(labels).sum((1, 2, 3)).cpu() for labels in cache.labels.split(256)])
    case_of = cache.case_of.cpu()
    chosen, cases = [], len(cache.case_ids)
    for case in torch.linspace(0, cases - 1, min(PICTURES, cases)).long():
        indices = torch.nonzero(case_of == case).flatten()
        if len(indices):
            chosen.append(indices[sizes[indices].argmax()])
    return torch.stack(chosen)


def pictures_of(system, cache, shown: Tensor) -> tuple[Tensor, dict]:
    """Return slices with a system's predictions, as `RunFolder.write_epoch` takes them.

    Args:
        shown: (n,) int64 indices into the cache.

    Returns:
        images (n, C, S, S); "structure", "names" (case_slice), "reference" and "prediction":
        (n, S, S) bool.
    """
    images, labels = cache.batch(shown)
    places = zip(cache.case_of[shown].tolist(), cache.slice_index[shown].tolist(), strict=True)
    return images, {
        "structure": system.name,
        "names": [f"{cache.case_ids[case]}_{k}" for case, k in places],
        "reference": system.target(labels)[:, 0].cpu().numpy(),
        "prediction": system.predict(images, labels)[:, 0].cpu().numpy(),
    }
