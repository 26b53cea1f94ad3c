"""Both trainings: the loop, the two systems, checkpoints that resume to the bit."""

from .health import TrainingDivergedError
from .run_folder import TUMOR_WEIGHTS, RunFolder
from .start import train_liver_gan, train_tumor_regnet
from .states import newest_state

__all__ = [
    "TUMOR_WEIGHTS",
    "RunFolder",
    "TrainingDivergedError",
    "newest_state",
    "train_liver_gan",
    "train_tumor_regnet",
]
