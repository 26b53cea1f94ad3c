"""System B's network: torchvision's RegNetY-400MF as encoder, and the decoders to logits."""

import pickle
from itertools import pairwise
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import RegNet_Y_400MF_Weights, regnet_y_400mf

from .blocks import FullSize

REGNET_CHANNELS = (32, 48, 104, 208, 440)  # stem and four stages, at strides 2, 4, 8, 16, 32
TUMOR_LOGIT = -3.5  # 3 %: at 12 % the first steps teach "less of it" so hard that features die


class RegNetSegmenter(nn.Module):
    """Segment tumors: torchvision's RegNetY-400MF as encoder, an upsampling decoder to logits.

    Args:
        weights: "imagenet" for torchvision's weights of the encoder (found in torch's cache folder
            or downloaded), None for random ones.
        skips: False is the published decoder of ten layers; True a cheaper one that takes in the
            stages at strides 16 to 2, and the image at full size.

    Shapes: (N, 3, H, W) normalized as ImageNet -> logits (N, 1, H, W); H and W are multiples of 32.

    Raises:
        ValueError: weights is neither "imagenet" nor None.
        OSError: the weights are neither cached nor to be had; the message says what to do.
    """

    def __init__(self, weights: str | None = "imagenet", skips: bool = False):
        super().__init__()
        if weights not in ("imagenet", None):
            raise ValueError(f'RegNetSegmenter weights must be "imagenet" or None, got {weights!r}')
        network = regnet_y_400mf(weights=None)
        if weights == "imagenet":
            network.load_state_dict(imagenet_weights())
        self.stem = network.stem
        self.trunk_output = network.trunk_output
        self.decoder = _SkipDecoder() if skips else _published_decoder()
        self.skips = skips

    def forward(self, image: Tensor) -> Tensor:
        features = [self.stem(image)]
        for stage in self.trunk_output:
            features.append(stage(features[-1]))
        return self.decoder(features, image) if self.skips else self.decoder(features[-1])


def _published_decoder() -> nn.Sequential:
    widths = (REGNET_CHANNELS[-1], 256, 128, 64, 32, 16)
    layers = []
    for inputs, outputs in pairwise(widths):
        layers += [
            nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, output_padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 1))


class _SkipDecoder(nn.Module):
    """Merge the stages from deep to shallow, and join the image itself at full size.

    Cheaper than the published decoder: channels are cut by 1x1 before anything is enlarged.
    """

    widths = (128, 64, 32, 16)  # at strides 16, 8, 4, 2

    def __init__(self):
        super().__init__()
        deeper = (REGNET_CHANNELS[-1], *self.widths[:-1])
        skipped = REGNET_CHANNELS[-2::-1]
        self.merges = nn.ModuleList(
            _Merge(*channels) for channels in zip(deeper, skipped, self.widths, strict=True)
        )
        self.full_size = FullSize(self.widths[-1], 3)
        self.last = nn.Conv2d(self.full_size.width, 1, 3, 1, 1)
        nn.init.constant_(self.last.bias, TUMOR_LOGIT)

    def forward(self, features: list[Tensor], image: Tensor) -> Tensor:
        x = features[-1]
        for merge, skipped in zip(self.merges, features[-2::-1], strict=True):
            x = merge(x, skipped)
        return self.last(self.full_size(x, image))


class _Merge(nn.Module):
    def __init__(self, deep: int, skipped: int, width: int):
        super().__init__()
        self.deep = nn.Conv2d(deep, width, 1)
        self.skipped = nn.Conv2d(skipped, width, 1)
        self.join = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )

    def forward(self, deep: Tensor, skipped: Tensor) -> Tensor:
        enlarged = F.interpolate(self.deep(deep), scale_factor=2, mode="nearest")
        return self.join(enlarged + self.skipped(skipped))


def imagenet_weights() -> dict[str, Tensor]:
    """Return torchvision's ImageNet weights of RegNetY-400MF, from the cache folder or the network.

    Raises:
        OSError: no network, or a damaged file; the message names the address, the file that torch
            looks for, and how to train without.
    """
    weights = RegNet_Y_400MF_Weights.IMAGENET1K_V2
    cached = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    without = "or train without them: tumor_recipe(pretrained=False)"
    existed = cached.exists()
    try:
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        if existed and not isinstance(error, URLError):
            raise OSError(
                f"damaged ImageNet weights in {cached} ({error}); delete that file, {without}"
            ) from error
        raise OSError(
            f"no ImageNet weights: {weights.url} cannot be fetched ({error}). "
            f"Put that file at {cached}, {without}"
        ) from error
