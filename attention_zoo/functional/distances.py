"""Euclidean distances between vectors."""

import torch
from torch import Tensor

from attention_zoo.compat import in_transform


def pairwise_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return the distances (..., N, M) of vectors x (..., N, D) and y (..., M, D), exact also where both are near.

    All gradients of a distance of 0 are 0.
    """
    if in_transform():  # torch's backward pass of cdist, mapped over several gradients at once, returns wrong ones
        squares = (x[..., :, None, :] - y[..., None, :, :]).square().sum(-1)
        same = squares == 0
        return squares.masked_fill(same, 1.0).sqrt().masked_fill(same, 0.0)
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
