"""Results and comparisons as files in a folder."""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from attention_zoo.errors import InputError
from attention_zoo.reports.comparison import Results, Table, cell_table, compare, grid
from attention_zoo.reports.robustness import RobustnessResult
from attention_zoo.reports.writing import save, whole
from attention_zoo.runs.results import exists

RESULT = "robustness.json"
"""The file that holds a result; a folder with one in it, or below it, can be reported on."""


def write_result(folder: Path, result: RobustnessResult) -> Table:
    """Write all there is to say of one result, and give its table.

    ``robustness.json`` holds everything, ``.csv`` and ``.md`` the table, ``_cells.csv`` the counts, ``.png`` a figure.
    """
    results = {result.title: result}
    table = compare(results)
    grids = [f"\n{heading}\n\n{part.markdown()}" for heading, part in grids_of(result)]
    from attention_zoo.reports.figures import overview  # what only counts and compares loads nothing to draw with

    figure = overview(result)
    if exists(folder / RESULT):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder / RESULT))
    with whole(folder) as stage:
        result.write(stage / RESULT)
        _write_tables(stage, results, table, "".join(grids))
        save(figure, stage / "robustness.png")
    return table


def write_comparison(folder: Path, results: Results, table: Table) -> None:
    """Write a table of several results, their counts, and a figure of robust against clean numbers."""
    from attention_zoo.reports.figures import against_clean

    figure = against_clean(results)
    with whole(folder) as stage:
        _write_tables(stage, results, table)
        save(figure, stage / "robustness.png")


def grids_of(result: RobustnessResult) -> Iterator[tuple[str, Table]]:
    """Heading and table of the errors under each corruption at each severity, of each row."""
    for column in result.columns:
        for row in result.rows if column.corruptions else ():
            yield f"{column.title}, {row.name}: top-1 error in % by severity", grid(column, result, row.name)


def read_results(paths: Sequence[Path], left_out: list[str] | None = None) -> dict[str, RobustnessResult]:
    """The results at or below ``paths``, by names that tell them apart: mixer, run, both, or path.

    Args:
        paths: folders or files.
        left_out: gets a line for each file that is no result, and the others are read; without it such a file is an
            error.

    Raises:
        InputError: a path does not exist or holds none, or a file is no result.
    """
    named = list(dict.fromkeys(file.resolve() for path in paths for file in _files(path)))
    read = {}
    for file in named:
        try:
            read[file] = RobustnessResult.read(file)
        except InputError as error:
            if left_out is None or len(named) == 1:
                raise
            left_out.append(str(error))
    if not read:
        raise InputError(f"nothing to report on: {'; '.join(left_out or [])}")
    files, results = list(read), list(read.values())
    runs = [_run(file) for file in files]
    ways: list[Callable[[int], str]] = [
        lambda place: results[place].title,
        lambda place: runs[place],
        lambda place: f"{runs[place]}: {results[place].title}",
        lambda place: str(files[place].parent),
    ]
    for way in ways:
        names = [way(place) for place in range(len(files))]
        if len(set(names)) == len(names):
            break
    return dict(zip(names, results, strict=True))


def holds_result(path: Path) -> bool:
    """Whether a path is a result of robustness, or a folder with one in it or below it."""
    return path.suffix == ".json" if path.is_file() else any(path.rglob(RESULT))


def _write_tables(folder: Path, results: Results, table: Table, further: str = "") -> None:
    texts = {"": table.csv(), "_cells": cell_table(results).csv()}
    for part, text in texts.items():
        (folder / f"robustness{part}.csv").write_text(text, encoding="utf-8")
    (folder / "robustness.md").write_text(table.markdown() + further, encoding="utf-8")


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.exists():
        raise InputError(f"{path} does not exist")
    found = sorted(path.rglob(RESULT))
    if not found:
        raise InputError(f"nothing to report on in {path}: no {RESULT}, which a robustness test writes")
    return found


def _run(file: Path) -> str:
    """The run that a result is of: the folder above that of the evaluation, if it is one."""
    above = file.parent.parent
    return above.name if (above / "config.yaml").is_file() else file.parent.name
