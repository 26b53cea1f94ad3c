"""A second look at some slices: how sure the models are of the liver and the tumors they found.

A segmentation keeps labels only. `second_look` asks the models again, for a dozen slices, as they
are and turned. The record beside a prediction keeps the answers, `report.judge` makes them flags.
"""

from collections.abc import Sequence

import numpy as np

from ..checkpoints import TrainedModel
from ..volumes import Frame, Volume, restore, slice_levels
from .ensemble import Sweep, as_models, probabilities
from .segment import BATCH_SIZE, tumor_frames

SLICES = 12  # evenly over the liver, and over the tumors: enough to tell, and seconds on a CPU
TURN_DEGREES = 10.0


def second_look(
    volume: Volume,
    labels: np.ndarray,
    liver_model: TrainedModel | Sequence[TrainedModel] | None,
    tumor_model: TrainedModel | Sequence[TrainedModel] | None = None,
) -> dict[str, float]:
    """Look again at slices of liver and tumors and compare with their labels.

    Args:
        volume: the CT.
        labels: (Z, Y, X) uint8, as `segment_volume` wrote them.
        liver_model, tumor_model: the model or models that made them.

    Returns:
        Each in [0, 1]; of several liver models the mean; nothing of a structure without a model or
        without labels of it:
        ``liver_unsure`` 1 - Dice between the probabilities and the mask they give;
        ``liver_disagreement`` 1 - Dice between the mask and the one of turned slices;
        ``liver_removed`` the share of what the model called liver that is none in the labels;
        ``models_disagreement`` 1 - Dice between what any and what all of several models call liver;
        ``tumor_unsure`` 1 - Dice between the tumors' probabilities in the liver and their labels.
    """
    found = _look_at_liver(volume, labels, liver_model) | _look_at_tumors(
        volume, labels, tumor_model
    )
    return {name: round(value, 4) for name, value in found.items()}


def _look_at_liver(volume: Volume, labels: np.ndarray, liver_model) -> dict[str, float]:
    models = as_models("liver", liver_model)
    labeled = np.flatnonzero(labels.any(axis=(1, 2)))
    if not models or not len(labeled):
        return {}
    chosen = _evenly(labeled)
    looks, masks = zip(*(_look(volume, labels, model, chosen) for model in models), strict=True)
    found = {name: float(np.mean([look[name] for look in looks])) for name in looks[0]}
    if len(models) > 1:
        agreed, named = np.logical_and.reduce(masks), np.logical_or.reduce(masks)
        found["models_disagreement"] = _distance(agreed, named)
    return found


def _look_at_tumors(volume: Volume, labels: np.ndarray, tumor_model) -> dict[str, float]:
    models = as_models("tumor", tumor_model)
    labeled = np.flatnonzero([plane.max() == 2 for plane in labels])
    if not models or not len(labeled) or not (labels == 1).any():
        return {}
    chosen = _evenly(labeled)
    probability = np.zeros_like(labels)
    sweep = Sweep(models, volume.hu, tumor_frames(volume, labels, models), 0.0, BATCH_SIZE)
    sweep.mark(np.zeros_like(labels), chosen, 0.5, probability)
    shares = probability[chosen] * (labels[chosen] > 0) / np.float32(255)
    if any(getattr(model, "peak", 0.0) for model in models):  # lesions dropped as too faint
        shares[(shares >= 0.5) & (labels[chosen] == 1)] = 0
    return {"tumor_unsure": _distance(shares, labels[chosen] == 2)}


def _evenly(slices: np.ndarray) -> np.ndarray:
    """Return SLICES of some slices, evenly over them; all of fewer."""
    places = np.linspace(0, len(slices) - 1, min(SLICES, len(slices)))
    return slices[places.round().astype(int)]


def _look(volume, labels, model: TrainedModel, chosen: np.ndarray) -> tuple[dict, np.ndarray]:
    """Return a model's numbers, and its masks (N, H, W) of the chosen slices."""
    hu, frame = volume.hu, Frame(volume.geometry.pixel_aspect)
    context = model.spec.context
    around = np.clip(chosen[:, None] + np.arange(-context, context + 1), 0, len(hu) - 1)
    levels = {n: slice_levels(hu[n], model.spec, frame) for n in np.unique(around).tolist()}
    stack = np.stack([[levels[n] for n in numbers] for numbers in around.tolist()])
    plain = probabilities(model, stack)
    turned = (3 * probabilities(model, stack, TURN_DEGREES) - plain) / 2  # the mean holds `plain`
    mask = plain >= 0.5
    back = [restore(plane, labels.shape[1:], frame.pixel_aspect) for plane in plain]
    native = np.stack(back) >= 0.5
    called = np.count_nonzero(native)
    kept = np.count_nonzero(native & (labels[chosen] > 0))
    numbers = {
        "liver_unsure": _distance(plain, mask),
        "liver_disagreement": _distance(turned >= 0.5, mask),
        "liver_removed": 1 - kept / called if called else 0.0,
    }
    return numbers, native


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return 1 - Dice of two masks, or of probabilities and a mask."""
    total = float(one.sum(dtype=np.float64) + other.sum())
    return 1 - 2 * float(one[other].sum(dtype=np.float64)) / total if total else 0.0
