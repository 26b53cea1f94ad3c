"""The rows of the recipe bench: our recipes, references, and ours with one thing changed."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lits_helpers.losses import pixel_loss
from lits_helpers.models import TUMOR_LOGIT
from lits_helpers.recipes import LiverRecipe, Recipe, liver_recipe, tumor_recipe
from lits_helpers.training.optimization import Precision, on_device
from lits_helpers.training.systems import LiverSystem, System, TumorSystem


class GeneratorAlone(LiverSystem):
    """System A without its critic: the same generator on the pixel (and Dice) loss."""

    def step(self, images: Tensor, labels: Tensor, weight: float = 1.0) -> Tensor:
        """Train the generator on a batch; return the loss, (1,)."""
        images = images.contiguous(memory_format=torch.channels_last)
        masks = self.target(labels).float()
        with self.precision.autocast():
            predicted = self._run_generator(images)
        loss = self.mask_loss(predicted, masks, pixel_loss(predicted, masks))
        self.precision.backward(loss, self.optimizers[:1])
        self.precision.step(self.optimizers[:1])
        if self.average:
            self.average.update()
        return loss.detach()[None]


class Reference(TumorSystem):
    """Another library's network, trained on cross entropy and Dice as system B's default is.

    Args:
        network: images (N, C, S, S) -> logits (N, 1, S, S).
        recipe: batch size, learning rate, loss and region; a `LiverRecipe` seeks the liver.
        device, precision: as for `TumorSystem`.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, device, precision: Precision):
        self._run = on_device(network, device)
        System.__init__(self, recipe, precision, model=self._run)

    def _region(self, labels: Tensor) -> Tensor | None:
        return None if isinstance(self.recipe, LiverRecipe) else super()._region(labels)

    def target(self, labels: Tensor) -> Tensor:
        """Return liver or tumor masks (n, 1, S, S), bool."""
        if isinstance(self.recipe, LiverRecipe):
            return (labels >= 1).unsqueeze(1)
        return super().target(labels)


FATTY_IN_SLICES = 0.75  # of the grey levels; in the recipe's window as many HU are 0.4


@dataclass(frozen=True)
class Row:
    """A row of the bench: a setting, and how its system is made.

    Attributes:
        name, about: for the table.
        recipe: the setting; its epochs mean nothing here.
        make: (recipe, device, precision) -> system; a class or a function of a module, so that runs
            can go to other processes.
        base: the row that this one is compared with.
    """

    name: str
    about: str
    recipe: Recipe
    make: Callable[..., System]
    base: str = "default"

    @property
    def seeks(self) -> str:
        """What the row segments, "liver" or "tumor"."""
        return "liver" if isinstance(self.recipe, LiverRecipe) else "tumor"

    @property
    def has_width(self) -> bool:
        """Whether the row trains a generator, which can be narrower; no reference is one."""
        return self.seeks == "liver" and isinstance(self.make, type)


def plain_unet(recipe: Recipe, norm: str | tuple = "batch") -> nn.Module:
    """MONAI's basic 2D U-Net, 16 to 256 channels."""
    from monai.networks.nets import BasicUNet

    widths = (16, 32, 64, 128, 256, 16)
    return BasicUNet(2, recipe.spec.channels, 1, features=widths, norm=norm)


def instance_unet(recipe: Recipe) -> nn.Module:
    """The same with MONAI's instance norm."""
    return plain_unet(recipe, ("instance", {"affine": True}))


def smp_unet(recipe: Recipe) -> nn.Module:
    """segmentation-models-pytorch's Unet on the same RegNetY-400MF, from random weights.

    It starts at the same share of tumor as ours, without which a run may never begin to learn.
    """
    from segmentation_models_pytorch import Unet

    unet = Unet("tu-regnety_004", encoder_weights=None, in_channels=recipe.spec.channels)
    nn.init.constant_(unet.segmentation_head[0].bias, TUMOR_LOGIT)
    return unet


def reference(build: Callable[[Recipe], nn.Module]) -> Callable:
    """Return a maker of `Reference` systems around a network."""
    return lambda recipe, device, precision: Reference(build(recipe), recipe, device, precision)


