"""LiTS case by case on a small disk: from Kaggle or the MSD archive; resumed, proven whole."""

from .fetch import fetch_cases
from .kaggle import KaggleClient
from .listing import CASES, find_mounted, named_files, plan_download, present_cases
from .msd import INDEX, MsdArchive
from .source import DownloadError, Source

__all__ = [
    "CASES",
    "INDEX",
    "DownloadError",
    "KaggleClient",
    "MsdArchive",
    "Source",
    "fetch_cases",
    "find_mounted",
    "named_files",
    "plan_download",
    "present_cases",
]
