"""What a training is continued from: how far it has come, and the state that says so."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from .acceleration import Precision
from .checkpoints import CheckpointError
from .distributed import Ranks
from .systems import System

logger = logging.getLogger(__name__)


@dataclass
class Position:
    """How far a training has come."""

    epoch: int = 1  # the epoch under way, counted from 1
    step: int = 0  # its steps done
    images: int = 0  # its images seen, by all ranks
    seconds: float = 0.0  # its time so far
    steps: int = 0  # of all epochs
    best: float | None = None  # validation Dice of the best epoch
    branch: int = 0  # above 0 in old folders only, whose training went back to an earlier state

    @classmethod
    def of(cls, state: Mapping) -> "Position":
        """Return where a state was saved."""
        return cls(**{name: state[name] for name in vars(cls()) if name in state})

    def next_epoch(self, best: float | None) -> "Position":
        """Return the start of the next epoch, where `best` is the best Dice so far."""
        return replace(self, epoch=self.epoch + 1, step=0, images=0, seconds=0.0, best=best)


def weights_of(system: System) -> dict[str, dict]:
    """Return the state dicts of all parts of a system: networks, optimizers, scaler."""
    return {name: part.state_dict() for name, part in system.parts.items()}


def load_weights(system: System, state: Mapping, precision: Precision) -> None:
    """Put a state's weights into a system; a scaler's only where the precision is still the same.

    Args:
        system: the networks and optimizers to continue.
        state: with `precision`, the name of its own, and `parts`, what `weights_of` returned.
        precision: that of the training that goes on.
    """
    for name, part in system.parts.items():
        if name != "scaler" or state["precision"] == precision.name:
            part.load_state_dict(_fitting(part, state["parts"][name]))


def _fitting(part: object, saved: dict) -> dict:
    """Return a saved state as a part takes it: an optimizer fused as on its own device."""
    if not isinstance(part, torch.optim.Optimizer):
        return saved
    groups = [{**group, "fused": part.defaults["fused"]} for group in saved["param_groups"]]
    return {**saved, "param_groups": groups}


def require_slices(state: Mapping, now: Sequence[int]) -> None:
    """Refuse to continue with other slices than a training began with.

    Args:
        state: a training state.
        now: slices to train on and to validate.

    Raises:
        CheckpointError: a case lost or gained slices.
    """
    before = state.get("slices")
    if before not in (None, now):
        raise CheckpointError(
            f"this training began with {before[0]} slices to train on and {before[1]} to "
            f"validate, now there are {now[0]} and {now[1]}. If the warnings above name a case "
            "that could not be read, delete its record (prepared/cases/<case>.json), prepare "
            'it again and start the same training again; or begin anew with resume="never"'
        )


def warn_of_changes(state: Mapping, ranks: Ranks, precision: Precision) -> None:
    """Say what changes the bits, though not the batches, of a training that goes on."""
    changes = {
        "processes": (state["world"], ranks.world),
        "precision": (state["precision"], precision.name),
    }
    for what, (before, now) in changes.items():
        if before != now and ranks.writes:
            logger.warning(
                "resuming with %s %s instead of %s: the same batches, but not the same bits",
                what,
                now,
                before,
            )
