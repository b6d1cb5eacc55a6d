"""What asking for one of two objects changes, pair by pair, and how sure its means are."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from attention_zoo.functional.checks import check_finite

RESAMPLES = 1000
"""Number of resamples of a bootstrap."""

BLOCK = 100
"""Number of resamples that are drawn at a time, which bounds the memory."""


class Asked(NamedTuple):
    """What a model says of pictures of two objects, asked for one of them.

    Attributes:
        logits: (B, C), the logits of all classes.
        mass: (B, 2), the share of the tokens' norms on the objects A and B; NaN where all tokens are 0, or there is no
            share to speak of.
    """

    logits: Tensor
    mass: Tensor


class Interval(NamedTuple):
    """A mean over pairs with its 95 % interval."""

    mean: float
    low: float
    high: float


class ControlRecords(Metric):
    """The answers of a model about each pair of objects A and B, in several settings.

    Args:
        pairs: number of pairs.
        settings: number of settings.
        **metric: arguments of torchmetrics' Metric.

    Attributes:
        answers: (pairs, settings, 6) float64: logit A minus logit B, asked for A and for B; mass on A asked for A, on B
            asked for B; and whether, of all classes, the answer is A asked for A, and B asked for B. NaN where there is
            no such number.
        group: (pairs,) int64, equal for pairs of the same objects.
        counted: (pairs,) int64, 1 for pairs that were measured.
    """

    answers: Tensor
    group: Tensor
    counted: Tensor
    full_state_update = False
    higher_is_better = None
    is_differentiable = False

    def __init__(self, pairs: int, settings: int, **metric: Any) -> None:
        super().__init__(**metric)
        self.add_state("answers", torch.zeros(pairs, settings, 6, dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("group", "counted"):
            self.add_state(name, torch.zeros(pairs, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, index: Tensor, group: Tensor) -> None:
        """Count pairs; `record` keeps the answers about them.

        Args:
            index: (B,) int64, the pairs.
            group: (B,) int64, the groups that they belong to.
        """
        self.counted[index], self.group[index] = 1, group

    def record(self, setting: int, index: Tensor, labels: Tensor, first: Asked, second: Asked) -> None:
        """Keep the answers in a setting.

        Args:
            setting: place of the setting.
            index: (B,) int64, the pairs.
            labels: (B, 2) int64, the classes A and B.
            first: what the model says asked for A.
            second: what it says asked for B.

        Raises:
            InputError: a logit is not finite.
        """
        answers = []
        for object_, asked in enumerate((first, second)):
            logits = check_finite("logits", asked.logits.double(), index)
            a, b = logits.gather(1, labels).unbind(1)
            answers.append((a - b, asked.mass[:, object_].double(), (logits.argmax(1) == labels[:, object_]).double()))
        columns = [column for pair in zip(*answers, strict=True) for column in pair]
        self.answers[index, setting] = torch.stack(columns, 1)

    def record_absent(self, setting: int, index: Tensor, label: Tensor, asked: Asked) -> None:
        """Keep in a setting whether the model says a class that it was asked for and that is not in the picture.

        Args:
            setting: place of the setting.
            index: (B,) int64, the pairs.
            label: (B,) int64, the class that was asked for.
            asked: what the model says.

        Raises:
            InputError: a logit is not finite.
        """
        says = check_finite("logits", asked.logits, index).argmax(1) == label
        self.answers[index, setting] = torch.nan
        self.answers[index, setting, 4:] = says.double()[:, None]

    def without_mass(self) -> list[int]:
        """Return for each setting how many pairs have answers but no mass."""
        answers = self.answers[self.counted.bool()]
        return (answers[:, :, 2:4].isnan().any(-1) & ~answers[:, :, 0].isnan()).sum(0).tolist()

    def compute(self) -> list[dict[str, Interval]]:
        """Return `scores` over all processes."""
        return self.scores()

    def scores(self) -> list[dict[str, Interval]]:
        """Return the scores of each setting by name; those that no pair has are left out.

        ``switch_rate``: share of pairs whose answer among A and B follows the prior both ways. ``follow_rate``: share
        of questions whose answer does, 0.5 where priors change nothing. ``margin_shift``: how much the prior moves
        logit A minus logit B. ``mass_ratio``: share of the tokens' norms on the object that is asked for. ``top1``:
        share of questions whose answer among all classes is the one asked for; for absent classes there is this alone.
        """
        measured = self.counted.bool()
        group = self.group[measured].cpu().numpy()
        table = self.answers[measured].cpu().numpy()
        return [intervals(scores_of(table[:, setting]), group) for setting in range(table.shape[1])]


def scores_of(answers: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores (P,) of each pair by name, NaN where there is none, of ``answers`` (P, 6)."""
    margin_a, margin_b, mass_a, mass_b, right_a, right_b = answers.T
    to_a, to_b = (np.where(np.isnan(margin), np.nan, margin > 0) for margin in (margin_a, -margin_b))
    return {
        "switch_rate": to_a * to_b,
        "follow_rate": (to_a + to_b) / 2,
        "margin_shift": margin_a - margin_b,
        "mass_ratio": (mass_a + mass_b) / 2,
        "top1": (right_a + right_b) / 2,
    }


def intervals(scores: Mapping[str, np.ndarray], group: np.ndarray, seed: int = 0) -> dict[str, Interval]:
    """Return the mean of each score with its 95 % interval, by the percentiles of a bootstrap over groups of pairs.

    Pairs of one group, such as the two orders of a couple, are drawn together, as they do not vary independently.

    Args:
        scores: (P,) float of each score; NaN is left out.
        group: (P,) int, the group of each pair.
        seed: seed of the resamples.
    """
    places = np.unique(group, return_inverse=True)[1]
    names = [name for name, values in scores.items() if np.isfinite(values).any()]
    if not names:
        return {}
    values = np.stack([scores[name] for name in names], 1)
    known = np.isfinite(values)
    sums, counts = np.zeros((2, places.max() + 1, len(names)))
    np.add.at(sums, places, np.where(known, values, 0))
    np.add.at(counts, places, known)
    number, generator = len(sums), np.random.default_rng(seed)
    means = []
    for start in range(0, RESAMPLES, BLOCK):
        drawn = generator.multinomial(number, np.full(number, 1 / number), size=min(BLOCK, RESAMPLES - start))
        with np.errstate(invalid="ignore"):  # a resample may have no pair that has the score
            means.append((drawn @ sums) / (drawn @ counts))
    low, high = np.nanpercentile(np.concatenate(means), [2.5, 97.5], axis=0)
    mean = sums.sum(0) / counts.sum(0)
    return {name: Interval(float(mean[k]), float(low[k]), float(high[k])) for k, name in enumerate(names)}
