"""Changes to a batch, on its device: random ones from an explicit generator, and rotation."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ..recipes import InputSpec, Recipe

CPU_IMAGES = 2  # changed at once on a CPU: what the steps hand on stays in its cache
GRAIN_SHIFTS = 128  # pixels by which the drawn noise can be shifted, along each axis


@dataclass(frozen=True)
class Augmentation:
    """How far a batch may be changed; each image draws its values uniformly within these limits.

    No image is mirrored: the liver lies on the patient's right.

    Attributes:
        rotation_degrees: to either side.
        scale: largest enlargement, 1.2 means from 1/1.2 to 1.2 (uniform in the logarithm).
        shift: share of the image's side, along each axis.
        gamma: as scale, for the exponent of the grey levels.
        gain: relative change of contrast, to either side.
        bias: change of brightness in a range of 1, to either side.
        noise: largest standard deviation of added normal noise.
        fatty_liver: largest darkening of the liver alone, as a share of its grey levels. Fat makes
            a liver darker than the spleen; few patients to train on have so much.
        fatty_share: share of the images whose liver is darkened.
        bright_lesions: share of the images whose tumors' grey is mirrored about their liver's mean:
            dark tumors become as much brighter, bright ones darker. Few patients have tumors
            brighter than their liver, and such tumors look like vessels.
    """

    rotation_degrees: float = 15.0
    scale: float = 1.25
    shift: float = 0.08
    gamma: float = 1.25
    gain: float = 0.15
    bias: float = 0.08
    noise: float = 0.04
    fatty_liver: float = 0.0
    fatty_share: float = 0.3
    bright_lesions: float = 0.0


def augmentation_of(recipe: Recipe) -> Augmentation | None:
    """Return the limits of a recipe's augmentation, None if it has none."""
    if not recipe.augment:
        return None
    return Augmentation(fatty_liver=recipe.fatty_liver, bright_lesions=recipe.bright_lesions)