def _without(recipe: Recipe, **changes) -> Recipe:
    """Return a recipe with other fields, or other fields of its spec."""
    in_spec = {key: changes.pop(key) for key in list(changes) if hasattr(recipe.spec, key)}
    return replace(recipe, spec=replace(recipe.spec, **in_spec), **changes)


def scaled(row: Row, width: int | None, size: int | None) -> Row:
    """Return a row with a narrower generator, or with smaller slices where it seeks tumors.

    Args:
        row: the row.
        width: of the generator; None leaves the recipe's.
        size: of the box of the liver; rows that see whole slices get a quarter more, so that the
            liver is not seen at half the scale. None leaves the recipes'.
    """
    if row.has_width and width:
        return replace(row, recipe=_without(row.recipe, width=width))
    if row.seeks == "liver" or size is None:
        return row
    whole = row.recipe.spec.liver_margin is None and row.name != "original"
    wanted = round(1.25 * size / 32) * 32 if whole else size
    return replace(row, recipe=_without(row.recipe, size=wanted))


def for_slices(row: Row) -> Row:
    """Return a row for 8-bit slices: in their narrow window fat darkens a liver by more."""
    darker = row.recipe.fatty_liver > 0
    return replace(row, recipe=_without(row.recipe, fatty_liver=FATTY_IN_SLICES)) if darker else row


LIVER = liver_recipe()
ONE_SLICE = {"channels": 1, "context": 0}
PLAIN_LIVER = _without(LIVER, dice_per_image=0.0, **ONE_SLICE)
THIN_LIVER = _without(LIVER, full_size=1)
FORMER_LIVER = _without(THIN_LIVER, shallow_norm="batch", **ONE_SLICE)
TUMOR = tumor_recipe(pretrained=False)
FORMER_TUMOR = _without(TUMOR, bright_lesions=0.0)
BATCH_TUMOR = _without(FORMER_TUMOR, dice_per_image=0.0)
PLAIN_TUMOR = _without(BATCH_TUMOR, window=(-100.0, 200.0), liver_margin=None, liver_window=False)


def _liver(name: str, about: str, **changes) -> Row:
    return Row(name, about, _without(LIVER, **changes), LiverSystem)


def _tumor(name: str, about: str, **changes) -> Row:
    return Row(name, about, _without(TUMOR, **changes), TumorSystem)


