"""A case is one CT and, mostly, its segmentation: found, checked by anatomy, split by patient."""

from .case import Case, Finding
from .checks import check_case, check_lits_set, load_case
from .find import find_cases
from .split import Split, split_cases

__all__ = [
    "Case",
    "Finding",
    "Split",
    "check_case",
    "check_lits_set",
    "find_cases",
    "load_case",
    "split_cases",
]
