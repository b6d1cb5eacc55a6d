"""What can be said of a few seeds: intervals, paired comparisons, and marks of the best and the worst."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from attention_zoo.scales import Scale, old_scale

LEVEL = 0.05
"""Differences less probable than this by chance are more than noise."""

LEAST_SEEDS = 3
"""Seeds in common from which on a difference is marked: of two, the test has a single degree of freedom."""

TEST = f"paired t-tests over {LEAST_SEEDS} or more seeds"
"""What marks follow from."""

ROUNDING = 1e-9
"""Spread below this fraction of the values is none."""


def arrow(metric: str, scale: Scale | None = None) -> str:
    """The metric's name with an arrow to where it is better; without a scale as runs of before have it."""
    return f"{metric} {(scale or old_scale(metric)).arrow}".rstrip()


@dataclass(frozen=True)
class Estimate:
    """The mean of a metric over seeds.

    Attributes:
        mean: over the seeds.
        half_width: of its 95 % confidence interval by Student's t; NaN for one seed.
        count: of seeds.
    """

    mean: float
    half_width: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """From the values of all seeds, at least one."""
        count = len(values)
        error = np.std(values, ddof=1) / math.sqrt(count) if count > 1 else math.nan
        return cls(float(np.mean(values)), float(error * stats.t.ppf(0.975, max(count - 1, 1))), count)

    def __str__(self) -> str:
        if math.isnan(self.half_width) or self.half_width == 0:
            return f"{self.mean:.4g}" + ("" if math.isnan(self.half_width) else " ± 0")
        decimals = min(6, max(0, 1 - math.floor(math.log10(self.half_width))))  # two digits of the interval
        return f"{self.mean:.{decimals}f} ± {self.half_width:.{decimals}f}"


@dataclass(frozen=True)
class Difference:
    """Between two settings, seed by seed.

    Attributes:
        mean: of the differences; NaN without a seed in common.
        chance: how probable one this large is without any (paired t-test, two-sided); NaN where that cannot be told:
            fewer than two seeds in common, or differences that do not vary at all.
        count: of seeds in common.
    """

    mean: float
    chance: float
    count: int = field(default=0, compare=False)

    @property
    def is_told(self) -> bool:
        """Whether it is more than noise: enough seeds, and improbable without any difference."""
        return self.count >= LEAST_SEEDS and self.chance < LEVEL

    @classmethod
    def of(cls, one: Mapping[int, float], other: Mapping[int, float]) -> "Difference":
        """From the values by seed."""
        differences = np.array([one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())])
        if not len(differences):
            return cls(math.nan, math.nan)
        mean, count = float(differences.mean()), len(differences)
        if count < 2:
            return cls(mean, math.nan, count)
        if np.ptp(differences) <= ROUNDING * np.abs([*one.values(), *other.values()]).max():
            return cls(mean, math.nan if differences.any() else 1.0, count)
        return cls(mean, float(stats.ttest_1samp(differences, 0).pvalue), count)


def holm(chances: Sequence[float]) -> list[float]:
    """Probabilities corrected for their number, step by step (S. Holm, Scandinavian Journal of Statistics 1979)."""
    known = [place for place, chance in enumerate(chances) if not math.isnan(chance)]
    corrected = list(chances)
    least = 0.0
    for rank, place in enumerate(sorted(known, key=lambda place: chances[place])):
        least = max(least, min(1.0, (len(known) - rank) * chances[place]))
        corrected[place] = least
    return corrected


def extremes(values: Mapping[str, Mapping[int, float]], metric: str, scale: Scale | None = None) -> dict[str, str]:
    """``best`` and ``worst`` of settings by name; only one that a paired t-test of three seeds or more tells from all.

    Each of the tests must reject, so that none of them needs a correction (R. Berger, Technometrics 1982).

    Args:
        values: of each setting, by seed.
        metric: its name.
        scale: which way is better; None is as runs of before have it.
    """
    known = [name for name, by_seed in values.items() if by_seed]
    way = (scale or old_scale(metric)).way
    if len(known) < 2 or not way:
        return {}
    ordered = sorted(known, key=lambda name: -way * float(np.mean(list(values[name].values()))))
    return {
        name: word
        for name, word in ((ordered[0], "best"), (ordered[-1], "worst"))
        if all(Difference.of(values[name], values[other]).is_told for other in known if other != name)
    }
