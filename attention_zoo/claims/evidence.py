"""The numbers that the runs of a study hold: a value for each seed, by setting and column."""

import csv
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import TypeVar

from attention_zoo.corruption_error import CATEGORIES
from attention_zoo.errors import InputError, unknown
from attention_zoo.reports.sweeps.report import Group, SweepReport
from attention_zoo.results.clicks import ClickResult
from attention_zoo.runs.files import read_text
from attention_zoo.runs.results import NUMBERS, is_number, read_run_config
from attention_zoo.sweeps.driver import flat_metrics, folder_of
from attention_zoo.sweeps.plan import PLAN, read_plan
from attention_zoo.sweeps.record import RECORD, read_record

_Value = TypeVar("_Value")

Values = Mapping[int, float]
"""Finite values by seed."""

Settings = dict[str, dict[int, dict[str, float]]]
"""The finite metrics of runs: by the setting's name, the seed, and the column's name."""

COST, CELLS = "cost/", "cells/"
"""The beginnings of columns that are costs of training, and errors under a category of corruptions."""

COUNTED = ("cost/parameters", "cost/flops")
"""Columns that are counted, not sampled: nothing but the setting decides them."""

RUNS, COUNTS = "runs.csv", "robustness_cells.csv"
"""The table of all runs that a sweep's report holds, and the counts of every cell that a test leaves in a run."""


class Evidence(ABC):
    """What the runs of a study measured."""

    @abstractmethod
    def values(self, setting: str, column: str) -> Values:
        """Return the values of a column under a setting; none where no run of the setting has measured it yet.

        Raises:
            InputError: the study has no such setting or column, or a file of its runs cannot be right.
        """


class SweepEvidence(Evidence):
    """The runs of a sweep, by the names that its report gives to settings and metrics.

    Args:
        folder: the folder of the sweep, with the folders of its runs.

    Raises:
        InputError: the folder holds no sweep, none of its runs is done, or a file of a run cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.report = SweepReport(folder)
        for problem in self.report.left_out:  # without that run the numbers would be others
            raise InputError(problem)
        self.groups = {group.name: group for group in self.report.groups}

    def values(self, setting: str, column: str) -> Values:
        """Return the values of a metric ``<evaluation>/<metric>``, a cost or an error; see `Evidence.values`."""
        group = _setting(setting, self.groups)
        if not group.metrics:
            return {}
        if column.startswith(COST):
            key = _among("column", column, {f"{COST}{name}": name for name in NUMBERS})
            return {seed: cost[key] for seed, cost in group.costs.items() if is_number(cost.get(key))}
        if column.startswith(CELLS):
            return dict(self._category_errors(group, column))
        measured = [metrics for each in self.groups.values() for metrics in each.metrics.values()]
        _among("column", column, dict.fromkeys(name for metrics in measured for name in metrics))
        return group.of(column)

    def _category_errors(self, group: Group, column: str) -> Iterable[tuple[int, float]]:
        """Yield seed and mean error in percent of each finished run of a setting, under a category of corruptions."""
        benchmark, _, category = column.removeprefix(CELLS).rpartition("/")
        corruptions = [name for name, other in CATEGORIES.items() if other == category]
        if not corruptions:
            known = dict.fromkeys(CATEGORIES.values())
            raise unknown("column", column, [f"{CELLS}{benchmark or 'BENCHMARK'}/{each}" for each in known])
        for row in self.report.found:
            if row.record.status == "done" and row.run.values == group.values:
                path = folder_of(self.report.out, row.run) / COUNTS
                errors = read_errors(path, benchmark)
                missing = [name for name in corruptions if name not in errors]
                if missing:
                    raise InputError(f"{path} has no {missing[0]} of {benchmark}")
                yield row.run.seed, 100 * fmean(errors[name] for name in corruptions)


class MeasuredRuns(Evidence):
    """Runs of which only the metrics are kept.

    Args:
        settings: by setting and seed, the finite metrics of a run by the name of the column.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def values(self, setting: str, column: str) -> Values:
        """Return the values of a metric ``<evaluation>/<metric>``; see `Evidence.values`."""
        runs = _setting(setting, self.settings)
        measured = [metrics for each in self.settings.values() for metrics in each.values()]
        _among("column", column, dict.fromkeys(name for metrics in measured for name in metrics))
        return {seed: metrics[column] for seed, metrics in runs.items() if column in metrics}


def read_evidence(folder: Path) -> Evidence | None:
    """Return what a study measured, by the files in its folder; None where no runs are there yet.

    Raises:
        InputError: the folder holds a study that cannot be read.
    """
    has_plan = (folder / PLAN).is_file()
    if (folder / "runs").is_dir():
        return SweepEvidence(folder) if has_plan else MeasuredRuns(read_run_records(folder / "runs"))
    if has_plan and (folder / RUNS).is_file():
        return MeasuredRuns(read_run_table(folder))
    return MeasuredRuns(read_curves(folder)) if any(folder.rglob(ClickResult.file)) else None


