"""Put results of robustness side by side in one table, and say what keeps them from being compared."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from attention_zoo.corruption_error import mean_corruption_error
from attention_zoo.errors import InputError
from attention_zoo.reports.table import Table
from attention_zoo.results.robustness import Column, RobustnessResult, blind_spots

Results = Mapping[str, RobustnessResult]
"""Results by the name that tables give to each, such as the name of its run."""


def compare(results: Results, *, mixed: bool = False) -> Table:
    """Return a table with a row for each model of each result, and a column for each benchmark or attack.

    Args:
        results: the results to put side by side.
        mixed: whether numbers of different protocols may share a column; notes then say so.

    Raises:
        InputError: protocols differ and ``mixed`` does not allow it.
    """
    differing = list(differences(results))
    if differing and not mixed:
        more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
        raise InputError(f"different protocols: {differing[0]}{more}; --mixed true puts them into one table with notes")
    names = columns_of(results)
    columns = {name: [every[name] for every in map(_by_name, results.values()) if name in every] for name in names}
    header = ("model", *(" / ".join(dict.fromkeys(column.heading for column in columns[name])) for name in names))
    rows = []
    for label, result, row in row_labels(results):
        scores = result.scores[row]
        rows.append((label, *(number(scores[name]) if name in scores else "" for name in names)))
    meanings = dict.fromkeys(
        f"{column.title}: {column.meaning}; {', '.join(f'{key} {value}' for key, value in column.protocol.items())}"
        for name in names
        for column in columns[name]
    )
    blind = [
        line
        for label, result, row in row_labels(results)
        for column in result.columns
        for line in blind_spots(column, result.row(row).counts[column.name], label)
    ]
    return Table(header, tuple(rows), (*(f"not comparable: {line}" for line in differing), *blind, *meanings))


def grid(column: Column, result: RobustnessResult, row: str) -> Table:
    """Return a table of one model's errors in percent, with a row for each corruption and a column for each severity.

    Further columns hold the mean over the severities and, where errors are divided by AlexNet's, the corruption error
    CE.

    Args:
        column: the benchmark.
        result: the result that holds the counts.
        row: the name of the model's row in the result.
    """
    counts = result.row(row).counts[column.name]
    cells = {(cell.corruption, cell.severity): cell.error for cell in counts}
    means = column.errors(counts)
    header = ("corruption", *map(str, column.severities), "mean", *(["CE"] if column.normalised else []))
    rows = []
    for name, mean in means.items():
        errors = [number(100 * cells[name, severity]) for severity in column.severities]
        relative = [number(mean_corruption_error({name: mean}, normalised=True))] if column.normalised else []
        rows.append((name, *errors, number(100 * mean), *relative))
    return Table(header, tuple(rows))


def cell_table(results: Results) -> Table:
    """Return a table of every count, with a row for each cell of each benchmark and attack."""
    header = ("model", "benchmark", "corruption", "severity", "correct", "total", "accuracy", "calibration_error")
    everything = [
        (label, column, cell)
        for label, result, row in row_labels(results)
        for column in result.columns
        for cell in result.row(row).counts[column.name]
    ]
    looked = any(cell.no_gradient is not None for _, _, cell in everything)
    rows = [
        (
            label,
            column.name,
            cell.corruption or "",
            str(cell.severity or ""),
            str(cell.correct),
            str(cell.total),
            "" if math.isnan(cell.error) else f"{1 - cell.error:.6f}",
            "" if cell.calibration is None else f"{cell.calibration:.6f}",
            *(["" if cell.no_gradient is None else str(cell.no_gradient)] if looked else []),
        )
        for label, column, cell in everything
    ]
    return Table((*header, *(["no_gradient"] if looked else [])), tuple(rows))


def differences(results: Results) -> Iterator[str]:
    """Yield a line for each fact that keeps the numbers of one column from being compared."""
    for name in columns_of(results):
        columns = {label: _by_name(result)[name] for label, result in results.items() if name in _by_name(result)}
        first, *others = columns
        for label in others:
            for key, one, other in _differing(_facts(columns[first]), _facts(columns[label])):
                yield f"{columns[first].title}: {key} is {one} in {first}, {other} in {label}"


def grids_of(result: RobustnessResult) -> Iterator[tuple[str, Table]]:
    """Yield a heading and a `grid` of errors for each row of each benchmark that has corruptions."""
    for column in result.columns:
        for row in result.rows if column.corruptions else ():
            yield f"{column.title}, {row.name}: top-1 error in % by severity", grid(column, result, row.name)


def row_labels(results: Results) -> list[tuple[str, RobustnessResult, str]]:
    """Return, for each row of each result, the label to show, the result, and the row's own name.

    The label is the name of the result, that of the row, or both where one alone does not tell the rows apart.
    """
    labels = []
    for label, result in results.items():
        for row in result.rows:
            several = len(result.rows) > 1
            name = row.name if several and len(results) == 1 else f"{label}, {row.name}" if several else label
            labels.append((name, result, row.name))
    return labels


def columns_of(results: Results) -> list[str]:
    """Return the names of all columns, each once, in the order in which the results first have them."""
    return list(dict.fromkeys(column.name for result in results.values() for column in result.columns))


def number(value: float) -> str:
    """Return a number as text with two decimals; a dash for NaN, where nothing was counted."""
    return "-" if math.isnan(value) else f"{value:.2f}"


def _facts(column: Column) -> dict[str, Any]:
    """Return the facts that must be the same for the numbers of two columns to be compared."""
    own = {
        entry.name: getattr(column, entry.name) for entry in fields(column) if entry.name not in ("name", "protocol")
    }
    return {**own, **column.protocol}


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for key in dict.fromkeys([*one, *other]):
        values = [facts.get(key, "not said") for facts in (one, other)]
        if values[0] != values[1]:
            first, second = (", ".join(map(str, value)) if isinstance(value, tuple) else str(value) for value in values)
            yield key, first, second


def _by_name(result: RobustnessResult) -> dict[str, Column]:
    return {column.name: column for column in result.columns}
