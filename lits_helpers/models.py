"""System A's generator, and both systems' networks as a recipe describes them.

`Generator()`, `Discriminator()` and `RegNetSegmenter()` with their defaults are the published
layers, to the parameter. The options are the mended variants of the `default` recipes.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import NORMS, FullSize, normalized
from .critics import Discriminator, StridedCritic
from .recipes import LiverRecipe, TumorRecipe
from .regnet import RegNetSegmenter

RESIDUALS = (0, 0, 1, 2)  # blocks at each level of a residual generator: where they are cheap
LIVER_LOGIT = -2.0  # a new head says 12 %, about the share of liver in a slice


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
        full_size: join the decoder's features with the image at full size, with so many
            convolutions on the image before and, the last layer included, on both together after;
            0 enlarges the last layer's answer twofold instead.
        shallow_norm: of the encoder's first two levels (without `residual` the first has none);
            "batch" as published, or "instance", see `blocks.NORMS`. Deeper ones keep batch norm.

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
        self.decoder = nn.ModuleList(up_block(up[i], up[i + 1]) for i in range(3))
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
    return nn.Sequential(
        *normalized(strided, channels=outputs, norm=norm),
        *(_Residual(outputs) for _ in range(blocks)),
    )


def _residual_up_block(inputs: int, outputs: int) -> nn.Sequential:
    same = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
    return nn.Sequential(
        *normalized(same, channels=outputs), nn.Upsample(scale_factor=2, mode="nearest")
    )


class _Residual(nn.Module):
    """Two convolutions added to their input; a new one changes nothing."""

    def __init__(self, channels: int):
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, 3, 1, 1, bias=False) for _ in range(2))
        self.change = nn.Sequential(
            *normalized(first, channels=channels), second, nn.BatchNorm2d(channels)
        )
        nn.init.zeros_(self.change[-1].weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.change(x))


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
            takes the recipe's word.
    """
    wanted = recipe.pretrained if pretrained is None else pretrained
    return RegNetSegmenter("imagenet" if wanted else None, recipe.skips)
