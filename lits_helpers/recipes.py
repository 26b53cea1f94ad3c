"""Complete training settings: how pixels become input, and every knob of both trainings."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real


@dataclass(frozen=True)
class InputSpec:
    """How a slice in HU becomes model input; stored in every checkpoint.

    Attributes:
        size: side of the square model input, pixels; the longer side of a slice is resized to it,
            and a slice whose pixels are not square is brought to square ones on the way.
        window: HU (low, high) mapped to [0, 1]; None maps each slice's own minimum and maximum.
        channels: input channels of the model; a single slice is repeated to fill them.
        context: neighbouring slices on each side that become channels; 0, or (channels - 1) / 2.
        normalization: "unit" leaves [0, 1]; "imagenet" subtracts ImageNet's mean and divides by its
            deviation.
        liver_margin: crop each case to the bounding box of its liver (the reference's in training,
            the predicted one in inference), widened on each side by this share of the box's longer
            side; None takes whole slices.
        liver_window: count the window from the median HU of the case's liver, which contrast
            medium shifts by up to 100 HU from patient to patient.
    """

    size: int
    window: tuple[float, float] | None
    channels: int = 1
    context: int = 0
    normalization: str = "unit"
    liver_margin: float | None = None
    liver_window: bool = False

    def __post_init__(self):
        if self.size < 32 or self.size % 32:
            raise ValueError(
                f"InputSpec.size must be a multiple of 32 (both networks halve it), got {self.size}"
            )
        if self.window is not None:
            low, high = self.window
            if not -math.inf < low < high < math.inf:
                raise ValueError(
                    f"InputSpec.window must be (low, high) in HU with low < high, got {self.window}"
                )
            object.__setattr__(self, "window", (float(low), float(high)))  # JSON gives a list
        if self.channels < 1 or self.context < 0:
            raise ValueError(
                "InputSpec.channels must be 1 or more and context 0 or more, got "
                f"{self.channels} and {self.context}"
            )
        if self.context and self.channels != 2 * self.context + 1:
            raise ValueError(
                f"InputSpec.channels must be 2 * context + 1 = {2 * self.context + 1}, "
                f"got {self.channels}"
            )
        if self.normalization not in ("unit", "imagenet"):
            raise ValueError(
                f'InputSpec.normalization must be "unit" or "imagenet", got {self.normalization!r}'
            )
        if self.liver_window and self.window is None:
            raise ValueError(
                "InputSpec.liver_window needs a window, relative to the liver's median"
            )
        if self.liver_margin is not None:
            if not 0 <= self.liver_margin <= 1:
                raise ValueError(
                    f"InputSpec.liver_margin must be in [0, 1], got {self.liver_margin}"
                )
            object.__setattr__(self, "liver_margin", float(self.liver_margin))
        for name in ("size", "channels", "context"):  # numpy's numbers would spoil checkpoints
            object.__setattr__(self, name, int(getattr(self, name)))

    @property
    def levels(self) -> int:
        """Highest stored grey level: 8-bit for windowed slices (as PNG), 16-bit for min-max."""
        return 65535 if self.window is None else 255


SYSTEMS = ("liver", "tumor")
PRECISIONS = ("fp32", "bf16", "fp16")  # of a training; "auto" takes what the device is fastest at
CHOICES = {"schedule": ("constant", "cosine"), "critic_goal": ("minimise", "maximise")}
RANGES = {  # lowest and highest value of a recipe's numbers; all others are 0 or more
    "epochs": (1, math.inf),
    "batch_size": (1, math.inf),
    "learning_rate": (1e-12, 1.0),
    "fatty_liver": (0, 1),
    "bright_lesions": (0, 1),
    "drawn_lesions": (0, 1),
    "ema": (0, 0.999999),
    "dice_per_image": (0, 1),
    "width": (1, math.inf),
    "critic_width": (1, math.inf),
}


@dataclass(frozen=True)
class Recipe:
    """What both trainings share; `original` is as published, `default` the best known."""

    name: str
    spec: InputSpec
    epochs: int
    batch_size: int
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: str = "constant"  # or "cosine": down to 1 % of the learning rate
    warm_up: float = 0.0  # epochs (a tenth of all at most) in which the learning rate rises
    augment: bool = False  # affine and intensity, batched on the device
    fatty_liver: float = 0.0  # with augment: largest darkening of the liver, see Augmentation
    bright_lesions: float = 0.0  # with augment: share of slices with tumors mirrored in brightness
    ema: float = 0.0  # decay of the averaged weights that are validated and kept; 0 = off
    dice_weight: float = 0.0  # soft Dice beside the published loss
    dice_per_image: float = 0.0  # share of the Dice taken slice by slice: small targets count too

    def __post_init__(self):
        betas = tuple(float(beta) for beta in self.betas)  # JSON gives a list
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(
                f"{type(self).__name__}.betas must be two numbers from 0 to below 1, got {betas}"
            )
        object.__setattr__(self, "betas", betas)
        for field in fields(self):
            if field.type in (int, float):
                self._check_number(field.name, field.type)
            value = getattr(self, field.name)
            if field.type is bool and not isinstance(value, bool):  # "no" would count as yes
                raise ValueError(
                    f"{type(self).__name__}.{field.name} must be True or False, got {value!r}"
                )
            if field.name in CHOICES and value not in CHOICES[field.name]:
                wanted = " or ".join(f'"{choice}"' for choice in CHOICES[field.name])
                raise ValueError(
                    f"{type(self).__name__}.{field.name} must be {wanted}, got {value!r}"
                )

    def _check_number(self, name: str, kind: type) -> None:
        value = getattr(self, name)
        low, high = RANGES.get(name, (0, math.inf))
        if not isinstance(value, Integral if kind is int else Real):
            what = "a whole number" if kind is int else "a number"
            raise ValueError(f"{type(self).__name__}.{name} must be {what}, got {value!r}")
        if not (low <= value <= high and math.isfinite(value)):
            limits = f"{low} or more" if high == math.inf else f"{low} to {high}"
            raise ValueError(f"{type(self).__name__}.{name} must be {limits}, got {value!r}")
        object.__setattr__(self, name, kind(value))  # numpy's numbers would spoil checkpoints


@dataclass(frozen=True)
class LiverRecipe(Recipe):
    """System A: a generator of liver masks against a critic that compares features."""

    width: int = 64  # channels of the generator's first layer
    skips: bool = False  # hand the encoder's features to the decoder
    shallow_norm: str = "batch"  # near the image; or "instance": each image by its own statistics
    residual: bool = False  # norm before ReLU, residual blocks at the two deepest levels
    full_size: int = 0  # depth of a last stage at full size; 0: the mask is enlarged from half
    head: str = "relu"  # or "sigmoid": a ReLU output can die to all-zero
    critic: str = "published"  # or "strided": half the size, spectral norm, no batch norm
    critic_width: int = 128
    critic_goal: str = "minimise"  # as published; "maximise" needs the bounded "strided" critic
    pixel_weight: float = 1.0
    feature_weight: float = 0.01
    cross_entropy_weight: float = 0.0  # cross entropy beside L1, which says little where it errs
    feature_floor: float = 0.0  # added to the image before it is masked, so that black pixels count


@dataclass(frozen=True)
class TumorRecipe(Recipe):
    """System B: a RegNetY-400MF encoder with an upsampling decoder."""

    pretrained: bool = True  # ImageNet weights for the encoder
    skips: bool = False  # hand the encoder's stages and the image to the decoder
    sampling: str = "all"  # or "balanced": every tumor slice, as many others, patients equal
    within_liver: bool = False  # loss and prediction count only in the liver and a margin around it
    drawn_lesions: float = 0.0  # with augment: share of slices with new lesions, for phantoms

    def __post_init__(self):
        super().__post_init__()
        if self.drawn_lesions and self.spec.window is None:
            raise ValueError("TumorRecipe.drawn_lesions needs an InputSpec with a window, in HU")


LIVER_RECIPES = {
    "original": LiverRecipe(
        name="original",
        spec=InputSpec(size=160, window=(-200, 300)),
        epochs=100,
        batch_size=10,
        learning_rate=2e-4,
        betas=(0.5, 0.999),
    ),
    "default": LiverRecipe(
        name="default",
        spec=InputSpec(size=160, window=(-200, 300), channels=3, context=1),
        epochs=60,
        batch_size=16,
        learning_rate=1e-3,
        schedule="cosine",
        augment=True,
        fatty_liver=0.4,  # up to 110 HU in this window
        dice_weight=1.0,
        dice_per_image=1.0,
        width=32,
        skips=True,
        shallow_norm="instance",
        residual=True,
        full_size=2,
        head="sigmoid",
        critic="strided",
        critic_width=8,
        critic_goal="maximise",
        cross_entropy_weight=1.0,
        feature_weight=0.02,
        feature_floor=0.1,
    ),
}
TUMOR_RECIPES = {
    "original": TumorRecipe(
        name="original",
        spec=InputSpec(size=128, window=None, channels=3, normalization="imagenet"),
        epochs=50,
        batch_size=8,
        learning_rate=1e-4,
    ),
    "default": TumorRecipe(
        name="default",
        spec=InputSpec(
            size=256,
            window=(-100, 100),
            channels=3,
            context=1,
            normalization="imagenet",
            liver_margin=0.1,
            liver_window=True,
        ),
        epochs=40,
        batch_size=16,
        learning_rate=1e-3,
        schedule="cosine",
        warm_up=1.0,
        augment=True,
        bright_lesions=0.25,
        dice_weight=1.0,
        dice_per_image=0.5,
        skips=True,
        sampling="balanced",
        within_liver=True,
    ),
}
ADDED_LATER = {"drawn_lesions": 0.0}  # fields of TumorRecipe that older files lack, as they were
# A run of minutes on two CPU cores: the same recipes, narrower, smaller and shorter.
TINY_LIVER = {
    "width": 16,
    "size": 128,
    "batch_size": 8,  # twice the steps for the same time, so
    "learning_rate": 0.003,  # few epochs do
    "epochs": 6,
}
TINY_TUMOR = {
    "size": 128,
    "batch_size": 8,
    "epochs": 12,
    "pretrained": False,
    "dice_per_image": 1.0,  # few patients, small lesions: learns sooner
    "ema": 0.98,  # an epoch's average: with few patients the last weights swing
}


def with_network_of(recipe: Recipe, other: Recipe) -> Recipe:
    """Return `recipe` with the network and the InputSpec of another, whose weights it takes."""
    names = ["spec", "skips"]
    if isinstance(other, LiverRecipe):
        names += ["width", "shallow_norm", "residual", "full_size", "head"]
    return replace(recipe, **{name: getattr(other, name) for name in names})


def recipe_from_dict(content: Mapping) -> LiverRecipe | TumorRecipe:
    """Rebuild a recipe from `dataclasses.asdict`, as recipe.json and checkpoints hold it.

    Raises:
        ValueError: a key is missing or unknown (a file of another version of this module).
    """
    kind = LiverRecipe if "critic" in content else TumorRecipe
    if kind is TumorRecipe:
        content = ADDED_LATER | dict(content)
    for given, wanted in ((content, kind), (content.get("spec", {}), InputSpec)):
        odd = sorted(set(given) ^ {field.name for field in fields(wanted)})
        if odd:
            raise ValueError(
                f"not a {wanted.__name__} of this version of lits_helpers: {', '.join(odd)} differ"
            )
    return kind(**{**content, "spec": InputSpec(**content["spec"])})


def liver_recipe(name: str = "default", *, tiny: bool = False, **changes) -> LiverRecipe:
    """Return the named liver recipe with `changes`, e.g. ``liver_recipe("original", width=16)``."""
    return _changed(LIVER_RECIPES, name, (TINY_LIVER if tiny else {}) | changes)


def tumor_recipe(name: str = "default", *, tiny: bool = False, **changes) -> TumorRecipe:
    """Return the named tumor recipe with `changes`, e.g. ``tumor_recipe(pretrained=False)``."""
    return _changed(TUMOR_RECIPES, name, (TINY_TUMOR if tiny else {}) | changes)


def _changed(recipes: Mapping, name: str, changes: dict):
    """Return the named recipe with other fields; `size` changes that of its InputSpec."""
    if name not in recipes:
        raise ValueError(f"no recipe {name!r}; there are: {', '.join(recipes)}")
    spec = recipes[name].spec
    if "size" in changes:
        spec = replace(spec, size=changes.pop("size"))
    return replace(recipes[name], **{"spec": spec} | changes)
