"""Train the liver GAN and the tumor segmenter, both on the one engine of `engine.py`."""

import logging
import shutil
import traceback
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from .. import __version__
from ..checkpoints import CheckpointError, load_checkpoint, origin_of, recipe_of
from ..datasets import SliceCache, epoch_order, require_tumors
from ..environment import choose_device, use_available_cores
from ..machine import file_hash, locked, require
from ..preprocess import data_hashes, hash_of_ct
from ..recipes import LiverRecipe, Recipe, TumorRecipe
from ..settings import hint
from .distributed import Ranks, joined_ranks
from .engine import Trainer
from .health import TrainingDivergedError, memory_advice
from .optimization import Precision, compile_pays
from .run_folder import RunFolder
from .states import named_state, newest_state, require_same
from .stopping import Stopwatch
from .systems import LiverSystem, System, TumorSystem

logger = logging.getLogger(__name__)

PARTS = ("training", "validation")  # of a split, read by a training
CACHE = "cache"  # in the run folder: slices that do not fit into memory, until the training's end


@dataclass(frozen=True)
class TrainingOptions:
    """How a training of either system runs.

    Attributes:
        device: torch device, or None to choose.
        resume: "auto" continues the newest whole checkpoint in the run folder or `mirror`, "never"
            starts anew, a path continues that file unless another checkpoint got further.
        start_from: weights to begin with: a checkpoint, or "synthetic" for those that come with
            the project; None begins from random ones, system B's encoder from ImageNet's.
        seed: random seed of weights, order and augmentation.
        max_minutes: stop cleanly after this long; the next call resumes.
        mirror: folder (Google Drive) for two checkpoint slots, rewritten every quarter of an hour.
        tensorboard: also write TensorBoard events to `run`/tensorboard.
        precision: "auto", "fp32", "bf16" or "fp16".
        compiled: "auto" (long trainings on a GPU), "always" or "never".
    """

    device: torch.device | str | None = None
    resume: Path | str = "auto"
    start_from: Path | str | None = None
    seed: int = 0
    max_minutes: float | None = None
    mirror: Path | str | None = None
    tensorboard: bool = False
    precision: str = "auto"
    compiled: str = "auto"

    def __post_init__(self):
        if self.compiled not in ("auto", "always", "never"):
            raise ValueError(f"compiled must be auto, always or never; got {self.compiled!r}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be 0 or more and below 2**63, got {self.seed}")


def train_liver_gan(
    prepared: Path | str, run: Path | str, split, recipe: LiverRecipe, **options
) -> list[dict]:
    """Train system A and keep the best generator by validation Dice per case.

    Args:
        prepared: prepared/ folder or bare PNG folder.
        run: run folder; what is in it is continued.
        split: `training` and `validation` (and `test`) are tuples of case ids.
        recipe: the setting.
        options: see `TrainingOptions`.

    Returns:
        A row an epoch: epoch, steps (of all epochs so far), seconds (of this epoch, validation
        included), learning_rate, g_loss, pixel_loss, feature_loss, critic_loss, validation_dice
        (mean per case at working size), validation_dice_global, images_per_second. A finished run
        returns its history at once.

    Raises:
        TypeError: an unknown option.
        ValueError: an empty split, a case that does not exist, a batch larger than the training
            set, a checkpoint of another training (the difference is named).
        TrainingDivergedError, MemoryError, OSError: with what to change; checkpoints stay intact.
        KeyboardInterrupt, SystemExit: after Stop, SIGTERM or SIGUSR1; the state was saved first.
    """
    chosen = TrainingOptions(**options)
    return _Training(LiverSystem, Path(prepared), Path(run), split, recipe, chosen).history()


def train_tumor_regnet(
    prepared: Path | str, run: Path | str, split, recipe: TumorRecipe, **options
) -> list[dict]:
    """Train system B; arguments, history and errors as for `train_liver_gan`.

    The history has `loss` in place of the four losses, and validation_dice is the mean over cases
    with tumor. Beside best_model.pth the best weights are kept as
    `run`/regnet_lits_tumor_segmentation_trained.pth, a bare state dict, with a .json of its
    InputSpec.

    Raises:
        OSError: also if the ImageNet weights are not cached and cannot be fetched.
    """
    chosen = TrainingOptions(**options)
    return _Training(TumorSystem, Path(prepared), Path(run), split, recipe, chosen).history()


