"""Warn early, with advice, of what goes wrong in a training: NaN, collapse, too little memory."""

import logging
import math
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from ..recipes import Recipe
from ..settings import hint
from .optimization import Precision, out_of_memory
from .validation import ValidationScore

logger = logging.getLogger(__name__)

COLLAPSE = 0.5  # a validation Dice below this share of the best is called a collapse
COLLAPSE_FROM = 0.2  # once the best has reached this
SILENT_EPOCHS = 3  # predicting nothing at all is normal before this many epochs


class TrainingDivergedError(ArithmeticError):
    """A loss is no longer a number; the checkpoints before it are intact."""


def require_finite(losses: Mapping[str, float], epoch: int, recipe: Recipe, precision: str) -> None:
    """Stop a training whose losses are no longer numbers, before such a state is saved.

    Raises:
        TrainingDivergedError: names the loss and what to try.
    """
    broken = [name for name, value in losses.items() if not math.isfinite(value)]
    if broken:
        advice = f"{hint('learning rate')} than {recipe.learning_rate:g}, with {hint('anew')}"
        if precision != "fp32":
            advice = f"{hint('precision')}, which resumes before that; or {advice}"
        raise TrainingDivergedError(
            f"{', '.join(broken)} became NaN or infinite in epoch {epoch}; "
            f"the checkpoints before it are kept. Try {advice}"
        )


def warn_of_collapse(
    score: ValidationScore, best: float | None, epoch: int, recipe: Recipe
) -> bool:
    """Log when a model stopped predicting or lost most of its Dice; return whether it did."""
    if math.isnan(score.dice):  # nothing to find
        return False
    silent = score.predicted_pixels == 0 and epoch >= SILENT_EPOCHS
    fell = best is not None and best >= COLLAPSE_FROM and score.dice < COLLAPSE * best
    if silent or fell:
        what = (
            "predicts nothing at all"
            if silent
            else f"fell from a Dice of {best:.3f} to {score.dice:.3f}"
        )
        dying = silent and getattr(recipe, "head", "") == "relu"
        cure = f"{hint('relu head')} (a ReLU output can die)" if dying else hint("learning rate")
        logger.warning(
            "epoch %d: the model %s; the best checkpoint is kept. If it does not recover, try %s",
            epoch,
            what,
            cure,
        )
    return silent or fell


def warn_of_skipped_steps(precision: Precision, epoch: int) -> None:
    """Log when float16's gradients overflow so often that most steps are skipped."""
    if precision.scaler.is_enabled() and precision.scaler.get_scale() < 1:
        logger.warning(
            "epoch %d: most steps are left out, their gradients overflow in fp16; "
            "%s resumes from here",
            epoch,
            hint("precision"),
        )


@contextmanager
def memory_advice(recipe: Recipe) -> Iterator[None]:
    """Turn an out-of-memory error into advice: which setting to lower, and by how much.

    Raises:
        MemoryError: with the advice; the checkpoints on disk are intact.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        # A notebook keeps the traceback, and so the memory of the step.
        traceback.clear_frames(error.__traceback__)
        # A side by sqrt(2) is half the pixels; the networks want a multiple of 32.
        size = max(32, round(recipe.spec.size / math.sqrt(2) / 32) * 32)
        raise MemoryError(
            f"out of memory with batch_size={recipe.batch_size} at size={recipe.spec.size}: "
            f"set {hint('batch size')}{max(1, recipe.batch_size // 2)} (about half the memory)"
            f"{hint('input size').format(size)}. That is another training: start it with "
            f"{hint('anew')} or in another run folder. The checkpoints of this one are intact"
        ) from error
