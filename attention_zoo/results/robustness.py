"""The result of a robustness evaluation: what was counted, under which protocol, and the scores that follow."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Self

from attention_zoo.attacks import without_gradient
from attention_zoo.corruption_error import ALEXNET_ERRORS, mean_corruption_error, of_alexnets_kind
from attention_zoo.errors import InputError
from attention_zoo.evaluation import Benchmark, Cell, Evaluated, Result, part_of, result_kinds
from attention_zoo.reports.table import Table
from attention_zoo.results.confidence import Confidence, read_confidence
from attention_zoo.results.paired_attacks import Pair, best_of_all, wrong_pairs
from attention_zoo.runs.files import read_json, write_text
from attention_zoo.runs.results import is_number, refuse_existing

FORMAT = "attention_zoo robustness 1"
"""The value of ``format`` in a result's file, by which the file is recognised."""

MOST_IMAGES = 2**53
"""Counts of images must be below this number, from which on a float does not hold every integer."""


@dataclass(frozen=True)
class CellCount:
    """The counts of a cell: a benchmark, or one corruption at one severity of it.

    Attributes:
        total: the number of images.
        correct: the number of images whose most probable class, among the benchmark's, is right.
        calibration: expected calibration error, 0..1; None where nothing was counted.
        corruption: the name of the corruption; None without one.
        severity: the severity of the corruption, 1 to 5; None without one.
        no_gradient: under an attack, the number of images that the model gets right and whose loss never had a
            gradient, so that they were not put to the test; None where this was not counted.
    """

    total: int
    correct: int
    calibration: float | None = None
    corruption: str | None = None
    severity: int | None = None
    no_gradient: int | None = None

    @property
    def error(self) -> float:
        """The share of images that the model gets wrong, 0..1; NaN where there are no images."""
        return 1 - self.correct / self.total if self.total else math.nan


def grid_of(corruptions: Sequence[str], severities: Sequence[int]) -> list[tuple[str | None, int | None]]:
    """Return corruption and severity of each cell of a benchmark, in order; one (None, None) without corruptions."""
    return [(corruption, severity) for corruption in corruptions for severity in severities] or [(None, None)]