@dataclass(frozen=True)
class _Training:
    """One call of a training."""

    system_type: type[LiverSystem | TumorSystem]
    prepared: Path
    run: Path
    split: object
    recipe: Recipe
    options: TrainingOptions

    def history(self) -> list[dict]:
        """Train to the end or to a stop; return the history so far."""
        wanted = f"a recipe: {self.system_type.name}_recipe()"
        require(self.recipe, "spec", "recipe", wanted)
        require(self.split, "training", "split", "a Split: split_cases(cases)")
        _check_split(self.split)
        try:
            return self._train()
        except (KeyboardInterrupt, SystemExit, MemoryError, TrainingDivergedError) as error:
            # A notebook keeps the traceback, and so the caches.
            traceback.clear_frames(error.__traceback__)
            raise

    def _train(self) -> list[dict]:
        watch = Stopwatch(self.options.max_minutes)
        use_available_cores()
        with joined_ranks(choose_device(self.options.device)) as (ranks, device):
            precision = Precision(device, self.options.precision)
            identity = self._identity(precision)
            state = ranks.from_first(self._state(identity) if ranks.writes else None)
            start = None
            if state is None:
                start = self._start()
            begun_with = start.described if start else (state or {}).get("start")
            if begun_with:  # whoever resumes need not name them again
                identity["start"] = begun_with
            folder = RunFolder(
                self.run, self.system_type.name, self.options.mirror, writes=ranks.writes
            )
            if state is not None and state["epoch"] > self.recipe.epochs:
                folder.restore_finished(state)
                return list(state["history"])
            # A second training in this folder would write the same files.
            cure = "wait for it, end it, or choose another folder for this training"
            with locked(self.run / ".lock", cure) if ranks.writes else nullcontext():
                with memory_advice(self.recipe):
                    caches = [self._cache(part, device, ranks) for part in PARTS]
                    system = self._system(device, precision, ranks, caches[0], state, start)
                trainer = Trainer(
                    system, *caches, folder=folder, identity=identity, ranks=ranks, watch=watch
                )
                if state is not None:
                    trainer.restore(state)
                record = self._record(identity, ranks, device)
                folder.begin(record, self.options.tensorboard, self.options.resume == "never")
                history = trainer.run()
                if ranks.writes and len(history) == self.recipe.epochs:
                    shutil.rmtree(self.run / CACHE, ignore_errors=True)
                return history

    def _cache(self, part: str, device: torch.device, ranks: Ranks) -> SliceCache:
        cache = SliceCache(
            self.prepared,
            getattr(self.split, part),
            self.recipe.spec,
            device=device,
            folder=self.run / CACHE / part,
            ranks=ranks,
        )
        if self.system_type is TumorSystem:
            require_tumors(cache.liver_only)
        return cache

    def _system(self, device, precision, ranks: Ranks, cache, state, start) -> System:
        seed = int(self.options.seed)
        steps = len(epoch_order(cache, self.recipe, seed=seed, epoch=1))
        _check_batch(self.recipe, steps)
        done = state["epoch"] - 1 if state else 0
        steps = steps // self.recipe.batch_size * (self.recipe.epochs - done)
        compiled = self.options.compiled == "always"
        if self.options.compiled == "auto":
            compiled = compile_pays(device, steps)
        weights = (
            {"pretrained": False} if self.system_type is TumorSystem and (state or start) else {}
        )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # leaves a GPU's generator to the caller
            system = self.system_type(self.recipe, device, precision, ranks, compiled, **weights)
        if start:
            start.load_into(system)
        return system

    def _identity(self, precision: Precision) -> dict:
        return {
            "system": self.system_type.name,
            "recipe": asdict(self.recipe),
            "seed": int(self.options.seed),  # numpy's numbers and texts would spoil checkpoints
            "training_ids": [str(case_id) for case_id in self.split.training],
            "validation_ids": [str(case_id) for case_id in self.split.validation],
            "data": data_hashes(self.prepared, [*self.split.training, *self.split.validation]),
            "precision": precision.name,
            "version": __version__,
        }

    def _state(self, identity: dict) -> dict | None:
        """Return the state to continue from, if any."""
        resume = self.options.resume
        if resume == "never":
            return None
        places = (self.run / "checkpoints", self.options.mirror)
        if resume == "auto":
            found = newest_state(*places)
        else:
            found = named_state(resume, *places), str(resume)
        if found is None:
            return None
        state, where = found
        require_same(state, identity, where)
        if self.options.start_from is not None:
            _require_same_start(state, self.options.start_from, where)
        logger.info("resuming from %s: epoch %d, step %d", where, state["epoch"], state["step"])
        return state

    def _start(self) -> "_Start | None":
        """Return the weights to begin with, if any were named."""
        if self.options.start_from is None:
            return None
        held_out = [*self.split.validation, *getattr(self.split, "test", ())]
        hashes = data_hashes(self.prepared, held_out)
        return _load_start(self.options.start_from, self.recipe, self.system_type.name, hashes)

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
            f"epoch: set {hint('batch size')}{slices} or less, or add cases"
        )


