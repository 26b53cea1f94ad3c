"""Cases -> prepared/: checked, turned, packed losslessly, exported as PNG, and a summary."""

from .packing import export_pngs, prepare
from .prepared import (
    CaseFiles,
    Prepared,
    PreparedCase,
    data_hashes,
    hash_of_ct,
    open_prepared,
    prepared_cases,
)
from .summary import PreparationReport, recorded_report

__all__ = [
    "CaseFiles",
    "PreparationReport",
    "Prepared",
    "PreparedCase",
    "data_hashes",
    "export_pngs",
    "hash_of_ct",
    "open_prepared",
    "prepare",
    "prepared_cases",
    "recorded_report",
]
