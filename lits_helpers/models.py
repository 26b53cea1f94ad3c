"""The networks: generator and critics of system A, the segmenter of system B.

`Generator()`, `Discriminator()` and `RegNetSegmenter()` with their defaults are the published
layers, to the parameter. The options are the mended variants of the `default` recipes.
"""

import pickle
from functools import partial
from itertools import pairwise
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from .recipes import LiverRecipe, TumorRecipe
from .settings import hint

# "batch" normalizes by the statistics of a batch, after training by running means of these;
# "instance" by each image's own, so that a patient's contrast and brightness matter less.
NORMS = {"batch": nn.BatchNorm2d, "instance": partial(nn.InstanceNorm2d, affine=True)}
FEATURE_GRID = 8  # features are average-pooled to this side
REGNET_CHANNELS = (32, 48, 104, 208, 440)  # stem and four stages, at strides 2, 4, 8, 16, 32
RESIDUALS = (0, 0, 1, 2)  # blocks at each level of a residual generator: where they are cheap
LIVER_LOGIT = -2.0  # a new head says 12 %, about the share of liver in a slice
TUMOR_LOGIT = -3.5  # 3 %: at 12 % the first steps push predictions down so hard that features die


class Generator(nn.Module):
    """Turn a slice into a liver mask: four strided layers down, four upsampled layers back.

    Args:
        width: channels of the first layer; the deepest has eight times as many.
        skips: add each encoder feature to the decoder feature of the same size (no parameter more).
        head: "relu" as published, unbounded above; "sigmoid" bounds to (0, 1), cannot die to
            all-zero, and doubles its logits' size bilinearly instead of by repetition.
        channels: channels of the input image.
        residual: normalize before each ReLU, in the first layer too, and add residual blocks at the
            two deepest levels, where they see the whole abdomen.
        full_size: join the decoder's features with the image at full size; this is the depth of
            `FullSize`, the last layer included. 0 enlarges the last layer's answer twofold instead.
        shallow_norm: norm of the encoder's first two levels (without `residual` the first has
            none); "batch" as published, or "instance", see `NORMS`. Deeper levels keep batch norm.

    Shapes: (N, channels, H, W) in [0, 1] -> (N, 1, H, W); H and W are multiples of 16. A sigmoid
    head gives float32 under autocast too: next to 1 bfloat16 knows two digits.
    """

    def __init__(
        self,
        width: int = 64,
        skips: bool = False,
        head: str = "relu",
        channels: int = 1,
        residual: bool = False,
        full_size: int = 0,
        shallow_norm: str = "batch",
    ):
        super().__init__()
        if head not in ("relu", "sigmoid"):
            raise ValueError(f'Generator head must be "relu" or "sigmoid", got {head!r}')
        if shallow_norm not in NORMS:
            raise ValueError(
                f"Generator shallow_norm must be one of {', '.join(NORMS)}, got {shallow_norm!r}"
            )
        self.skips = skips
        self.head = head
        self.enlarging = "bilinear" if head == "sigmoid" else "nearest"
        down = (channels, width, 2 * width, 4 * width, 8 * width)
        up = (8 * width, 4 * width, 2 * width, width)
        norms = [shallow_norm, shallow_norm, "batch", "batch"]
        if residual:
            levels = map(_residual_down_block, down[:-1], down[1:], norms, RESIDUALS)
        else:
            levels = map(_down_block, down[:-1], down[1:], [None, *norms[1:]])
        self.encoder = nn.ModuleList(levels)
        up_block = _residual_up_block if residual else _up_block
        self.decoder = nn.ModuleList(map(up_block, up[:-1], up[1:]))
        self.full_size = FullSize(width, channels, full_size) if full_size else None
        self.last = nn.Conv2d(self.full_size.width if full_size else width, 1, 3, 1, 1)
        if head == "sigmoid":
            nn.init.constant_(self.last.bias, LIVER_LOGIT)

    def forward(self, image: Tensor) -> Tensor:
        features = []
        x = image
        for block in self.encoder:
            x = block(x)
            features.append(x)
        for block, skipped in zip(self.decoder, features[-2::-1], strict=True):
            x = block(x)
            if self.skips:
                x = x + skipped
        if self.full_size:
            x = self.full_size(x, image)
        x = self.last(x)
        if self.head == "relu":
            x = F.relu(x)
        if not self.full_size:
            x = F.interpolate(x, scale_factor=2, mode=self.enlarging)
        return x.float().sigmoid() if self.head == "sigmoid" else x


