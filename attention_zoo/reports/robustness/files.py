"""Write results of robustness, and comparisons of them, as files in a folder."""

from pathlib import Path

from attention_zoo.reports.robustness.comparison import Results, cell_table, compare, grids_of
from attention_zoo.reports.table import Table
from attention_zoo.reports.writing import save, whole
from attention_zoo.results.robustness import RobustnessResult
from attention_zoo.runs.results import refuse_existing


def write_result(folder: Path, result: RobustnessResult) -> Table:
    """Write one result with its tables and its figure into a folder, and return its table.

    ``robustness.json`` holds everything, ``robustness.csv`` and ``robustness.md`` the table, ``robustness_cells.csv``
    the counts, and ``robustness.png`` a figure.

    Raises:
        InputError: the folder holds a result already, or a file cannot be written.
    """
    results = {result.title: result}
    table = compare(results)
    grids = [f"\n{heading}\n\n{part.markdown()}" for heading, part in grids_of(result)]
    from attention_zoo.reports.robustness.figures import (
        overview,  # imported here, so that counting and comparing do not load matplotlib
    )

    figure = overview(result)
    refuse_existing(folder / result.file)
    with whole(folder) as stage:
        result.write_json(stage / result.file)
        _write_tables(stage, results, table, "".join(grids))
        save(figure, stage / "robustness.png")
    return table


def write_comparison(folder: Path, results: Results, table: Table) -> None:
    """Write a table of several results, their counts, and a figure of robust against clean numbers."""
    from attention_zoo.reports.robustness.figures import against_clean

    figure = against_clean(results)
    with whole(folder) as stage:
        _write_tables(stage, results, table)
        save(figure, stage / "robustness.png")


def _write_tables(folder: Path, results: Results, table: Table, further: str = "") -> None:
    texts = {"": compare(results, mixed=True, intervals=False).csv(), "_cells": cell_table(results).csv()}
    for part, text in texts.items():
        (folder / f"robustness{part}.csv").write_text(text, encoding="utf-8")
    (folder / "robustness.md").write_text(table.markdown() + further, encoding="utf-8")
