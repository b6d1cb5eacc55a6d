"""Matching of queries with segments: the pairs whose panoptic-quality-style similarity is highest in sum."""

from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from tasks.mask_losses.targets import Segments

EPSILON = 1e-5
"""Small number that keeps ratios of empty masks finite; also the least weight of a query's class or mask."""


class Match(NamedTuple):
    """The min(L, n) pairs of queries and segments of an image; all attributes are (min(L, n),).

    Attributes:
        queries: indices of the queries, int64.
        segments: indices of the segments, int64.
        dice: similarity of each pair's masks.
        class_probability: predicted probability of the segment's class.
    """

    queries: Tensor
    segments: Tensor
    dice: Tensor
    class_probability: Tensor


@torch.no_grad()
def match(class_logits: Tensor, mask_logits: Tensor, target: Segments) -> Match:
    """Return the Hungarian matching of an image whose cost is - class probability * dice.

    Args:
        class_logits: (L, C + 1), void last.
        mask_logits: (L, h, w).
        target: the n segments, at (h, w).
    """
    classes = class_logits.float().softmax(-1)[:, :-1][:, target.labels]
    dice = mask_similarity(mask_logits, target.masks)
    rows, columns = linear_sum_assignment((classes * dice).cpu().numpy(), maximize=True)
    queries, segments = (torch.as_tensor(index, device=dice.device) for index in (rows, columns))
    return Match(queries, segments, dice[queries, segments], classes[queries, segments])


def mask_similarity(mask_logits: Tensor, masks: Tensor) -> Tensor:
    """Return the dice (L, n) of predicted and true masks; the predicted ones are a softmax over the L queries.

    Pixels of no true mask do not count.

    Args:
        mask_logits: (L, h, w).
        masks: (n, h, w), 1 inside.
    """
    masks = masks.flatten(1).float()
    predicted = mask_logits.float().flatten(1).softmax(0) * (masks.sum(0) > 0)
    size = (predicted.sum(-1)[:, None] + masks.sum(-1)) / 2
    return predicted @ masks.mT / (size + EPSILON)


class MatchedTargets(NamedTuple):
    """The targets of each query, shared by the predictions of all layers.

    Attributes:
        masks: (B, L, h, w), the segment of each matched query; zero elsewhere. At most one in sum over the queries.
        labels: (B, L) int64; C, void, where unmatched.
        class_weight: (B, L), similarity of predicted and true mask; part of the predicted mask that is void where
            unmatched.
        mask_weight: (B, L), predicted probability of the true class; 0 where unmatched.
        void: (B, h, w) bool, pixels of no matched segment.
        area: (B, h, w), number of pixels of the segment that a pixel belongs to, at least 1.
    """

    masks: Tensor
    labels: Tensor
    class_weight: Tensor
    mask_weight: Tensor
    void: Tensor
    area: Tensor


@torch.no_grad()
def matched_targets(class_logits: Tensor, mask_logits: Tensor, targets: list[Segments]) -> MatchedTargets:
    """Match queries and segments of each image, and return the targets, weighted as panoptic quality does.

    Args:
        class_logits: (B, L, C + 1) of the final prediction.
        mask_logits: (B, L, h, w) of the final prediction.
        targets: the segments of each image, at (h, w).
    """
    class_logits, mask_logits = class_logits.detach().float(), mask_logits.detach().float()
    masks = torch.zeros_like(mask_logits)
    labels = class_logits.new_full(class_logits.shape[:2], class_logits.shape[-1] - 1, dtype=torch.int64)
    mask_weight = class_logits.new_zeros(class_logits.shape[:2])
    matches = [
        match(classes, predicted, segments)
        for classes, predicted, segments in zip(class_logits, mask_logits, targets, strict=True)
    ]
    for image, (pairs, segments) in enumerate(zip(matches, targets, strict=True)):
        masks[image, pairs.queries] = segments.masks[pairs.segments].to(masks.dtype)
        labels[image, pairs.queries] = segments.labels[pairs.segments]
        mask_weight[image, pairs.queries] = pairs.class_probability.clamp(min=EPSILON)
    masks = masks / masks.sum(1, keepdim=True).clamp(min=1)
    void = masks.sum(1) < 1
    probabilities = mask_logits.softmax(1).flatten(2)
    class_weight = (probabilities * void.flatten(1)[:, None]).sum(-1) / (probabilities.sum(-1) + EPSILON)
    for image, pairs in enumerate(matches):
        class_weight[image, pairs.queries] = pairs.dice
    area = torch.einsum("blhw,bl->bhw", masks, masks.flatten(2).sum(-1)).clamp(min=1)
    return MatchedTargets(masks, labels, class_weight.clamp(min=EPSILON), mask_weight, void, area)
