"""Whole patients: a CT in, labels in its own geometry out, with the record of who made them."""

from .evidence import second_look
from .folders import (
    FORMATS,
    PREDICTION_NAME,
    find_volumes,
    own_device,
    read_ct,
    read_probabilities,
    segment_file,
    segment_files,
)
from .postprocess import Postprocessing, drop_small_lesions
from .provenance import check_makers, read_record, read_records, recorded_origins
from .segment import segment_volume
from .segmentation import Segmentation, say_synthetic

__all__ = [
    "FORMATS",
    "PREDICTION_NAME",
    "Postprocessing",
    "Segmentation",
    "check_makers",
    "drop_small_lesions",
    "find_volumes",
    "own_device",
    "read_ct",
    "read_probabilities",
    "read_record",
    "read_records",
    "recorded_origins",
    "say_synthetic",
    "second_look",
    "segment_file",
    "segment_files",
    "segment_volume",
]
