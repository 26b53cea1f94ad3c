"""Slices as model input: read lazily or from a cache, sampled and augmented."""

from .augmentation import Augmentation, augment_batch, augmentation_of, rotated
from .cache import SliceCache
from .inputs import IMAGENET_DEVIATION, IMAGENET_MEAN, model_input
from .sampling import epoch_order
from .slices import LiverSlices, TumorSlices, require_tumors

__all__ = [
    "IMAGENET_DEVIATION",
    "IMAGENET_MEAN",
    "Augmentation",
    "LiverSlices",
    "SliceCache",
    "TumorSlices",
    "augment_batch",
    "augmentation_of",
    "epoch_order",
    "model_input",
    "require_tumors",
    "rotated",
]
