"""Report one patient on one page: what the labels hold and how far to trust them."""

from .comparison import compare_dates, write_comparison
from .measurements import measure, place_of, row_of, write_table
from .meshes import enclosed, surface, write_stl
from .quality import judge, look, sentences
from .writing import report_of, write_report

__all__ = [
    "compare_dates",
    "enclosed",
    "judge",
    "look",
    "measure",
    "place_of",
    "report_of",
    "row_of",
    "sentences",
    "surface",
    "write_comparison",
    "write_report",
    "write_stl",
    "write_table",
]
