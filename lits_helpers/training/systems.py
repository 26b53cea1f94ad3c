"""The two trainings' steps: system A's generator against its critic, system B's segmenter."""

from abc import ABC, abstractmethod

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
from ..metrics import FIRST_LABEL
from ..models import Discriminator, build_critic, build_generator, build_segmenter
from ..recipes import LiverRecipe, Recipe, TumorRecipe
from .distributed import Ranks
from .optimization import Average, Compiled, Precision, adam, on_device


class System(ABC):
    """What the engine trains, one each for liver and tumor: networks, optimizers and the step.

    Args:
        recipe: the setting.
        precision: mixed precision.
        networks: name -> network on its device; "model" is the one that is validated and kept.

    Attributes:
        name: "liver" or "tumor".
        losses: names of the losses that `step` returns.
        cutoff: output of the model from which a pixel is predicted.
        average: of the model's weights, or None.
        optimizers: one for each network.
        parts: name -> everything with a state dict that a resume needs.
        compiled: networks that go through torch.compile.
    """

    name: str
    losses: tuple[str, ...]
    cutoff: float

    def __init__(self, recipe: Recipe, precision: Precision, **networks: nn.Module):
        self.recipe = recipe
        self.precision = precision
        self.networks = networks
        self.average = Average(networks["model"], recipe.ema) if recipe.ema else None
        self.optimizers = [adam(network, recipe) for network in networks.values()]
        names = [f"{name}_optimizer" for name in networks]
        optimizers = dict(zip(names, self.optimizers, strict=True))
        self.parts = {**networks, **optimizers, "scaler": precision.scaler}
        if self.average:
            self.parts["average"] = self.average
        self.compiled: list[Compiled] = []

    def _callable(self, network: nn.Module, ranks: Ranks | None, device, compiled: bool):
        """Return a network as the step calls it: averaged over the ranks, compiled if wanted."""
        network = (ranks or Ranks()).wrap(network, device)
        if compiled:
            network = Compiled(network)
            self.compiled.append(network)
        return network

    def train(self) -> None:
        """Put the networks into training mode."""
        for network in self.networks.values():
            network.train()

    @abstractmethod
    def step(self, images: Tensor, labels: Tensor, weight: float = 1.0) -> Tensor:
        """Train on a batch.

        Args:
            images: (N, C, S, S).
            labels: (N, S, S), 0 background, 1 liver, 2 tumor.
            weight: of this part of a global batch, see `Ranks.share`.

        Returns:
            (len(losses),) float32, detached.
        """

    def _finish_step(self) -> None:
        self.precision.step(self.optimizers)
        if self.average:
            self.average.update()

    def best_module(self) -> nn.Module:
        """Return the network that is validated and kept: the averaged one, if there is one."""
        return self.average.model if self.average else self.networks["model"]

    def predict(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return predicted masks (n, 1, S, S), bool, for images (n, C, S, S), labels (n, S, S)."""
        images = images.contiguous(memory_format=torch.channels_last)
        return self.best_module()(images) >= self.cutoff

    def target(self, labels: Tensor) -> Tensor:
        """Return reference masks (n, 1, S, S), bool; a tumor is liver too."""
        return (labels >= FIRST_LABEL[self.name]).unsqueeze(1)


class LiverSystem(System):
    """System A: a generator of masks against a critic that chooses the features to compare.

    One forward pass of each network serves both updates. The feature loss is differentiated once:
    its gradient with respect to the predicted mask goes to the generator, its gradient with respect
    to the critic's weights to the critic, with the sign of the recipe's goal. So the updates equal
    a generator step against a frozen critic, then a critic step on the same prediction, for two
    thirds of the critic's arithmetic.

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
    cutoff = 0.5  # of the probability

    def __init__(
        self,
        recipe: LiverRecipe,
        device: torch.device,
        precision: Precision,
        ranks: Ranks | None = None,
        compiled: bool = False,
    ):
        self.generator = on_device(build_generator(recipe), device)
        critic = build_critic(recipe)
        # Wide layers: without AVX-512 a CPU learns them in float32 half as fast with channels last.
        plain = device.type == "cpu" and isinstance(critic, Discriminator)
        self.critic = critic.to(device) if plain else on_device(critic, device)
        super().__init__(recipe, precision, model=self.generator, critic=self.critic)
        self._critic_sign = 1.0 if recipe.critic_goal == "minimise" else -1.0
        self._run_generator = self._callable(self.generator, ranks, device, compiled)
        self._run_critic = self._callable(FeatureDistance(self.critic), ranks, device, compiled)

    def step(self, images: Tensor, labels: Tensor, weight: float = 1.0) -> Tensor:
        """Train both networks on a batch.

        Args:
            images, labels, weight: as for `System.step`.

        Returns:
            g_loss, pixel_loss, feature_loss and critic_loss (the feature loss with the sign of the
            critic's goal), (4,) float32, detached.
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
        self._finish_step()
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
        """Turn the critic's gradient, of feature_weight * feature_loss, into that of its loss."""
        gradients = [p.grad for p in self.critic.parameters() if p.grad is not None]
        if gradients and self.recipe.feature_weight:
            torch._foreach_mul_(gradients, self._critic_sign / self.recipe.feature_weight)


class FeatureDistance(nn.Module):
    """The feature loss of two batches of masked images in one call, as DDP and compilers need it.

    A critic without batch norm takes both batches in a single pass; batch norm takes its statistics
    from each batch alone. The features stay inside: they are views, and torch 2.11 can rebuild
    views that leave compiled code wrongly (its issue 177812).
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
        features = features_of(both)
        count = len(predicted)
        return feature_loss([f[:count] for f in features], [f[count:] for f in features])


class TumorSystem(System):
    """System B: the RegNet segmenter learns cross entropy, and Dice where the recipe says so.

    Args:
        recipe, device, precision, ranks, compiled: as for `LiverSystem`.
        pretrained: False skips fetching ImageNet weights that a checkpoint is about to replace.
    """

    name = "tumor"
    losses = ("loss",)
    cutoff = 0.0  # of the logit

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
        segmenter = on_device(build_segmenter(recipe, pretrained), device)
        super().__init__(recipe, precision, model=segmenter)
        self._run = self._callable(segmenter, ranks, device, compiled)

    def step(self, images: Tensor, labels: Tensor, weight: float = 1.0) -> Tensor:
        """Train on a batch; return the loss, (1,) float32. Arguments as for `System.step`."""
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
        self._finish_step()
        return loss.detach()[None]

    def _region(self, labels: Tensor) -> Tensor | None:
        return liver_region(labels) if self.recipe.within_liver else None

    def predict(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return predicted masks (n, 1, S, S), bool; near the liver only, if trained so.

        Slices without liver are not computed then.
        """
        region = self._region(labels)
        if region is None:
            return super().predict(images, labels)
        predicted = region.bool()
        near = predicted.flatten(1).any(1)
        if near.any():
            predicted[near] &= super().predict(images[near], labels[near])
        return predicted
