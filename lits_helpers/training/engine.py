"""The loop both trainings share: steps, epochs, validation, saving, resuming, stopping.

Nothing random outlives a step: the order of the slices follows from (seed, epoch), the augmentation
from (seed, epoch, step, rank). So a state is weights, optimizers, scaler and the position within
the epoch. A training that was killed anywhere ends with the same bits as one that was not, on the
CPU of the same machine.
"""

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..datasets import SliceCache, augmentation_of, epoch_order
from ..settings import hint
from . import health, states
from .distributed import Ranks
from .optimization import learning_rate, step_or_give_up
from .run_folder import RunFolder
from .states import Position
from .stopping import SAVE, STOP, StopRequest, Stopwatch
from .systems import System
from .validation import ValidationScore, picture_indices, pictures_of, validation_score

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5  # how often losses are fetched from the device, for the bar and to notice NaN
ESTIMATE_SECONDS = 60.0  # and
ESTIMATE_STEPS = 10  # must be over before the rest can be estimated
AGREE_STEPS = 10  # how often ranks exchange losses and agree on stopping


@dataclass(eq=False)
class Trainer:
    """One training of one system on one split.

    Attributes:
        training, validation: caches of the two parts of the split.
        identity: what every checkpoint states: system, recipe, seed, ids, precision, version.
    """

    system: System
    training: SliceCache
    validation: SliceCache
    folder: RunFolder
    identity: Mapping
    ranks: Ranks
    watch: Stopwatch

    def __post_init__(self):
        system = self.system
        self.recipe = system.recipe
        self.precision = system.precision
        self.at = Position()
        self.history: list[dict] = []
        self.sums = torch.zeros(len(system.losses), device=self.training.device)
        self.pictures = picture_indices(self.validation, system.target)
        if not any(system.target(labels).any() for labels in self.validation.labels.split(256)):
            logger.warning(
                "no validation case holds %s: without a Dice to choose by the last epoch is kept",
                system.name,
            )
        self.estimated = False
        self.validating = 0.0  # seconds of this call
        self.began: tuple[float, int] | None = None  # time and step after the first steps

    def run(self) -> list[dict]:
        """Train to the end of the recipe or to a stop; return the history so far.

        Raises:
            KeyboardInterrupt, SystemExit: after a signal of `StopRequest`, when all is saved.
            TrainingDivergedError: a loss became NaN.
            MemoryError: with the setting to lower.
        """
        with StopRequest() as request, self._bar() as bar, health.memory_advice(self.recipe):
            self.ranks.require_same_slices(self._slices(), self.sums.device)
            while self.at.epoch <= self.recipe.epochs and not self._stopping(request):
                if self._steps(request, bar):
                    self._end_epoch(bar)
            self._leave()
        request.obey()
        return self.history

    def _slices(self) -> list[int]:
        return [len(self.training), len(self.validation)]

    def _bar(self) -> tqdm:
        steps = len(self._batches())
        return tqdm(
            total=self.recipe.epochs * steps,
            initial=self.at.steps,
            desc=f"{self.system.name} model",
            unit="step",
            disable=not self.ranks.writes,
            mininterval=LOOK_SECONDS,
        )

    def _batches(self) -> tuple[Tensor, ...]:
        """Return the indices of the epoch under way, global batch by global batch."""
        seed = self.identity["seed"]
        order = epoch_order(self.training, self.recipe, seed=seed, epoch=self.at.epoch)
        return order.split(self.recipe.batch_size)

    def _stopping(self, request: StopRequest) -> bool:
        return self.ranks.highest(int(request.wanted or self.watch.over()), self.sums.device) > 0

    def _steps(self, request: StopRequest, bar: tqdm) -> bool:
        """Go on with the epoch; return False if it was stopped before its end."""
        batches = self._batches()
        self.system.train()
        began = looked = time.monotonic()
        while self.at.step < len(batches):
            self._step(batches[self.at.step], len(batches))
            bar.update(1)
            now = time.monotonic()
            self.at.seconds += now - began
            began = now
            if self._together() if self.ranks.world > 1 else now - looked > LOOK_SECONDS:
                self._look(bar)
                looked = now
            wish = self._wish(request)
            if wish == STOP:
                return False
            if wish == SAVE:
                self.save(mirror=self.watch.mirror_due())
        return True

    def _step(self, batch: Tensor, steps: int) -> None:
        rate = learning_rate(self.recipe, self.at.epoch - 1 + self.at.step / steps)
        for optimizer in self.system.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        part, weight = self.ranks.share(batch)
        augment = augmentation_of(self.recipe)
        images, labels = self.training.batch(part, augment=augment, generator=self._generator())
        losses = step_or_give_up(self.system.step, self.system.compiled, images, labels, weight)
        self.sums += losses * (weight * len(batch) / self.ranks.world)
        self.at.images += len(batch)
        self.at.step += 1
        self.at.steps += 1

    def _generator(self) -> torch.Generator:
        """Return this step's random generator; it does not depend on earlier steps."""
        entropy = [self.identity["seed"], self.at.epoch, self.at.step, self.ranks.rank]
        seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)
        return torch.Generator().manual_seed(seed)

    def _together(self) -> bool:
        """Say whether all ranks exchange losses and wishes after this step."""
        return self.at.step % AGREE_STEPS == 0

    def _wish(self, request: StopRequest) -> int:
        """Return what the ranks agree to do now: 0 for nothing, SAVE or STOP."""
        if self.ranks.world > 1 and not self._together():
            return 0
        stop = request.wanted or self.watch.over()
        return self.ranks.highest(STOP if stop else SAVE * self.watch.save_due(), self.sums.device)

    def _look(self, bar: tqdm) -> None:
        means = self._means()
        first = self.system.losses[0]
        shown = {first: f"{means[first]:.4f}"}
        if self.history:
            shown["Dice"] = f"{self.history[-1]['validation_dice']:.3f}"
        bar.set_postfix(shown | {"images/s": f"{self.at.images / self.at.seconds:.0f}"})
        if self.ranks.writes:
            self._estimate(bar.total)

    def _estimate(self, all_steps: int) -> None:
        """Log once how long the rest takes: a minute after the first steps, which may compile."""
        self.began = self.began or (time.monotonic(), self.at.steps)
        trained_s = time.monotonic() - self.began[0]
        steps = self.at.steps - self.began[1]
        if self.estimated or trained_s < ESTIMATE_SECONDS or steps < ESTIMATE_STEPS:
            return
        self.estimated = True
        self.watch.estimate(trained_s / steps * (all_steps - self.at.steps) / 60)

    def _means(self) -> dict[str, float]:
        """Return the epoch's mean losses so far.

        Raises:
            TrainingDivergedError: one is NaN or infinite.
        """
        means = self.ranks.sum(self.sums.clone()) / self.at.images
        means = dict(zip(self.system.losses, means.tolist(), strict=True))
        health.require_finite(means, self.at.epoch, self.recipe, self.precision.name)
        return means

    def _end_epoch(self, bar: tqdm) -> None:
        began = time.monotonic()
        means = self._means()
        module = self.system.best_module()
        self.ranks.same_buffers(module)
        module.eval()
        with torch.inference_mode(), self.precision.autocast():
            score = validation_score(
                self.system.predict, self.system.target, self.validation, self.ranks
            )
        self.history.append(self._row(means, score, time.monotonic() - began))
        health.warn_of_collapse(score, self.at.best, self.at.epoch, self.recipe)
        health.warn_of_skipped_steps(self.precision, self.at.epoch)
        improved = self.at.best is None or math.isnan(score.dice) or score.dice > self.at.best
        self._record(improved)
        best = score.dice if improved else self.at.best
        self.at = self.at.next_epoch(best)
        self.sums.zero_()
        self.save(mirror=self.watch.mirror_due() or self.at.epoch > self.recipe.epochs)
        self.validating += time.monotonic() - began
        bar.set_postfix({"Dice": f"{score.dice:.3f}", "best": f"{best:.3f}"})

    def _row(self, means: Mapping, score: ValidationScore, validating: float) -> dict:
        return {
            "epoch": self.at.epoch,
            "steps": self.at.steps,
            "seconds": round(self.at.seconds + validating, 3),
            "learning_rate": self.system.optimizers[0].param_groups[0]["lr"],
            **means,
            "validation_dice": score.dice,
            "validation_dice_global": score.dice_global,
            "images_per_second": round(self.at.images / max(self.at.seconds, 1e-9), 2),
        }

    def _record(self, improved: bool) -> None:
        if not self.ranks.writes:
            return
        if improved:
            self.folder.write_best(self.best_model())
        with torch.inference_mode(), self.precision.autocast():
            images, masks = pictures_of(self.system, self.validation, self.pictures)
        self.folder.write_epoch(self.history, images, masks)

    def best_model(self) -> dict:
        """Return what inference needs, as `best_model.pth` holds it."""
        row = self.history[-1]
        weights = self.system.best_module().state_dict()
        return {
            **self.identity,
            "model": {name: value.cpu() for name, value in weights.items()},
            "epoch": row["epoch"],
            "validation_dice": row["validation_dice"],
        }

    def save(self, *, mirror: bool) -> None:
        """Write the state, with `mirror` also to the mirror if there is one.

        Raises:
            TrainingDivergedError: a loss became NaN; nothing is written.
        """
        if self.at.images:
            self._means()
        sums = self.ranks.sum(self.sums.clone())
        self.watch.saved_now(mirror=mirror)
        if not self.ranks.writes:
            return
        state = {
            **self.identity,
            **vars(self.at),
            "history": self.history,
            "sums": sums.cpu(),
            "slices": self._slices(),
            "parts": states.weights_of(self.system),
            "world": self.ranks.world,
        }
        self.folder.write_state(state, mirror=mirror)

    def restore(self, state: Mapping) -> None:
        """Continue from a state that `save` wrote.

        Raises:
            CheckpointError: the cases have other slices now.
        """
        states.require_slices(state, self._slices())
        states.load_weights(self.system, state, self.precision)
        self.at = Position.of(state)
        self.history = list(state["history"])
        self.folder.restore_best(state)
        if self.ranks.writes:
            self._know_best(state)
            self.sums.copy_(state["sums"])  # of all ranks together
        states.warn_of_changes(state, self.ranks, self.precision)

    def _know_best(self, state: Mapping) -> None:
        best = self.folder.best_of(state)
        if best and best["epoch"] == state["epoch"]:
            self.at.best = best["validation_dice"]
        elif not best and self.at.best is not None:
            logger.info("the best model so far is not here: the best of what follows is kept")
            self.at.best = None

    def _leave(self) -> None:
        """Save what a stop left unsaved, or draw the last curve."""
        stopped = self.at.epoch <= self.recipe.epochs
        if stopped:
            self.save(mirror=True)
        if not self.ranks.writes:
            return
        if stopped:
            logger.warning(
                "stopped in epoch %d of %d and saved: %s goes on",
                self.at.epoch,
                self.recipe.epochs,
                hint("continue"),
            )
        elif self.history:
            self.folder.draw_curve(self.history)
        logger.info(
            "%.0f s in all, %.0f s of them for validation, its pictures and saving",
            60 * self.watch.minutes(),
            self.validating,
        )
        self.folder.close()
