"""Whole patients: a CT volume in, labels 0/1/2 in the patient's own geometry out."""

import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from . import postprocess
from .checkpoints import load_checkpoint
from .datasets import model_input
from .environment import amp_dtype, available_cores, choose_device
from .frames import WHOLE_SLICE, LiverFrame, liver_frame
from .models import build_generator, build_segmenter
from .postprocess import Postprocessing
from .settings import InputSpec, recipe_from_dict
from .volumes import (
    Volume,
    read_volume,
    restore,
    slice_levels,
    write_segmentation,
)

logger = logging.getLogger(__name__)

BATCH_SIZE = 16  # slices a forward pass; larger ones gained nothing on a CPU and little on a T4


@dataclass(frozen=True)
class Origin:
    """What a checkpoint says of its training: enough to mark the cases a model has seen."""

    path: Path
    system: str  # "liver" or "tumor"
    spec: InputSpec
    training_ids: tuple[str, ...]
    validation_ids: tuple[str, ...]
    validation_dice: float


class LiverModel(nn.Module):
    """A trained generator with its input specification.

    Attributes:
        spec: how slices become its input.
        origin: where its weights come from.
    """

    def __init__(self, network: nn.Module, spec: InputSpec, origin: Origin):
        super().__init__()
        self.network, self.spec, self.origin = network, spec, origin

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return liver probabilities (N, 1, H, W) in [0, 1] for images (N, C, H, W) in [0, 1]."""
        return self.network(images).clamp(0, 1)

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        """Return probabilities (N, 1, H, W), float32."""
        return self(images).float()


class TumorModel(LiverModel):
    """A trained RegNet segmenter with its input specification; called, it returns logits."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return tumor logits (N, 1, H, W) for images (N, 3, H, W) as TumorSlices yields them."""
        return self.network(images)

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        """Return probabilities (N, 1, H, W), float32."""
        return self(images).float().sigmoid()


def load_liver_model(path: Path | str, device: torch.device | str | None = None) -> LiverModel:
    """Load a liver checkpoint as an eval-mode module with `.spec` and `.origin`.

    Raises:
        FileNotFoundError: no such file; says which notebook makes it.
        ValueError: not a checkpoint of system A, or of other weights than its recipe describes.
    """
    return _load(path, "liver", build_generator, LiverModel, device)


def load_tumor_model(path: Path | str, device: torch.device | str | None = None) -> TumorModel:
    """Load a tumor checkpoint as an eval-mode module with `.spec` and `.origin`.

    Raises:
        FileNotFoundError: no such file; says which notebook makes it.
        ValueError: not a checkpoint of system B, or of other weights than its recipe describes.
    """
    return _load(
        path, "tumor", lambda recipe: build_segmenter(recipe, pretrained=False), TumorModel, device
    )


def _load(path, system, build, wrapper, device):
    checkpoint = load_checkpoint(path, system=system)
    recipe = recipe_from_dict(checkpoint["recipe"])
    network = build(recipe)
    try:
        network.load_state_dict(checkpoint["model"])
    except RuntimeError as error:
        raise ValueError(
            f"{path}: the weights do not fit the recipe {recipe.name!r} it names "
            f"({str(error).splitlines()[-1].strip()}); train the {system} model again"
        ) from error
    model = wrapper(network, recipe.spec, _origin(path, checkpoint))
    model = model.to(choose_device(None if device is None else str(device)))
    return model.eval().to(memory_format=torch.channels_last)


def read_origin(path: Path | str) -> Origin:
    """Read which cases a checkpoint was trained and validated on, without building its network."""
    return _origin(path, load_checkpoint(path))


def _origin(path, checkpoint) -> Origin:
    return Origin(
        Path(path),
        checkpoint["system"],
        recipe_from_dict(checkpoint["recipe"]).spec,
        tuple(checkpoint["training_ids"]),
        tuple(checkpoint["validation_ids"]),
        float(checkpoint["validation_dice"]),
    )


def segment_volume(
    volume: Volume,
    liver_model: LiverModel | None = None,
    tumor_model: TumorModel | None = None,
    post: Postprocessing | None = None,
    *,
    batch_size: int = BATCH_SIZE,
) -> np.ndarray:
    """Segment a whole CT.

    With both models the tumor model sees only slices near the predicted liver (of these, only the
    liver's surroundings, if it was trained so), and its tumor counts only within the liver and
    `post.margin_mm` around it, where it joins the liver. With the liver model alone there are
    labels 0 and 1; with the tumor model alone 0 and 2, anywhere in the volume.

    Args:
        volume: HU (Z, Y, X) with its spacing in mm.
        liver_model, tumor_model: at least one, from `load_liver_model` and `load_tumor_model`.
        post: thresholds and clean-up; None for the defaults.
        batch_size: slices per forward pass.

    Returns:
        Labels (Z, Y, X) uint8: 0 background, 1 liver, 2 tumor.

    Raises:
        ValueError: no model, or `volume` is no CT in HU.
    """
    if liver_model is None and tumor_model is None:
        raise ValueError("segment_volume needs a liver model, a tumor model or both; got neither")
    check_hu(volume)
    post = post or Postprocessing()
    labels = np.zeros(volume.hu.shape, np.uint8)
    if liver_model is not None:
        sweep = _Sweep(liver_model, volume.hu, WHOLE_SLICE, post.flips, batch_size)
        sweep.mark(labels, range(len(labels)), post.liver_threshold)
        postprocess.clean_liver(labels, post)
    if tumor_model is not None:
        _add_tumor(labels, volume, tumor_model, liver_model is not None, post, batch_size)
    return labels


