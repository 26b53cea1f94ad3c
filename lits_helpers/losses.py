"""Losses on tensors: masks float {0, 1}, probabilities float; (N, 1, H, W) if no shape is given.

Everything is computed in float32, whatever precision the network ran in.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def pixel_loss(prediction: Tensor, masks: Tensor) -> Tensor:
    """Return the mean absolute difference between prediction and mask (L1), a scalar."""
    return F.l1_loss(prediction.float(), masks.float())


def cross_entropy_loss(probabilities: Tensor, masks: Tensor) -> Tensor:
    """Return the mean binary cross entropy of probabilities, a scalar.

    Args:
        probabilities: float32 in [0, 1]; moved into [1e-6, 1 - 1e-6], so that the loss is finite.
        masks: {0, 1}.
    """
    return F.binary_cross_entropy(probabilities.float().clamp(1e-6, 1 - 1e-6), masks.float())


def masked_image(images: Tensor, masks: Tensor, floor: float = 0.0) -> Tensor:
    """Return what the critic sees: the image where the mask is, 0 elsewhere.

    Args:
        images: (N, C, H, W) in [0, 1].
        masks: (N, 1, H, W), predicted or reference.
        floor: added to the image first; with 0 a wrong mask over black pixels goes unseen.
    """
    return (images + floor) * masks


def feature_loss(features_a: Sequence[Tensor], features_b: Sequence[Tensor]) -> Tensor:
    """Return the mean over layers of the mean absolute difference between two lists of features.

    Args:
        features_a, features_b: one (N, F_layer) tensor a layer, as `forward_all_layers` gives them.

    Raises:
        ValueError: the lists differ in length or are empty.

    Source: SegAN's multi-scale L1 loss, Xue et al. 2018, Neuroinformatics 16, 383-392.
    """
    if len(features_a) != len(features_b) or not features_a:
        raise ValueError(
            f"feature lists differ in length: {len(features_a)} and {len(features_b)} layers"
        )
    pairs = zip(features_a, features_b, strict=True)
    return torch.stack([F.l1_loss(a.float(), b.float()) for a, b in pairs]).mean()


def soft_dice_loss(
    probabilities: Tensor, masks: Tensor, region: Tensor | None = None, *, per_image: bool = False
) -> Tensor:
    """Return 1 - soft Dice, in [0, 1].

    By default Dice is taken over the whole batch as one volume: slices without the organ then only
    add false positives to the denominator, instead of each being scored 0 or 1 on a few pixels.

    Args:
        probabilities: in [0, 1].
        masks: {0, 1}.
        region: {0, 1} or bool; pixels outside are ignored. None counts all.
        per_image: average the loss of each image instead, so that a small target counts as much as
            a large one; the loss of an image without target is 0 (one pixel would decide it).

    Returns:
        A scalar; 0 for an empty mask with an empty prediction.

    Source: Milletari et al. 2016, V-Net (3DV), with sums instead of squared sums.
    """
    predicted = probabilities.float()
    real = masks.float()
    if region is not None:
        predicted = predicted * region
        real = real * region
    axes = tuple(range(1 if per_image else 0, real.ndim))
    overlap = (predicted * real).sum(axes)
    total = predicted.sum(axes) + real.sum(axes)
    losses = 1 - (2 * overlap + 1) / (total + 1)  # 1 pixel: two empties agree
    if per_image:
        losses = losses * (real.sum(axes) > 0)
    return losses.mean()


def shared_dice_loss(
    probabilities: Tensor, masks: Tensor, region: Tensor | None, per_image: float
) -> Tensor:
    """Return a weighted mean of the soft Dice losses image by image and over the whole batch.

    Args:
        probabilities, masks, region: as for `soft_dice_loss`.
        per_image: weight of the loss image by image, in [0, 1].
    """
    parts = []
    if per_image < 1:
        parts.append((1 - per_image) * soft_dice_loss(probabilities, masks, region))
    if per_image > 0:
        parts.append(per_image * soft_dice_loss(probabilities, masks, region, per_image=True))
    return sum(parts)


def bce_dice_loss(
    logits: Tensor,
    masks: Tensor,
    region: Tensor | None = None,
    *,
    dice_weight: float = 1.0,
    dice_per_image: float = 0.0,
) -> Tensor:
    """Return binary cross entropy plus `dice_weight` times the soft Dice loss.

    Args:
        logits: before the sigmoid.
        masks: {0, 1}.
        region: {0, 1} or bool; the cross entropy is the mean over its pixels (0 if there are none).
        dice_weight: 0 leaves only the published loss.
        dice_per_image: `per_image` of `shared_dice_loss`.
    """
    logits = logits.float()
    entropy = F.binary_cross_entropy_with_logits(logits, masks.float(), reduction="none")
    if region is None:
        loss = entropy.mean()
    else:
        loss = (entropy * region).sum() / region.sum().clamp(min=1)
    if dice_weight:
        probabilities = logits.sigmoid()
        loss = loss + dice_weight * shared_dice_loss(probabilities, masks, region, dice_per_image)
    return loss


def liver_region(labels: Tensor, margin: int = 8) -> Tensor:
    """Return where tumors may be: the liver mask and a margin around it.

    Args:
        labels: (N, H, W) integers, 0 background, 1 liver, 2 tumor.
        margin: pixels by which the mask grows to each side (a square).

    Returns:
        (N, 1, H, W) float32 in {0, 1}, on the labels' device.
    """
    region = labels.clamp(max=1).unsqueeze(1).float()  # faster than comparing bytes
    side = 2 * margin + 1
    region = F.max_pool2d(region, (side, 1), stride=1, padding=(margin, 0))  # rows, then columns
    return F.max_pool2d(region, (1, side), stride=1, padding=(0, margin))
