"""The two trainings' steps: system A's generator against its critic, system B's segmenter."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from ..losses import (
    bce_dice_loss,
    cross_entropy_loss,
    feature_loss,
    liver_region,
    masked_image,
    pixel_loss,
    shared_dice_loss,
)
from ..models import build_critic, build_generator, build_segmenter
from ..recipes import LiverRecipe, Recipe, TumorRecipe
from .distributed import Ranks
from .optimization import Average, Compiled, Precision, adam, on_device

THRESHOLD = 0.5


class System(Protocol):
    """What a training offers to the engine; one each for liver and tumor."""

    name: str
    losses: tuple[str, ...]
    recipe: Recipe
    precision: Precision
    parts: Mapping[str, object]  # everything with a state_dict that a resume needs
    optimizers: list[torch.optim.Optimizer]
    compiled: list[Compiled]  # networks that go through torch.compile

    def train(self) -> None:
        """Put the networks into training mode."""

    def step(self, images: Tensor, labels: Tensor, weight: float) -> Tensor:
        """Train on a batch; return the losses, (len(losses),) float32, detached."""

    def best_module(self) -> nn.Module:
        """Return the network that is validated and kept: the averaged one, if there is one."""

    def predict(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return predicted masks (n, 1, S, S), bool."""

    def target(self, labels: Tensor) -> Tensor:
        """Return reference masks (n, 1, S, S), bool."""


