"""Model files, written whole and read without executing them, and the networks in them.

`best_model.pth` holds what inference needs; what a training needs to go on is in
`training/states.py`.
"""

import hashlib
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import safetensors.torch
import torch
from torch import nn

from .environment import choose_device
from .machine import few, open_readable, read_json, write_json, written_whole
from .models import build_generator, build_segmenter
from .preprocess import hash_of_ct
from .recipes import SYSTEMS, InputSpec, Recipe, recipe_from_dict
from .settings import hint

COMMON_KEYS = {"system", "recipe", "training_ids", "validation_ids", "epoch"}  # with states
WRAPPERS = ("module.", "_orig_mod.")
MODEL_KEYS = COMMON_KEYS | {"model", "validation_dice"}
SYNTHETIC = "synthetic"  # in place of a path: the weights that come with the project
WEIGHTS = Path(__file__).with_name("weights")  # SYSTEM.safetensors, and SYSTEM.json: its card


class CheckpointError(ValueError):
    """A file that is no whole checkpoint of this suite."""


def load_checkpoint(path: Path | str, system: str | None = None) -> dict:
    """Load a model for inference: `best_model.pth`, or bare weights with their .json beside them.

    Args:
        path: the file; "synthetic" for the weights that come with the project.
        system: "liver" or "tumor" to insist on that system; None takes either, and of "synthetic"
            the only one that there is.

    Returns:
        system, recipe (dict), model (state dict on the CPU), training_ids, validation_ids, epoch,
        validation_dice; files written by a training also hold seed and version.

    Raises:
        FileNotFoundError: no such file; says how to make it.
        CheckpointError: truncated, foreign, of the other system, or a pickle that would run code.
    """
    path = Path(path)
    if str(path) == SYNTHETIC:
        return _synthetic_checkpoint(system)
    if not path.is_file():
        cure = " or ".join(hint(name) for name in ((system,) if system else SYSTEMS))
        raise FileNotFoundError(f"no {system or 'model'} checkpoint at {path}: {cure}")
    content = read_checkpoint(path)
    if "parts" in content:
        raise CheckpointError(
            f"{path} is the state of a training, not its model: take best_model.pth beside it"
        )
    if path.with_suffix(".json").is_file() and MODEL_KEYS - set(content):
        content = {**read_json(path.with_suffix(".json")), "model": content}
    require_keys(content, MODEL_KEYS, path)
    if system and content["system"] != system:
        raise CheckpointError(
            f"{path} holds a {content['system']} model, a {system} model is wanted: {hint(system)}"
        )
    return content | {"model": _plain_names(content["model"])}