LIVER_ROWS = (
    Row("default", "the recipe", LIVER, LiverSystem),
    Row("unet", "plain U-Net, cross entropy + Dice", PLAIN_LIVER, reference(plain_unet)),
    Row("unet_instance", "the same with instance norm", PLAIN_LIVER, reference(instance_unet)),
    Row(
        "unet_no_fatty_livers",
        "plain U-Net, no livers darkened",
        _without(PLAIN_LIVER, fatty_liver=0.0),
        reference(plain_unet),
    ),
    Row(
        "unet_same_loss",
        "plain U-Net, Dice of each slice",
        _without(LIVER, **ONE_SLICE),
        reference(plain_unet),
    ),
    Row(
        "unet_same_input",
        "plain U-Net, Dice of each slice, three slices",
        LIVER,
        reference(plain_unet),
    ),
    Row("pixel_only", "published generator, L1 alone", liver_recipe("original"), GeneratorAlone),
    Row("original", "as published", liver_recipe("original"), LiverSystem),
    Row(
        "original_narrow",
        "the same, critic an eighth as wide",
        liver_recipe("original", critic_width=16),
        LiverSystem,
    ),
    Row("no_critic", "`default`'s generator alone, no feature loss", LIVER, GeneratorAlone),
    _liver(
        "wider_critic",
        "critic of twice the width, five times the weight",
        critic_width=16,
        feature_weight=0.1,
    ),
    _liver("cooperating", "a critic that minimises, as published", critic_goal="minimise"),
    _liver(
        "published_critic",
        "the published critic, narrow, minimising",
        critic="published",
        critic_width=16,
        critic_goal="minimise",
    ),
    _liver("no_augmentation", "no augmentation", augment=False),
    _liver("no_fatty_livers", "no livers darkened", fatty_liver=0.0),
    _liver("no_cross_entropy", "L1 and Dice without cross entropy", cross_entropy_weight=0.0),
    _liver("no_dice", "no Dice", dice_weight=0.0),
    _liver("batch_dice", "Dice of the batch, not of each slice", dice_per_image=0.0),
    _liver("no_full_size", "no stage at full size", full_size=0),
    _liver("deeper_full_size", "a deeper stage at full size", full_size=3),
    _liver("no_context", "one slice", **ONE_SLICE),
    _liver("no_skips", "no skip connections", skips=False),
    _liver(
        "no_residual", "no residual blocks, ReLU before norm, the first without", residual=False
    ),
    _liver("batch_norm", "batch norm everywhere", shallow_norm="batch"),
    _liver("constant_rate", "constant learning rate", schedule="constant"),
    _liver("relu_head", "ReLU output, as published", head="relu"),
    Row("thin", "a thinner stage at full size", THIN_LIVER, LiverSystem),
    Row("thin_no_critic", "the generator of `thin` alone", THIN_LIVER, GeneratorAlone, base="thin"),
    Row(
        "thin_batch_norm",
        "`thin`, batch norm everywhere",
        _without(THIN_LIVER, shallow_norm="batch"),
        LiverSystem,
        base="thin",
    ),
    Row(
        "darker_livers",
        "the same, livers darkened by up to 0.75",
        _without(THIN_LIVER, shallow_norm="batch", fatty_liver=FATTY_IN_SLICES),
        LiverSystem,
        base="thin_batch_norm",
    ),
    Row("former", "`thin`, one slice, batch norm", FORMER_LIVER, LiverSystem, base="thin"),
    Row(
        "former_no_critic",
        "the generator of `former` alone",
        FORMER_LIVER,
        GeneratorAlone,
        base="former",
    ),
    Row(
        "half_size",
        "`former`, no stage at full size",
        _without(FORMER_LIVER, full_size=0),
        LiverSystem,
        base="former",
    ),
    Row(
        "half_size_no_fatty",
        "and no livers darkened",
        _without(FORMER_LIVER, full_size=0, fatty_liver=0.0),
        LiverSystem,
        base="former",
    ),
)
TUMOR_ROWS = (
    Row("default", "the recipe", TUMOR, TumorSystem),
    Row("smp_unet", "smp's Unet, whole slices", PLAIN_TUMOR, reference(smp_unet)),
    Row("smp_unet_box", "smp's Unet with our input", BATCH_TUMOR, reference(smp_unet)),
    Row("smp_unet_same_loss", "and with our loss", FORMER_TUMOR, reference(smp_unet)),
    Row("smp_unet_same", "and with tumors turned bright", TUMOR, reference(smp_unet)),
    Row("original", "as published", tumor_recipe("original", pretrained=False), TumorSystem),
    _tumor("no_augmentation", "no augmentation", augment=False),
    _tumor("no_box", "whole slices, not the liver's box", liver_margin=None),
    _tumor("no_liver_window", "absolute window", liver_window=False, window=(-100.0, 200.0)),
    _tumor("no_context", "one slice, three times", context=0),
    _tumor("no_skips", "the published decoder: no skips, no image at full size", skips=False),
    _tumor("no_warm_up", "full learning rate from the first step", warm_up=0.0),
    _tumor("no_dice", "cross entropy without Dice", dice_weight=0.0),
    _tumor("batch_dice", "Dice of the batch alone", dice_per_image=0.0),
    _tumor("slice_dice", "Dice of each slice alone", dice_per_image=1.0),
    _tumor("all_slices", "every slice once an epoch", sampling="all"),
    _tumor("anywhere", "loss over the whole slice", within_liver=False),
    Row("former", "no tumors turned bright", FORMER_TUMOR, TumorSystem),
    Row(
        "former_batch_dice",
        "`former`, Dice of the batch alone",
        BATCH_TUMOR,
        TumorSystem,
        base="former",
    ),
    Row(
        "former_slice_dice",
        "`former`, Dice of each slice alone",
        _without(FORMER_TUMOR, dice_per_image=1.0),
        TumorSystem,
        base="former",
    ),
)
ROWS = {"liver": LIVER_ROWS, "tumor": TUMOR_ROWS}
