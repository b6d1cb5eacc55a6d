"""The click loop: an annotator clicks at what is wrong, the model answers, and every answer is measured."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attention_zoo.clicks import Click
from attention_zoo.seeding import derive_seed
from tasks.clicks.annotator import Annotators
from tasks.clicks.protocols import ClickProtocol
from tasks.clicks.views import Ask

CLICK_SALT = 0xC11C
"""Number that keeps the seeds of clicks different from those of views, steps and samples."""


@dataclass(frozen=True)
class Session:
    """The outcome of simulated clicks on a batch of objects.

    Attributes:
        ious: (B, clicks + 1) float64, IoU before the first click and after each; the first is 0 where neither a box
            nor a mask to correct is given.
        made: (B,) int64, number of clicks made: until nothing was wrong any more, or all.
        prediction: (B, H, W) bool, the last masks.
        history: the clicks on each object, in order.
    """

    ious: Tensor
    made: Tensor
    prediction: Tensor
    history: list[list[Click]]


def simulate(
    ask: Ask, mask: Tensor, protocol: ClickProtocol, seeds: Sequence[int], initial: Tensor | None = None
) -> Session:
    """Return the `Session` in which annotators click at what is wrong until the clicks of the protocol are used up.

    An object whose mask is right keeps the mask, and gets no further click.

    Args:
        ask: asks the model for probabilities, see `asking`.
        mask: (B, H, W) uint8: 1 object, 0 background, 255 ignored.
        protocol: the protocol that is followed.
        seeds: the seed of each object's clicks.
        initial: (B, H, W), the masks that the first clicks correct, 1 on the object; None starts from nothing.
    """
    target, ignore = mask == 1, mask == 255
    annotators = Annotators(target, ignore, protocol.strategy, seeds)
    probability = (torch.zeros_like(mask) if initial is None else initial)[:, None].float()
    if protocol.box and initial is None:
        probability = ask(annotators.clicks, probability)
    prediction = probability[:, 0] > protocol.threshold
    ious = [iou(prediction, target, ignore)]
    for _ in range(protocol.clicks):
        clicked = annotators.click(prediction)
        if not clicked.any():
            break
        answer = ask(annotators.clicks, probability)
        probability = torch.where(clicked[:, None, None, None], answer, probability)
        prediction = probability[:, 0] > protocol.threshold
        ious.append(iou(prediction, target, ignore))
    ious += ious[-1:] * (protocol.clicks + 1 - len(ious))  # what is right stays right
    numbers = torch.tensor([len(clicks) for clicks in annotators.history])
    return Session(torch.stack(ious, 1), numbers, prediction, annotators.history)


def iou(prediction: Tensor, target: Tensor, ignore: Tensor) -> Tensor:
    """Return the IoU (B,) float64 of masks (B, H, W) bool over pixels that are not ignored; 1 where both are empty."""
    union = ((prediction | target) & ~ignore).sum((1, 2)).double()
    shared = (prediction & target & ~ignore).sum((1, 2)).double()
    return torch.where(union > 0, shared / union.clamp(min=1), 1.0)


def click_seeds(run: int, index: Sequence[int]) -> list[int]:
    """Return the seeds of the clicks on the samples ``index`` of a split.

    They depend on run and sample alone, not on the model, the setting or the other samples of a batch.
    """
    return [derive_seed(run, CLICK_SALT, max(place, 0)) for place in index]