@dataclass(frozen=True)
class Column:
    """A benchmark or an attack: what its numbers mean, and what two of them must share to be compared.

    Attributes:
        name: its name, such as ``imagenet_c`` or ``pgd``.
        title: its name in tables.
        classes: the number of classes that compete.
        protocol: source, preprocessing, settings of an attack, number of images; ``part_of`` is the number of all
            images where these are not all.
        corruptions: the names of the corruptions, in order; empty where there are none.
        severities: the severities of the corruptions.
    """

    name: str
    title: str
    classes: int
    protocol: Mapping[str, Any]
    corruptions: tuple[str, ...] = ()
    severities: tuple[int, ...] = ()

    @classmethod
    def of(cls, benchmark: Benchmark, cells: Sequence[Cell], num_classes: int) -> Self:
        """Return the column of a benchmark.

        Raises:
            InputError: its cells are not each corruption at each severity, in this order.
        """
        corruptions = tuple(dict.fromkeys(cell.corruption for cell in cells if cell.corruption))
        severities = tuple(dict.fromkeys(cell.severity for cell in cells if cell.severity))
        if [(cell.corruption, cell.severity) for cell in cells] != grid_of(corruptions, severities):
            raise InputError(f"{benchmark.title}: its cells must be each corruption at each severity, in this order")
        images = sum(cell.images for cell in cells)
        return cls(
            name=benchmark.name,
            title=benchmark.title,
            classes=len(benchmark.classes) if benchmark.classes else num_classes,
            protocol={**benchmark.protocol, "images": images},
            corruptions=corruptions,
            severities=severities,
        )

    def counted(self, counts: Sequence[CellCount]) -> Self:
        """Return the column with the number of images that were counted, where these are only a part of its own."""
        images = sum(cell.total for cell in counts)
        every = self.protocol.get("images", images)
        return self if images == every else replace(self, protocol={**self.protocol, **part_of(images, every)})

    @property
    def normalised(self) -> bool:
        """Whether the errors are divided by those of AlexNet."""
        return of_alexnets_kind(self.name, self.corruptions, self.severities)

    @property
    def heading(self) -> str:
        """The heading of the column: title, metric, and an arrow to where it is better."""
        if not self.corruptions:
            return f"{self.title} ↑"
        return f"{self.title} {'mCE' if self.normalised else 'error'} ↓"

    @property
    def meaning(self) -> str:
        """The meaning of the column's number, in words."""
        if not self.corruptions:
            return f"top-1 accuracy in %, {self.classes} classes"
        missing = [name for name in ALEXNET_ERRORS if name not in self.corruptions]
        some = 0 < len(missing) < len(ALEXNET_ERRORS)
        part = f"{len(self.corruptions)} corruptions" + (f" ({len(missing)} of the 15 missing)" if some else "")
        if self.normalised:
            return f"mean corruption error in %, {part}, each divided by AlexNet's error"
        what = f"{part}, severities {', '.join(map(str, self.severities))}"
        return f"plain mean of the top-1 error in % (mCE unnormalised), {what}"

    def score(self, counts: Sequence[CellCount]) -> float:
        """Return the number that tables show, in percent; NaN while a cell is empty."""
        if not self.corruptions:
            return 100 * (1 - counts[0].error)
        return mean_corruption_error(self.errors(counts), normalised=self.normalised)

    def errors(self, counts: Sequence[CellCount]) -> dict[str, float]:
        """Return the mean over the severities of the error, 0..1, by corruption."""
        of_each = {name: [cell.error for cell in counts if cell.corruption == name] for name in self.corruptions}
        return {name: fmean(errors) for name, errors in of_each.items()}


@dataclass(frozen=True)
class Row:
    """The counts of one model, or of a model with other mixers.

    Attributes:
        name: the name of the row, such as ``as trained``.
        counts: the counts of each column's cells, by the column's name.
        pairs: attacks in the same ball, compared image by image.
        confidence: what the model's confidence is worth; None where that was not asked for.
    """

    name: str
    counts: Mapping[str, tuple[CellCount, ...]]
    pairs: tuple[Pair, ...] = ()
    confidence: Confidence | None = None


