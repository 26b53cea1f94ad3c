"""The file border: CT volumes and segmentations in, label volumes out, always (Z, Y, X) inside."""

from .dicom import find_studies, is_dicom
from .geometry import Geometry, is_unit, reversing, same_grid, size_text
from .io import (
    Volume,
    lies_on,
    open_volume,
    packed_copy,
    read_geometry,
    read_segmentation,
    read_volume,
    segmentation_path,
    volume_from_array,
    write_segmentation,
)
from .nifti import GZIP_MAGIC, HEADER_BYTES, LITS_NAME, claimed_bytes, parse_name
from .packed import LABELS_SUFFIX, SUFFIX, PackedVolume, is_whole, write_packed
from .pixels import (
    WHOLE_SLICE,
    LiverFrame,
    liver_frame,
    resize_image,
    resize_mask,
    restore,
    slice_levels,
    to_levels,
    window_to_uint8,
)
from .pngs import numbered_pngs, png_size, read_picture, read_png, write_picture

__all__ = [
    "GZIP_MAGIC",
    "HEADER_BYTES",
    "LABELS_SUFFIX",
    "LITS_NAME",
    "SUFFIX",
    "WHOLE_SLICE",
    "Geometry",
    "LiverFrame",
    "PackedVolume",
    "Volume",
    "claimed_bytes",
    "find_studies",
    "is_dicom",
    "is_unit",
    "is_whole",
    "lies_on",
    "liver_frame",
    "numbered_pngs",
    "open_volume",
    "packed_copy",
    "parse_name",
    "png_size",
    "read_geometry",
    "read_picture",
    "read_png",
    "read_segmentation",
    "read_volume",
    "resize_image",
    "resize_mask",
    "restore",
    "reversing",
    "same_grid",
    "segmentation_path",
    "size_text",
    "slice_levels",
    "to_levels",
    "volume_from_array",
    "window_to_uint8",
    "write_packed",
    "write_picture",
    "write_segmentation",
]
