"""A case is one CT and, mostly, its segmentation: found, checked by anatomy, split by patient."""

from .case import Case, Finding, id_order
from .checks import check_case, check_lits_set, load_case
from .find import Search, find_cases, search_cases
from .split import Split, split_cases

__all__ = [
    "Case",
    "Finding",
    "Search",
    "Split",
    "check_case",
    "check_lits_set",
    "find_cases",
    "id_order",
    "load_case",
    "search_cases",
    "split_cases",
]
