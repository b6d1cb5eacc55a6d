"""Two attacks on the same images: by how much one overstates how robust a model is, and when that is an alarm.

Gradients that are hidden (thresholds, arg-max, saturated losses) stop an attack that follows them and no other: A.
Athalye, N. Carlini, D. Wagner, Obfuscated Gradients Give a False Sense of Security, ICML 2018; N. Carlini et al., On
Evaluating Adversarial Robustness, 2019. Here that is seen by "PGD minus the best of all": the accuracy under PGD minus
that under the attack in the same ball that harms most.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

ALARM = 1.0
"""The difference, in points of accuracy, from which an alarm is raised, if it is beyond sampling noise as well."""

CONFIDENCE = 0.95
"""The confidence of all intervals."""

Interval = tuple[float, float]


def accuracy_interval(correct: int, total: int) -> Interval:
    """Return the Wilson interval of an accuracy, in percent: that of the images drawn, not of the trainings.

    E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 1927.
    """
    from scipy.stats import binomtest  # imported here, since it takes a second and training needs none of it

    low, high = binomtest(correct, total).proportion_ci(CONFIDENCE, "wilson")
    return 100 * low, 100 * high


@dataclass(frozen=True)
class Pair:
    """What two attacks in the same ball did to the same images, among those that the model gets right without any.

    Attributes:
        reference: the column of the attack that trusts the model's gradients.
        other: the column of the other attack.
        images: the number of images that both attacked, with those that the model gets wrong without any attack.
        only_other: the number of images that withstand the reference, and not the other.
        only_reference: the number of images that withstand the other, and not the reference.
    """

    reference: str
    other: str
    images: int
    only_other: int
    only_reference: int

    @property
    def gap(self) -> float:
        """The accuracy under the reference minus that under the other, in points; NaN where there are no images."""
        return 100 * (self.only_other - self.only_reference) / self.images if self.images else math.nan

    @property
    def interval(self) -> Interval:
        """The interval of the gap, in points, from matched proportions.

        A. Agresti, Y. Min, Simple Improved Confidence Intervals for Comparing Matched Proportions, Statistics in
        Medicine 2005: a Wald interval with half an image more in each of the four cells.
        """
        images, both = self.images + 2, self.only_other + self.only_reference + 1
        gap = self.only_other - self.only_reference
        half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * math.sqrt(both - gap**2 / images)
        return 100 * max(gap - half, -images) / images, 100 * min(gap + half, images) / images

    @property
    def alarming(self) -> bool:
        """Whether the gap is at least `ALARM` points, and its interval above 0."""
        return self.gap >= ALARM and self.interval[0] > 0

    def line(self, titles: dict[str, str], label: str) -> str:
        """Return the alarm in words.

        Args:
            titles: the titles of the columns by their names.
            label: the name of the model's row.
        """
        low, high = self.interval
        return (
            f"{titles[self.reference]}, {label}: {titles[self.other]} lowers the accuracy by {self.gap:.2f} points "
            f"more (95 % interval {low:.2f} to {high:.2f}, {self.images} images): the gradients may be hidden, or the "
            "attack along them too weak; its column overstates the robustness"
        )


def best_of_all(pairs: Sequence[Pair]) -> dict[str, Pair]:
    """Return, for each reference, the pair with the attack that harms most; ties go to the first.

    References without a pair of any image are left out.
    """
    best: dict[str, Pair] = {}
    for pair in pairs:
        if pair.images and (pair.reference not in best or pair.gap > best[pair.reference].gap):
            best[pair.reference] = pair
    return best


def wrong_pairs(here: str, pairs: Sequence[Pair], names: Sequence[str]) -> Iterator[str]:
    """Yield a message for each value that cannot be in the pairs of a result's row; ``names`` are its columns."""
    for pair in pairs:
        if pair.reference not in names or pair.other not in names:
            yield f"{here}: {pair.reference!r:.60} and {pair.other!r:.60} must be columns"
        numbers = (pair.images, pair.only_other, pair.only_reference)
        if any(type(number) is not int or not 0 <= number < 2**53 for number in numbers):
            yield f"{here}: numbers of images must be 0 or more, got {numbers!r:.80}"
        elif pair.only_other + pair.only_reference > pair.images:
            yield f"{here}: {pair.only_other} and {pair.only_reference} of {pair.images} images are too many"
