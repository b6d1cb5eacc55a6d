"""The result of an evaluation of attention as saliency: how well maps tell where people look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from attention_zoo.errors import InputError
from attention_zoo.results.interval_scores import IntervalScores, check_ends


@dataclass(frozen=True)
class SaliencyScores(IntervalScores):
    """The scores of a model's attention maps against fixations, for several readings and layers.

    The name of a score is ``reading/layer/score``, such as ``as trained/11/nss``. The layer is ``-`` in rows that are
    no attention: what is known of gaze without a look at the image.

    Attributes:
        over_centre: of each score of an attention map, how much it is above that of the centre bias, the mean density
            of the fixations on the other images: the difference and the ends of its interval, paired by images.
        over_trained: of each score of a reading that the model was not trained with, how much it is above that of the
            model as trained in the same layer; likewise.

    Raises:
        InputError: a score, a difference or an end is not a finite number, or a name has other than three parts.
    """

    file = "saliency.json"
    SETTING = ("reading", "layer")
    INTERVALS = "95 % intervals by bootstrap over images"

    over_centre: Mapping[str, Sequence[float]] = field(default_factory=dict)
    over_trained: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check names, scores, intervals and differences."""
        super().__post_init__()
        for what in ("over_centre", "over_trained"):
            differences = getattr(self, what)
            if not isinstance(differences, Mapping) or not differences.keys() <= self.scores.keys():
                raise InputError(f"{what} must be a mapping with names of scores")
            for name, ends in differences.items():
                check_ends(f"{what} of {name}", ends, 3)
