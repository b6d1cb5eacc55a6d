"""Results of evaluations as files, tables and figures."""

from attention_zoo.reports.comparison import Table, cell_table, compare, differences, grid
from attention_zoo.reports.files import RESULT, grids_of, holds_result, read_results, write_comparison, write_result
from attention_zoo.reports.robustness import CellCount, Column, RobustnessResult, Row

__all__ = [
    "RESULT",
    "CellCount",
    "Column",
    "RobustnessResult",
    "Row",
    "Table",
    "cell_table",
    "compare",
    "differences",
    "grid",
    "grids_of",
    "holds_result",
    "read_results",
    "write_comparison",
    "write_result",
]
