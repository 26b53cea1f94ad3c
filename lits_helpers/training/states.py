"""Training states: last, previous and the mirror's two slots; the newest whole one is continued.

`last.pth` and `previous.pth` in a run's `checkpoints` folder hold everything a training needs to go
on. A mirror folder (Google Drive) holds two slots, rewritten in place, each with a checksum: a
replaced file would go to Drive's bin and still count against its quota.
"""

import hashlib
import io
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..checkpoints import (
    COMMON_KEYS,
    CheckpointError,
    explained,
    read_checkpoint,
    read_content,
    require_keys,
)
from ..machine import written_whole
from ..recipes import ADDED_LATER
from ..settings import hint
from .distributed import Ranks
from .optimization import Precision
from .systems import System

logger = logging.getLogger(__name__)

STATE_KEYS = COMMON_KEYS | {"seed", "data", "step", "history"}
SLOTS = ("checkpoint_a.slot", "checkpoint_b.slot")
SLOT_MAGIC = b"LITSSLOT"
DIGEST_SIZE = 16


def save_state(folder: Path, state: Mapping) -> None:
    """Write `last.pth` in `folder`, keeping the one before as `previous.pth`.

    Killed at any moment, one of the two is whole.

    Raises:
        OSError: the disk is full or the folder read-only; what was there stays.
    """
    last = folder / "last.pth"
    with explained(last), written_whole(last) as temporary:
        torch.save(dict(state), temporary)
        if last.exists():
            os.replace(last, folder / "previous.pth")


def newest_state(folder: Path, mirror: Path | str | None = None) -> tuple[dict, str] | None:
    """Find the training state that got furthest among last, previous and the mirror's slots.

    A damaged or foreign file is named in the log and passed over.

    Returns:
        The state and where it came from, or None where there is none.

    Raises:
        OSError: nothing is here, and the mirror cannot be read now: a training that began anew
            would in time write over what it holds.
    """
    found = []
    failing = []
    slots = [Path(mirror) / name for name in SLOTS] if mirror else []
    for path in (folder / "last.pth", folder / "previous.pth", *slots):
        try:
            if _filled(path):
                found.append((_read(path), str(path)))
        except (CheckpointError, OSError) as error:
            _tell(error)
            if path in slots and isinstance(error, OSError):
                failing.append(error)
    if failing and not found:
        raise OSError(
            f"the training state in {mirror} cannot be read now ({failing[0]}): run again in a "
            "minute; if it stays so, restart the machine or move that folder away"
        ) from failing[0]
    # Of two equally far, take one with its model.
    return max(
        found, key=lambda pair: (_position(pair[0]), bool(pair[0].get("best_model"))), default=None
    )


def _filled(path: Path) -> bool:
    """Say whether there is a state to read; `MirrorSlots.clear` empties a slot in place."""
    try:
        return path.stat().st_size > 0 or path.name not in SLOTS
    except (FileNotFoundError, NotADirectoryError):  # not `exists`: it takes any error for a no
        return False


def _read(path: Path) -> dict:
    if path.name in SLOTS:
        return read_slot(path)
    state = read_checkpoint(path)
    if "model" in state:
        raise CheckpointError(
            f"{path} is a model, not the state of a training: take last.pth beside it to go on, or "
            f"begin with its weights ({hint('from')})"
        )
    require_keys(state, STATE_KEYS, path)
    return state


def _tell(error: Exception) -> None:
    logger.warning("%s; falling back to the checkpoint before it", error)


def _position(state: Mapping) -> tuple[int, int]:
    """Return how far a state got."""
    return int(state["epoch"]), int(state["step"])


def named_state(path: Path | str, folder: Path, mirror: Path | str | None = None) -> dict:
    """Read the state of one named file, to go on from it.

    Raises:
        FileNotFoundError, CheckpointError: as `read_state`; also if a state in `folder` or `mirror`
            got further.
        OSError: as `newest_state`.
    """
    state = read_state(path)
    found = newest_state(folder, mirror)
    if found is not None and _position(found[0]) > _position(state):
        raise CheckpointError(
            f"{found[1]} got further than {path}: {hint('continue')} goes on "
            "from there; to go on from the named file, choose another run folder"
        )
    return state


