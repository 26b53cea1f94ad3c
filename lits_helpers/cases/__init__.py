"""A case is one CT and, mostly, its segmentation: found, checked by anatomy, split by patient."""

from .anatomy import coarse_copy, liver_fit
from .case import (
    LIVER_ONLY,
    MOST_ID_BYTES,
    UNREAD,
    Case,
    Finding,
    about_ct,
    copy_of,
    fault_of_id,
    fault_of_names,
    id_order,
    overruled,
)
from .checks import check_case, check_lits_set, load_case
from .find import find_cases, find_cts, search_cases
from .layouts import is_liver_only, label_id
from .split import Split, split_cases
from .studies import without_name
from .tables import with_patients
from .values import doubt_about_liver, not_hounsfield, voxel_hash

__all__ = [
    "LIVER_ONLY",
    "MOST_ID_BYTES",
    "UNREAD",
    "Case",
    "Finding",
    "Split",
    "about_ct",
    "check_case",
    "check_lits_set",
    "coarse_copy",
    "copy_of",
    "doubt_about_liver",
    "fault_of_id",
    "fault_of_names",
    "find_cases",
    "find_cts",
    "id_order",
    "is_liver_only",
    "label_id",
    "liver_fit",
    "load_case",
    "not_hounsfield",
    "overruled",
    "search_cases",
    "split_cases",
    "voxel_hash",
    "with_patients",
    "without_name",
]
