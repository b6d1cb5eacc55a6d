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
"""Sets the seeds of clicks apart from those of views, steps and samples."""


@dataclass(frozen=True)
class Session:
    """What came of asking about a batch of objects.

    Attributes:
        ious: (B, clicks + 1) float64, before the first click and after each; before the first and without a box, 0.
        made: (B,) int64, clicks until nothing was wrong any more, or all.
        prediction: (B, H, W) bool, the last masks.
        history: the clicks on each.
    """

    ious: Tensor
    made: Tensor
    prediction: Tensor
    history: list[list[Click]]


def simulate(ask: Ask, mask: Tensor, protocol: ClickProtocol, seeds: Sequence[int]) -> Session:
    """An annotator clicks at what is wrong until there is no click left.

    An object whose mask is right keeps it, and gets no further click.

    Args:
        ask: the model.
        mask: (B, H, W) uint8: 1 object, 0 background, 255 ignored.
        protocol: which.
        seeds: of each object's clicks.
    """
    target, ignore = mask == 1, mask == 255
    annotators = Annotators(target, ignore, protocol.strategy, seeds)
    probability = torch.zeros(len(mask), 1, *mask.shape[1:], device=mask.device)
    if protocol.box:
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
    made = torch.tensor([len(clicks) for clicks in annotators.history])
    return Session(torch.stack(ious, 1), made, prediction, annotators.history)


def iou(prediction: Tensor, target: Tensor, ignore: Tensor) -> Tensor:
    """Intersection over union (B,) float64 of masks (B, H, W) bool where pixels are not ignored; 1 without any."""
    union = ((prediction | target) & ~ignore).sum((1, 2)).double()
    shared = (prediction & target & ~ignore).sum((1, 2)).double()
    return torch.where(union > 0, shared / union.clamp(min=1), 1.0)


def click_seeds(run: int, index: Sequence[int]) -> list[int]:
    """Seeds of the clicks on the samples ``index`` of a split; the same whatever is evaluated, and with whom."""
    return [derive_seed(run, CLICK_SALT, max(place, 0)) for place in index]
