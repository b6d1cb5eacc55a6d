"""Which way of a metric is better and what its values cannot leave, as whoever measured it said.

A task states it for all that it logs (`tasks.Task.METRICS`; a metric of torchmetrics states it itself), and each line
of ``metrics.jsonl`` repeats it under ``scales``. Lines of before have no such key: `OLD` says what their metrics are.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from torchmetrics import Metric

from attention_zoo.errors import InputError

Better = Literal["higher", "lower", "neither"]

WAYS: Mapping[Better, int] = {"higher": 1, "lower": -1, "neither": 0}


@dataclass(frozen=True)
class Scale:
    """Of a metric.

    Attributes:
        better: which of its values are.
        least: no value is below it; None where there is no such bound.
        most: no value is above it, likewise.
    """

    better: Better
    least: float | None = None
    most: float | None = None

    @property
    def way(self) -> int:
        """1 where more is better, -1 where less is, 0 where neither."""
        return WAYS[self.better]

    @property
    def arrow(self) -> str:
        """To where it is better; empty where neither way is."""
        return ("", "↑", "↓")[self.way]

    @property
    def limits(self) -> tuple[float, float]:
        """What no value leaves; infinite where there is no bound."""
        return -math.inf if self.least is None else self.least, math.inf if self.most is None else self.most

    def plain(self) -> dict[str, Any]:
        """Plain values, without bounds that there are not."""
        return {key: value for key, value in vars(self).items() if value is not None}


NEITHER = Scale("neither")
PROPORTION = Scale("higher", 0.0, 1.0)

OLD: Sequence[tuple[str, Better, Literal["any", "from 0", "proportion"]]] = (
    ("value_prior_precision", "neither", "any"),
    ("*loss*", "lower", "any"),
    ("nss", "higher", "any"),
    ("*calibration*", "lower", "proportion"),
    ("*_c", "lower", "from 0"),  # a benchmark of corrupted images: its number is an error
    ("*error*", "lower", "from 0"),
    ("*mce*", "lower", "from 0"),
    ("*noc_*", "lower", "from 0"),
    ("*nof_*", "lower", "from 0"),
    ("*seconds*", "lower", "from 0"),
    ("*false_*", "lower", "from 0"),
    ("*", "higher", "proportion"),
)
"""Metrics of runs whose log does not state it: pattern of the last part of the name, which way is better, and its
values (those of a proportion may be in percent). The first row that fits counts; nothing new is added here."""


def old_scale(metric: str, values: Sequence[float] = ()) -> Scale:
    """The scale of a metric of a run of before, by `OLD`.

    Args:
        metric: its name.
        values: that were found; negative ones have no bounds, and those above 1 are no proportions.
    """
    name = metric.rpartition("/")[2].lower()
    better, kind = next((better, kind) for pattern, better, kind in OLD if fnmatchcase(name, pattern))
    if kind == "any" or not values or min(values) < 0:
        return Scale(better)
    return Scale(better, 0.0, 1.0 if kind == "proportion" and max(values) <= 1 else None)


def scale_of(metric: Metric) -> Scale | None:
    """What a metric of torchmetrics states of itself; None where it does not say which way is better."""
    if metric.higher_is_better is None:
        return None
    return Scale("higher" if metric.higher_is_better else "lower", metric.plot_lower_bound, metric.plot_upper_bound)


def read_scales(content: Any, here: str) -> dict[str, Scale]:
    """Scales by the names of metrics, from plain values.

    Raises:
        InputError: they are something else; ``here`` says where.
    """
    if not isinstance(content, dict):
        raise InputError(f"{here} must be scales by name, got {content!r:.60}")
    return {name: _read(entry, f"{here}.{name:.60}") for name, entry in content.items()}


def _read(entry: Any, here: str) -> Scale:
    if not isinstance(entry, dict) or entry.get("better") not in get_args(Better):
        raise InputError(f"{here}: better must be one of {', '.join(get_args(Better))}, got {entry!r:.60}")
    bounds = [entry.get(key) for key in ("least", "most")]
    for bound in bounds:
        if bound is not None and (isinstance(bound, bool) or not isinstance(bound, (int, float))):
            raise InputError(f"{here}: least and most must be numbers, got {bound!r:.60}")
    return Scale(entry["better"], *bounds)


class Scales:
    """What lines of logs say of their metrics.

    Args:
        lines: of each, its metrics and their scales; None for a line of before, which states none.
    """

    def __init__(self, lines: Iterable[tuple[Iterable[str], Mapping[str, Scale] | None]]) -> None:
        self._stated: dict[str, Scale] = {}
        for names, scales in lines:
            for name in names if scales is not None else ():
                scale = scales.get(name, NEITHER) if scales else NEITHER
                same = self._stated.setdefault(name, scale) == scale
                self._stated[name] = scale if same else NEITHER  # nothing can be said of both

    def of(self, *names: str, values: Sequence[float] = ()) -> Scale:
        """The scale of a metric by the first of its names that a line states, else by `OLD` and its first name."""
        stated = next((self._stated[name] for name in names if name in self._stated), None)
        return old_scale(names[0], values) if stated is None else stated
