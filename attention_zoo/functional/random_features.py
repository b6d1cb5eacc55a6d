"""Positive random features of the softmax kernel (FAVOR+).

    exp(x.y) = E_w[phi_w(x) phi_w(y)],    phi_w(x) = exp(w.x - |x|^2 / 2),    w ~ N(0, I)

K. Choromanski et al., Rethinking Attention with Performers, ICLR 2021 (Lemma 1; orthogonal directions: section 3.2).
"""

import math

import torch
from torch import Tensor


def orthogonal_directions(
    num_heads: int, dim: int, num_features: int, *, device: torch.device | str | None = None
) -> Tensor:
    """Directions w (num_heads, dim, num_features): Gaussian in length, orthogonal within each block of ``dim``."""
    blocks = math.ceil(num_features / dim)
    gaussian = torch.randn(num_heads, blocks, dim, dim, device=device)
    basis, triangle = torch.linalg.qr(gaussian)
    # Householder's QR prefers signs; without those of the diagonal the directions would not average to zero
    basis = basis * triangle.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]
    orthonormal = basis.transpose(1, 2).flatten(2)[..., :num_features]
    lengths = torch.randn(num_heads, num_features, dim, device=device).norm(dim=-1)
    return orthonormal * lengths[:, None]


def log_features(x: Tensor, directions: Tensor) -> Tensor:
    """Logarithms of the features: x (B, H, N, D), directions (H, D, M) -> (B, H, N, M)."""
    squared = x.square().sum(-1, keepdim=True)
    return x @ directions - squared / 2 - math.log(directions.shape[-1]) / 2


def kernel_factors(log_q: Tensor, log_k: Tensor) -> tuple[Tensor, Tensor]:
    """Factors (B, H, N, M) of the row-normalised kernel, from the log features of queries and keys.

    Row i of ``f_q f_k^T`` over its sum is the softmax approximated by the features. Each feature is scaled by its
    largest key and each query by its largest feature, which cancels in the quotient: nothing overflows, and every
    row sum is at least one.
    """
    peak = log_k.detach().amax(-2, keepdim=True)
    log_q = log_q + peak
    return (log_q - log_q.detach().amax(-1, keepdim=True)).exp(), (log_k - peak).exp()
