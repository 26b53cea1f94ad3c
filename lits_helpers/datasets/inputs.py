"""Turn stored grey levels into model input; this happens nowhere else."""

from functools import lru_cache

import torch
from torch import Tensor

from ..recipes import InputSpec

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1], as torchvision's weights expect
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


def model_input(levels: Tensor, spec: InputSpec) -> Tensor:
    """Turn stored grey levels into what a model takes.

    Args:
        levels: (N, C, S, S) uint8 (windowed) or uint16 (min-max), C being 1 or `spec.channels`.
        spec: a single channel is repeated to fill `spec.channels`.

    Returns:
        (N, spec.channels, S, S) float32 on the levels' device, in [0, 1] or ImageNet-normalized.

    Raises:
        ValueError: levels of another rank or number of channels.
    """
    if levels.ndim != 4 or levels.shape[1] not in (1, spec.channels):
        raise ValueError(
            f"levels must be (N, 1 or {spec.channels}, S, S), got shape {tuple(levels.shape)}"
        )
    return normalized(levels.float().mul_(1 / spec.levels), spec)


def normalized(images: Tensor, spec: InputSpec) -> Tensor:
    """Repeat and normalize images (N, C, S, S) in [0, 1] as `model_input` does."""
    if images.shape[1] != spec.channels:
        images = images.expand(-1, spec.channels, -1, -1)
    if spec.normalization == "unit":
        return images.contiguous()
    offset, factor = _imagenet(images.device)
    return torch.addcmul(offset, images, factor)


@lru_cache(maxsize=4)  # a copy to the GPU for each batch would wait for it
def _imagenet(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the offset and factor of ImageNet's normalization, (1, 3, 1, 1) each."""
    mean, deviation = (
        torch.tensor(values, device=device).view(1, 3, 1, 1)
        for values in (IMAGENET_MEAN, IMAGENET_DEVIATION)
    )
    return -mean / deviation, 1 / deviation
