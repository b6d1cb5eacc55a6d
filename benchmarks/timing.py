"""Measure the ratios of two calls, timed in one run and interleaved, so that a noisy machine affects both alike."""

import statistics
import time
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


def compare(cases: Iterable[Case], pairs: int, device: str = "cpu", cpu_time: bool = False) -> None:
    """Time every case and print the medians of both calls and of the pairwise ratio, beside the goal.

    With ``cpu_time`` times are CPU seconds of this process, which other work on the machine does not stretch.
    """
    clock = time.process_time if cpu_time else time.perf_counter
    console = Console()
    kind = "CPU time, " if cpu_time else ""
    setting = f"{torch.__version__}, {device}, {torch.get_num_threads()} threads, {kind}median of {pairs} pairs"
    table = Table(title=setting)
    for column in ("what", "first ms", "second ms", "ratio", "goal"):
        table.add_column(column)
    with console.status("timing") as status:
        for case in cases:
            status.update(case.name)
            times = interleaved((case.first, case.second), pairs, device, clock)
            milliseconds = [f"{statistics.median(t) * 1e3:.1f}" for t in times]
            ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
            table.add_row(case.name, *milliseconds, f"{ratio:.3f}", case.goal)
    console.print(table)
