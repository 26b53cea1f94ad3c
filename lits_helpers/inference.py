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
from .models import build_generator, build_segmenter
from .postprocess import Postprocessing
from .settings import InputSpec, recipe_from_dict
from .volumes import Volume, read_volume, restore, slice_levels, write_segmentation

logger = logging.getLogger(__name__)

BATCH_SIZE = 16  # slices a forward pass; larger ones gained nothing on a CPU and little on a T4


@dataclass(frozen=True)
class Origin:
    """What a checkpoint says of its training: enough to mark the cases a model has seen."""

    path: Path
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

    With both models the tumor model sees only slices near the predicted liver, and its tumor counts
    only
    within the liver and `post.margin_mm` around it, where it joins the liver. With the liver model
    alone there
    are labels 0 and 1; with the tumor model alone 0 and 2, anywhere in the volume.

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
        _fill(
            labels,
            volume.hu,
            liver_model,
            range(len(labels)),
            post.liver_threshold,
            post,
            batch_size,
        )
        postprocess.clean_liver(labels, post)
    if tumor_model is not None:
        _add_tumor(labels, volume, tumor_model, liver_model is not None, post, batch_size)
    return labels


def _add_tumor(labels, volume, model, cascade, post, batch_size) -> None:
    reach = (
        postprocess.liver_reach(labels, volume.spacing_mm, post) if cascade else range(len(labels))
    )
    tumor = np.zeros_like(labels)
    _fill(tumor, volume.hu, model, reach, post.tumor_threshold, post, batch_size)
    if cascade:
        postprocess.keep_near_liver(tumor, labels, volume.spacing_mm, post)
    postprocess.drop_small_lesions(tumor, volume.spacing_mm, post)
    labels[tumor > 0] = 2


@torch.inference_mode()
def _fill(mask, hu, model, slices: Iterable[int], threshold, post, batch_size) -> None:
    """Write 1 into `mask` (Z, Y, X) uint8 wherever the model's probability reaches `threshold`."""
    shape = hu.shape[1:]
    with ThreadPoolExecutor(available_cores()) as pool:
        for indices, planes in _probability_planes(
            hu, model, list(slices), post.flips, batch_size, pool
        ):
            # Interpolation never exceeds its inputs: a plane below the threshold needs no
            # upsampling.
            above = [
                (k, plane)
                for k, plane in zip(indices, planes, strict=True)
                if plane.max() >= threshold
            ]
            for k, native in pool.map(lambda pair: (pair[0], restore(pair[1], shape)), above):
                np.greater_equal(native, threshold, out=mask[k].view(bool))


def _probability_planes(hu, model, slices, flips, batch_size, pool) -> Iterator:
    """Yield (indices, probabilities (n, size, size) float32) batch by batch."""
    spec, device = model.spec, next(model.parameters()).device
    dtype = amp_dtype(device)
    levels = _level_lookup(hu, spec, slices, pool)
    for start in range(0, len(slices), batch_size):
        indices = slices[start : start + batch_size]
        stack = np.stack([[levels[n] for n in _neighbors(k, len(hu), spec)] for k in indices])
        images = model_input(torch.from_numpy(stack).to(device), spec)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            probabilities = model.probabilities(images)
            if flips:
                mirrored = model.probabilities(images.flip(-1)).flip(-1)
                probabilities = (probabilities + mirrored) / 2
        yield indices, probabilities[:, 0].cpu().numpy()


def _level_lookup(hu, spec, slices, pool) -> dict[int, np.ndarray]:
    """Bring every slice that is needed, neighbours included, to model size once."""
    needed = sorted({n for k in slices for n in _neighbors(k, len(hu), spec)})
    return dict(zip(needed, pool.map(lambda k: slice_levels(hu[k], spec), needed), strict=True))


def _neighbors(k: int, depth: int, spec: InputSpec) -> list[int]:
    return [min(max(k + step, 0), depth - 1) for step in range(-spec.context, spec.context + 1)]


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
