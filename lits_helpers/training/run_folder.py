"""Write what people read of a run: history.csv, loss curve, validation pictures, recipe.json."""

import csv
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..checkpoints import CheckpointError, explained, load_checkpoint, save_model
from ..figures import plot_history, render_slice, save_figure, with_key
from ..machine import remove_leftovers, write_json, written_whole
from ..settings import hint
from ..volumes import write_picture
from .states import MirrorSlots, require_same, save_state

CURVE_SECONDS = 30.0  # between two drawings of the loss curve: a figure costs half a second
TUMOR_WEIGHTS = "regnet_lits_tumor_segmentation_trained.pth"
CLOCK_COLUMNS = ("seconds", "images_per_second")  # all that differs between two equal trainings


class RunFolder:
    """A run's folder: checkpoints/, history.csv, curve, pictures, recipe.json.

    Args:
        root: runs/liver or runs/tumor.
        system: "liver" or "tumor".
        mirror: folder of the two slots, or None.
        writes: False on ranks that only compute; they read and write nothing here.
    """

    def __init__(
        self, root: Path, system: str, mirror: Path | str | None = None, writes: bool = True
    ):
        self.root = root
        self.system = system
        self.writes = writes
        self.checkpoints = root / "checkpoints"
        self.mirror = MirrorSlots(mirror) if mirror else None
        self._drawn = time.monotonic()
        self._events = None

    def begin(self, record: Mapping, tensorboard: bool, anew: bool = False) -> None:
        """Write recipe.json and open what the run writes to; `anew` forgets an earlier training.

        Raises:
            OSError: the folder cannot be written.
            ImportError: TensorBoard was asked for and is not installed.
        """
        if not self.writes:
            return
        with explained(self.root):
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.root)
            make_writer = _event_writer() if tensorboard else None
            if anew:
                self._clear()
            if make_writer:
                self._events = make_writer(str(self.root / "tensorboard"))
            write_recipe(self.root / "recipe.json", record)

    def _clear(self) -> None:
        """Remove an earlier training's states, pictures and events: no later call resumes from it.

        Its best model, history and curve stay until those of the new training replace them.
        """
        for name in ("last.pth", "previous.pth"):
            (self.checkpoints / name).unlink(missing_ok=True)
        forgotten = [self.checkpoints / "val_predictions", self.root / "tensorboard"]
        if self.mirror:
            self.mirror.clear()
            forgotten.append(self.mirror.folder / "checkpoints" / "val_predictions")
        for folder in forgotten:
            shutil.rmtree(folder, ignore_errors=True)

    def write_best(self, content: Mapping) -> None:
        """Keep the best model so far, for the tumor also as a bare state dict with its .json.

        best_model.pth comes last: whoever finds it after a kill finds the others, too.
        """
        if self.system == "tumor":
            described = {key: value for key, value in content.items() if key != "model"}
            described["spec"] = content["recipe"]["spec"]
            save_model(self.root / TUMOR_WEIGHTS, content["model"])
            write_json((self.root / TUMOR_WEIGHTS).with_suffix(".json"), described)
        save_model(self.checkpoints / "best_model.pth", content)

    def write_state(self, state: Mapping, *, mirror: bool) -> None:
        """Save the state here; with `mirror` also in the mirror, together with the best model."""
        save_state(self.checkpoints, state)
        if mirror and self.mirror:
            self.mirror.write({**state, "best_model": self.best_of(state)})

    def restore_finished(self, state: Mapping) -> None:
        """Bring back what a finished run leaves, where only the mirror still holds it.

        Raises:
            CheckpointError: nothing holds its model any more.
        """
        if not self.writes or self.best_of(state):
            return
        if not state.get("best_model"):
            raise CheckpointError(
                f"this training is finished, but its model {self.checkpoints / 'best_model.pth'} "
                f"is gone, damaged or of another training: train it anew with {hint('anew')}"
            )
        with explained(self.root):
            self.restore_best(state)
            write_history(self.root / "history.csv", state["history"])
            self.draw_curve(state["history"])

    def best_of(self, state: Mapping) -> dict | None:
        """Return what best_model.pth holds, if that is the best model of a state.

        A model of the state's own epoch counts too: a kill may come between an epoch's model and
        its state.
        """
        path = self.checkpoints / "best_model.pth"
        try:
            best = load_checkpoint(path)
            require_same(best, state, str(path))
        except (OSError, CheckpointError, KeyError):  # none, damaged, foreign
            return None
        if best.get("start") != state.get("start"):  # of an earlier training, see `_clear`
            return None
        is_best = str(best["validation_dice"]) == str(state["best"])  # as text: NaN != NaN
        return best if is_best or best["epoch"] == state["epoch"] else None

    def restore_best(self, state: Mapping) -> None:
        """Bring back the best model that a mirror's state carries."""
        if self.writes and state.get("best_model"):
            self.write_best(state["best_model"])

    def write_epoch(self, history: Sequence[Mapping], images: Tensor, masks: Mapping) -> None:
        """Write history, pictures and now and then the curve.

        Args:
            history: all rows.
            images: (n, C, S, S) model input of the slices shown.
            masks: "reference" and "prediction", each (n, S, S) bool, and "names" of the slices.
        """
        epoch = history[-1]["epoch"]
        with explained(self.root):
            write_history(self.root / "history.csv", history)
            folder = self.checkpoints / "val_predictions" / f"epoch_{epoch:04d}"
            write_pictures(folder, images, **masks)
            if time.monotonic() - self._drawn > CURVE_SECONDS or epoch == 1:
                self.draw_curve(history)
        if self._events:
            for name, value in history[-1].items():
                self._events.add_scalar(name, value, epoch)

    def draw_curve(self, history: Sequence[Mapping]) -> None:
        """Draw losses and validation Dice over the epochs as loss_curve.png."""
        figure = plot_history(history, title=f"{self.system} model")
        save_figure(figure, self.checkpoints / "loss_curve.png")
        self._drawn = time.monotonic()

    def close(self) -> None:
        """Flush the TensorBoard events."""
        if self._events:
            self._events.close()


