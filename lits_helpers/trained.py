"""Trained networks with what they need to be used: their input specification and their origin."""

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

    path: Path
    system: str  # "liver" or "tumor"
    spec: InputSpec
    training_ids: tuple[str, ...]
    validation_ids: tuple[str, ...]
    validation_dice: float
    training_cts: frozenset[str] = frozenset()


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
    recipe = _recipe(path, checkpoint)
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
        _recipe(path, checkpoint).spec,
        tuple(checkpoint["training_ids"]),
        tuple(checkpoint["validation_ids"]),
        float(checkpoint["validation_dice"]),
        _cts_of(checkpoint),
    )


def _recipe(path, checkpoint) -> Recipe:
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
