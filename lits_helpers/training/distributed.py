"""One training on several processes with torch.distributed under `torchrun`, or on one without.

Every rank holds the same weights and takes its share of each global batch, so a recipe's batch size
is the global one, whatever the number of processes.
"""

import inspect
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from ..machine import local_rank, own_rank, world_size

logger = logging.getLogger(__name__)

# The option's name from torch 2.14 on, and its name before.
SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel).parameters
)
PATIENCE = timedelta(minutes=10)  # longest wait for another rank: one rank may be decoding the data


@dataclass(frozen=True)
class Ranks:
    """This process's place among the processes that train together; by default it is alone."""

    rank: int = 0
    world: int = 1

    @property
    def writes(self) -> bool:
        """Whether this process writes files and shows progress: exactly one does."""
        return self.rank == 0

    def share(self, batch: Tensor) -> tuple[Tensor, float]:
        """Return this rank's part of a global batch and the weight of its mean loss.

        DistributedDataParallel averages gradients over ranks. With these weights the average is the
        gradient of the mean over the global batch, even where the batch does not divide evenly. A
        rank without a part computes the first element with weight 0: all ranks must take part in
        the exchange. A loss that is no mean over slices, such as Dice over a batch or a mean over a
        region, is computed for each rank's part alone.

        Args:
            batch: (N,) indices, the same on all ranks.
        """
        part = batch[self.rank :: self.world]
        weight = len(part) * self.world / len(batch)
        return (part if len(part) else batch[:1]), weight

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over all ranks, on all ranks."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def highest(self, number: int, device: torch.device) -> int:
        """Return the highest of all ranks' numbers; so the ranks agree to save or to stop."""
        if self.world == 1:
            return number
        tensor = torch.tensor(number, device=device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

    def require_same_slices(self, counts: Sequence[int], device: torch.device) -> None:
        """Refuse ranks that read different numbers of slices: one would wait for another forever.

        Raises:
            ValueError: the numbers differ.
        """
        for count in counts:
            highest = self.highest(count, device)
            lowest = -self.highest(-count, device)
            if highest != lowest:
                raise ValueError(
                    f"the processes read different numbers of slices, {lowest} to {highest}: one "
                    "could not read a case, see its warnings; start the same training again"
                )

    def from_first(self, value):
        """Return rank 0's plain value on every rank."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def wrap(self, module: nn.Module, device: torch.device) -> nn.Module:
        """Return `module` with gradients averaged over the ranks.

        On GPUs batch norm is computed over the global batch (SyncBatchNorm). torch has none for
        CPUs: there each rank normalizes by its part of the batch, and rank 0's running statistics
        are kept.
        """
        if self.world == 1:
            return module
        normalized = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules())
        if normalized and device.type == "cuda":
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        elif normalized and self.writes:
            logger.info(
                "batch norm uses each process's own part of a batch: torch syncs it on GPUs only"
            )
        ids = [device.index or 0] if device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=ids, **{SYNC_BUFFERS: False})

    def same_buffers(self, module: nn.Module) -> None:
        """Give every rank rank 0's buffers, such as batch norm's running statistics."""
        if self.world > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)


@contextmanager
def joined_ranks(device: torch.device) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the processes that `torchrun` started; without it yield a training of one process.

    Yields:
        This process's ranks and its device: the GPU with the local rank's number, or the only one
        that the process sees.
    """
    if world_size() == 1:
        yield Ranks(), device
        return
    ranks = Ranks(own_rank(), world_size())
    if device.type == "cuda":
        number = local_rank() if torch.cuda.device_count() > 1 else 0
        device = torch.device("cuda", number or 0)
        torch.cuda.set_device(device)
    started = not dist.is_initialized()
    if started:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield ranks, device
    finally:
        if started:
            dist.destroy_process_group()
