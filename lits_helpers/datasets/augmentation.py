"""Changes to a batch, on its device: random ones from an explicit generator, and rotation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from ..recipes import InputSpec, Recipe
from .drawn_lesions import draw_lesions

CPU_IMAGES = 2  # changed at once on a CPU: what the steps hand on stays in its cache
GRAIN_SHIFTS = 128  # pixels by which the drawn noise can be shifted, along each axis


@dataclass(frozen=True)
class Augmentation:
    """Limits of the random changes of a batch; each image draws uniformly within them.

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
        drawn_lesions: share of the images that get lesions drawn in, all of them with vessels and
            strong noise, see `draw_lesions`; 0 draws nothing.
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
    drawn_lesions: float = 0.0


def augmentation_of(recipe: Recipe) -> Augmentation | None:
    """Return the limits of a recipe's augmentation, None if it has none."""
    if not recipe.augment:
        return None
    return Augmentation(
        fatty_liver=recipe.fatty_liver,
        bright_lesions=recipe.bright_lesions,
        drawn_lesions=getattr(recipe, "drawn_lesions", 0.0),  # of tumors alone
    )


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
    if limits.drawn_lesions:
        levels, labels = draw_lesions(levels, labels, spec, limits.drawn_lesions, generator)
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
    # Small things are computed here for all images: on a GPU each would be a kernel of its own.
    size, of_image = levels.shape[-1], (-1, 1, 1, 1)
    matrices = affine_matrices(draws[:, 3:7], limits)
    curves = grey_curves(draws[:, :3], limits, spec.levels)
    values = (t.float().view(of_image) for t in (deviations, darkening, mirrored))
    small = _on_device((curves, *_grid_sides(matrices, size), *values), levels.device)
    middle = labels[:, labels.shape[1] // 2]
    changed = []
    for part in _parts(len(levels), levels.device):
        curve, along_x, along_y, deviation, share, turned = (each[part] for each in small)
        images = _looked_up(levels[part], curve)
        if mirrored[part].any():
            _mirror_lesions(images, labels[part], turned)
        if darkening[part].any():
            _darken_livers(images, labels[part], share)
        grid = _grid(along_x, along_y)
        images = F.grid_sample(images, grid, align_corners=False)
        _add_noise(images, deviation, corners[part])
        planes = middle[part].unsqueeze(1).float()
        planes = F.grid_sample(planes, grid, mode="nearest", align_corners=False)
        changed.append((images, planes.squeeze(1).to(labels.dtype)))
    return changed[0] if len(changed) == 1 else tuple(map(torch.cat, zip(*changed, strict=True)))


def takes_all(device: torch.device) -> bool:
    """Tell whether all images are changed at once, chosen or not.

    A GPU waits for the number of kernels; a CPU for its memory, and for what is done in vain.
    """
    return device.type != "cpu"


def _parts(count: int, device: torch.device) -> list[slice]:
    step = count if takes_all(device) else CPU_IMAGES
    return [slice(start, start + step) for start in range(0, count, step)]


def _on_device(small: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
    """Copy float32 tensors from the CPU to the device, in one piece."""
    if device.type == "cpu":
        return small
    flat = torch.cat([each.flatten() for each in small])
    flat = flat.to(device, non_blocking=device.type == "cuda")
    pieces = flat.split([each.numel() for each in small])
    return [piece.view(each.shape) for piece, each in zip(pieces, small, strict=True)]


def _darken_livers(images: Tensor, labels: Tensor, shares: Tensor) -> None:
    """Darken the liver and its tumors in each channel, in place; less towards the liver's edge.

    Args:
        images: (N, C, S, S).
        labels: (N, C, S, S) uint8.
        shares: (N, 1, 1, 1), the share of the grey levels to remove; 0 leaves an image alone.
    """
    for part in _chosen(shares):
        liver = labels[part].clamp(max=1).float()
        images[part] *= 1 - shares[part] * _mean_around(liver)


def _chosen(values: Tensor) -> list[slice]:
    """Return where images have a value (N, 1, 1, 1) that is not 0, one by one; or all of them."""
    if takes_all(values.device):
        return [slice(None)]
    return [slice(k, k + 1) for k in values.flatten().nonzero().flatten().tolist()]


def _mirror_lesions(images: Tensor, labels: Tensor, mirrored: Tensor) -> None:
    """Mirror the grey levels of tumors about their liver's mean, in place.

    Liver within two pixels of a tumor is mirrored too; otherwise a dark rim remains. The organ's
    outermost pixel is not: it is partly fat or lung and would turn bright.

    Args:
        images: (N, C, S, S) in [0, 1].
        labels: (N, C, S, S) uint8.
        mirrored: (N, 1, 1, 1), 1 for the images meant, 0 for others; one without liver round its
            tumor is left.
    """
    for part in _chosen(mirrored):
        marked = labels[part]
        tumor = marked == 2
        if not takes_all(tumor.device) and not tumor.any():
            continue
        liver = marked == 1
        pixels = liver.sum((1, 2, 3), keepdim=True)
        means = (images[part] * liver).sum((1, 2, 3), keepdim=True) / pixels.clamp(min=1)
        near = _mean_around(tumor.float(), 2) > 0
        inside = _mean_around((tumor | liver).float()) > 0.99
        change = 2 * mirrored[part] * (pixels > 0) * (near & inside) * (images[part] - means)
        images[part] = images[part].sub_(change).clamp_(0, 1)


def _mean_around(planes: Tensor, reach: int = 1) -> Tensor:
    """Average (N, C, S, S) over the pixels so near along each axis, 0 beyond the border."""
    side = 2 * reach + 1
    if takes_all(planes.device):
        return F.avg_pool2d(planes, side, 1, reach)
    padded = F.pad(planes, (reach,) * 4)  # 8 times faster than pooling
    size = planes.shape[-1]
    rows = reduce(torch.add, (padded[..., k : k + size, :] for k in range(side)))
    return reduce(torch.add, (rows[..., k : k + size] for k in range(side))) / side**2


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
    index = levels.to(torch.int32).add_(_first_of_rows(*curves.shape, levels.device))
    return curves.flatten().index_select(0, index.flatten()).view(levels.shape)


@lru_cache(maxsize=8)
def _first_of_rows(rows: int, columns: int, device: torch.device) -> Tensor:
    """Return where the rows of a table begin, (rows, 1, 1, 1) int32."""
    return (torch.arange(rows, dtype=torch.int32) * columns).view(-1, 1, 1, 1).to(device)


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
    return _grid(*_grid_sides(matrices, size))


def _grid_sides(matrices: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return what columns (N, 2, 1, size) and rows (N, 2, size, 1) give to a grid's positions."""
    centres = (2 * torch.arange(size, device=matrices.device) + 1) / size - 1
    a = matrices.view(-1, 2, 3, 1, 1)
    return a[:, :, 0] * centres + a[:, :, 2], a[:, :, 1] * centres.unsqueeze(1)


def _grid(along_x: Tensor, along_y: Tensor) -> Tensor:
    size = along_x.shape[-1]
    grid = along_x.new_empty(len(along_x), size, size, 2)
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
        deviations: (N, 1, 1, 1) standard deviations.
        corners: (N, C, 2) on the CPU, where in the drawn noise each channel's part begins.
    """
    size = images.shape[-1]
    plane = _grain(size + GRAIN_SHIFTS, images.device)
    windows = [plane[y : y + size, x : x + size] for y, x in corners.flatten(0, 1).tolist()]
    inside = images.sign()  # much faster than a mask
    if takes_all(images.device):
        images.addcmul_(torch.stack(windows).view(images.shape), deviations)
    else:
        values = deviations.expand((*images.shape[:2], 1, 1)).flatten(0, 1)
        for image, window, value in zip(images.flatten(0, 1), windows, values, strict=True):
            image.addcmul_(window, value)
    images.mul_(inside).clamp_(0, 1)


@lru_cache(maxsize=4)
def _grain(side: int, device: torch.device) -> Tensor:
    """Return normal noise (side, side), the same on every device; drawing it is slow."""
    return torch.randn(side, side, generator=torch.Generator().manual_seed(0)).to(device)
