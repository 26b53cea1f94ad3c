"""LiTS-style metrics of one case and of many; every rule stands in docs/metrics.md."""

from .case import evaluate_case, evaluate_lesions
from .lesions import SIZE_CLASSES, Diameters, axial_diameters, size_class_title
from .overlap import FIRST_LABEL, dice, dice_of, filled_box, label_mask, slice_dice
from .summary import (
    evaluate_dataset,
    format_summary,
    mean_and_interval,
    read_metrics_csv,
    write_metrics_csv,
)

__all__ = [
    "FIRST_LABEL",
    "SIZE_CLASSES",
    "Diameters",
    "axial_diameters",
    "dice",
    "dice_of",
    "evaluate_case",
    "evaluate_dataset",
    "evaluate_lesions",
    "filled_box",
    "format_summary",
    "label_mask",
    "mean_and_interval",
    "read_metrics_csv",
    "size_class_title",
    "slice_dice",
    "write_metrics_csv",
]
