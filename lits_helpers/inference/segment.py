"""Whole patients: a CT volume in, labels 0/1/2 in the patient's own geometry out."""

import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..checkpoints import LiverModel, TumorModel
from ..datasets import model_input, rotated
from ..environment import amp_dtype
from ..machine import available_cores, processes_here, require
from ..settings import hint
from ..volumes import (
    WHOLE_SLICE,
    LiverFrame,
    Volume,
    liver_frame,
    read_volume,
    restore,
    segmentation_path,
    slice_levels,
    write_segmentation,
)
from . import postprocess
from .postprocess import Postprocessing

logger = logging.getLogger(__name__)

BATCH_SIZE = 16  # slices a forward pass; larger ones gained nothing on a CPU
DENSE_HU = 800
MAX_DENSE_SHARE = 0.15  # a pelvis with metal has 3 %; a trunk shifted by 1024 has 30 % and more


def segment_volume(
    volume: Volume,
    liver_model: LiverModel | None = None,
    tumor_model: TumorModel | None = None,
    post: Postprocessing | None = None,
    *,
    known_liver: np.ndarray | None = None,
    batch_size: int = BATCH_SIZE,
) -> np.ndarray:
    """Segment a whole CT.

    With both models the tumor model sees only slices near the predicted liver, and of these only
    the liver's surroundings if it was trained so. Its tumor counts only within the liver and
    `post.margin_mm` around it. With the liver model alone the labels are 0 and 1; with the tumor
    model alone 0 and 2, anywhere in the volume.

    Args:
        volume: HU (Z, Y, X) with its spacing in mm.
        liver_model, tumor_model: at least one, from `load_liver_model` and `load_tumor_model`.
        post: thresholds and clean-up; None for the defaults.
        known_liver: (Z, Y, X), above 0 in the liver and its tumors; it replaces a liver model.
        batch_size: slices per forward pass.

    Returns:
        Labels (Z, Y, X) uint8: 0 background, 1 liver, 2 tumor.

    Raises:
        TypeError: an array or a path where a volume or a model belongs, or the other model.
        ValueError: no model, `volume` is no CT in HU, or `known_liver` has another shape.
    """
    if liver_model is None and tumor_model is None:
        raise ValueError("segment_volume needs a liver model, a tumor model or both; got neither")
    require(volume, "hu", "volume", "a volume: read_volume(path), or volume_from_array(hu)")
    for name, model in (("liver", liver_model), ("tumor", tumor_model)):
        if model is not None:
            wanted = f"a {name} model: load_{name}_model(path)"
            require(model, "probabilities", f"{name}_model", wanted)
            if getattr(model, "system", name) != name:
                raise TypeError(f"{name}_model must be {wanted}, got a {model.system} model")
    check_hu(volume)
    if known_liver is not None and known_liver.shape != volume.hu.shape:
        raise ValueError(f"known_liver has shape {known_liver.shape}, the CT {volume.hu.shape}")
    post = post or Postprocessing()
    labels = np.zeros(volume.hu.shape, np.uint8)
    if known_liver is not None:
        np.greater(known_liver, 0, out=labels.view(bool))
    elif liver_model is not None:
        sweep = _Sweep(liver_model, volume.hu, WHOLE_SLICE, post.rotation_degrees, batch_size)
        sweep.mark(labels, range(len(labels)), post.liver_threshold)
        postprocess.clean_liver(labels, post)
    if tumor_model is not None:
        in_liver = liver_model is not None or known_liver is not None
        _add_tumor(labels, volume, tumor_model, in_liver, post, batch_size)
    return labels


def segment_file(
    volume_path: Path | str,
    out_path: Path | str,
    liver_model: LiverModel | None = None,
    tumor_model: TumorModel | None = None,
    post: Postprocessing | None = None,
    *,
    orientation: str | None = None,
) -> Path:
    """Segment a CT file and write the labels with the CT's shape, affine and voxel order.

    Args:
        volume_path: .nii, .nii.gz or a packed case (.b2nd).
        out_path: where to write, .nii or .nii.gz.
        liver_model, tumor_model, post: as for `segment_volume`.
        orientation: as for `volumes.read_volume`, for a CT whose header cannot be trusted.

    Returns:
        `out_path`.

    Raises:
        ValueError: no readable CT, another suffix of `out_path`, or the CT's own path, before any
            work.
    """
    out_path = segmentation_path(out_path, volume_path)
    volume = read_volume(volume_path, orientation=orientation)
    return write_segmentation(
        segment_volume(volume, liver_model, tumor_model, post), volume, out_path
    )


def _add_tumor(labels, volume, model, cascade: bool, post, batch_size) -> None:
    """Write label 2 into `labels`, which hold the liver if this is a cascade."""
    spec = model.spec
    reach = range(len(labels))
    spacing_mm = volume.geometry.trusted_spacing_mm or (1.0, 1.0, 1.0)
    frame = liver_frame(volume.hu.__getitem__, labels.__getitem__, reach, spec)
    if cascade:
        reach = postprocess.liver_reach(labels, spacing_mm, post)
    elif spec.liver_margin is not None or spec.liver_window:
        logger.warning(
            "this tumor model was trained on known livers; without a liver model it errs"
        )
    tumor = np.zeros_like(labels)
    sweep = _Sweep(model, volume.hu, frame, post.rotation_degrees, batch_size)
    sweep.mark(tumor, reach, post.tumor_threshold)
    if cascade:
        postprocess.keep_near_liver(tumor, labels, spacing_mm, post)
    postprocess.drop_small_lesions(tumor, spacing_mm, post)
    np.copyto(labels, 2, where=tumor.view(bool))