def _down_block(inputs: int, outputs: int, norm: str | None) -> nn.Sequential:
    layers = [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, NORMS[norm](outputs)) if norm else nn.Sequential(*layers)


def _up_block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, 1, 1),
        nn.ReLU(inplace=True),
        nn.BatchNorm2d(outputs),
        nn.Upsample(scale_factor=2, mode="nearest"),
    )


def _residual_down_block(inputs: int, outputs: int, norm: str, blocks: int) -> nn.Sequential:
    strided = nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)
    residuals = (_Residual(outputs) for _ in range(blocks))
    return nn.Sequential(*_normalized(strided, norm), *residuals)


def _residual_up_block(inputs: int, outputs: int) -> nn.Sequential:
    enlarge = nn.Upsample(scale_factor=2, mode="nearest")
    return nn.Sequential(*_same_block(inputs, outputs), enlarge)


class _Residual(nn.Module):
    """Two convolutions added to their input; a new one changes nothing."""

    def __init__(self, channels: int):
        super().__init__()
        first = _same_block(channels, channels)
        second = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.change = nn.Sequential(*first, second, nn.BatchNorm2d(channels))
        nn.init.zeros_(self.change[-1].weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.change(x))


class _Critic(nn.Module):
    """What both critics share: `layers`, a ModuleList applied one after the other."""

    layers: nn.ModuleList

    def forward(self, image: Tensor) -> Tensor:
        """Return the last layer's activations, (N, 1, H', W')."""
        for layer in self.layers:
            image = layer(image)
        return image

    def forward_all_layers(self, image: Tensor) -> list[Tensor]:
        """Return the features of every layer from a single pass.

        Args:
            image: (N, C, H, W) a slice times a mask.

        Returns:
            One (N, channels * 64) tensor a layer: its activations average-pooled to 8x8, flattened.
        """
        features = []
        for layer in self.layers:
            image = layer(image)
            features.append(F.adaptive_avg_pool2d(image, FEATURE_GRID).flatten(1))
        return features


class Discriminator(_Critic):
    """The published critic: three layers at full resolution, batch norm in the first two.

    Args:
        width: channels of the first layer; the second has twice as many.
        channels: channels of the input image.
    """

    def __init__(self, width: int = 128, channels: int = 1):
        super().__init__()
        first = _leaky(nn.Conv2d(channels, width, 3, 1, 1), nn.BatchNorm2d(width))
        second = _leaky(nn.Conv2d(width, 2 * width, 3, 1, 1), nn.BatchNorm2d(2 * width))
        last = _leaky(nn.Conv2d(2 * width, 1, 3, 1, 1))
        self.layers = nn.ModuleList((first, second, last))


class StridedCritic(_Critic):
    """The cheap critic: it looks at half the size and halves it in every layer.

    Spectral norm bounds it, so that it can maximise the feature distance without running away;
    without batch norm a slice's features do not depend on its batch.

    Args:
        width: channels of the first layer, doubled twice.
        channels: channels of the input image.
    """

    def __init__(self, width: int = 8, channels: int = 1):
        super().__init__()
        widths = (channels, width, 2 * width, 4 * width)
        self.layers = nn.ModuleList(
            _leaky(spectral_norm(nn.Conv2d(inputs, outputs, 3, 2, 1)))
            for inputs, outputs in pairwise(widths)
        )
        self.layers[0].insert(0, nn.AvgPool2d(2))
        self.layers.append(spectral_norm(nn.Conv2d(4 * width, 1, 3, 1, 1)))


