"""Cases -> prepared/: checked, turned, packed losslessly, exported as PNG, and a summary."""

from .checking import check_folder
from .packing import export_pngs, prepare
from .prepared import (
    CaseFiles,
    Prepared,
    PreparedCase,
    data_hashes,
    example_case,
    hash_of_ct,
    open_prepared,
    prepared_cases,
)
from .summary import PreparationReport, findings_of_packed, read_prepared, recorded_report

__all__ = [
    "CaseFiles",
    "PreparationReport",
    "Prepared",
    "PreparedCase",
    "check_folder",
    "data_hashes",
    "example_case",
    "export_pngs",
    "findings_of_packed",
    "hash_of_ct",
    "open_prepared",
    "prepare",
    "prepared_cases",
    "read_prepared",
    "recorded_report",
]