@dataclass(frozen=True)
class _Start:
    """Weights to begin with, and what a new checkpoint must know of them.

    Attributes:
        weights: state dict of the network that is validated and kept.
        described: name and hash of their file, and what they have seen: training_cts, hashes of
            CTs, and training_ids, cases without one.
        where: the file, for messages.
    """

    weights: Mapping
    described: dict
    where: str

    def load_into(self, system: System) -> None:
        """Put the weights into a system's model, and into their average if it keeps one.

        Raises:
            CheckpointError: weights of another shape; names the first of them.
        """
        network = system.networks["model"]
        mine = network.state_dict()
        odd = [
            f"{name} {_shape(self.weights.get(name))} there, {_shape(mine.get(name))} here"
            for name in sorted(mine.keys() | self.weights.keys())
            if _shape(self.weights.get(name)) != _shape(mine.get(name))
        ]
        if odd:
            raise CheckpointError(
                f"{self.where} cannot start this training: {len(odd)} of its weights have another "
                f"shape ({'; '.join(odd[:2])}): take its recipe, for the liver its width"
            )
        network.load_state_dict(self.weights)
        if system.average:
            system.average.model.load_state_dict(self.weights)
        logger.info("starting from %s", self.where)


def _load_start(
    start: Path | str, recipe: Recipe, name: str, held_out: Mapping[str, str | None]
) -> _Start:
    """Read the weights to begin with.

    Args:
        start: as `TrainingOptions.start_from`.
        recipe: of the training.
        name: of its system.
        held_out: {case that validates or tests: its hash, see `data_hashes`}.

    Raises:
        CheckpointError: another InputSpec, or weights that have seen cases which validate here.
    """
    checkpoint = load_checkpoint(start, system=name)
    there, here = asdict(recipe_of(start, checkpoint).spec), asdict(recipe.spec)
    odd = [f"{key} {there[key]} there, {here[key]} here" for key in here if there[key] != here[key]]
    if odd:
        raise CheckpointError(
            f"{start} cannot start this training: InputSpec differs ({'; '.join(odd)})"
        )
    origin = origin_of(start, checkpoint)
    # PNG folders have no hashes: what was trained on from one is known by name alone
    named = [case for case in origin.training_ids if not checkpoint.get("data", {}).get(case)]
    seen = [
        case
        for case, each in held_out.items()
        if case in (named if each else origin.training_ids)
        or (each and hash_of_ct(each) in origin.training_cts)
    ]
    if seen:
        raise CheckpointError(
            f"{start} was trained on cases that validate or test here ({', '.join(seen[:5])}): "
            "scores would flatter; take the same split or other weights"
        )
    described = _file_of(start) | {
        "training_cts": sorted(origin.training_cts),
        "training_ids": named,
    }
    return _Start(checkpoint["model"], described, str(start))


def _file_of(start: Path | str) -> dict:
    """Return name and hash of a file of weights, no hash for "synthetic" or where it is gone."""
    path = Path(start)
    return {"name": path.name} | ({"hash": file_hash(path)} if path.is_file() else {})


def _require_same_start(state: Mapping, start: Path | str, where: str) -> None:
    """Refuse to go on from a state that began with other weights than those asked for.

    Raises:
        CheckpointError: names both.
    """
    begun, asked = state.get("start") or {}, _file_of(start)
    if any(begun.get(key) != value for key, value in asked.items()):
        raise CheckpointError(
            f"{where} did not begin with {start} but with {begun.get('name', 'no other weights')}: "
            f"name no weights to go on from it, or begin with these by {hint('anew')} or in "
            "another run folder"
        )


def _shape(tensor) -> tuple | None:
    return None if tensor is None else tuple(tensor.shape)
