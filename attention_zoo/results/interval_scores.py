"""The scores of one model in several settings, each with an interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from attention_zoo.errors import InputError
from attention_zoo.reports.table import Table
from attention_zoo.results.scores import Scores
from attention_zoo.runs.results import is_number
from attention_zoo.scales import NEITHER, Scale


@dataclass(frozen=True)
class IntervalScores(Scores):
    """Scores whose names are ``<setting>/<score>``, where a setting has the parts that a subclass names.

    Attributes:
        SETTING: what tells the rows of one model apart, in the order in which it stands in the name of a score.
        INTERVALS: what the intervals are, for a note under tables.
        intervals: the lower and upper end of the interval of each score, by its name.

    Raises:
        InputError: a score or an end is not a finite number, or a name has another number of parts.
    """

    SETTING: ClassVar[tuple[str, ...]]
    INTERVALS: ClassVar[str]
    shows_metrics = True

    intervals: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check names, scores and intervals."""
        super().__post_init__()
        if not isinstance(self.intervals, Mapping) or self.intervals.keys() != self.scores.keys():
            raise InputError("intervals must be a mapping with the names of the scores")
        for name, ends in self.intervals.items():
            if name.count("/") != len(self.SETTING):
                raise InputError(f"the score {name!r:.60} must be named {'/'.join(self.SETTING)}/score")
            check_ends(name, ends)

    @classmethod
    def compare(cls, results: Mapping[str, Self], *, mixed: bool = False) -> Table:
        """Return a table with a row for each result and setting, and a column for each score.

        Raises:
            InputError: protocols differ and ``mixed`` does not allow it.
        """
        notes = super().compare(results, mixed=mixed).notes
        scales = {key(name): result.scale_of(name) for result in results.values() for name in result.scores}
        rows = []
        for label, result in results.items():
            settings = dict.fromkeys(name.rpartition("/")[0] for name in result.scores)
            for setting in settings:
                cells = [result.cell(f"{setting}/{score}") for score in scales]
                rows.append((label, *setting.split("/"), *cells))
        header = (
            "model",
            *cls.SETTING,
            *(f"{name.replace('_', ' ')} {scale.arrow}".rstrip() for name, scale in scales.items()),
        )
        remarks = [f"{label}: {note}" for label, result in results.items() for note in result.notes]
        return Table(header, tuple(rows), (*notes, f"in brackets: {cls.INTERVALS}", *remarks))

    def scale_of(self, name: str) -> Scale:
        """Return the scale of a score, which scores of the same last part share."""
        return self.scales.get(key(name), NEITHER)

    def cell(self, name: str) -> str:
        """Return a score with its interval as text; empty if there is none of that name."""
        if name not in self.scores:
            return ""
        low, high = self.intervals[name]
        return f"{self.scores[name]:.4g} [{low:.4g}, {high:.4g}]"

    @property
    def notes(self) -> list[str]:
        """The remarks of the evaluation on what its numbers do not say."""
        told: Any = self.facts.get("notes", [])
        return [str(note) for note in told] if isinstance(told, list) else []


def check_ends(name: str, ends: Any, count: int = 2) -> None:
    """Raise an InputError unless ``ends`` are ``count`` finite numbers."""
    if not isinstance(ends, (list, tuple)) or len(ends) != count or not all(is_number(end) for end in ends):
        words = {2: "two", 3: "three"}[count]
        raise InputError(f"the interval of {name} must be {words} finite numbers, got {ends!r:.60}")


def key(name: str) -> str:
    """Return the last part of a score's name, which says what was measured."""
    return name.rpartition("/")[2]
