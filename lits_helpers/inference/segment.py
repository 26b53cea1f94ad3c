"""Whole patients: a CT volume in, labels 0/1/2 in the patient's own geometry out."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from ..cases import not_hounsfield
from ..checkpoints import LiverModel, TumorModel
from ..machine import require
from ..recipes import InputSpec
from ..volumes import Frame, Volume, liver_frame
from . import postprocess
from .ensemble import Sweep, as_models
from .postprocess import Postprocessing

logger = logging.getLogger(__name__)

STEPS = (8, 4, 2, 1)  # from a slice to the next that is looked at for the liver
LEAST_SKIPPED_OF = 64  # slices; of fewer all are looked at, in whole batches
BATCH_SIZE = 16  # slices a forward pass; larger ones gained nothing on a CPU


def segment_volume(
    volume: Volume,
    liver_model: LiverModel | Sequence[LiverModel] | None = None,
    tumor_model: TumorModel | Sequence[TumorModel] | None = None,
    post: Postprocessing | None = None,
    *,
    known_liver: np.ndarray | None = None,
    probabilities: dict[str, np.ndarray] | None = None,
    checked: bool = False,
    batch_size: int = BATCH_SIZE,
) -> np.ndarray:
    """Segment a CT in memory with loaded models; `segment` does so from a file.

    With both models the tumor model sees only slices near the predicted liver, and of these only
    the liver's surroundings if it was trained so. Its tumor counts only within the liver and
    `post.margin_mm` around it. With the liver model alone the labels are 0 and 1; with the tumor
    model alone 0 and 2, anywhere in the volume.

    Args:
        volume: HU (Z, Y, X) with its spacing in mm.
        liver_model, tumor_model: at least one, from `load_liver_model` and `load_tumor_model`. Of
            several in a list the probabilities are averaged, whatever their `InputSpec`.
        post: thresholds and clean-up; None for the defaults.
        known_liver: (Z, Y, X), above 0 in the liver and its tumors; it replaces a liver model.
            Tumor counts up to `post.margin_mm` outside it too, as around a predicted liver:
            `Postprocessing(margin_mm=0)` keeps tumor within one that was drawn.
        probabilities: gets what the models say before any rule of `post`: system -> (Z, Y, X)
            uint8, probability times 255, rounded; 0 where a tumor model did not look.
        checked: the volume was checked before, or its findings are accepted: refuse no values.
        batch_size: slices per forward pass.

    Returns:
        Labels (Z, Y, X) uint8: 0 background, 1 liver, 2 tumor.

    Raises:
        TypeError: an array or a path where a volume or a model belongs, or the other model.
        ValueError: no model, `volume` is no CT in HU, or `known_liver` has another shape.
    """
    require(volume, "hu", "volume", "a volume: read_volume(path), or volume_from_array(hu)")
    livers, tumors = as_models("liver", liver_model), as_models("tumor", tumor_model)
    if not livers and not tumors:
        raise ValueError("segment_volume needs a liver model, a tumor model or both; got neither")
    if not checked:
        check_hu(volume)
    if known_liver is not None and known_liver.shape != volume.hu.shape:
        raise ValueError(f"known_liver has shape {known_liver.shape}, the CT {volume.hu.shape}")
    post = post or Postprocessing()
    labels = np.zeros(volume.hu.shape, np.uint8)
    if known_liver is not None:
        np.greater(known_liver, 0, out=labels.view(bool))
    elif livers:
        frames = {model.spec: Frame(volume.geometry.pixel_aspect) for model in livers}
        sweep = Sweep(livers, volume.hu, frames, post.rotation_degrees, batch_size)
        kept = _kept(probabilities, "liver", labels.shape)
        if post.largest_liver and kept is None and not sweep.several:
            mark_largest(sweep, labels, post.liver_threshold)
            post_liver = replace(post, largest_liver=False)
        else:
            disagreement = sweep.mark(labels, range(len(labels)), post.liver_threshold, kept)
            _log_disagreement("liver", disagreement)
            post_liver = post
        postprocess.clean_liver(labels, post_liver)
    if tumors:
        cascade = bool(livers) or known_liver is not None
        _add_tumor(labels, volume, tumors, cascade, post, batch_size, probabilities)
    return labels


def mark_largest(sweep: Sweep, labels: np.ndarray, threshold: float) -> int:
    """Mark the largest component as if all slices were marked, and look at as few as that takes.

    Every eighth slice is looked at, then all between two of which one holds something: every
    component that meets a looked-at slice is whole. One that meets none fits between two of them;
    where the largest found is larger than all that fits there, it is the largest of all. Where it
    is not, every fourth slice is looked at, every second, then all.

    Args:
        sweep: of the models.
        labels: (Z, Y, X) uint8, all 0; gets 1 in the largest face-connected component.
        threshold: see `Sweep.mark`.

    Returns:
        The number of slices looked at.
    """
    looked = np.zeros(len(labels), bool)

    def look(wanted: np.ndarray) -> None:
        sweep.mark(labels, np.flatnonzero(wanted & ~looked), threshold)
        looked[wanted] = True

    for step in STEPS if len(labels) > LEAST_SKIPPED_OF else STEPS[-1:]:
        look(np.arange(len(labels)) % step == 0)
        holds = labels.any(axis=(1, 2)).astype(np.uint8)
        look(ndimage.maximum_filter1d(holds, 2 * step - 1, mode="constant") > 0)
        between = (step - 1) * labels[0].size
        if np.count_nonzero(labels) > between and postprocess.keep_largest(labels) > between:
            break
    return int(looked.sum())


def _add_tumor(labels, volume, models, cascade: bool, post, batch_size, probabilities) -> None:
    """Write label 2 into `labels`, which hold the liver if this is a cascade."""
    reach = range(len(labels))
    spacing_mm = volume.geometry.trusted_spacing_mm or (1.0, 1.0, 1.0)
    frames = tumor_frames(volume, labels, models)
    if cascade:
        reach = postprocess.liver_reach(labels, spacing_mm, post)
    elif any(spec.liver_margin is not None or spec.liver_window for spec in frames):
        logger.warning(
            "this tumor model was trained on known livers; without a liver model it errs"
        )
    tumor = np.zeros_like(labels)
    sweep = Sweep(models, volume.hu, frames, post.rotation_degrees, batch_size)
    kept = _kept(probabilities, "tumor", labels.shape)
    peak = post.tumor_peak
    if peak is None:
        peak = float(np.mean([getattr(model, "peak", 0.0) for model in models]))
    if peak and kept is None:
        kept = np.zeros_like(labels)
    _log_disagreement("tumor", sweep.mark(tumor, reach, post.tumor_threshold, kept))
    if cascade:
        postprocess.keep_near_liver(tumor, labels, spacing_mm, post)
    if peak:
        postprocess.drop_faint_lesions(tumor, kept, peak)
    postprocess.drop_small_lesions(tumor, spacing_mm, post)
    np.copyto(labels, 2, where=tumor.view(bool))


def tumor_frames(volume: Volume, labels: np.ndarray, models: Sequence) -> dict[InputSpec, Frame]:
    """Return what tumor models see of a case whose liver is known, by their specs."""
    seen = volume.hu.__getitem__, labels.__getitem__, range(len(labels))
    aspect = volume.geometry.pixel_aspect
    specs = dict.fromkeys(model.spec for model in models)  # each once
    return {spec: liver_frame(*seen, spec, aspect) for spec in specs}


def _kept(probabilities: dict | None, system: str, shape: tuple) -> np.ndarray | None:
    """Return the new array of a system's probability, or None where nobody asked for it."""
    if probabilities is None:
        return None
    probabilities[system] = np.zeros(shape, np.uint8)
    return probabilities[system]


def _log_disagreement(system: str, disagreement: float | None) -> None:
    if disagreement is not None:
        logger.info("%s: models and turned views disagree in %.0f %%", system, 100 * disagreement)


def check_hu(volume: Volume) -> None:
    """Refuse a volume that is plainly no CT in HU.

    Raises:
        ValueError: a segmentation was given, or values were shifted, windowed or normalized.
    """
    reason = not_hounsfield(volume.hu)
    if reason:
        raise ValueError(f"{volume.path or 'the volume'}: {reason}")
