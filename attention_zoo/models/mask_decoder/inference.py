"""Turns the predictions of a mask decoder into a class for each pixel of an image, or into segments.

This is the mask-wise post-processing of kMaX-DeepLab (and of MaX-DeepLab).
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from attention_zoo.domains import Fraction, checked


@partial(checked, under="thresholds")
@dataclass(frozen=True)
class PanopticThresholds:
    """The thresholds at which a query becomes a segment; the defaults are those of COCO.

    Args:
        pixel: a query's mask holds the pixels where its probability is above this.
        thing: least class probability of things.
        stuff: least class probability of stuff.
        overlap: least part of a mask that queries with a higher score must have left free.
        mask_exponent: exponent of the mean mask probability in the score; 0 orders by class probability alone.
    """

    pixel: Fraction = 0.4
    thing: Fraction = 0.7
    stuff: Fraction = 0.5
    overlap: Fraction = 0.8
    mask_exponent: float = 1.0


def semantic_probabilities(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """Return the probability of each class at each pixel: queries' classes (without void) mixed by their masks.

    Args:
        class_logits: (B, L, C + 1), logits of the queries' classes, void last.
        mask_logits: (B, L, h, w), logits of the queries' masks.

    Returns:
        (B, C, h, w), the probabilities; they sum to less than one where a pixel's queries are void.
    """
    classes = class_logits.float().softmax(-1)[..., :-1]
    return torch.einsum("blc,blhw->bchw", classes, mask_logits.float().softmax(1))


def panoptic_segments(
    class_logits: Tensor, mask_logits: Tensor, things: Collection[int], thresholds: PanopticThresholds | None = None
) -> Tensor:
    """Return the segments of one image: queries, best score first, take the pixels of their masks that are still free.

    Args:
        class_logits: (L, C + 1), logits of the queries' classes, void last.
        mask_logits: (L, H, W), logits of the queries' masks.
        things: classes whose segments stay apart; the segments of any other class become one.
        thresholds: decide which queries count.

    Returns:
        (H, W, 2) int64, class and segment of each pixel; class C and segment 0 where there is none. Segments count
        from 1.
    """
    limits = thresholds or PanopticThresholds()
    scores, labels, masks, means = _query_masks(class_logits, mask_logits, limits)
    is_thing = torch.isin(labels, labels.new_tensor(sorted(things)))
    sure = scores > torch.where(is_thing, limits.thing, limits.stuff)
    panoptic = labels.new_zeros(*mask_logits.shape[1:], 2)
    panoptic[..., 0] = class_logits.shape[-1] - 1
    stuff: dict[int, int] = {}
    segments = 0
    for query in (scores * means**limits.mask_exponent).argsort(descending=True).tolist():
        free = masks[query] & (panoptic[..., 1] == 0)
        if not sure[query] or not free.sum() > limits.overlap * masks[query].sum():
            continue
        label = int(labels[query])
        segment = stuff.get(label, segments + 1)
        segments = max(segments, segment)
        if not is_thing[query]:
            stuff[label] = segment
        panoptic[free] = panoptic.new_tensor([label, segment])
    return panoptic


def instance_masks(
    class_logits: Tensor, mask_logits: Tensor, things: Collection[int], thresholds: PanopticThresholds | None = None
) -> dict[str, Tensor]:
    """Return the things of one image, a query each, in the form of torchmetrics' ``MeanAveragePrecision``.

    Average precision orders them by score, so that no query is left out for a low one: of the thresholds only those of
    the mask apply. The score is the panoptic one, the probability of the class times that of the mask's pixels.

    Args:
        class_logits: (L, C + 1), logits of the queries' classes, void last.
        mask_logits: (L, H, W), logits of the queries' masks.
        things: classes whose segments stay apart; queries of other classes are left out, those without a pixel too.
        thresholds: what a query's mask holds, and the exponent of the mask in the score.

    Returns:
        ``masks`` (n, H, W) bool, ``scores`` (n,) float in [0, 1], and ``labels`` (n,) int64.
    """
    limits = thresholds or PanopticThresholds()
    scores, labels, masks, means = _query_masks(class_logits, mask_logits, limits)
    kept = torch.isin(labels, labels.new_tensor(sorted(things))) & masks.flatten(1).any(1)
    scores = scores * means**limits.mask_exponent
    return {"masks": masks[kept], "scores": scores[kept], "labels": labels[kept]}


def _query_masks(
    class_logits: Tensor, mask_logits: Tensor, limits: PanopticThresholds
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return of each query the probability of its class (L,), the class, its mask (L, H, W), and the mask's mean (L,).

    The mean is that of the mask's probabilities where it holds the pixel.
    """
    scores, labels = class_logits.float().softmax(-1)[:, :-1].max(-1)
    probabilities = mask_logits.float().softmax(0)
    masks = probabilities > limits.pixel
    means = (probabilities * masks).flatten(1).sum(1) / masks.flatten(1).sum(1).clamp(min=1)
    return scores, labels, masks, means