def _plain_names(weights: Mapping) -> dict:
    """Strip the prefixes that DistributedDataParallel and torch.compile put before the names."""
    for prefix in WRAPPERS * 2:  # in either order
        if weights and all(str(name).startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return dict(weights)


def has_synthetic(system: str) -> bool:
    """Tell whether weights of this system come with the project."""
    return (WEIGHTS / f"{system}.json").is_file()


def _synthetic_checkpoint(system: str | None) -> dict:
    if system is None:
        there = list(filter(has_synthetic, SYSTEMS))
        if len(there) != 1:
            raise ValueError('"synthetic" names weights of either system: say liver or tumor')
        system = there[0]
    if not has_synthetic(system):
        raise FileNotFoundError(f"no synthetic {system} weights in this version: {hint(system)}")
    card = read_json(WEIGHTS / f"{system}.json")
    path = WEIGHTS / f"{system}.safetensors"
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != card["sha256"]:
        raise CheckpointError(
            f"{path} is missing or not the file that its card describes (cut short, replaced or of "
            "another version): install lits_helpers again, or use a model of your own"
        )
    weights = safetensors.torch.load(content)
    half = {  # widened by numpy: torch fails at it where /proc is missing
        name: torch.from_numpy(value.numpy().astype(np.float32))
        for name, value in weights.items()
        if value.dtype == torch.half
    }
    return {**card["checkpoint"], "model": weights | half}


def save_synthetic(checkpoint: Mapping, card: Mapping, folder: Path = WEIGHTS) -> Path:
    """Write a trained model as weights that come with the project, in half precision, and its card.

    Args:
        checkpoint: from `load_checkpoint`, of a model trained on generated patients alone; `peak`
            in it is kept, see `TumorModel`.
        card: what a reader must know of it, as plain values.
        folder: where to write.
    """
    wanted = "system", "recipe", "epoch", "validation_dice", "peak"
    kept = {key: checkpoint[key] for key in wanted if key in checkpoint}
    weights = {
        name: value.half() if value.is_floating_point() and value.ndim > 1 else value
        for name, value in checkpoint["model"].items()
    }
    content = safetensors.torch.save({name: v.contiguous() for name, v in weights.items()})
    path = folder / f"{checkpoint['system']}.safetensors"
    with written_whole(path) as temporary:
        temporary.write_bytes(content)
    kept |= {"training_ids": [], "validation_ids": []}  # generated patients: nobody's cases
    made = {"checkpoint": kept, "sha256": hashlib.sha256(content).hexdigest(), "card": dict(card)}
    write_json(path.with_suffix(".json"), made)
    return path


def read_checkpoint(path: Path | str) -> dict:
    """Read a file of tensors and plain values without ever executing what it holds.

    Raises:
        CheckpointError: truncated, foreign, or a pickle that would run code.
    """
    with open_readable(path) as stream:
        return read_content(stream, path)


def read_content(stream: BinaryIO, path: Path | str) -> dict:
    """Read a checkpoint from an open stream, as `read_checkpoint`; `path` is for messages."""
    zipped = stream.read(4) == b"PK\x03\x04"  # what torch.save writes
    stream.seek(0)
    try:
        content = torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} was not opened: it is a pickle that could run code, or no checkpoint at all; "
            "delete it, or train the model again"
        ) from error
    except MemoryError:  # says nothing about the file
        raise
    except Exception as error:  # torch raises what the damage happens to cause
        what = "is truncated or damaged" if zipped else "is no checkpoint"
        reason = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise CheckpointError(f"{path} {what} ({reason})") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} is no checkpoint: it holds a {type(content).__name__}")
    return dict(content)


def require_keys(content: Mapping, keys: set[str], path: Path | str) -> None:
    """Refuse a file that lacks what this suite writes.

    Raises:
        CheckpointError: keys are missing; the message names them.
    """
    missing = sorted(keys - set(content))
    if missing:
        raise CheckpointError(f"{path} is no checkpoint of this suite: it lacks {few(missing)}")


def save_model(path: Path, content: Mapping) -> None:
    """Write a model file, whole or not at all.

    Raises:
        OSError: the disk is full or the folder read-only; what was there stays.
    """
    with explained(path), written_whole(path) as temporary:
        torch.save(dict(content), temporary)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the error of a file that cannot be written, by torch or the system, into one sentence.

    Raises:
        OSError: names the file, the reason and the cure.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "write" not in str(error):
            raise
        raise OSError(
            f"cannot write {path} ({error}): free disk space or choose a writable folder, then "
            "start the same training again; it resumes from the checkpoints, which are intact"
        ) from error


@dataclass(frozen=True)
class Origin:
    """Where a checkpoint comes from: enough to mark the cases that its model has seen.

    Attributes:
        training_cts: `preprocess.hash_of_ct` of the cases trained on, where it is known.
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

    system: str  # "liver" or "tumor"

    def __init__(self, network: nn.Module, spec: InputSpec, origin: Origin):
        super().__init__()
        self.network = network
        self.spec = spec
        self.origin = origin

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        """Return probabilities (N, 1, H, W), float32."""
        return self(images).float()


class LiverModel(TrainedModel):
    """A trained generator; called, it returns probabilities."""

    system = "liver"

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return liver probabilities (N, 1, H, W) in [0, 1] for images (N, C, H, W) in [0, 1]."""
        return self.network(images).clamp(0, 1)


