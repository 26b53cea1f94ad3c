"""System A's critics: networks whose features of two masked images are compared, layer by layer."""

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

FEATURE_GRID = 8  # features are average-pooled to this side


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
        self.layers = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Conv2d(channels, width, 3, 1, 1),
                    nn.BatchNorm2d(width),
                    nn.LeakyReLU(0.2, inplace=True),
                ),
                nn.Sequential(
                    nn.Conv2d(width, 2 * width, 3, 1, 1),
                    nn.BatchNorm2d(2 * width),
                    nn.LeakyReLU(0.2, inplace=True),
                ),
                nn.Sequential(nn.Conv2d(2 * width, 1, 3, 1, 1), nn.LeakyReLU(0.2, inplace=True)),
            ]
        )


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
            nn.Sequential(
                spectral_norm(nn.Conv2d(widths[i], widths[i + 1], 3, 2, 1)),
                nn.LeakyReLU(0.2, inplace=True),
            )
            for i in range(3)
        )
        self.layers[0].insert(0, nn.AvgPool2d(2))
        self.layers.append(spectral_norm(nn.Conv2d(4 * width, 1, 3, 1, 1)))
