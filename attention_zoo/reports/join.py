"""Joins the results of several runs: those of one evaluation where all have them, else what their trainings left."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from attention_zoo.errors import InputError
from attention_zoo.evaluation import Result, read_results, result_kinds
from attention_zoo.reports.table import Table

Write = Callable[[Path], None]
"""A function that writes a report to a folder."""


def join(folders: Sequence[Path], left_out: list[str], *, mixed: bool) -> tuple[Table, Write]:
    """Return the table of several results side by side, and the function that writes it and its figures.

    Args:
        folders: folders of runs or of evaluations, or their files.
        left_out: a list to which a line is added for each file that cannot be read.
        mixed: whether different protocols or data may be put into one table, with notes.

    Raises:
        InputError: a path does not exist or holds nothing to report on, or the results cannot be compared.
    """
    for folder in folders:
        if not folder.exists():
            raise InputError(f"{folder} does not exist")
    kinds = result_kinds()
    kind = next((kind for kind in kinds if all(map(kind.holds, folders))), None)
    if kind is None:
        return _join_runs(folders, left_out, kinds[::-1], mixed=mixed)
    results = read_results(kind, folders, left_out)
    table = kind.compare(results, mixed=mixed)
    return table, partial(kind.write_comparison, results=results, table=table)


def _join_runs(
    folders: Sequence[Path], left_out: list[str], kinds: Sequence[type[Result]], *, mixed: bool
) -> tuple[Table, Write]:
    """Return table and writer of runs by the files that every training leaves.

    Raises:
        InputError: a folder holds no run, or the runs cannot be compared.
    """
    from attention_zoo.reports import runs  # drawing takes seconds to import

    for folder in folders:
        if not runs.holds_run(folder):
            others = [f"{other} has {kind.file}" for kind in kinds for other in folders if kind.holds(other)]
            *first, last = (runs.METRICS, *(kind.file for kind in kinds))
            files = f"no {', '.join(first)} or {last}, which training and tests write"
            raise InputError(f"nothing to report on in {folder}: {files}{'; ' if others else ''}{', '.join(others)}")
    trained = runs.read_runs(folders, left_out)
    runs.check_comparable(trained, mixed=mixed)
    notes = [f"{folder} has {kind.file} too, not shown" for kind in kinds for folder in folders if kind.holds(folder)]
    table = runs.runs_table(trained, left_out, notes)
    return table, partial(runs.write_runs, runs=trained, table=table)
