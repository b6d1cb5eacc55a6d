"""Put results of robustness side by side in one table, and say what keeps them from being compared."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from attention_zoo.corruption_error import mean_corruption_error
from attention_zoo.errors import InputError
from attention_zoo.reports.table import Table
from attention_zoo.results.paired_attacks import ALARM, accuracy_interval, best_of_all
from attention_zoo.results.robustness import Column, RobustnessResult, Row, alarms, blind_spots

INTERVALS = "in brackets: the 95 % interval of an accuracy (Wilson's), of other images and not of other trainings"
BEST_OF_ALL = (
    "minus the best of all: the accuracy less that under the attack in the same ball that lowers it most, on images "
    f"that both attacked; alarm: at least {ALARM:g} point, and beyond sampling noise (95 %, Agresti and Min)"
)

CONFIDENCE = (
    "confidence, the probability of the most probable class: AURC, the mean error in % among the k most confident of "
    "the clean images, over all k; AUROC, the probability in % that a clean image has the higher one; FPR95, the % of "
    "the others that pass where 95 % of the clean images do"
)

Results = Mapping[str, RobustnessResult]
"""Results by the name that tables give to each, such as the name of its run."""


def compare(results: Results, *, mixed: bool = False, intervals: bool = True) -> Table:
    """Return a table with a row for each model of each result, and a column for each benchmark or attack.

    Behind them stands, for each attack that trusts the gradients and others in its ball, by how much the best of all
    lowers the accuracy more.

    Args:
        results: the results to put side by side.
        mixed: whether numbers of different protocols may share a column; notes then say so.
        intervals: whether accuracies have their 95 % intervals, and alarms are said, in the same cell.

    Raises:
        InputError: protocols differ and ``mixed`` does not allow it.
    """
    differing = list(differences(results))
    if differing and not mixed:
        more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
        raise InputError(f"different protocols: {differing[0]}{more}; --mixed true puts them into one table with notes")
    names = columns_of(results)
    columns = {name: [every[name] for every in map(_by_name, results.values()) if name in every] for name in names}
    titles = {name: " / ".join(dict.fromkeys(column.title for column in columns[name])) for name in names}
    rows_of = [(label, result, result.row(row)) for label, result, row in row_labels(results)]
    against = list(dict.fromkeys(name for _, _, row in rows_of for name in best_of_all(row.pairs)))
    header = (
        "model",
        *(" / ".join(dict.fromkeys(column.heading for column in columns[name])) for name in names),
        *(f"{titles[name]} minus the best of all ↓" for name in against),
        *dict.fromkeys(heading for _, _, row in rows_of for heading in _confidence(row)),
    )
    rows = []
    for label, result, row in rows_of:
        own = _by_name(result)
        scores = [_score(own[name], row, intervals) if name in own else "" for name in names]
        gaps = [_gap(row, name, intervals) for name in against]
        worth = _confidence(row)
        further = [worth.get(heading, "") for heading in header[1 + len(scores) + len(gaps) :]]
        rows.append((label, *scores, *gaps, *further))
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
    alarm = [line for label, result, row in rows_of for line in alarms(result, row, label)]
    also = ([INTERVALS] if intervals else []) + ([BEST_OF_ALL] if against else [])
    also += [CONFIDENCE] if any(row.confidence for _, _, row in rows_of) else []
    notes = (*(f"not comparable: {line}" for line in differing), *alarm, *blind, *meanings, *also)
    return Table(header, tuple(rows), notes)


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


def _score(column: Column, row: Row, intervals: bool) -> str:
    """Return the number of a column, with its interval where it is an accuracy."""
    counts = row.counts[column.name]
    text = number(column.score(counts))
    if not intervals or column.corruptions or not counts[0].total:
        return text
    low, high = accuracy_interval(counts[0].correct, counts[0].total)
    return f"{text} [{low:.1f}, {high:.1f}]"


def _gap(row: Row, reference: str, intervals: bool) -> str:
    """Return by how much the best of all attacks in the reference's ball lowers the accuracy more; empty without."""
    pair = best_of_all(row.pairs).get(reference)
    if pair is None:
        return ""
    text = number(max(pair.gap, 0.0))
    return f"{text} alarm" if intervals and pair.alarming else text


def _confidence(row: Row) -> dict[str, str]:
    """Return what the confidence of a row is worth, by the heading of its column; empty where nobody asked."""
    if row.confidence is None:
        return {}
    cells = {"AURC ↓": number(row.confidence.aurc)}
    for each in row.confidence.detections:
        cells[f"{each.title} AUROC ↑"] = number(each.auroc)
        cells[f"{each.title} FPR95 ↓"] = number(each.fpr95)
    return cells


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
