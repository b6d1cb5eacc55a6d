"""The scale of a metric: which direction is better and which bounds its values have.

A task states it for all that it logs (`tasks.Task.METRICS`; a metric of torchmetrics states it itself), and each line
of ``metrics.jsonl`` repeats it under ``scales``. Older lines lack that key: `OLD` gives the scales of their metrics.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, get_args

from attention_zoo.errors import InputError

if TYPE_CHECKING:  # torchmetrics takes more than a second to import, and no function here calls it
    from torchmetrics import Metric

Better = Literal["higher", "lower", "neither"]

WAYS: Mapping[Better, int] = {"higher": 1, "lower": -1, "neither": 0}


@dataclass(frozen=True)
class Scale:
    """The direction and the bounds of a metric's values.

    Attributes:
        better: whether higher values are better, lower ones, or neither.
        least: the lower bound of the values; None where there is none.
        most: the upper bound of the values; None where there is none.
    """

    better: Better
    least: float | None = None
    most: float | None = None

    @property
    def way(self) -> int:
        """Return 1 if higher values are better, -1 if lower ones are, 0 if neither."""
        return WAYS[self.better]

    @property
    def arrow(self) -> str:
        """Return an arrow in the direction that is better; empty if neither is."""
        return ("", "↑", "↓")[self.way]

    @property
    def limits(self) -> tuple[float, float]:
        """Return the lower and the upper bound of the values; infinite where there is none."""
        return -math.inf if self.least is None else self.least, math.inf if self.most is None else self.most

    def plain(self) -> dict[str, Any]:
        """Return the scale as a mapping of plain values, without the bounds that are None."""
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
"""The scales of metrics in logs that state none: a pattern of the last part of the name, which direction is better,
and the range of the values (a proportion may be in percent). The first row that fits counts; add no rows here."""


def old_scale(metric: str, values: Sequence[float] = ()) -> Scale:
    """Return the scale of a metric, by `OLD`, for a log that states none.

    Args:
        metric: name of the metric.
        values: the measured values; with a negative one among them the scale has no bounds, and with one above 1 it
            is no proportion.
    """
    name = metric.rpartition("/")[2].lower()
    better, kind = next((better, kind) for pattern, better, kind in OLD if fnmatchcase(name, pattern))
    if kind == "any" or not values or min(values) < 0:
        return Scale(better)
    return Scale(better, 0.0, 1.0 if kind == "proportion" and max(values) <= 1 else None)


def scale_of(metric: "Metric") -> Scale | None:
    """Return the scale that a metric of torchmetrics states; None if it does not say which direction is better."""
    if metric.higher_is_better is None:
        return None
    return Scale("higher" if metric.higher_is_better else "lower", metric.plot_lower_bound, metric.plot_upper_bound)


def read_scales(content: Any, here: str) -> dict[str, Scale]:
    """Return scales by the names of metrics, read from plain values.

    Raises:
        InputError: ``content`` is something else; the message calls it ``here``.
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
    """Collects the scales that the lines of logs state for their metrics.

    Args:
        lines: the names of the metrics of each line, and their scales; None for an older line, which states none.
    """

    def __init__(self, lines: Iterable[tuple[Iterable[str], Mapping[str, Scale] | None]]) -> None:
        self._stated: dict[str, Scale] = {}
        for names, scales in lines:
            for name in names if scales is not None else ():
                scale = scales.get(name, NEITHER) if scales else NEITHER
                same = self._stated.setdefault(name, scale) == scale
                self._stated[name] = scale if same else NEITHER  # lines that contradict one another leave no direction

    def of(self, *names: str, values: Sequence[float] = ()) -> Scale:
        """Return the scale of the first of a metric's ``names`` that a line states, else that by `OLD` of the first."""
        stated = next((self._stated[name] for name in names if name in self._stated), None)
        return old_scale(names[0], values) if stated is None else stated
