"""Train the liver GAN and the tumor segmenter, both on the one engine of `engine.py`."""

import logging
import shutil
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from . import __version__
from .acceleration import Precision, compile_pays
from .datasets import SliceCache, epoch_order
from .distributed import Ranks, joined_ranks
from .engine import Trainer
from .environment import choose_device
from .health import TrainingDivergedError, memory_advice
from .interruption import Stopwatch
from .locks import locked
from .recipes import LiverRecipe, Recipe, TumorRecipe, recipe_to_dict
from .records import RunFolder, data_hashes
from .states import named_state, newest_state, require_same
from .systems import LiverSystem, System, TumorSystem

logger = logging.getLogger(__name__)

PARTS = ("training", "validation")  # of a split, that a training reads
CACHE = "cache"  # in the run folder: slices that do not fit into memory, until the training's end
COMPILE = ("auto", "always", "never")


def train_liver_gan(
    prepared: Path | str,
    run: Path | str,
    split,
    recipe: LiverRecipe,
    *,
    device: torch.device | str | None = None,
    resume: Path | str = "auto",
    seed: int = 0,
    max_minutes: float | None = None,
    mirror: Path | str | None = None,
    tensorboard: bool = False,
    precision: str = "auto",
    compile: str = "auto",
) -> list[dict]:
    """Train system A and keep the best generator by validation Dice per case.

    Args:
        prepared: prepared/ folder or bare PNG folder.
        run: run folder; what is in it is continued.
        split: `training` and `validation` (and `test`) are tuples of case ids.
        recipe: the setting.
        device: torch device, or None to choose.
        resume: "auto" continues the newest whole checkpoint in `run` or `mirror`, "never" starts
            anew, a path continues that very file, if none in `run` or `mirror` got further.
        seed: random seed of weights, order and augmentation.
        max_minutes: stop cleanly after this long; the next call resumes.
        mirror: folder (Google Drive) for two checkpoint slots, rewritten every quarter of an hour.
        tensorboard: also write TensorBoard events to `run`/tensorboard.
        precision: "auto", "fp32", "bf16" or "fp16".
        compile: "auto" (long trainings on a GPU), "always" or "never".

    Returns:
        A row an epoch: epoch, steps (of all epochs so far), seconds (of this epoch, validation
        included), learning_rate, g_loss, pixel_loss, feature_loss, critic_loss, validation_dice
        (mean per case at working size), validation_dice_global, images_per_second. A finished run
        returns its history at once.

    Raises:
        ValueError: an empty split, a case that does not exist, a batch larger than the training
            set, a checkpoint of another training (the difference is named).
        TrainingDivergedError, MemoryError, OSError: with what to change; checkpoints stay intact.
        KeyboardInterrupt, SystemExit: after Stop, SIGTERM or SIGUSR1; the state was saved first.
    """
    request = _Request(
        "liver", prepared, run, split, recipe, seed, resume, mirror, precision, compile
    )
    return request.train(LiverSystem, device, max_minutes, tensorboard)


def train_tumor_regnet(
    prepared: Path | str,
    run: Path | str,
    split,
    recipe: TumorRecipe,
    *,
    device: torch.device | str | None = None,
    resume: Path | str = "auto",
    seed: int = 0,
    max_minutes: float | None = None,
    mirror: Path | str | None = None,
    tensorboard: bool = False,
    precision: str = "auto",
    compile: str = "auto",
) -> list[dict]:
    """Train system B; arguments, history and errors as for `train_liver_gan`.

    The history has `loss` in place of the four losses, and validation_dice is the mean over cases
    with tumor. Beside best_model.pth the best weights are kept as
    `run`/regnet_lits_tumor_segmentation_trained.pth, a bare state dict, with a .json of its
    InputSpec.

    Raises:
        OSError: also when the ImageNet weights are neither cached nor to be had.
    """
    request = _Request(
        "tumor", prepared, run, split, recipe, seed, resume, mirror, precision, compile
    )
    return request.train(TumorSystem, device, max_minutes, tensorboard)


