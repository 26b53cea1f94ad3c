"""The steps that notebooks and the shell call; each does only what is missing."""

from .acquisition import download, ensure_prepared, make_phantoms, prepare_raw
from .comparison import compare
from .crossval import cross_validate, format_pooled
from .drive import drive_folder, keep_results
from .nnunet import export_nnunet
from .reports import compare_files, report_files, report_predictions
from .results import (
    evaluate,
    export_models,
    find_predictions,
    flags_of,
    load_models,
    open_result,
    open_viewed,
    results_of,
    save_score_figures,
    segment_cases,
)
from .trainings import (
    best_epoch,
    best_epoch_text,
    checkpoint_path,
    default_model,
    ensure_liver_model,
    ensure_tumor_model,
    train_liver,
    train_tumor,
)

__all__ = [
    "best_epoch",
    "best_epoch_text",
    "checkpoint_path",
    "compare",
    "compare_files",
    "cross_validate",
    "default_model",
    "download",
    "drive_folder",
    "ensure_liver_model",
    "ensure_prepared",
    "ensure_tumor_model",
    "evaluate",
    "export_models",
    "export_nnunet",
    "find_predictions",
    "flags_of",
    "format_pooled",
    "keep_results",
    "load_models",
    "make_phantoms",
    "open_result",
    "open_viewed",
    "prepare_raw",
    "report_files",
    "report_predictions",
    "results_of",
    "save_score_figures",
    "segment_cases",
    "train_liver",
    "train_tumor",
]
