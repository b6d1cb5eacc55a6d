"""Correcting a mask that exists: what a click does not ask for stays as it was."""

import cv2
import numpy as np
from torch import Tensor, from_numpy

from attention_zoo.clicks import Click


def progressive_merge(before: Tensor, answer: Tensor, click: Click) -> Tensor:
    """Return a mask after a click: of what a model would change in it, the part that was clicked at, no other.

    The part is the connected region of changed pixels (those that touch at a corner are connected) that holds the
    click. A click on the object adds it, and a click on the background takes it away: neither does the other. Where
    the model changes nothing at the click, nothing changes. (The progressive merge of X. Chen et al., FocalClick,
    CVPR 2022, section 3.3, and its released code.)

    Args:
        before: (H, W) bool, the mask before the click.
        answer: (H, W) bool, the model's mask after it.
        click: the click.

    Returns:
        (H, W) bool, on the CPU.
    """
    before, answer = before.cpu(), answer.cpu()
    changed = before ^ answer
    y, x = round(click.y), round(click.x)
    if not changed[y, x] or bool(answer[y, x]) != click.positive:
        return before
    labels = cv2.connectedComponents(changed.numpy().astype(np.uint8), connectivity=8)[1]
    part = from_numpy(labels == labels[y, x])
    return before | part if click.positive else before & ~part
