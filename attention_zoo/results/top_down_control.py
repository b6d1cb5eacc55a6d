"""The result of an evaluation of top-down control: whether a model looks at the object that it is asked for."""

from dataclasses import dataclass

from attention_zoo.results.interval_scores import IntervalScores


@dataclass(frozen=True)
class ControlScores(IntervalScores):
    """The scores of a model's control by priors, for several modes, scales and priors.

    The name of a score is ``mode/alpha/prior/score``, such as ``absvit/10/prototype/switch_rate``; alpha is ``-`` where
    the mode does not scale, and the mode is ``plain`` for the first pass alone, which hears no prior.
    """

    file = "top_down_control.json"
    SETTING = ("mode", "alpha", "prior")
    INTERVALS = "95 % intervals by bootstrap over pairs"
