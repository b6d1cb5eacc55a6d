"""Results of robustness side by side in one table, and what keeps them from being compared."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from attention_zoo.corruption_error import mean_corruption_error
from attention_zoo.errors import InputError
from attention_zoo.reports.table import Table
from attention_zoo.results.robustness import Column, RobustnessResult, blind_spots

Results = Mapping[str, RobustnessResult]
"""By what to call each, such as its run."""


def compare(results: Results, *, mixed: bool = False) -> Table:
    """One row for each model of each result, one column for each benchmark or attack that any of them has.

    Args:
        results: what to put side by side.
        mixed: put numbers of different protocols into one column, with notes that say so.

    Raises:
        InputError: protocols differ and ``mixed`` does not allow it.
    """
    differing = list(differences(results))
    if differing and not mixed:
        more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
        raise InputError(f"different protocols: {differing[0]}{more}; --mixed true puts them into one table with notes")
    names = columns_of(results)
    columns = {name: [found[name] for found in map(_by_name, results.values()) if name in found] for name in names}
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
    """Errors in percent of one row under each corruption (rows) at each severity, their mean, and what counts of it."""
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
    """Every count: a row for each cell."""
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
    """A line for each thing that keeps the numbers of one column from being compared."""
    for name in columns_of(results):
        found = {label: _by_name(result)[name] for label, result in results.items() if name in _by_name(result)}
        first, *others = found
        for label in others:
            for key, one, other in _differing(_facts(found[first]), _facts(found[label])):
                yield f"{found[first].title}: {key} is {one} in {first}, {other} in {label}"


def grids_of(result: RobustnessResult) -> Iterator[tuple[str, Table]]:
    """Heading and table of the errors under each corruption at each severity, of each row."""
    for column in result.columns:
        for row in result.rows if column.corruptions else ():
            yield f"{column.title}, {row.name}: top-1 error in % by severity", grid(column, result, row.name)


def row_labels(results: Results) -> list[tuple[str, RobustnessResult, str]]:
    """Each row: what to call it (its result, itself, or both where it takes both), its result, its own name."""
    found = []
    for label, result in results.items():
        for row in result.rows:
            several = len(result.rows) > 1
            name = row.name if several and len(results) == 1 else f"{label}, {row.name}" if several else label
            found.append((name, result, row.name))
    return found


def columns_of(results: Results) -> list[str]:
    """Names of all columns, each once, in the order of the first result that has it."""
    return list(dict.fromkeys(column.name for result in results.values() for column in result.columns))


def number(value: float) -> str:
    """Two decimals; a dash where nothing was counted."""
    return "-" if math.isnan(value) else f"{value:.2f}"


def _facts(column: Column) -> dict[str, Any]:
    """What must be the same."""
    own = {
        entry.name: getattr(column, entry.name) for entry in fields(column) if entry.name not in ("name", "protocol")
    }
    return {**own, **column.protocol}


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for key in dict.fromkeys([*one, *other]):
        values = [facts.get(key, "not said") for facts in (one, other)]
        if values[0] != values[1]:
            said = [", ".join(map(str, value)) if isinstance(value, tuple) else str(value) for value in values]
            yield key, *said


def _by_name(result: RobustnessResult) -> dict[str, Column]:
    return {column.name: column for column in result.columns}
