"""Evaluation of a classifier on ImageNet-P: how often it changes its mind while an image is perturbed."""

from typing import Any

from torch import Tensor

from attention_zoo.errors import InputError
from attention_zoo.evaluation import part_of
from attention_zoo.functional.checks import check_finite
from attention_zoo.results.stability import StabilityScores
from tasks.classification import Classification
from tasks.evaluations.provenance import circumstances, counts_of, take_up
from tasks.metrics.stability import Stability

PACKAGES = ("attention_zoo", "torch", "timm", "lightning")
"""The packages whose versions a result records."""

STATES = ("sums", "squares", "sequences")
"""The states of the metric by which a test that was cut off goes on."""


class PerturbationStability(Classification):
    """Flip probability and top-5 distance (T5D) of a classifier along sequences of perturbed images.

    Batches as of `ImageNetP`. The mean flip probability is the mFR, and the mean T5D the mT5D, of D. Hendrycks and
    T. Dietterich (ICLR 2019) before these are divided by AlexNet's. Logs ``test/flip_probability`` and ``test/t5d``,
    means over the perturbations.

    Args:
        **classification: see `Classification`.

    Attributes:
        result: what the last test measured; None before.
        seen: number of sequences that this process is done with in a test.
    """

    METRICS = Stability.SCALES

    result: StabilityScores | None = None
    stability: Stability

    def __init__(self, **classification: Any) -> None:
        super().__init__(**classification)
        self.seen = 0

    def setup(self, stage: str) -> None:
        """Set all counts of a test to zero.

        Raises:
            InputError: the data have no sequences, or one of a perturbation.
        """
        if stage != "test":
            return
        if not hasattr(self._data, "perturbations"):
            name = type(self._data).__name__
            raise InputError(f"PerturbationStability needs sequences of images, such as ImageNetP; {name} has none")
        columns = self._data.splits["test"].columns["perturbation"]
        few = [name for place, name in enumerate(self._data.perturbations) if sum(one == place for one in columns) < 2]
        if few:
            raise InputError(f"intervals over sequences need two or more of each perturbation; {few[0]} has one")
        self.seen = 0
        self.stability = Stability(len(self._data.perturbations))

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Count the sequences of one batch."""
        self.seen += len(batch["index"])
        frames = batch["frames"].tolist()
        every = batch["index"].repeat_interleave(batch["frames"])
        logits = check_finite("logits", self(batch["image"]).float(), every)
        places = batch["perturbation"].tolist()
        for own, place, index in zip(logits.split(frames), places, batch["index"].tolist(), strict=True):
            if index >= 0:
                self.stability.update(own, place, self._data.steps[place])

    def on_test_epoch_end(self) -> None:
        """Log the means over all processes, and keep all numbers as the result.

        Raises:
            InputError: fewer than two sequences of a perturbation were tested.
        """
        with self.stability.sync_context():
            means, widths = (values.cpu() for values in self.stability.compute())
            of_each = self.stability.sequences.tolist()
        for name, number in zip(self._data.perturbations, of_each, strict=True):
            if number < 2:
                raise InputError(
                    f"intervals over sequences need two or more of each perturbation; {number} of {name} were tested: "
                    "give a larger trainer.limit_test_batches"
                )
        rows = {name: (means[place], widths[place]) for place, name in enumerate(self._data.perturbations)}
        rows["mean"] = means.mean(0), widths.mean(0)
        scores, intervals = {}, {}
        for name, (mean, width) in rows.items():
            for score, value, half in zip(Stability.SCALES, mean.tolist(), width.tolist(), strict=True):
                scores[f"{name}/{score}"] = value
                intervals[f"{name}/{score}"] = value - half, value + half
        self.log_dict({f"test/{score}": scores[f"mean/{score}"] for score in Stability.SCALES})
        facts = {
            **circumstances(self.trainer, PACKAGES),
            "sequences": sum(of_each),
        }
        protocol = {
            "difficulty": self._data.difficulty,
            "perturbations": len(self._data.perturbations),
            **part_of(sum(of_each), len(self._data.splits["test"].images), "sequences"),
        }
        self.result = StabilityScores(scores, protocol, dict(Stability.SCALES), facts=facts, intervals=intervals)

    def progress(self) -> dict[str, Tensor]:
        """Return the counts of this process so far, for `go_on` in another process to take up."""
        return counts_of(self.stability, STATES, self.seen)

    def go_on(self, progress: dict[str, Tensor]) -> None:
        """Take up what `progress` gave; the data must begin after the sequences ``seen``."""
        self.seen = take_up(self.stability, STATES, progress)

    @property
    def _data(self) -> Any:
        trainer: Any = self.trainer
        return trainer.datamodule