class LiverSystem:
    """System A: a generator of masks against a critic that chooses the features to compare.

    One forward pass of each network serves both updates. The feature loss is differentiated once:
    its gradient with respect to the predicted mask goes to the generator, that with respect to the
    critic's weights to the critic, with the sign of the recipe's goal. Both see the critic as it
    was at the start of the step, so these are exactly the updates of a generator step against a
    frozen critic followed by a critic step on the same prediction, for two thirds of the critic's
    arithmetic.

    Args:
        recipe: the setting.
        device: where the networks live.
        precision: mixed precision.
        ranks: the processes that train together.
        compiled: run the networks through torch.compile.

    Raises:
        ValueError: an unbounded critic that is to maximise; it diverges.
    """

    name = "liver"
    losses = ("g_loss", "pixel_loss", "feature_loss", "critic_loss")

    def __init__(
        self,
        recipe: LiverRecipe,
        device: torch.device,
        precision: Precision,
        ranks: Ranks | None = None,
        compiled: bool = False,
    ):
        self.recipe, self.precision = recipe, precision
        self._critic_sign = 1.0 if recipe.critic_goal == "minimise" else -1.0
        ranks = ranks or Ranks()
        self.generator = on_device(build_generator(recipe), device)
        self.critic = on_device(build_critic(recipe), device)
        self.average = Average(self.generator, recipe.ema) if recipe.ema else None
        self._run_generator = ranks.wrap(self.generator, device)
        self._run_critic = ranks.wrap(FeatureDistance(self.critic), device)
        self.compiled = []
        if compiled:
            self._run_generator = Compiled(self._run_generator)
            self._run_critic = Compiled(self._run_critic)
            self.compiled = [self._run_generator, self._run_critic]
        self.optimizers = [adam(self.generator, recipe), adam(self.critic, recipe)]
        self.parts = {
            "model": self.generator,
            "critic": self.critic,
            "model_optimizer": self.optimizers[0],
            "critic_optimizer": self.optimizers[1],
            "scaler": precision.scaler,
        }
        if self.average:
            self.parts["average"] = self.average

    def train(self) -> None:
        """Put both networks into training mode."""
        self.generator.train()
        self.critic.train()

    def step(self, images: Tensor, labels: Tensor, weight: float = 1.0) -> Tensor:
        """Train both networks on a batch.

        Args:
            images: (N, C, S, S).
            labels: (N, S, S), 0 background, 1 liver, 2 tumor.
            weight: of this part of a global batch, see `Ranks.share`.

        Returns:
            g_loss, pixel_loss, feature_loss and critic_loss (the feature loss with the sign of the
            critic's goal), (4,) float32.
        """
        recipe = self.recipe
        images = images.contiguous(memory_format=torch.channels_last)
        masks = self.target(labels).float()
        with self.precision.autocast():
            predicted = self._run_generator(images)
            seen = masked_image(images, predicted.float(), recipe.feature_floor)
            reference = masked_image(images, masks, recipe.feature_floor)
            feature = self._run_critic(seen, reference)
        pixel = pixel_loss(predicted, masks)
        loss = self.mask_loss(predicted, masks, pixel) + recipe.feature_weight * feature
        self.precision.backward(loss * weight, self.optimizers)
        self._turn_critic_gradient()
        self.precision.step(self.optimizers)
        if self.average:
            self.average.update(self.generator)
        return torch.stack([loss, pixel, feature, self._critic_sign * feature]).detach()

    def mask_loss(self, predicted: Tensor, masks: Tensor, pixel: Tensor) -> Tensor:
        """Return what the generator's mask costs without the critic.

        Args:
            predicted, masks: (N, 1, S, S).
            pixel: their pixel loss.
        """
        recipe = self.recipe
        loss = recipe.pixel_weight * pixel
        if recipe.dice_weight:
            dice_loss = shared_dice_loss(predicted, masks, None, recipe.dice_per_image)
            loss = loss + recipe.dice_weight * dice_loss
        if recipe.cross_entropy_weight:
            loss = loss + recipe.cross_entropy_weight * cross_entropy_loss(predicted, masks)
        return loss

    def _turn_critic_gradient(self) -> None:
        """Make the gradient of feature_weight * feature_loss that of the critic's own loss."""
        gradients = [p.grad for p in self.critic.parameters() if p.grad is not None]
        if gradients and self.recipe.feature_weight:
            torch._foreach_mul_(gradients, self._critic_sign / self.recipe.feature_weight)

    def best_module(self) -> nn.Module:
        """Return the generator that is validated and kept."""
        return self.average.model if self.average else self.generator

    def predict(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return predicted liver masks (n, 1, S, S), bool."""
        images = images.contiguous(memory_format=torch.channels_last)
        return self.best_module()(images) >= THRESHOLD

    def target(self, labels: Tensor) -> Tensor:
        """Return liver masks (n, 1, S, S), bool: a tumor is liver too."""
        return (labels >= 1).unsqueeze(1)


class FeatureDistance(nn.Module):
    """The feature loss of two batches of masked images in one call, as DDP and compilers need it.

    A critic without batch norm takes both in a single pass; with it, each batch keeps its own
    statistics. The features stay inside: they are views, and those that leave compiled code torch
    2.11 can rebuild wrongly (its issue 177812).
    """

    def __init__(self, critic: nn.Module):
        super().__init__()
        self.critic = critic
        self.joint = not any(isinstance(m, nn.BatchNorm2d) for m in critic.modules())

    def forward(self, predicted: Tensor, reference: Tensor) -> Tensor:
        """Return the loss, () float32, of images times masks (N, C, S, S) each."""
        features_of = self.critic.forward_all_layers
        if not self.joint:
            return feature_loss(features_of(predicted), features_of(reference))
        both = torch.cat([predicted, reference]).contiguous(memory_format=torch.channels_last)
        features, count = features_of(both), len(predicted)
        return feature_loss([f[:count] for f in features], [f[count:] for f in features])


class TumorSystem:
    """System B: the RegNet segmenter learns cross entropy, and Dice where the recipe says so.

    Args:
        recipe, device, precision, ranks, compiled: as for `LiverSystem`.
        pretrained: False skips fetching ImageNet weights that a checkpoint is about to replace.
    """

    name = "tumor"
    losses = ("loss",)

    def __init__(
        self,
        recipe: TumorRecipe,
        device: torch.device,
        precision: Precision,
        ranks: Ranks | None = None,
        compiled: bool = False,
        *,
        pretrained: bool | None = None,
    ):
        self.recipe, self.precision = recipe, precision
        ranks = ranks or Ranks()
        self.segmenter = on_device(build_segmenter(recipe, pretrained), device)
        self.average = Average(self.segmenter, recipe.ema) if recipe.ema else None
        self._run = ranks.wrap(self.segmenter, device)
        self.compiled = []
        if compiled:
            self._run = Compiled(self._run)
            self.compiled = [self._run]
        self.optimizers = [adam(self.segmenter, recipe)]
        self.parts = {
            "model": self.segmenter,
            "model_optimizer": self.optimizers[0],
            "scaler": precision.scaler,
        }
        if self.average:
            self.parts["average"] = self.average

    def train(self) -> None:
        """Put the network into training mode."""
        self.segmenter.train()

    def step(self, images: Tensor, labels: Tensor, weight: float = 1.0) -> Tensor:
        """Train on a batch; return the loss, (1,) float32. Arguments as `LiverSystem.step`."""
        images = images.contiguous(memory_format=torch.channels_last)
        with self.precision.autocast():
            logits = self._run(images)
        loss = bce_dice_loss(
            logits,
            self.target(labels).float(),
            self._region(labels),
            dice_weight=self.recipe.dice_weight,
            dice_per_image=self.recipe.dice_per_image,
        )
        self.precision.backward(loss * weight, self.optimizers)
        self.precision.step(self.optimizers)
        if self.average:
            self.average.update(self.segmenter)
        return loss.detach()[None]

    def _region(self, labels: Tensor) -> Tensor | None:
        return liver_region(labels) if self.recipe.within_liver else None

    def best_module(self) -> nn.Module:
        """Return the network that is validated and kept."""
        return self.average.model if self.average else self.segmenter

    def predict(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return predicted tumor masks (n, 1, S, S), bool, near the liver if trained so."""
        images = images.contiguous(memory_format=torch.channels_last)
        predicted = self.best_module()(images) >= 0  # logits: probability >= 0.5
        region = self._region(labels)
        return predicted if region is None else predicted & region.bool()

    def target(self, labels: Tensor) -> Tensor:
        """Return tumor masks (n, 1, S, S), bool."""
        return (labels == 2).unsqueeze(1)