class _Request:
    """One call of a training, checked."""

    def __init__(
        self, name, prepared, run, split, recipe, seed, resume, mirror, precision, compile
    ):
        self.name, self.prepared, self.split, self.recipe = name, Path(prepared), split, recipe
        self.seed, self.resume, self.precision, self.compile = seed, resume, precision, compile
        self.run, self.mirror = Path(run), Path(mirror) if mirror else None
        if compile not in COMPILE:
            raise ValueError(f"compile must be one of {', '.join(COMPILE)}, got {compile!r}")
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed must be 0 or more and below 2**63, got {seed}")
        _check_split(split)

    def train(self, make_system: Callable, device, max_minutes, tensorboard) -> list[dict]:
        """Run the training to its end or to a stop."""
        try:
            return self._train(make_system, device, max_minutes, tensorboard)
        except (KeyboardInterrupt, SystemExit, MemoryError, TrainingDivergedError) as error:
            traceback.clear_frames(error.__traceback__)  # a notebook keeps it, and our caches by it
            raise

    def _train(self, make_system: Callable, device, max_minutes, tensorboard) -> list[dict]:
        watch = Stopwatch(max_minutes)
        device = choose_device(None if device is None else str(device))
        with joined_ranks(device) as (ranks, device):
            precision = Precision(device, self.precision)
            identity = self._identity(precision)
            state = ranks.from_first(self._state(identity) if ranks.writes else None)
            folder = RunFolder(self.run, self.name, self.mirror, writes=ranks.writes)
            if state is not None and state["epoch"] > self.recipe.epochs:
                folder.restore_finished(state)
                return list(state["history"])
            with self._alone(ranks):
                with memory_advice(self.recipe):
                    caches = [self._cache(part, device, ranks) for part in PARTS]
                    system = self._system(make_system, device, precision, ranks, caches[0], state)
                trainer = Trainer(
                    system, *caches, self.recipe, folder, identity, precision, ranks, watch
                )
                if state is not None:
                    trainer.restore(state)
                record, anew = self._record(identity, ranks, device), self.resume == "never"
                folder.begin(record, tensorboard, anew)
                history = trainer.run()
                if ranks.writes and len(history) == self.recipe.epochs:
                    shutil.rmtree(self.run / CACHE, ignore_errors=True)
                return history

    def _alone(self, ranks: Ranks) -> AbstractContextManager:
        """Keep a second training out of the run folder; both would write the same files."""
        cure = "wait for it, end it, or choose another folder for this training"
        return locked(self.run / ".lock", cure) if ranks.writes else nullcontext()

    def _cache(self, part: str, device: torch.device, ranks: Ranks) -> SliceCache:
        return SliceCache(
            self.prepared,
            getattr(self.split, part),
            self.recipe.spec,
            device=device,
            folder=self.run / CACHE / part,
            ranks=ranks,
        )

    def _system(self, make_system, device, precision, ranks: Ranks, cache, state) -> System:
        steps = len(epoch_order(cache, self.recipe, seed=self.seed, epoch=1))
        _check_batch(self.recipe, steps)
        done = state["epoch"] - 1 if state else 0
        steps = steps // self.recipe.batch_size * (self.recipe.epochs - done)
        compiled = self.compile == "always" or (
            self.compile == "auto" and compile_pays(device, steps)
        )
        options = {"pretrained": False} if self.name == "tumor" and state is not None else {}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(self.seed))  # a GPU's own is the caller's
            return make_system(self.recipe, device, precision, ranks, compiled, **options)

    def _identity(self, precision: Precision) -> dict:
        return {
            "system": self.name,
            "recipe": recipe_to_dict(self.recipe),
            "seed": int(self.seed),  # numpy's numbers and texts would spoil checkpoints
            "training_ids": [str(case_id) for case_id in self.split.training],
            "validation_ids": [str(case_id) for case_id in self.split.validation],
            "data": data_hashes(self.prepared, [*self.split.training, *self.split.validation]),
            "precision": precision.name,
            "version": __version__,
        }

    def _state(self, identity: dict) -> dict | None:
        """Return the state to continue from, if any."""
        if self.resume == "never":
            return None
        places = self.run / "checkpoints", self.mirror
        if self.resume == "auto":
            found = newest_state(*places)
            if found is None:
                return None
            state, where = found
        else:
            state, where = named_state(self.resume, *places), str(self.resume)
        require_same(state, identity, where)
        logger.info("resuming from %s: epoch %d, step %d", where, state["epoch"], state["step"])
        return state

    def _record(self, identity: dict, ranks: Ranks, device: torch.device) -> dict:
        test_ids = [str(case_id) for case_id in getattr(self.split, "test", ())]
        return {
            **identity,
            "test_ids": test_ids,
            "device": device.type,
            "processes": ranks.world,
            "data": identity["data"] | data_hashes(self.prepared, test_ids),
        }


def _check_split(split) -> None:
    for part in PARTS:
        if not getattr(split, part):
            raise ValueError(
                f"the split's {part} part is empty: prepare more cases or change its shares"
            )
    both = set(split.training) & set(split.validation)
    if both:
        raise ValueError(f"cases are in training and validation: {', '.join(sorted(both)[:5])}")


def _check_batch(recipe: Recipe, slices: int) -> None:
    if slices < 2:
        raise ValueError(f"the training part holds {slices} slice: batch norm needs at least 2")
    if recipe.batch_size > slices:
        raise ValueError(
            f"batch_size={recipe.batch_size} is larger than the {slices} training slices of an "
            f"epoch: set batch_size={slices} or less, or add cases"
        )
