"""Euclidean distances between vectors."""

import torch
from torch import Tensor

from attention_zoo.compat import in_transform


def pairwise_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return the distances (..., N, M) of vectors x (..., N, D) and y (..., M, D), exact also where both are near.

    The gradient of a distance of 0 is 0.
    """
    if in_transform():  # torch's backward pass of cdist, mapped over several gradients at once, returns wrong ones
        return torch.linalg.vector_norm(x[..., :, None, :] - y[..., None, :, :], dim=-1)
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