@dataclass(frozen=True)
class _Sweep:
    """One model's way over a volume `hu` (Z, Y, X), of whose slices it sees `frame`."""

    model: LiverModel | TumorModel
    hu: np.ndarray
    frame: LiverFrame
    rotation_degrees: float
    batch_size: int

    def mark(self, mask: np.ndarray, slices: Iterable[int], threshold: float) -> None:
        """Write 1 into `mask` (Z, Y, X) uint8 where the probability reaches `threshold`."""
        slices = [int(k) for k in slices]
        box = self.frame.box
        inside = mask if box is None else mask[:, *box.area]  # a view
        with _thread_per_core() as pool:
            levels = self._levels(slices, pool)

            def mark_batch(indices: list[int]) -> None:
                stack = np.stack([[levels[n] for n in self._neighbors(k)] for k in indices])
                planes = probabilities(self.model, stack, self.rotation_degrees)
                for k, plane in zip(indices, planes, strict=True):
                    # Interpolation exceeds no input: a plane below the threshold needs none.
                    if plane.max() >= threshold:
                        native = restore(plane, inside[k].shape)
                        np.greater_equal(native, threshold, out=inside[k].view(bool))

            list(pool.map(mark_batch, self._batches(slices)))

    def _batches(self, slices: list[int]) -> list[list[int]]:
        """Return even batches, at least one for each core."""
        count = max(-(-len(slices) // self.batch_size), min(_own_cores(), len(slices)))
        return [part.tolist() for part in np.array_split(slices, count)] if slices else []

    def _levels(self, slices: list[int], pool) -> dict[int, np.ndarray]:
        """Bring every slice that is needed, neighbours included, to model size once."""
        needed = sorted({n for k in slices for n in self._neighbors(k)})
        made = pool.map(lambda k: slice_levels(self.hu[k], self.model.spec, self.frame), needed)
        return dict(zip(needed, made, strict=True))

    def _neighbors(self, k: int) -> list[int]:
        context = self.model.spec.context
        last = len(self.hu) - 1
        return [min(max(k + step, 0), last) for step in range(-context, context + 1)]


@torch.inference_mode()
def probabilities(
    model: LiverModel | TumorModel, levels: np.ndarray, rotation_degrees: float = 0.0
) -> np.ndarray:
    """Return a model's probabilities for a batch of slices, computed on the model's device.

    Args:
        model: from `load_liver_model` or `load_tumor_model`.
        levels: (N, 1 + 2 * context, S, S) grey levels, each slice among its neighbours.
        rotation_degrees: see `Postprocessing`.

    Returns:
        (N, S, S) float32 in [0, 1].
    """
    device = next(model.parameters()).device
    dtype = amp_dtype(device)
    images = model_input(torch.from_numpy(levels).to(device), model.spec)
    images = images.contiguous(memory_format=torch.channels_last)
    angles = (rotation_degrees, -rotation_degrees) if rotation_degrees else ()
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        total = model.probabilities(images)
        for angle in angles:
            total = total + rotated(model.probabilities(rotated(images, angle)), -angle)
    planes = (total / (1 + len(angles)))[:, 0].cpu().numpy()
    if not np.isfinite(planes).all():
        raise ValueError(
            "the model's output is NaN: its weights are broken, or too large for this device's "
            f"half precision; try {hint('cpu')}, or train it again"
        )
    return planes


@contextmanager
def _thread_per_core() -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of one-thread workers: one batch a core beats one batch on all cores."""
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(
            _own_cores(), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)  # torch gives new threads the number set last


def _own_cores() -> int:
    """Return this process's share of the cores; `torchrun` says how many share them."""
    return max(1, available_cores() // processes_here())


def check_hu(volume: Volume) -> None:
    """Refuse a volume that is plainly no CT in HU.

    Raises:
        ValueError: a segmentation was given, or values were shifted, windowed or normalized.
    """
    low = int(volume.hu.min())
    high = int(volume.hu.max())
    name = volume.path or "the volume"
    if low >= -2 and high <= 2:
        raise ValueError(
            f"{name}: values {low}..{high} look like a segmentation or normalized grey "
            "levels; give the CT (volume-N.nii) in Hounsfield units"
        )
    cure = "apply the rescale slope and intercept (often: subtract 1024)"
    if low >= 0:
        raise ValueError(
            f"{name}: values {low}..{high} are not Hounsfield units: air lies at {low}, "
            f"expected about -1000; {cure}"
        )
    dense = float(np.mean(volume.hu[::4, ::8, ::8] > DENSE_HU))
    if dense > MAX_DENSE_SHARE:  # air may be padded below 0, but tissue shows the shift
        raise ValueError(
            f"{name}: not Hounsfield units: {dense:.0%} of it above {DENSE_HU} HU, where "
            f"only bone and metal lie; {cure}"
        )
