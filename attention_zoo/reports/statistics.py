"""Statistics over a few seeds: confidence intervals, paired comparisons, and marks of the best and the worst."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from attention_zoo.scales import Scale, old_scale

LEVEL = 0.05
"""Significance level: a difference with a smaller p-value counts as more than noise."""

LEAST_SEEDS = 3
"""The fewest common seeds for which a difference is marked; with two, the test has a single degree of freedom."""

TEST = f"paired t-tests over {LEAST_SEEDS} or more seeds"
"""The name, in words, of the test that decides about the marks."""

ROUNDING = 1e-9
"""A spread of differences up to this fraction of the largest value counts as rounding, that is, as no spread."""


def arrow(metric: str, scale: Scale | None = None) -> str:
    """Return the metric's name with an arrow to where it is better.

    Without a scale the direction is guessed from the name, as for older runs that logged no scales.
    """
    return f"{metric} {(scale or old_scale(metric)).arrow}".rstrip()


@dataclass(frozen=True)
class Estimate:
    """The mean of a metric over seeds, with its confidence interval.

    Attributes:
        mean: the mean over the seeds.
        half_width: half the width of its 95 % confidence interval by Student's t; NaN for one seed.
        count: the number of seeds.
    """

    mean: float
    half_width: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float] | np.ndarray) -> "Estimate":
        """Return the estimate from the values of all seeds; there must be at least one."""
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
    """The difference of a metric between two settings, taken seed by seed.

    Attributes:
        mean: the mean of the differences; NaN without a common seed.
        chance: the p-value of a two-sided paired t-test; NaN where there is none: fewer than two common seeds, or
            differences that are not zero and do not vary at all.
        count: the number of common seeds.
        half_width: half the width of the mean's 95 % confidence interval by Student's t; NaN for fewer than two seeds.
    """

    mean: float
    chance: float
    count: int = field(default=0, compare=False)
    half_width: float = field(default=math.nan, compare=False)

    def __str__(self) -> str:
        """Return the mean with half of its interval where there is one, and a star where it is more than noise."""
        if math.isnan(self.mean):
            return ""
        text = str(Estimate(self.mean, self.half_width, self.count))
        return f"{'' if self.mean < 0 else '+'}{text}{' *' if self.is_told else ''}"

    @property
    def is_told(self) -> bool:
        """Whether the difference is more than noise: it has enough seeds and a p-value below `LEVEL`."""
        return self.count >= LEAST_SEEDS and self.chance < LEVEL

    @classmethod
    def of(cls, one: Mapping[int, float], other: Mapping[int, float]) -> "Difference":
        """Return the difference ``one`` minus ``other`` of two settings, each given as its values by seed."""
        differences = np.array([one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())])
        if not len(differences):
            return cls(math.nan, math.nan)
        estimate = Estimate.of(differences)
        mean, count, half_width = estimate.mean, estimate.count, estimate.half_width
        if count < 2:
            return cls(mean, math.nan, count)
        if np.ptp(differences) <= ROUNDING * np.abs([*one.values(), *other.values()]).max():
            return cls(mean, math.nan if differences.any() else 1.0, count, 0.0)
        return cls(mean, float(stats.ttest_1samp(differences, 0).pvalue), count, half_width)


def holm(chances: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's step-down method; NaN stays NaN and is not counted.

    The method is that of S. Holm, Scandinavian Journal of Statistics 1979.
    """
    known = [place for place, chance in enumerate(chances) if not math.isnan(chance)]
    corrected = list(chances)
    least = 0.0
    for rank, place in enumerate(sorted(known, key=lambda place: chances[place])):
        least = max(least, min(1.0, (len(known) - rank) * chances[place]))
        corrected[place] = least
    return corrected


def extremes(values: Mapping[str, Mapping[int, float]], metric: str, scale: Scale | None = None) -> dict[str, str]:
    """Return the marks ``best`` and ``worst`` by the name of the setting that gets them.

    A setting gets its mark only if a paired t-test over three or more seeds tells it from every other setting. Each of
    the tests must reject, so that none of them needs a correction (R. Berger, Technometrics 1982).

    Args:
        values: the values of each setting, by seed.
        metric: the name of the metric.
        scale: which way is better; None guesses it from the metric's name, as for older runs.
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