def read_run_records(folder: Path) -> Settings:
    """Return the metrics of the finished evaluations of runs without a plan, from the record in each run's folder.

    Settings are named as the folders are, ``<setting>,seed=<seed>``, without ``run=`` before them.

    Raises:
        InputError: a record cannot be read, or a folder has another name.
    """
    settings: Settings = {}
    for path in sorted(folder.glob(f"*/{RECORD}")):
        setting, _, seed = path.parent.name.removeprefix("run=").rpartition(",seed=")
        metrics = flat_metrics(read_record(path.parent))
        known = {name: value for name, value in metrics.items() if value is not None}
        settings.setdefault(setting, {})[_count(seed, f"{path.parent}: seed")] = known
    return settings


def read_run_table(folder: Path) -> Settings:
    """Return the metrics of the finished runs of a sweep of which only the report is kept, from its table of runs.

    Raises:
        InputError: the folder holds no sweep, or its table cannot be of it.
    """
    plan, path = read_plan(folder), folder / RUNS
    titles = list(plan.titles.values())
    settings: Settings = {}
    for number, row in enumerate(_rows(path, [*titles, "seed", "state"]), 2):
        runs = settings.setdefault(", ".join(row[title] for title in titles), {})
        if row["state"] == "done":
            known = {name: value for name, cell in row.items() if (value := _number(cell)) is not None}
            runs[_count(row["seed"], f"line {number} of {path}")] = known
    return settings


def read_curves(folder: Path) -> Settings:
    """Return the mean IoU after each number of clicks in tests of interactive segmentation without a sweep.

    The setting is the title of a result, columns are ``test/<curve>/miou_<clicks>``. The trials of a test repeat the
    clicks, not the training, and so are no seeds.

    Raises:
        InputError: a result cannot be read, or two are of the same model and seed.
    """
    settings: Settings = {}
    for path in sorted(folder.rglob(ClickResult.file)):
        result, seed = ClickResult.read(path), read_run_config(path.parent).get("seed_everything")
        runs = settings.setdefault(result.title, {})
        if seed in runs:
            raise InputError(f"{path}: there is another result of {result.title} with seed {seed} in {folder}")
        runs[seed if isinstance(seed, int) else 0] = {
            f"test/{curve.name}/miou_{clicks}": mean
            for curve in result.curves
            for clicks, mean in enumerate(curve.mean)
        }
    return settings


def read_errors(path: Path, benchmark: str) -> dict[str, float]:
    """Return the mean error over severities, 0..1, by corruption, from the counts of one model under a benchmark.

    Raises:
        InputError: the file cannot be read, or holds several models or a count that cannot be.
    """
    columns = ("model", "benchmark", "corruption", "severity", "correct", "total")
    errors: dict[str, list[float]] = {}
    models = set()
    for number, row in enumerate(_rows(path, columns), 2):
        models.add(row["model"])
        if row["benchmark"] == benchmark and row["corruption"]:
            here = f"line {number} of {path}"
            correct, total = _count(row["correct"], here), _count(row["total"], here)
            if not 0 <= correct <= total or not total:
                raise InputError(f"{here}: {correct} of {total} cannot be correct")
            errors.setdefault(row["corruption"], []).append(1 - correct / total)
    if len(models) > 1:
        raise InputError(f"{path} holds the counts of {len(models)} models, where one is looked for")
    return {corruption: fmean(each) for corruption, each in errors.items()}


def _rows(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Return the rows of a CSV file that must have some columns, each row with as many cells as the header."""
    table = csv.DictReader(read_text(path).splitlines(), strict=True)
    try:
        rows = list(table)
    except csv.Error as error:
        raise InputError(f"{path} is no table: {error}") from error
    for column in columns:
        if column not in (table.fieldnames or ()):
            raise InputError(f"{path} has no column {column}")
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise InputError(f"line {number} of {path} has another number of cells than the header")
    return rows


def _setting(name: str, choices: Mapping[str, _Value]) -> _Value:
    """Return what has a setting's name, with or without the spaces that the names of run folders lack."""
    without_spaces = {choice.replace(" ", ""): choice for choice in choices}
    known = name if name in choices else without_spaces.get(name.replace(" ", ""), name)
    return _among("setting", known, choices)


def _among(kind: str, name: str, choices: Mapping[str, _Value]) -> _Value:
    if name not in choices:
        raise unknown(kind, name, choices)
    return choices[name]


def _count(cell: str, here: str) -> int:
    if not cell.isascii() or not cell.isdecimal():
        raise InputError(f"{here}: {cell!r:.60} is no count")
    return int(cell)


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if is_number(value) else None