def augment_batch(
    levels: Tensor,
    labels: Tensor,
    spec: InputSpec,
    generator: torch.Generator,
    limits: Augmentation | None = None,
) -> tuple[Tensor, Tensor]:
    """Change grey levels, rotate, scale and shift images with their labels, and add noise.

    The channels of an image are changed alike, except for the noise. Black, all at or below the
    window, stays black except in a mirrored tumor. The same state of the generator gives the same
    batch, to the bit on the same kind of device.

    Args:
        levels: (N, C, S, S) uint8 or uint16 as the cache holds them: slices with their neighbours.
        labels: (N, C, S, S) uint8, of the slices and their neighbours.
        spec: says what level is 1.
        generator: a CPU generator, whichever device the batch is on.
        limits: how far; None for `Augmentation()`.

    Returns:
        images (N, C, S, S) float32 in [0, 1], and the middle slices' labels (N, S, S) uint8,
        resampled to the nearest.
    """
    limits = limits or Augmentation()
    draws = 2 * torch.rand(len(levels), 8, generator=generator) - 1  # (N, 8) in [-1, 1)
    corners = torch.randint(GRAIN_SHIFTS, (*levels.shape[:2], 2), generator=generator)
    deviations = limits.noise * draws[:, 7].abs()
    darkening = torch.zeros(len(levels))
    if limits.fatty_liver:
        share, chosen = torch.rand(2, len(levels), generator=generator)
        darkening = limits.fatty_liver * share * (chosen < limits.fatty_share)
    mirrored = torch.zeros(len(levels), dtype=torch.bool)
    if limits.bright_lesions:
        mirrored = torch.rand(len(levels), generator=generator) < limits.bright_lesions
    images = torch.empty(levels.shape, device=levels.device)
    middle = labels[:, labels.shape[1] // 2]
    moved = torch.empty_like(middle)
    count = CPU_IMAGES if levels.device.type == "cpu" else len(levels)
    for start in range(0, len(levels), count):
        part = slice(start, start + count)
        drawn = draws[part].to(levels.device, non_blocking=levels.device.type == "cuda")
        grid = affine_grid(affine_matrices(drawn[:, 3:7], limits), levels.shape[-1])
        looked_up = _looked_up(levels[part], grey_curves(drawn[:, :3], limits, spec.levels))
        _mirror_lesions(looked_up, labels[part], mirrored[part])
        _darken_livers(looked_up, labels[part], darkening[part])
        images[part] = F.grid_sample(looked_up, grid, align_corners=False)
        planes = middle[part].unsqueeze(1).float()
        planes = F.grid_sample(planes, grid, mode="nearest", align_corners=False)
        moved[part] = planes.squeeze(1).to(labels.dtype)
        _add_noise(images[part], deviations[part], corners[part])
    return images, moved


def _darken_livers(images: Tensor, labels: Tensor, shares: Tensor) -> None:
    """Darken the liver and its tumors in each channel, in place; less towards the liver's edge.

    Args:
        images: (N, C, S, S).
        labels: (N, C, S, S) uint8.
        shares: (N,) on the CPU, the share of the grey levels to remove; 0 leaves an image alone.
    """
    share = _beside(images, shares)
    for part in chosen_parts(shares > 0, images.device):
        images[part] *= 1 - share[part] * _mean_of_nine(labels[part].clamp(max=1).float())


def chosen_parts(chosen: Tensor, device: torch.device) -> list:
    """Return indices of the chosen images, (N,) bool on the CPU: one by one, as views; or all.

    A GPU takes all at once, for it waits for the number of kernels. A CPU would copy them.
    """
    numbers = chosen.nonzero().flatten()
    if device.type == "cpu":
        return [slice(k, k + 1) for k in numbers.tolist()]
    return [numbers.to(device)] if len(numbers) else []


def _beside(images: Tensor, values: Tensor) -> Tensor:
    """Return a value an image, (N,) on the CPU, as (N, 1, 1, 1) on the images' device."""
    return values.view(-1, 1, 1, 1).to(images.device, non_blocking=images.device.type == "cuda")


def _mirror_lesions(images: Tensor, labels: Tensor, mirrored: Tensor) -> None:
    """Mirror the grey levels of tumors about their liver's mean, in place.

    Liver within two pixels of a tumor is mirrored too; otherwise a dark rim remains. The organ's
    outermost pixel is not: it is partly fat or lung and would turn bright.

    Args:
        images: (N, C, S, S) in [0, 1].
        labels: (N, C, S, S) uint8.
        mirrored: (N,) bool on the CPU, which images; one without liver round its tumor is left.
    """
    if labels.device.type == "cpu":  # elsewhere looking would wait for the device
        mirrored = mirrored & (labels == 2).flatten(1).any(1)
    for part in chosen_parts(mirrored, labels.device):
        marked = labels[part]
        liver = marked == 1
        pixels = liver.sum((1, 2, 3), keepdim=True)
        means = (images[part] * liver).sum((1, 2, 3), keepdim=True) / pixels.clamp(min=1)
        near = _mean_of_nine(_mean_of_nine((marked == 2).float())) > 0
        inside = _mean_of_nine((marked > 0).float()) > 0.99
        change = 2 * (near & inside & (pixels > 0)) * (images[part] - means)
        images[part] = (images[part] - change).clamp_(0, 1)


def _mean_of_nine(planes: Tensor) -> Tensor:
    """Average (..., S, S) over 3x3 pixels, 0 beyond the border; 8 times faster than pooling."""
    padded = F.pad(planes, (1, 1, 1, 1))
    rows = padded[..., :-2, :] + padded[..., 1:-1, :] + padded[..., 2:, :]
    return (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9


def grey_curves(draws: Tensor, limits: Augmentation, highest: int) -> Tensor:
    """Return a table of what each grey level becomes in each image by gamma, gain and bias.

    Args:
        draws: (N, 3) in [-1, 1]: gamma, gain, bias.
        limits: how far.
        highest: the stored level that means 1.

    Returns:
        (N, highest + 1) float32 in [0, 1]; level 0 stays 0.
    """
    gamma, gain, bias = draws.unsqueeze(-1).unbind(1)  # (N, 1) each
    unit = torch.linspace(0, 1, highest + 1, device=draws.device)
    curves = unit.pow(torch.exp(gamma * math.log(limits.gamma)))
    curves = (curves * (1 + limits.gain * gain) + limits.bias * bias).clamp_(0, 1)
    curves[:, 0] = 0
    return curves


def _looked_up(levels: Tensor, curves: Tensor) -> Tensor:
    rows = torch.arange(len(levels), dtype=torch.int32, device=levels.device) * curves.shape[1]
    index = levels.to(torch.int32) + rows.view(-1, 1, 1, 1)
    return curves.flatten().index_select(0, index.flatten()).view(levels.shape)


def affine_matrices(draws: Tensor, limits: Augmentation) -> Tensor:
    """Return (N, 2, 3) matrices from output to input coordinates (x, y) in [-1, 1].

    Args:
        draws: (N, 4) in [-1, 1]: rotation, scale, shift along x, shift along y.
        limits: how far.
    """
    angle = draws[:, 0] * math.radians(limits.rotation_degrees)
    shrink = torch.exp(draws[:, 1] * math.log(limits.scale))
    cos = torch.cos(angle) * shrink
    sin = torch.sin(angle) * shrink
    x, y = (2 * limits.shift * draws[:, 2:]).unbind(1)
    return torch.stack([cos, -sin, x, sin, cos, y], dim=1).view(-1, 2, 3)


def affine_grid(matrices: Tensor, size: int) -> Tensor:
    """Return (N, size, size, 2) sampling positions: torch's `affine_grid` without its matmul.

    Args:
        matrices: (N, 2, 3).
        size: side of the images, pixels.
    """
    centres = (2 * torch.arange(size, device=matrices.device) + 1) / size - 1
    a = matrices.view(-1, 2, 3, 1, 1)
    along_x = a[:, :, 0] * centres + a[:, :, 2]  # (N, 2, 1, size)
    along_y = a[:, :, 1] * centres.unsqueeze(1)  # (N, 2, size, 1)
    grid = matrices.new_empty(len(matrices), size, size, 2)
    torch.add(along_x, along_y, out=grid.permute(0, 3, 1, 2))
    return grid


def rotated(images: Tensor, degrees: float) -> Tensor:
    """Return images (N, C, S, S) turned about their centre; edges repeat beyond the border."""
    turn = affine_matrices(torch.tensor([[1.0, 0, 0, 0]]), Augmentation(rotation_degrees=degrees))
    side = images.shape[-1]
    grid = affine_grid(turn.to(images.device), side).expand(len(images), -1, -1, -1)
    edge = 1 - 1 / side  # the outermost pixels' centres
    return F.grid_sample(images, grid.clamp(-edge, edge), align_corners=False)


def _add_noise(images: Tensor, deviations: Tensor, corners: Tensor) -> None:
    """Add normal noise in place where an image is not black.

    Args:
        images: (N, C, S, S) in [0, 1].
        deviations: (N,) standard deviations.
        corners: (N, C, 2) where in the drawn noise each channel's part begins.
    """
    size = images.shape[-1]
    plane = _grain(size + GRAIN_SHIFTS, images.device)
    windows = [plane[y : y + size, x : x + size] for y, x in corners.flatten(0, 1).tolist()]
    inside = images.sign()  # much faster than a mask
    images.addcmul_(torch.stack(windows).view(images.shape), _beside(images, deviations))
    images.mul_(inside).clamp_(0, 1)


@lru_cache(maxsize=4)
def _grain(side: int, device: torch.device) -> Tensor:
    """Return normal noise (side, side), the same on every device; drawing it is slow."""
    return torch.randn(side, side, generator=torch.Generator().manual_seed(0)).to(device)
