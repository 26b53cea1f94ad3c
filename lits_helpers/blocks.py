"""Layers that the mended networks of both systems share."""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

# "batch" by the statistics of a batch, then of all training; "instance" of each image alone, so
# that contrast and brightness of a patient matter less.
NORMS = {"batch": nn.BatchNorm2d, "instance": partial(nn.InstanceNorm2d, affine=True)}


def normalized(*layers: nn.Module, channels: int, norm: str = "batch") -> nn.Sequential:
    """Return the layers with a norm of `NORMS` and ReLU behind them."""
    return nn.Sequential(*layers, NORMS[norm](channels), nn.ReLU(inplace=True))


class FullSize(nn.Module):
    """The last stage: refine features at half size, then add the image's own at full size.

    Args:
        inputs: channels of the features.
        channels: of the image.
        depth: convolutions on the image before the two are added, and from there on with the one
            that the caller puts behind; what is fine in an outline is decided here.

    Shapes: (N, inputs, H/2, W/2), image (N, channels, H, W) -> (N, max(inputs // 2, 4), H, W).
    """

    def __init__(self, inputs: int, channels: int, depth: int = 1):
        super().__init__()
        self.width = max(inputs // 2, 4)
        same = nn.Conv2d(inputs, inputs, 3, 1, 1, bias=False)
        self.refine = normalized(same, channels=inputs)
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
    return normalized(nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), channels=outputs)