@dataclass(frozen=True)
class RobustnessResult(Result):
    """The result of a robustness evaluation.

    Attributes:
        columns: the benchmarks and attacks.
        rows: the models.
        facts: further facts that a reader needs: model, weights, data, versions, date, precision.
    """

    file: ClassVar[str] = "robustness.json"
    shows_metrics: ClassVar[bool] = True

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The name in tables: the mixer with its options, or the model where that keeps its own attention."""
        return self.facts.get("mixer") or self.facts.get("model") or "model"

    @property
    def protocol(self) -> dict[str, Mapping[str, Any]]:
        """The protocol of each column, which other results must share to be compared, by the column's name."""
        return {column.name: column.protocol for column in self.columns}

    @cached_property
    def scores(self) -> dict[str, dict[str, float]]:
        """The scores in percent, by the names of row and column."""
        return {
            row.name: {column.name: column.score(row.counts[column.name]) for column in self.columns}
            for row in self.rows
        }

    def row(self, name: str) -> Row:
        """Return the row of a name."""
        return next(row for row in self.rows if row.name == name)

    def of(self, evaluated: Evaluated) -> Self:
        """Return this result with the facts about the evaluated model added."""
        known = {entry.name: getattr(evaluated, entry.name) for entry in fields(evaluated)}
        return replace(self, facts={**self.facts, **known})

    def write(self, folder: Path) -> None:
        """Write the result, its tables and a figure into a folder.

        Raises:
            InputError: the folder holds a result already, or a file cannot be written.
        """
        from attention_zoo.reports.robustness.files import write_result

        write_result(folder, self)

    def tables(self) -> list[tuple[str, Table]]:
        """Return the tables to print: the errors under each corruption at each severity, then all columns."""
        from attention_zoo.reports.robustness.comparison import compare, grids_of

        return [*grids_of(self), (f"weights: {self.facts.get('weights')}", compare({self.title: self}))]

    @classmethod
    def differences(cls, results: Mapping[str, Self]) -> list[str]:
        """Return a line for each fact that keeps the results from being compared."""
        from attention_zoo.reports.robustness.comparison import differences

        return list(differences(results))

    @classmethod
    def compare(cls, results: Mapping[str, Self], *, mixed: bool = False) -> Table:
        """Return a table of results side by side.

        Raises:
            InputError: protocols differ and ``mixed`` does not allow it.
        """
        from attention_zoo.reports.robustness.comparison import compare

        return compare(results, mixed=mixed)

    @classmethod
    def write_comparison(cls, folder: Path, results: Mapping[str, Self], table: Table) -> None:
        """Write the table of several results, their counts and a figure into a folder."""
        from attention_zoo.reports.robustness.files import write_comparison

        write_comparison(folder, results, table)

    @classmethod
    def holds(cls, path: Path) -> bool:
        """Return whether a path is a result of this kind, or a folder with one in it or below it.

        Any JSON file counts as one, unless its name is that of another kind of result.
        """
        if not path.is_file():
            return super().holds(path)
        return path.suffix == ".json" and all(path.name != kind.file for kind in result_kinds() if kind is not cls)

    def write_json(self, path: Path) -> None:
        """Write the result alone, as JSON.

        Raises:
            InputError: there is a file of that name already, or it cannot be written.
        """
        refuse_existing(path)
        content = {"format": FORMAT, **self.facts, "columns": [], "rows": [asdict(row) for row in self.rows]}
        for column in self.columns:
            normalised = {"normalised": column.normalised} if column.corruptions else {}
            content["columns"].append({**asdict(column), **normalised, "meaning": column.meaning})
        content["scores"] = {
            row: {name: value if math.isfinite(value) else None for name, value in scores.items()}
            for row, scores in self.scores.items()
        }
        write_text(path, json.dumps(content, indent=1, allow_nan=False))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a result that `write` or `write_json` wrote.

        Raises:
            InputError: the file is no such result, or it holds impossible values.
        """
        kind = "no result of a robustness evaluation"
        try:
            content = read_json(path)
        except InputError as error:
            raise InputError(f"{path} is {kind}: {error}") from error
        if not isinstance(content, dict) or "format" not in content:
            raise InputError(f"{path} is {kind}: it does not say so")
        if content.pop("format") != FORMAT:
            raise InputError(f"{path} is of another version of this program: it is no {FORMAT!r}")
        try:
            columns = tuple(_column(entry) for entry in content.pop("columns"))
            rows = tuple(_row(entry) for entry in content.pop("rows"))
            content.pop("scores")
        except KeyError as error:
            raise InputError(f"{path} is {kind}: {error} is missing") from error
        except (TypeError, AttributeError, InputError) as error:
            raise InputError(f"{path} is {kind}: {error}") from error
        result = cls(columns, rows, content)
        for wrong in _wrong(result):
            raise InputError(f"{path} is {kind}: {wrong}")
        # results of before say of a part of a test that it was all of it
        return replace(result, columns=tuple(column.counted(rows[0].counts[column.name]) for column in columns))


def blind_spots(column: Column, counts: Sequence[CellCount], label: str) -> Iterator[str]:
    """Yield a line where an attack had no gradient to follow, so that its column overstates a model's robustness.

    Args:
        column: the attack.
        counts: the counts of the model's row.
        label: the name of the row.
    """
    number = sum(count.no_gradient or 0 for count in counts)
    if number:
        yield f"{column.title}, {label}: {without_gradient(number, sum(count.total for count in counts))}"


def alarms(result: RobustnessResult, row: Row, label: str) -> Iterator[str]:
    """Yield a line where an attack finds clearly more than the one in its ball that follows the gradients.

    Args:
        result: the result.
        row: one of its rows.
        label: the name to give the row.
    """
    titles = {column.name: column.title for column in result.columns}
    for pair in best_of_all(row.pairs).values():
        if pair.alarming:
            yield pair.line(titles, label)


def _wrong(result: RobustnessResult) -> Iterator[str]:
    """Yield a message for each value that cannot be in a result."""
    if not result.columns or not result.rows:
        yield "columns or rows are empty"
    for kind, names in (("columns", [one.name for one in result.columns]), ("rows", [one.name for one in result.rows])):
        if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            yield f"names of {kind} must be different words, got {names!r:.60}"
    for key in ("mixer", "model"):
        if not isinstance(result.facts.get(key), (str, type(None))):
            yield f"{key} must be a word, got {result.facts[key]!r:.60}"
    for column in result.columns:
        yield from _wrong_column(column)
    for row in result.rows:
        for column in result.columns:
            if column.name not in row.counts:
                yield f"row {row.name!r} has no counts of {column.name!r}"
            else:
                yield from _wrong_counts(f"rows.{row.name}.counts.{column.name}", column, row.counts[column.name])
        yield from wrong_pairs(f"rows.{row.name}.pairs", row.pairs, [column.name for column in result.columns])


def _wrong_column(column: Column) -> Iterator[str]:
    here = f"columns.{column.name}"
    if not isinstance(column.title, str):
        yield f"{here}.title must be a word, got {column.title!r:.60}"
    if type(column.classes) is not int or column.classes < 1:
        yield f"{here}.classes must be a number from 1, got {column.classes!r:.60}"
    if not isinstance(column.protocol, dict):
        yield f"{here}.protocol must be a mapping, got {column.protocol!r:.60}"
    for key, kind in (("corruptions", str), ("severities", int)):
        values = getattr(column, key)
        if not isinstance(values, tuple) or not all(type(each) is kind for each in values):
            yield f"{here}.{key} must be a list, got {values!r:.60}"
        elif len(set(values)) < len(values):
            yield f"{here}.{key} names one twice: {values!r:.60}"


def _wrong_counts(here: str, column: Column, cells: Sequence[CellCount]) -> Iterator[str]:
    wanted = grid_of(column.corruptions, column.severities)
    grid = [(cell.corruption, cell.severity) for cell in cells]
    if grid != wanted:
        yield f"{here} must have one cell for each corruption at each severity, {len(wanted)} in all, in their order"
    for cell in cells:
        place = f"{here} ({cell.corruption}, {cell.severity})" if column.corruptions else here
        if type(cell.total) is not int or not 0 <= cell.total < MOST_IMAGES:
            yield f"{place}: total cannot be {cell.total!r:.60}"
        if type(cell.correct) is not int or not 0 <= cell.correct <= cell.total:
            yield f"{place}: correct cannot be {cell.correct!r:.60} of {cell.total}"
        blind = cell.no_gradient
        if blind is not None and (type(blind) is not int or not 0 <= blind <= cell.total):
            yield f"{place}: no_gradient cannot be {blind!r:.60} of {cell.total}"
        if cell.calibration is not None and not (is_number(cell.calibration) and 0 <= cell.calibration <= 1):
            yield f"{place}: calibration cannot be {cell.calibration!r:.60}"


def _column(entry: dict[str, Any]) -> Column:
    derived = ("normalised", "meaning")
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return Column(**{key: value for key, value in plain.items() if key not in derived})


def _row(entry: dict[str, Any]) -> Row:
    counts = {name: tuple(CellCount(**cell) for cell in cells) for name, cells in entry["counts"].items()}
    pairs = tuple(Pair(**pair) for pair in entry.get("pairs", ()))
    return Row(entry["name"], counts, pairs, read_confidence(entry.get("confidence")))
