"""The result of an evaluation of stability: how often a classifier changes its mind along a sequence of images."""

from dataclasses import dataclass

from attention_zoo.results.interval_scores import IntervalScores


@dataclass(frozen=True)
class StabilityScores(IntervalScores):
    """Flip probability and top-5 distance of a classifier, under each perturbation and in the mean.

    The name of a score is ``perturbation/score``, such as ``tilt/flip_probability``; ``mean`` is that over the
    perturbations. The interval of the mean has the mean width, as if all perturbations erred together: they are of the
    same images.
    """

    file = "stability.json"
    SETTING = ("perturbation",)
    INTERVALS = "95 % intervals over sequences"
