"""The outcome of a robustness evaluation: what was counted, under which protocol, and the numbers that follow."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, Self

from attention_zoo.corruption_error import ALEXNET_ERRORS, mean_corruption_error, of_alexnets_kind
from attention_zoo.errors import InputError
from attention_zoo.evaluation import Benchmark, Cell

FORMAT = "attention_zoo robustness 1"
"""What the file says it is."""


@dataclass(frozen=True)
class CellCount:
    """What was counted in a cell.

    Attributes:
        total: images.
        correct: those whose most probable class, among the benchmark's, is right.
        calibration: expected calibration error, 0..1; None where nothing was counted.
        corruption: its name, or None.
        severity: 1 to 5, or None.
        no_gradient: under an attack, images that the model gets right and of whose loss there was never a gradient, so
            that they were not put to the test; None where nobody looked.
    """

    total: int
    correct: int
    calibration: float | None = None
    corruption: str | None = None
    severity: int | None = None
    no_gradient: int | None = None

    @property
    def error(self) -> float:
        """Of images, 0..1; NaN where there are none."""
        return 1 - self.correct / self.total if self.total else math.nan


@dataclass(frozen=True)
class Column:
    """A benchmark or an attack: what its numbers are and what two of them must share to be compared.

    Attributes:
        name: such as ``imagenet_c``, ``pgd``.
        title: as tables print it.
        classes: how many outputs compete.
        protocol: source, preprocessing, settings of an attack, images.
        corruptions: names in their order; empty where there are none.
        severities: of the corruptions.
    """

    name: str
    title: str
    classes: int
    protocol: Mapping[str, Any]
    corruptions: tuple[str, ...] = ()
    severities: tuple[int, ...] = ()

    @classmethod
    def of(cls, benchmark: Benchmark, cells: Sequence[Cell], num_classes: int) -> Self:
        """The column of a benchmark.

        Raises:
            InputError: its cells are not all its corruptions at all its severities.
        """
        corruptions = tuple(dict.fromkeys(cell.corruption for cell in cells if cell.corruption))
        severities = tuple(dict.fromkeys(cell.severity for cell in cells if cell.severity))
        wanted = [(corruption, severity) for corruption in corruptions for severity in severities] or [(None, None)]
        if [(cell.corruption, cell.severity) for cell in cells] != wanted:
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

    @property
    def normalised(self) -> bool:
        """Whether errors are divided by AlexNet's."""
        return of_alexnets_kind(self.name, self.corruptions, self.severities)

    @property
    def heading(self) -> str:
        """Title, metric, and the arrow to where it is better."""
        if not self.corruptions:
            return f"{self.title} ↑"
        return f"{self.title} {'mCE' if self.normalised else 'error'} ↓"

    @property
    def meaning(self) -> str:
        """What the number is, in words."""
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
        """The number of a table, in percent; NaN while a cell is empty."""
        if not self.corruptions:
            return 100 * (1 - counts[0].error)
        return mean_corruption_error(self.errors(counts), normalised=self.normalised)

    def errors(self, counts: Sequence[CellCount]) -> dict[str, float]:
        """By corruption, the mean over the severities of the error, 0..1."""
        of_each = {name: [cell.error for cell in counts if cell.corruption == name] for name in self.corruptions}
        return {name: fmean(errors) for name, errors in of_each.items()}


@dataclass(frozen=True)
class Row:
    """A model, or a model with other mixers.

    Attributes:
        name: such as ``as trained``.
        counts: by the name of the column, those of its cells.
    """

    name: str
    counts: Mapping[str, tuple[CellCount, ...]]


@dataclass(frozen=True)
class RobustnessResult:
    """All that a robustness evaluation found.

    Attributes:
        columns: benchmarks and attacks.
        rows: models.
        facts: what else a reader must know: model, weights, data, versions, date, precision.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What to call its model: the mixer, with its options, or the model where it keeps its own attention."""
        return self.facts.get("mixer") or self.facts.get("model") or "model"

    @cached_property
    def scores(self) -> dict[str, dict[str, float]]:
        """By row and column, in percent."""
        return {
            row.name: {column.name: column.score(row.counts[column.name]) for column in self.columns}
            for row in self.rows
        }

    def row(self, name: str) -> Row:
        """The row of this name."""
        return next(row for row in self.rows if row.name == name)

    def write(self, path: Path) -> None:
        """Write JSON; the file must not exist."""
        content = {"format": FORMAT, **self.facts, "columns": [], "rows": [asdict(row) for row in self.rows]}
        for column in self.columns:
            said = {"normalised": column.normalised} if column.corruptions else {}
            content["columns"].append({**asdict(column), **said, "meaning": column.meaning})
        content["scores"] = {
            row: {name: value if math.isfinite(value) else None for name, value in scores.items()}
            for row, scores in self.scores.items()
        }
        with path.open("x", encoding="utf-8") as file:
            json.dump(content, file, indent=1, allow_nan=False)

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `write` wrote.

        Raises:
            InputError: the file is something else.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("format") != FORMAT:
                raise InputError(f"{path} is of another version of this program: it is no {FORMAT!r}")
            columns = tuple(_column(entry) for entry in content.pop("columns"))
            rows = tuple(_row(entry) for entry in content.pop("rows"))
            content.pop("scores")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} is no result of a robustness evaluation") from error
        return cls(columns, rows, content)


def _column(entry: dict[str, Any]) -> Column:
    derived = ("normalised", "meaning")
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return Column(**{key: value for key, value in plain.items() if key not in derived})


def _row(entry: dict[str, Any]) -> Row:
    return Row(
        entry["name"], {name: tuple(CellCount(**cell) for cell in cells) for name, cells in entry["counts"].items()}
    )