class TumorModel(TrainedModel):
    """A trained RegNet segmenter; called, it returns logits.

    Attributes:
        peak: a lesion counts if its highest probability reaches this, see `Postprocessing`.
    """

    system = "tumor"
    peak = 0.0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return tumor logits (N, 1, H, W) for images (N, 3, H, W) as TumorSlices yields them."""
        return self.network(images)

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        """Return probabilities (N, 1, H, W), float32."""
        return super().probabilities(images).sigmoid()


def load_liver_model(path: Path | str, device: torch.device | str | None = None) -> LiverModel:
    """Load a liver model, ready to segment; it has `.spec`, its input, and `.origin`.

    Raises:
        FileNotFoundError: no such file; says how to make it.
        ValueError: not a checkpoint of this system, or the weights do not fit its recipe.
    """
    return _load(path, LiverModel, build_generator, device)


def load_tumor_model(path: Path | str, device: torch.device | str | None = None) -> TumorModel:
    """Load a tumor checkpoint; as `load_liver_model` otherwise."""
    return _load(path, TumorModel, partial(build_segmenter, pretrained=False), device)


def _load(path, model_type: type[TrainedModel], build: Callable[[Recipe], nn.Module], device):
    checkpoint = load_checkpoint(path, system=model_type.system)
    recipe = recipe_of(path, checkpoint)
    network = build(recipe)
    try:
        network.load_state_dict(checkpoint["model"])
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()[:160]
        raise ValueError(
            f"{path}: the weights do not fit the recipe {recipe.name!r} it names "
            f"({reason}); train the {model_type.system} model again"
        ) from error
    model = model_type(network, recipe.spec, origin_of(path, checkpoint))
    model.peak = float(checkpoint.get("peak", 0.0))
    model = model.to(choose_device(device))
    return model.eval().to(memory_format=torch.channels_last)


def weights_hash(spec: InputSpec, weights: Mapping[str, torch.Tensor]) -> str:
    """Return a hash (32 hex digits) of a network's weights and its input specification."""
    digest = hashlib.blake2b(repr(spec).encode(), digest_size=16)
    for name in sorted(weights):
        values = weights[name].detach().cpu().float().contiguous()
        digest.update(name.encode())
        digest.update(values.view(-1).numpy().tobytes())
    return digest.hexdigest()


def read_origin(path: Path | str) -> Origin:
    """Read which cases a checkpoint was trained on, without building its network."""
    return origin_of(path, load_checkpoint(path))


def origin_of(path: Path | str, checkpoint: Mapping) -> Origin:
    """Return which cases a checkpoint has seen, its starting weights included."""
    spec = recipe_of(path, checkpoint).spec
    training_ids = tuple(checkpoint["training_ids"])
    # PNG folders have no hashes.
    hashes = (checkpoint.get("data", {}).get(name) for name in training_ids)
    cts = frozenset(hash_of_ct(each) for each in hashes if each)
    start = checkpoint.get("start", {})
    cts = cts.union(start.get("training_cts", ()))
    training_ids = tuple(dict.fromkeys([*training_ids, *start.get("training_ids", ())]))
    return Origin(checkpoint["system"], spec, training_ids, cts)


def recipe_of(path: Path | str, checkpoint: Mapping) -> Recipe:
    """Return the recipe that a checkpoint was trained by.

    Raises:
        ValueError: the recipe is of another version; names the file and the cure.
    """
    try:
        return recipe_from_dict(checkpoint["recipe"])
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: {error}; train the {checkpoint['system']} model again, or use the version "
            f"{checkpoint.get('version', 'that made it')} of lits_helpers"
        ) from error