def _add_tumor(labels, volume, model, cascade: bool, post, batch_size) -> None:
    """Write label 2 into `labels`, which hold the liver if this is a cascade."""
    spec, reach = model.spec, range(len(labels))
    frame = liver_frame(volume.hu.__getitem__, labels.__getitem__, reach, spec)
    if cascade:
        reach = postprocess.liver_reach(labels, volume.spacing_mm, post)
    elif spec.liver_margin is not None or spec.liver_window:
        logger.warning(
            "this tumor model was trained on known livers; without a liver model it errs"
        )
    tumor = np.zeros_like(labels)
    sweep = _Sweep(model, volume.hu, frame, post.flips, batch_size)
    sweep.mark(tumor, reach, post.tumor_threshold)
    if cascade:
        postprocess.keep_near_liver(tumor, labels, volume.spacing_mm, post)
    postprocess.drop_small_lesions(tumor, volume.spacing_mm, post)
    labels[tumor > 0] = 2


@dataclass(frozen=True)
class _Sweep:
    """One model's way over the slices of a volume.

    Attributes:
        model: a `LiverModel` or `TumorModel`.
        hu: (Z, Y, X) int16.
        frame: what of each slice the model sees.
        flips: average with the mirror image.
        batch_size: slices a forward pass.
    """

    model: LiverModel
    hu: np.ndarray
    frame: LiverFrame
    flips: bool
    batch_size: int

    def mark(self, mask: np.ndarray, slices: Iterable[int], threshold: float) -> None:
        """Write 1 into `mask` (Z, Y, X) uint8 where the probability reaches `threshold`."""
        box = self.frame.box
        inside = mask if box is None else mask[:, *box.area]
        with ThreadPoolExecutor(available_cores()) as pool:
            for indices, planes in self._planes([int(k) for k in slices], pool):
                targets = [inside[k] for k in indices]  # views
                list(pool.map(_mark_slice, targets, planes, [threshold] * len(planes)))

    @torch.inference_mode()
    def _planes(self, slices: list[int], pool) -> Iterator[tuple[list[int], np.ndarray]]:
        """Yield (slice indices, probabilities (n, size, size) float32) batch by batch."""
        levels = self._levels(slices, pool)
        for start in range(0, len(slices), self.batch_size):
            indices = slices[start : start + self.batch_size]
            stack = np.stack([[levels[n] for n in self._neighbors(k)] for k in indices])
            yield indices, self._probabilities(torch.from_numpy(stack)).cpu().numpy()

    def _probabilities(self, levels: torch.Tensor) -> torch.Tensor:
        device = next(self.model.parameters()).device
        dtype = amp_dtype(device)
        images = model_input(levels.to(device), self.model.spec)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            probabilities = self.model.probabilities(images)
            if self.flips:
                mirrored = self.model.probabilities(images.flip(-1)).flip(-1)
                probabilities = (probabilities + mirrored) / 2
        return probabilities[:, 0]

    def _levels(self, slices: list[int], pool) -> dict[int, np.ndarray]:
        """Bring every slice that is needed, neighbours included, to model size once."""
        needed = sorted({n for k in slices for n in self._neighbors(k)})
        made = pool.map(lambda k: slice_levels(self.hu[k], self.model.spec, self.frame), needed)
        return dict(zip(needed, made, strict=True))

    def _neighbors(self, k: int) -> list[int]:
        context, last = self.model.spec.context, len(self.hu) - 1
        return [min(max(k + step, 0), last) for step in range(-context, context + 1)]


def _mark_slice(target: np.ndarray, plane: np.ndarray, threshold: float) -> None:
    # Interpolation never exceeds its inputs: a plane below the threshold needs no upsampling.
    if plane.max() >= threshold:
        np.greater_equal(restore(plane, target.shape), threshold, out=target.view(bool))


def check_hu(volume: Volume) -> None:
    """Refuse what is plainly no CT in HU.

    Raises:
        ValueError: a segmentation was given, or air lies at 0 (values were shifted or windowed).
    """
    low, high = int(volume.hu.min()), int(volume.hu.max())
    if 0 <= low and high <= 2:
        raise ValueError(
            f"{volume.path}: values {low}..{high} look like a segmentation; "
            "give the CT (volume-N.nii)"
        )
    if low >= 0:
        raise ValueError(
            f"{volume.path}: values {low}..{high} are not Hounsfield units: air lies at {low}, "
            "expected about -1000; apply the rescale slope and intercept (often: subtract 1024)"
        )


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
    """
    volume = read_volume(volume_path, orientation=orientation)
    return write_segmentation(
        segment_volume(volume, liver_model, tumor_model, post), volume, out_path
    )
