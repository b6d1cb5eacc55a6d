"""Measure the ratios of two calls, timed in one run and interleaved, so that a noisy machine affects both alike."""

import statistics
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from attention_zoo.analysis.timing import backward, forward, interleaved

__all__ = ["Case", "backward", "compare", "forward"]


class Case(NamedTuple):
    """Two calls whose times are compared, and what their ratio first / second should be."""

    name: str
    first: Callable[[], object]
    second: Callable[[], object]
    goal: str


def compare(cases: Iterable[Case], pairs: int, device: str = "cpu") -> None:
    """Time every case and print the medians of both calls and of the pairwise ratio, beside the goal."""
    console = Console()
    table = Table(title=f"{torch.__version__}, {device}, {torch.get_num_threads()} threads, median of {pairs} pairs")
    for column in ("what", "first ms", "second ms", "ratio", "goal"):
        table.add_column(column)
    with console.status("timing") as status:
        for case in cases:
            status.update(case.name)
            times = interleaved((case.first, case.second), pairs, device)
            milliseconds = [f"{statistics.median(t) * 1e3:.1f}" for t in times]
            ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
            table.add_row(case.name, *milliseconds, f"{ratio:.3f}", case.goal)
    console.print(table)
