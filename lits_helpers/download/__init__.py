"""LiTS from Kaggle, case by case on a small disk: resumed, proven whole, never hostile."""

from .client import KaggleClient, KaggleError
from .fetch import fetch_cases
from .listing import CASES, find_mounted, named_files, plan_download, present_cases

__all__ = [
    "CASES",
    "KaggleClient",
    "KaggleError",
    "fetch_cases",
    "find_mounted",
    "named_files",
    "plan_download",
    "present_cases",
]
