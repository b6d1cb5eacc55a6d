"""Clustering: every pixel chooses among the centres, every centre collects the pixels that chose it.

    A = argmax_N (C P^T),     C <- A P       k-means, as kMaX-DeepLab writes it
    A = softmax_N (C P^T),    C <- A P       CMT-DeepLab

With -|c - p|^2 / 2 in place of c.p and means in place of sums the first line is Lloyd's algorithm. There are L
centres and M pixels.

Q. Yu et al., CMT-DeepLab, CVPR 2022; Q. Yu et al., k-means Mask Transformer (kMaX-DeepLab), ECCV 2022; S. Lloyd, Least
Squares Quantization in PCM, 1982.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from attention_zoo.functional.straight_through import straight_through

Metric = Literal["dot", "euclidean"]
Reduce = Literal["sum", "mean"]


def affinity(centres: Tensor, pixels: Tensor, *, metric: Metric = "dot", scale: float = 1.0) -> Tensor:
    """Return how near centres (..., L, D) and pixels (..., M, D) are, in float32 or wider also under autocast.

    Args:
        centres: the centres c (..., L, D).
        pixels: the pixels p (..., M, D).
        metric: "dot" is c.p; "euclidean" is c.p - |c|^2 / 2, which orders centres as -|c - p|^2 / 2 does.
        scale: factor of either.

    Returns:
        A tensor (..., L, M) whose memory holds the centres of one pixel side by side, since that is how pixels choose.
    """
    precise = torch.promote_types(centres.dtype, torch.float32)  # rounded to bfloat16, near affinities would tie
    with torch.autocast(pixels.device.type, enabled=False):
        centres, pixels = centres.to(precise), pixels.to(precise)
        by_pixel = pixels @ (centres * scale).mT  # (..., M, L)
        if metric == "euclidean":
            by_pixel = by_pixel - scale / 2 * centres.square().sum(-1)[..., None, :]
    return by_pixel.mT


def hard_assignment(affinity: Tensor) -> Tensor:
    """Return the index (..., M) of each pixel's nearest centre, the first of equals, without a gradient."""
    return affinity.detach().argmax(-2)


def soft_assignment(affinity: Tensor) -> Tensor:
    """Return the probabilities (..., L, M) of the centres for each pixel; they sum to one over the centres."""
    return affinity.mT.softmax(-1).mT


def log_soft_assignment(affinity: Tensor) -> Tensor:
    """Return the logarithm of `soft_assignment`, which tells apart probabilities that would round to zero."""
    return affinity.mT.log_softmax(-1).mT


def one_hot(index: Tensor, num_centres: int, dtype: torch.dtype | None = None) -> Tensor:
    """Return a hard assignment (..., M) written as a soft one (..., L, M), with ones and zeros."""
    return F.one_hot(index, num_centres).mT.to(dtype or torch.get_default_dtype())


def straight_assignment(affinity: Tensor) -> Tensor:
    """Return the `hard_assignment` by an affinity (..., L, M) as ones and zeros, with `soft_assignment`'s gradient."""
    soft = soft_assignment(affinity)
    return straight_through(one_hot(hard_assignment(affinity), affinity.shape[-2], affinity.dtype), soft)


def weights(assignment: Tensor, reduce: Reduce = "sum") -> Tensor:
    """Return how much centres take from pixels (..., L, M): the update is ``weights(A) @ values``.

    Args:
        assignment: (..., L, M), soft, or hard written by `one_hot`.
        reduce: "sum" takes each pixel as far as it is assigned; "mean" divides that by the size of the cluster. A
            cluster with almost no pixels takes next to nothing; for soft assignments `log_weights` gives the true mean.
    """
    if reduce == "sum":
        return assignment
    size = assignment.sum(-1, keepdim=True)
    return assignment / size.clamp(min=torch.finfo(size.dtype).tiny ** 0.5)  # so that its gradient is finite


def log_weights(log_assignment: Tensor, reduce: Reduce = "sum") -> Tensor:
    """Return `weights` from the logarithm of a soft assignment; here no cluster is too small for its mean."""
    return log_assignment.exp() if reduce == "sum" else log_assignment.softmax(-1)


def collect(
    values: Tensor, index: Tensor, num_centres: int, *, reduce: Reduce = "sum", empty: Tensor | float = 0.0
) -> Tensor:
    """Return what each centre takes from the pixels assigned to it: the sum or the mean of their values.

    The result equals ``weights(one_hot(index), reduce) @ values``, computed without that matrix.

    Args:
        values: values of the pixels (B, H, M, D).
        index: centre of each pixel, broadcasting to (B, H, M).
        num_centres: number of centres L.
        reduce: "sum" (kMaX) or "mean" (Lloyd).
        empty: the mean over no pixels, broadcasting to (B, H, L, D). In Lloyd's step that is the centre, which stays.

    Returns:
        The sums or means (B, H, L, D), differentiable in the values; sums run in float32 or wider.
    """
    index = index.expand(values.shape[:-1])
    sums = segment_sum(values, index, num_centres)
    if reduce == "sum":
        return sums
    sizes = segment_sum(torch.ones_like(values[..., :1]), index, num_centres)
    return torch.where(sizes > 0, sums / sizes.clamp(min=1), empty)


def straight_collect(
    values: Tensor, assignment: Tensor, *, reduce: Reduce = "sum", empty: Tensor | float = 0.0
) -> Tensor:
    """Return what `collect` does, with a gradient in the assignment too.

    Args:
        values: values of the pixels (B, H, M, D).
        assignment: of pixels to centres (B, H, L, M), by `straight_assignment`.
        reduce: see `collect`.
        empty: see `collect`.
    """
    taken = weights(assignment, reduce) @ values
    if reduce == "mean":
        taken = torch.where(assignment.sum(-1, keepdim=True) > 0, taken, empty)
    index, centres = assignment.detach().argmax(-2), assignment.shape[-2]
    return straight_through(collect(values, index, centres, reduce=reduce, empty=empty), taken)


def segment_sum(values: Tensor, index: Tensor, num_segments: int) -> Tensor:
    """Return sums (B, H, ``num_segments``, D) of the rows of values (B, H, M, D) that share an index (B, H, M)."""
    batch, heads, _, width = values.shape
    first = torch.arange(0, batch * heads * num_segments, num_segments, device=index.device).view(batch, heads, 1)
    # rows in the order (B, M, H), in which a projection leaves them in memory, so that they need not be copied
    rows = values.transpose(1, 2).reshape(-1, width)
    target = (index + first).transpose(1, 2).flatten()
    precise = torch.promote_types(values.dtype, torch.float32)  # sums over thousands of pixels
    sums = rows.new_zeros(batch * heads * num_segments, width, dtype=precise).index_add(0, target, rows.to(precise))
    return sums.view(batch, heads, num_segments, width).to(values.dtype)
