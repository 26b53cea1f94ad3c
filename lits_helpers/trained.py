"""Trained networks with what they need to be used: their input specification and their origin."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from .checkpoints import load_checkpoint
from .environment import choose_device
from .models import build_generator, build_segmenter
from .prepared import hash_of_ct
from .recipes import InputSpec, Recipe, recipe_from_dict


@dataclass(frozen=True)
class Origin:
    """What a checkpoint says of its training: enough to mark the cases a model has seen.

    Attributes:
        training_cts: `prepared.hash_of_ct` of the cases trained on, where they are known.
    """

    system: str  # "liver" or "tumor"
    spec: InputSpec
    training_ids: tuple[str, ...]
    training_cts: frozenset[str] = frozenset()


class TrainedModel(nn.Module):
    """A trained network of either system with its input specification.

    Attributes:
        spec: how slices become its input.
        origin: where its weights come from.
    """

    def __init__(self, network: nn.Module, spec: InputSpec, origin: Origin):
        super().__init__()
        self.network, self.spec, self.origin = network, spec, origin


class LiverModel(TrainedModel):
    """A trained generator; called, it returns probabilities."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return liver probabilities (N, 1, H, W) in [0, 1] for images (N, C, H, W) in [0, 1]."""
        return self.network(images).clamp(0, 1)

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        """Return probabilities (N, 1, H, W), float32."""
        return self(images).float()


class TumorModel(TrainedModel):
    """A trained RegNet segmenter; called, it returns logits."""

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
    recipe = recipe_of(path, checkpoint)
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
    """Read which cases a checkpoint was trained on, without building its network."""
    return _origin(path, load_checkpoint(path))


def _origin(path, checkpoint) -> Origin:
    return Origin(
        checkpoint["system"],
        recipe_of(path, checkpoint).spec,
        tuple(checkpoint["training_ids"]),
        _cts_of(checkpoint),
    )


def recipe_of(path: Path | str, checkpoint: Mapping) -> Recipe:
    """Return the recipe that a checkpoint was trained by.

    Raises:
        ValueError: it is of another version; names the file and the cure.
    """
    try:
        return recipe_from_dict(checkpoint["recipe"])
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: {error}; train the {checkpoint['system']} model again, or use the version "
            f"{checkpoint.get('version', 'that made it')} of lits_helpers"
        ) from error


def _cts_of(checkpoint) -> frozenset[str]:
    """Return which CTs a checkpoint was trained on; none of PNG folders, which have no hashes."""
    hashes = (checkpoint.get("data", {}).get(name) for name in checkpoint["training_ids"])
    return frozenset(hash_of_ct(each) for each in hashes if each)
