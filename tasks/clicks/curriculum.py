"""The curriculum of interactive segmentation: the box and clicks that training samples get, epoch by epoch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from attention_zoo.clicks import Clicks
from attention_zoo.domains import Domain, checked
from attention_zoo.errors import InputError
from tasks.clicks.domains import Number
from tasks.clicks.sampling import sample_corrections, sample_deep

First = Literal["box", "random"]
Epochs = Annotated[int, Domain(least=0, most=10**9)]

Predict = Callable[[Clicks, Tensor | None], Tensor]
"""Function from clicks and the mask before to probabilities (B, 1, H, W), without gradients, as in evaluation."""


@checked
@dataclass
class Curriculum:
    """Stages of training: the box alone, then random clicks too, then clicks on what the model got wrong.

    P. Gabbur et al., NeurIPS 2021, appendix C.2, with ``rounds=0``. With more, clicks correct as K. Sofiiuk et al. have
    it (RITM, ICIP 2022: ``rounds=3, first="random"``). For the corrections, the model predicts within the step, without
    gradients and as in evaluation; of models that are given the mask before, that prediction is it.

    Args:
        box_epochs: epochs without clicks.
        random_epochs: epochs after them with clicks at random pixels of object and background.
        positive: least and largest number of clicks on the object, or on what was missed of it.
        negative: least and largest number of clicks on the background, or on what is false.
        first: what the prediction that is corrected was made from: the ``box`` alone, or ``random`` clicks too (for
            models that are given no box).
        rounds: 0 corrects one prediction by all these clicks at random pixels of its errors. More: in each step a
            random number of predictions, up to this one, each of which is followed by one click deep in its errors.

    Raises:
        InputError: a number is out of range, or there is no such ``first``.
    """

    box_epochs: Epochs = 20
    random_epochs: Epochs = 20
    positive: tuple[Number, Number] = (1, 3)
    negative: tuple[Number, Number] = (0, 3)
    first: First = "box"
    rounds: Number = 0

    def __post_init__(self) -> None:
        for name in ("positive", "negative"):
            least, most = getattr(self, name)
            if least > most:
                raise InputError(f"{name} must be two numbers of clicks, the least first; got {least}, {most}")

    def stage(self, epoch: int) -> Literal["box", "random", "corrections"]:
        """Return the stage of an epoch, which says the clicks that its samples get."""
        if epoch < self.box_epochs:
            return "box"
        return "random" if epoch < self.box_epochs + self.random_epochs else "corrections"

    def clicks(
        self, epoch: int, mask: Tensor, predict: Predict, threshold: float = 0.5
    ) -> tuple[Clicks, Tensor | None]:
        """Return the clicks on the samples of a batch, and the mask before (B, 1, H, W) or None.

        Args:
            epoch: the epoch, which decides the stage.
            mask: (B, H, W) uint8: 1 object, 0 background, 255 ignored.
            predict: asks the model for probabilities, see `Predict`.
            threshold: probability above which a pixel is of the object.
        """
        target, background = mask == 1, mask == 0
        none, stage = Clicks.empty(len(mask), mask.device), self.stage(epoch)
        if stage == "box":
            return none, None
        somewhere = sample_corrections(target, background, self.positive, self.negative)
        if stage == "random":
            return somewhere, None
        clicks = none if self.first == "box" else somewhere
        if self.rounds:
            return self._deep(clicks, target, background, predict, threshold)
        previous = predict(clicks, None)
        predicted = previous[:, 0] > threshold
        corrections = sample_corrections(target & ~predicted, background & predicted, self.positive, self.negative)
        return clicks.then(corrections), previous

    def _deep(
        self, clicks: Clicks, target: Tensor, background: Tensor, predict: Predict, threshold: float
    ) -> tuple[Clicks, Tensor | None]:
        """Return clicks with one more after each of a random number of predictions, and the last prediction or None."""
        previous = None
        for _ in range(int(torch.randint(self.rounds + 1, ()))):
            previous = predict(clicks, previous)
            predicted = previous[:, 0] > threshold
            deep = sample_deep(target & ~predicted, background & predicted)
            clicks = clicks.then(deep)
        return clicks, previous
