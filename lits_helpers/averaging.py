"""An averaged copy of a network, which is validated and kept where a recipe asks for one."""

import copy

import torch
from torch import nn


class Average(nn.Module):
    """An exponential moving average of a network's weights; buffers are taken over as they are.

    Args:
        network: it is copied.
        decay: of the old average at each update; less in the first steps, so that the start is
            forgotten.
    """

    def __init__(self, network: nn.Module, decay: float):
        super().__init__()
        self.model = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._count = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the network's weights after a step."""
        self._count += 1
        self.updates.fill_(self._count)
        decay = min(self.decay, (1 + self._count) / (10 + self._count))
        own, new = list(self.model.parameters()), list(network.parameters())
        torch._foreach_lerp_(own, new, 1 - decay)
        for buffer, other in zip(self.model.buffers(), network.buffers(), strict=True):
            buffer.copy_(other)

    def load_state_dict(self, *args, **options):
        """Load weights and the number of updates."""
        result = super().load_state_dict(*args, **options)
        self._count = int(self.updates)
        return result