def _event_writer() -> type:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            "events for TensorBoard need its package: pip install tensorboard"
        ) from error
    return SummaryWriter


def write_pictures(
    folder: Path,
    images: Tensor,
    structure: str,
    names: Sequence[str],
    reference: np.ndarray,
    prediction: np.ndarray,
) -> None:
    """Write one PNG a slice: the slice, and beside it the slice with both masks and a key.

    Args:
        folder: checkpoints/val_predictions/epoch_XXXX, replaced as a whole.
        images: (n, C, S, S) model input; the middle channel is shown, lowest value black, highest
            white.
        structure: "liver" or "tumor", what the masks are of.
        names: (n,) file names without suffix.
        reference, prediction: (n, S, S) bool.
    """
    planes = images[:, images.shape[1] // 2].float().cpu().numpy()
    with written_whole(folder, lasting=False) as temporary:
        temporary.mkdir(parents=True, exist_ok=True)
        for row, name in enumerate(names):
            masks = {
                f"reference {structure}": reference[row],
                f"predicted {structure}": prediction[row],
            }
            window = (float(planes[row].min()), float(planes[row].max()) + 1e-6)
            pair = [
                render_slice(planes[row], window=window, layers=layers, zoom=2)
                for layers in ({}, masks)
            ]
            picture = with_key(np.concatenate(pair, axis=1), masks)
            write_picture(temporary / f"{name}.png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def write_history(path: Path, history: Sequence[Mapping]) -> None:
    """Write one line an epoch, whole or not at all."""
    if not history:
        return
    with (
        written_whole(path, lasting=False) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.DictWriter(stream, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)


def read_history(path: Path | str) -> list[dict]:
    """Read a history.csv back: epoch and steps as int, all else as float."""
    types = {"epoch": int, "steps": int}
    with open(path, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return [{name: types.get(name, float)(text) for name, text in row.items()} for row in rows]


def write_recipe(path: Path, content: Mapping) -> None:
    """Write `content` (recipe, split, data hashes, ...) with versions and commit added."""
    versions = {
        "lits_helpers": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    write_json(path, {**content, "versions": versions, "commit": _commit()})


def _commit() -> str | None:
    """Return the commit this module was checked out at, or None if it is in no repository.

    A module installed below another project's folder is not in that project's repository.
    """
    place = Path(__file__)
    if _git(place.parent, "ls-files", "--error-unmatch", place.name) is None:
        return None
    return _git(place.parent, "rev-parse", "HEAD")


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None