def read_state(path: Path | str) -> dict:
    """Read the training state of one named file (`last.pth`, `previous.pth` or a mirror's slot).

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: it holds no whole training state.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no training state at {path}: {hint('auto')} looks for one, {hint('anew')} starts anew"
        )
    return _read(path)


class MirrorSlots:
    """The two slots of a mirror, rewritten in place by turns; `folder` outlives this machine."""

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.slots = [self.folder / name for name in SLOTS]
        self._next: Path | None = None

    def write(self, state: Mapping) -> None:
        """Write the state over the older slot; a failing mirror is logged, the training goes on."""
        try:
            self._next = self._next or min(self.slots, key=_slot_position)
            _rewrite(self._next, state)
        except OSError as error:
            logger.warning("the mirror in %s cannot be written: %s", self.folder, error)
            return
        self._next = self.slots[1 - self.slots.index(self._next)]

    def clear(self) -> None:
        """Empty both slots in place."""
        for slot in self.slots:
            if slot.exists():
                slot.write_bytes(b"")


def _slot_position(slot: Path) -> tuple[int, int]:
    try:
        return _position(read_slot(slot)) if _filled(slot) else (0, 0)
    except CheckpointError as error:
        _tell(error)
        return (0, 0)


def _rewrite(slot: Path, state: Mapping) -> None:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    payload = buffer.getvalue()
    slot.parent.mkdir(parents=True, exist_ok=True)
    with open(slot, "r+b" if slot.exists() else "w+b") as stream:
        stream.write(SLOT_MAGIC + len(payload).to_bytes(8, "big") + _digest(payload) + payload)
        stream.truncate()
        stream.flush()
        os.fsync(stream.fileno())


def read_slot(path: Path | str) -> dict:
    """Read a mirror's slot.

    Raises:
        CheckpointError: the checksum does not fit (a write was cut short), or it is no slot.
    """
    content = Path(path).read_bytes()
    start = len(SLOT_MAGIC) + 8 + DIGEST_SIZE
    length = int.from_bytes(content[len(SLOT_MAGIC) : len(SLOT_MAGIC) + 8], "big")
    payload = content[start : start + length]
    digest = content[start - DIGEST_SIZE : start]
    if not content.startswith(SLOT_MAGIC) or digest != _digest(payload):
        raise CheckpointError(f"{path} is no whole checkpoint slot: its checksum does not fit")
    state = read_content(io.BytesIO(payload), path)
    require_keys(state, STATE_KEYS, path)
    return state


def _digest(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=DIGEST_SIZE).digest()


def require_same(state: Mapping, wanted: Mapping, where: str) -> None:
    """Refuse to continue a training under other conditions than it began with.

    Args:
        state: of the training so far.
        wanted: of the training asked for: system, recipe, seed, training_ids, validation_ids and
            data (case id -> hash of its source, or None where it is not known).
        where: the state's file, for the message.

    Raises:
        CheckpointError: names every difference.
    """
    differences = list(_differences(state, wanted))
    if differences:
        raise CheckpointError(
            f"{where} belongs to another training: {'; '.join(differences)}. "
            f"Use the same settings, another run folder, or {hint('anew')} to replace it"
        )


def _differences(state: Mapping, wanted: Mapping) -> Iterator[str]:
    if state["system"] != wanted["system"]:
        yield f"it is a {state['system']} training, asked is {wanted['system']}"
        return
    for key in sorted(set(state["recipe"]) | set(wanted["recipe"])):
        missing = ADDED_LATER.get(key)
        before, now = (each["recipe"].get(key, missing) for each in (state, wanted))
        if _plain(before) != _plain(now):
            yield f"recipe.{key} was {before}, now {now}"
    if state["seed"] != wanted["seed"]:
        yield f"seed was {state['seed']}, now {wanted['seed']}"
    for key in ("training_ids", "validation_ids"):
        yield from _id_differences(key, set(state[key]), set(wanted[key]))
    both = state["data"].keys() & wanted["data"].keys()
    changed = sorted(case for case in both if state["data"][case] != wanted["data"][case])
    if changed:
        yield f"the files of case {', '.join(changed[:5])} have changed since"


def _id_differences(key: str, before: set, now: set) -> Iterator[str]:
    for verb, ids in (("lost", before - now), ("gained", now - before)):
        if ids:
            named = ", ".join(sorted(ids)[:5]) + (", ..." if len(ids) > 5 else "")
            yield f"{key} {verb} {len(ids)} ({named})"


def _plain(value):
    """Return a value with lists in place of tuples: a checkpoint keeps tuples, JSON does not."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


@dataclass
class Position:
    """How far a training has come."""

    epoch: int = 1  # the epoch under way, counted from 1
    step: int = 0  # its steps done
    images: int = 0  # its images seen, by all ranks
    seconds: float = 0.0  # its time so far
    steps: int = 0  # of all epochs
    best: float | None = None  # validation Dice of the best epoch

    @classmethod
    def of(cls, state: Mapping) -> "Position":
        """Return where a state was saved."""
        return cls(**{name: state[name] for name in vars(cls()) if name in state})

    def next_epoch(self, best: float | None) -> "Position":
        """Return the start of the next epoch, where `best` is the best Dice so far."""
        return replace(self, epoch=self.epoch + 1, step=0, images=0, seconds=0.0, best=best)


def weights_of(system: System) -> dict[str, dict]:
    """Return the state dicts of all parts of a system: networks, optimizers, scaler."""
    return {name: part.state_dict() for name, part in system.parts.items()}


def load_weights(system: System, state: Mapping, precision: Precision) -> None:
    """Put a state's weights into a system; the scaler's only if the precision is still the same."""
    for name, part in system.parts.items():
        if name != "scaler" or state["precision"] == precision.name:
            part.load_state_dict(_fitting(part, state["parts"][name]))


def _fitting(part: object, saved: dict) -> dict:
    """Return a saved state as a part takes it: an optimizer is fused as its device wants it."""
    if not isinstance(part, torch.optim.Optimizer):
        return saved
    groups = [{**group, "fused": part.defaults["fused"]} for group in saved["param_groups"]]
    return {**saved, "param_groups": groups}


def require_slices(state: Mapping, now: Sequence[int]) -> None:
    """Refuse to continue with other numbers of slices, to train on and to validate, than before.

    Raises:
        CheckpointError: a case lost or gained slices.
    """
    before = state.get("slices")
    if before not in (None, now):
        raise CheckpointError(
            f"this training began with {before[0]} slices to train on and {before[1]} to "
            f"validate, now there are {now[0]} and {now[1]}. If the warnings above name a case "
            "that could not be read, delete its record (prepared/cases/<case>.json), prepare "
            f"it again and start the same training again; or begin anew with {hint('anew')}"
        )


def warn_of_changes(state: Mapping, ranks: Ranks, precision: Precision) -> None:
    """Log what makes a resumed training differ in its bits, though not in its batches."""
    changes = {
        "processes": (state["world"], ranks.world),
        "precision": (state["precision"], precision.name),
    }
    for what, (before, now) in changes.items():
        if before != now and ranks.writes:
            logger.warning(
                "resuming with %s %s instead of %s: the same batches, but not the same bits",
                what,
                now,
                before,
            )
