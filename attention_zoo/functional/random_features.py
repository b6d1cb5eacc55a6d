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
    """Draw directions w (num_heads, dim, num_features), Gaussian in length, orthogonal within each block of ``dim``."""
    blocks = math.ceil(num_features / dim)
    gaussian = torch.randn(num_heads, blocks, dim, dim, device=device)
    basis, triangle = torch.linalg.qr(gaussian)
    # Householder's QR prefers signs; without those of the diagonal the directions would not average to zero
    basis = basis * triangle.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]
    orthonormal = basis.transpose(1, 2).flatten(2)[..., :num_features]
    lengths = torch.randn(num_heads, num_features, dim, device=device).norm(dim=-1)
    return orthonormal * lengths[:, None]


def log_features(x: Tensor, directions: Tensor) -> Tensor:
    """Return logarithms (B, H, N, M) of the features of x (B, H, N, D) for directions (H, D, M)."""
    shift = x.square().sum(-1, keepdim=True) / 2 + math.log(directions.shape[-1]) / 2
    return (x @ directions).sub_(shift)  # in place: these are the largest tensors, and no backward pass needs them


def kernel_factors(q: Tensor, k: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Return factors f_q, f_k (B, H, N, M) of the kernel: f_q f_k^T divided by its row sums is the attention.

    Each feature is scaled by its largest key and each query by its largest feature; both cancel in the quotient, as
    |q|^2 does. Nothing overflows, and every row sum is at least one.

    Args:
        q: queries (B, H, N, D).
        k: keys (B, H, N, D).
        directions: directions w of the features (H, D, M).
    """
    log_k = log_features(k, directions)
    peak = log_k.detach().amax(-2, keepdim=True)  # (B, H, 1, M)
    log_q = (q @ directions).add_(peak)
    highest = log_q.detach().amax(-1, keepdim=True)  # (B, H, N, 1)
    return log_q.sub_(highest).exp_(), log_k.sub_(peak).exp_()


def column_features(x: Tensor, directions: Tensor) -> Tensor:
    """Return features (B, H, N, M) of x / D^(1/4), each scaled by its largest token so that nothing overflows."""
    log_atoms = log_features(x * x.shape[-1] ** -0.25, directions)
    return log_atoms.sub_(log_atoms.detach().amax(-2, keepdim=True)).exp_()


def unit_features(x: Tensor, directions: Tensor) -> Tensor:
    """Return features (B, H, N, M) of x made unit length, as in VARS' released code, up to a constant factor."""
    length = x.square().sum(-1, keepdim=True).clamp_min(1e-24).sqrt()  # torch's vector norms take several times as long
    return (x / length @ directions).exp_()


def unit_kernel_factors(q: Tensor, k: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Return `kernel_factors` of queries and keys made unit length, as the released code of VARS has them."""
    return unit_features(q, directions), unit_features(k, directions)
