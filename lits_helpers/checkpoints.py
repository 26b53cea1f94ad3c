"""Model files: written whole, never executed, refused with the reason when they do not fit.

`best_model.pth` holds what inference needs; what a training needs to go on is in `states.py`.
"""

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch

from .files import read_json, written_whole

MADE_BY = {
    "liver": "notebook 02 (python -m lits_helpers train-liver) trains one",
    "tumor": "notebook 03 (python -m lits_helpers train-tumor) trains one",
}
MODEL_KEYS = {
    "system",
    "recipe",
    "model",
    "training_ids",
    "validation_ids",
    "epoch",
    "validation_dice",
}


class CheckpointError(ValueError):
    """A file that is no whole checkpoint of this suite."""


def load_checkpoint(path: Path | str, system: str | None = None) -> dict:
    """Load a model for inference: `best_model.pth`, or bare weights with their .json beside them.

    Args:
        path: the file.
        system: "liver" or "tumor" to insist on that system; None takes either.

    Returns:
        system, recipe (dict), model (state dict on the CPU), training_ids, validation_ids, epoch,
        validation_dice; files written by a training also hold seed and version.

    Raises:
        FileNotFoundError: no such file; says which notebook makes it.
        CheckpointError: truncated, foreign, of the other system, or a pickle that would run code.
    """
    path = Path(path)
    if not path.is_file():
        hint = MADE_BY.get(system, " or ".join(MADE_BY.values()))
        raise FileNotFoundError(f"no {system or 'model'} checkpoint at {path}: {hint}")
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
            f"{path} holds a {content['system']} model, a {system} model is wanted: "
            f"{MADE_BY[system]}"
        )
    return content


def read_checkpoint(path: Path | str) -> dict:
    """Read a file of tensors and plain values without ever executing what it holds.

    Raises:
        CheckpointError: truncated, foreign, or a pickle that would run code.
    """
    with open(path, "rb") as stream:
        return read_content(stream, path)


def read_content(stream: BinaryIO, path: Path | str) -> dict:
    """Read what `read_checkpoint` reads from an open stream; `path` is for messages."""
    zipped = stream.read(4) == b"PK\x03\x04"  # what torch.save writes
    stream.seek(0)
    try:
        content = torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} was not opened: it is a pickle that could run code, or no checkpoint at all; "
            "delete it, or train the model again"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, AttributeError) as error:
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
        raise CheckpointError(
            f"{path} is no checkpoint of this suite: it lacks {', '.join(missing)}"
        )


def save_model(path: Path, content: Mapping) -> None:
    """Write a model file, whole or not at all.

    Raises:
        OSError: the disk is full or the folder read-only; what was there stays.
    """
    with explained(path), written_whole(path) as temporary:
        torch.save(dict(content), temporary)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what torch and the system raise when a file cannot be written into one sentence.

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
