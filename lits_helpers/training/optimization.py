"""What a step needs on its device: precision, layout, compilation, Adam, its rate, averages."""

import copy
import logging
import math
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ..environment import amp_dtype
from ..recipes import PRECISIONS, Recipe

logger = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
STEPS_WORTH_COMPILING = 10000  # on a GPU: 79 s against 15 ms a step, once; slow hosts take longer
NO_MEMORY = ("out of memory", "can't allocate memory", "alloc_failed", "unable to find an engine")
FINAL_LEARNING_RATE = 0.01  # of the initial one, at the end of a cosine schedule


class Precision:
    """Automatic mixed precision: the forward pass's context, the backward pass with scaling.

    Args:
        device: where the training runs.
        name: "fp32", "bf16", "fp16", or "auto" for what the device is fastest at.

    Attributes:
        name: the precision chosen.
    """

    def __init__(self, device: torch.device, name: str = "auto"):
        if name != "auto" and name not in PRECISIONS:
            raise ValueError(f"precision must be auto, {', '.join(PRECISIONS)}; got {name!r}")
        self.device = device
        self.dtype = amp_dtype(device) if name == "auto" else DTYPES[name]
        self.name = next(key for key, dtype in DTYPES.items() if dtype == self.dtype)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)

    def autocast(self):
        """Return the context in which the networks run."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def backward(self, loss: Tensor, optimizers: list[torch.optim.Optimizer]) -> None:
        """Replace the gradients by those of `loss`, unscaled."""
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        for optimizer in optimizers:
            self.scaler.unscale_(optimizer)

    def step(self, optimizers: list[torch.optim.Optimizer]) -> None:
        """Let the optimizers step; with fp16 a step whose gradients overflowed is skipped."""
        for optimizer in optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()


def on_device(module: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to the device, in the memory layout that makes convolutions fastest."""
    return module.to(device).to(memory_format=torch.channels_last)


def adam(module: nn.Module, recipe: Recipe) -> torch.optim.Adam:
    """Return Adam with the recipe's learning rate and betas, fused into one kernel."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    fused = parameters[0].device.type in ("cuda", "cpu")
    return torch.optim.Adam(parameters, lr=recipe.learning_rate, betas=recipe.betas, fused=fused)


def compile_pays(device: torch.device, steps: int) -> bool:
    """Say whether `torch.compile` saves more than it costs: in long trainings on a GPU."""
    if device.type != "cuda" or steps < STEPS_WORTH_COMPILING:
        return False
    return torch.cuda.get_device_capability(device) >= (7, 0)


class Compiled(nn.Module):
    """A network called through `torch.compile`, until `give_up`.

    Inputs of another size than the last ones are computed plainly: compiling anew for an epoch's
    smaller last batch would never pay.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self._call = torch.compile(network.forward, dynamic=False)
        self._size: torch.Size | None = None  # of the last inputs

    def forward(self, *inputs: Tensor):
        same = inputs[0].shape == self._size
        self._size = inputs[0].shape
        return self._call(*inputs) if same else self.network.forward(*inputs)

    def give_up(self) -> None:
        """Call the network plainly from now on."""
        self._call = self.network.forward


def out_of_memory(error: Exception) -> bool:
    """Say whether an error means too little memory; some libraries tell only by the message."""
    text = str(error).lower()
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return known or any(words in text for words in NO_MEMORY)


def step_or_give_up(step: Callable, compiled: list[Compiled], *inputs) -> Tensor:
    """Run a training step; if it fails compiled, run this one and all that follow plainly.

    Compilers fail late: in the first step of a size, forward or backward.

    Args:
        step: (*inputs) -> losses; if it raises, at most the norms have seen the batch.
        compiled: the step's compiled networks; the list is emptied when they are given up.
        inputs: of the step.
    """
    try:
        return step(*inputs)
    except Exception as error:  # a compiler's errors are of many types
        if not compiled or out_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    logger.warning("a compiled step fails (%s): training goes on without torch.compile", reason)
    while compiled:
        compiled.pop().give_up()
    # Outside of `except`: there the error still holds the failed step's memory.
    return step(*inputs)


class Average(nn.Module):
    """An exponential moving average of a network's weights; buffers are copied.

    Args:
        network: to copy and average; its tensors must stay the same ones.
        decay: of the old average at each update; lower in the first steps, to forget the start.
    """

    def __init__(self, network: nn.Module, decay: float):
        super().__init__()
        self.model = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._count = 0
        # Listed once: to walk 500 modules takes longer than to average their weights.
        self._averaged = list(self.model.parameters()), list(network.parameters())
        self._copied = list(self.model.buffers()), list(network.buffers())

    @torch.no_grad()
    def update(self) -> None:
        """Take in the network's weights after a step."""
        self._count += 1
        self.updates.fill_(self._count)
        decay = min(self.decay, (1 + self._count) / (10 + self._count))
        torch._foreach_lerp_(*self._averaged, 1 - decay)
        if self._copied[0]:
            torch._foreach_copy_(*self._copied)

    def load_state_dict(self, *args, **options):
        """Load weights and the number of updates."""
        result = super().load_state_dict(*args, **options)
        self._count = int(self.updates)
        return result


def learning_rate(recipe: Recipe, epochs_done: float) -> float:
    """Return the learning rate after so many epochs (and parts of one)."""
    rate = recipe.learning_rate
    if recipe.schedule == "cosine":
        cosine = 0.5 * (1 + math.cos(math.pi * min(epochs_done / recipe.epochs, 1.0)))
        rate *= FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) * cosine
    rising = min(recipe.warm_up, recipe.epochs / 10)
    if epochs_done < rising:
        rate *= max(epochs_done / rising, FINAL_LEARNING_RATE)
    return rate