def _leaky(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers, nn.LeakyReLU(0.2, inplace=True))


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
        from torchvision.models import regnet_y_400mf  # 1 s to import, for this network alone

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
        self.join = nn.Sequential(nn.ReLU(inplace=True), *_same_block(width, width))

    def forward(self, deep: Tensor, skipped: Tensor) -> Tensor:
        enlarged = F.interpolate(self.deep(deep), scale_factor=2, mode="nearest")
        return self.join(enlarged + self.skipped(skipped))


def imagenet_weights() -> dict[str, Tensor]:
    """Return torchvision's ImageNet weights of RegNetY-400MF, from the cache folder or the network.

    Raises:
        OSError: no network, or a damaged file; the message names the address, the file that torch
            looks for, and how to train without.
    """
    from torchvision.models import RegNet_Y_400MF_Weights

    weights = RegNet_Y_400MF_Weights.IMAGENET1K_V2
    cached = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    without = f"or train without them: {hint('not pretrained')}"
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


class FullSize(nn.Module):
    """The last stage: refine features at half size, then add the image's own at full size.

    Args:
        inputs: channels of the features.
        channels: of the image.
        depth: convolutions on the image before the sum, and as many after it, of which the caller
            adds the last; these layers decide what is fine in an outline.

    Shapes: (N, inputs, H/2, W/2), image (N, channels, H, W) -> (N, max(inputs // 2, 4), H, W).
    """

    def __init__(self, inputs: int, channels: int, depth: int = 1):
        super().__init__()
        self.width = max(inputs // 2, 4)
        self.refine = _same_block(inputs, inputs)
        self.narrow = nn.Conv2d(inputs, self.width, 1)
        seen = (channels, *[self.width] * depth)
        self.first = nn.Sequential(*map(_same_block, seen[:-2], seen[1:-1]))
        self.fine = nn.Conv2d(seen[-2], self.width, 3, 1, 1)
        self.norm = nn.BatchNorm2d(self.width)
        self.further = nn.Sequential(*map(_same_block, seen[1:-1], seen[2:]))

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        x = F.interpolate(self.narrow(self.refine(x)), scale_factor=2, mode="nearest")
        return self.further(F.relu(self.norm(x + self.fine(self.first(image)))))


def _same_block(inputs: int, outputs: int) -> nn.Sequential:
    return _normalized(nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False))


def _normalized(layer: nn.Conv2d, norm: str = "batch") -> nn.Sequential:
    """Return a convolution with a norm of `NORMS` and ReLU behind it."""
    return nn.Sequential(layer, NORMS[norm](layer.out_channels), nn.ReLU(inplace=True))


def build_generator(recipe: LiverRecipe) -> Generator:
    """Return system A's generator as the recipe describes it."""
    return Generator(
        recipe.width,
        recipe.skips,
        recipe.head,
        recipe.spec.channels,
        residual=recipe.residual,
        full_size=recipe.full_size,
        shallow_norm=recipe.shallow_norm,
    )


def build_critic(recipe: LiverRecipe) -> Discriminator | StridedCritic:
    """Return system A's critic as the recipe describes it.

    Raises:
        ValueError: the recipe asks for an unknown critic, or for an unbounded one that maximises.
    """
    kinds = {"published": Discriminator, "strided": StridedCritic}
    if recipe.critic not in kinds:
        raise ValueError(
            f"LiverRecipe.critic must be one of {', '.join(kinds)}, got {recipe.critic!r}"
        )
    if recipe.critic_goal == "maximise" and recipe.critic != "strided":
        raise ValueError(
            'critic_goal="maximise" diverges without a bound; it needs critic="strided"'
        )
    return kinds[recipe.critic](recipe.critic_width, recipe.spec.channels)


def build_segmenter(recipe: TumorRecipe, pretrained: bool | None = None) -> RegNetSegmenter:
    """Return system B's network as the recipe describes it.

    Args:
        recipe: its `skips` choose the decoder.
        pretrained: False builds without ImageNet weights (a checkpoint is about to be loaded); None
            follows the recipe.
    """
    wanted = recipe.pretrained if pretrained is None else pretrained
    return RegNetSegmenter("imagenet" if wanted else None, recipe.skips)
