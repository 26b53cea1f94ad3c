"""Random changes to a batch, on its device, from an explicit generator."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Augmentation:
    """How far a batch may be changed; every image draws its own values, uniform within the limits.

    No mirroring: the liver lies on the patient's right.

    Attributes:
        rotation_degrees: to either side.
        scale: largest enlargement, 1.2 means from 1/1.2 to 1.2 (uniform in the logarithm).
        shift: of the image's side, along each axis.
        gamma: as scale, for the exponent of the grey levels.
        gain: relative change of contrast, to either side.
        bias: change of brightness in a range of 1, to either side.
        noise: largest standard deviation of added normal noise.
    """

    rotation_degrees: float = 15.0
    scale: float = 1.25
    shift: float = 0.08
    gamma: float = 1.25
    gain: float = 0.15
    bias: float = 0.08
    noise: float = 0.04


def augment_batch(
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    limits: Augmentation | None = None,
) -> tuple[Tensor, Tensor]:
    """Rotate, scale and shift images with their labels, and change the images' grey levels.

    The channels of an image are changed alike (noise apart). Black stays black: it is what lies at
    or below the window. The same state of the generator gives the same batch, to the bit on the
    same kind of device.

    Args:
        images: (N, C, S, S) float32 in [0, 1].
        labels: (N, S, S) uint8; resampled to the nearest.
        generator: a CPU generator, whichever device the batch is on.
        limits: how far; None for `Augmentation()`.

    Returns:
        New tensors of the same shapes, dtypes and ranges.
    """
    limits = limits or Augmentation()
    draws = 2 * torch.rand(len(images), 8, generator=generator) - 1  # (N, 8) in [-1, 1)
    noise_seed = int(torch.randint(2**62, (1,), generator=generator))
    draws = draws.to(images.device)
    images, labels = move(images, labels, affine_matrices(draws[:, :4], limits))
    return change_levels(images, draws[:, 4:], limits, noise_seed), labels


def affine_matrices(draws: Tensor, limits: Augmentation) -> Tensor:
    """Return (N, 2, 3) matrices from output to input coordinates in [-1, 1], for `affine_grid`.

    Args:
        draws: (N, 4) in [-1, 1]: rotation, scale, shift along x, shift along y.
    """
    angle = draws[:, 0] * math.radians(limits.rotation_degrees)
    shrink = torch.exp(draws[:, 1] * math.log(limits.scale))
    cos, sin = torch.cos(angle) * shrink, torch.sin(angle) * shrink
    x, y = 2 * limits.shift * draws[:, 2], 2 * limits.shift * draws[:, 3]
    return torch.stack([cos, -sin, x, sin, cos, y], dim=1).view(-1, 2, 3)


def move(images: Tensor, labels: Tensor, matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Resample images bilinearly and labels to the nearest; what comes from outside is 0."""
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="bilinear", align_corners=False)
    planes = labels.unsqueeze(1).float()
    planes = F.grid_sample(planes, grid, mode="nearest", align_corners=False)
    return moved, planes.squeeze(1).to(labels.dtype)


def change_levels(images: Tensor, draws: Tensor, limits: Augmentation, noise_seed: int) -> Tensor:
    """Apply gamma, gain, bias and noise to images in [0, 1], keeping 0 where they are 0.

    Args:
        draws: (N, 4) in [-1, 1]: gamma, gain, bias, noise.
        noise_seed: seeds a generator on the images' device, where drawing is fast.
    """
    gamma, gain, bias, noise = (draws[:, i].view(-1, 1, 1, 1) for i in range(4))
    generator = torch.Generator(images.device).manual_seed(noise_seed)
    grain = torch.empty_like(images).normal_(generator=generator)
    changed = images.pow(torch.exp(gamma * math.log(limits.gamma)))
    changed = changed * (1 + limits.gain * gain) + limits.bias * bias
    changed = changed + grain * (limits.noise * noise.abs())
    return changed.clamp_(0, 1) * (images > 0)
