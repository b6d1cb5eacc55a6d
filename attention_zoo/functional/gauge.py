"""What training leaves open between queries and keys, and maps that bring the queries to where the keys are.

Dot-product attention reads scores alpha (q_i.xi_j + q_i.r^q_ij + xi_j.r^k_ij). For any invertible matrix A they, and so
all that the layer computes, stay as they are under

    q -> A^T q,    xi -> A^-1 xi,    r^q -> A^-1 r^q,    r^k -> A^T r^k                                     (gauge)

and, where keys have no positions, under xi -> xi + c, which adds alpha q_i.c to all scores of a query. No loss can fix
A and c. Key adaptation writes means of queries where keys were, and so depends on them: a query is no vector of the
keys' space until a map from the one space to the other is chosen. The maps here are fixed by the moments of the tokens
that are there:

* centred: q -> q - mean(q) + mean(xi), which adapts about the means;
* matched: q -> M q, with the positive definite M that makes the second moments of the queries those of the keys,
  M C_q M = C_k. It is the geometric mean C_q^-1 # C_k, and optimal transport between two Gaussians. Under a gauge
  C_q -> A^T C_q A and C_k -> A^-1 C_k A^-T, whence M -> A^-1 M A^-T and M q -> A^-1 M q: what is written is changed as
  a key is, and the output of the adapted layer is the same in any gauge.

No map makes up for what a step does to the differences between keys. For keys xi_j = c + e_j that differ little,
w_ij = (1 + alpha (q_i - c)^T (e_j - mean(e))) / M under either prior, up to squares, so that a step writes
mean(q) + alpha C_q (e_j - mean(e)): it multiplies differences by alpha C_q, and in the matched gauge by alpha M C_q,
whose eigenvalues are those of alpha (C_q C_k)^1/2 in any gauge. These are the standard deviations of the scores
alpha q.xi along their directions (`score_spreads`). Where all are below 1, keys that adapt come together and attention
forgets its content: the first phase transition of deterministic annealing, K. Rose, Proceedings of the IEEE 86, 1998.

R. Bhatia, Positive Definite Matrices, Princeton 2007, chapter 4 (geometric mean); I. Olkin, F. Pukelsheim, The distance
between two random vectors with given dispersion matrices, Linear Algebra and its Applications 48, 1982 (transport).
"""

from typing import Literal

import torch
from torch import Tensor

Gauge = Literal["trained", "moments"]
"""The map from queries to keys: none, as if both were in one space; or that which matches their second moments."""

LEAST = 1e-12
"""What is added to the second moments in each direction, as a share of their mean: tokens may fill only a few."""


def towards_keys(q: Tensor, k: Tensor, *, gauge: Gauge = "trained", centre: bool = False) -> Tensor:
    """Return the queries (B, H, N, D) mapped into the space of the keys, see the module.

    Args:
        q: queries (B, H, N, D).
        k: keys (B, H, M, D).
        gauge: "trained" takes both spaces for one; "moments" matches the second moments, those about the means with
            ``centre`` and about zero without.
        centre: whether the mean of the queries goes to that of the keys.
    """
    of_queries, of_keys = q.mean(2, keepdim=True), k.mean(2, keepdim=True)
    moved = q - of_queries if centre else q
    if gauge == "moments":
        moved = (moved.double() @ matching(moved, k - of_keys if centre else k)).to(q.dtype)
    return moved + of_keys if centre else moved


def matching(q: Tensor, k: Tensor) -> Tensor:
    """Return the symmetric M (..., D, D) with M E[q q^T] M = E[k k^T], for q (..., N, D) and k (..., M, D), in float64.

    With a Cholesky factor E[q q^T] = L L^T it is L^-T (L^T E[k k^T] L)^1/2 L^-1.
    """
    factor = torch.linalg.cholesky(second_moments(q))
    values, vectors = torch.linalg.eigh(factor.mT @ second_moments(k) @ factor)
    root = vectors * values.clamp(min=0).sqrt()[..., None, :] @ vectors.mT
    half = torch.linalg.solve_triangular(factor.mT, root, upper=True)  # L^-T root
    return torch.linalg.solve_triangular(factor, half, upper=False, left=False)


def score_spreads(q: Tensor, k: Tensor, alpha: float | Tensor) -> Tensor:
    """Return alpha (C_q C_k)^1/2's eigenvalues (..., D) in float64, ascending, of q (..., N, D) and k (..., M, D).

    Their squares sum to the variance of the scores alpha q.xi over all pairs of a query and a key about their means.

    Args:
        q: queries (..., N, D).
        k: keys (..., M, D).
        alpha: the precision of the queries, a number, or one for each unit (..., M), whose mean counts.
    """
    q, k = (x - x.mean(-2, keepdim=True) for x in (q, k))
    factor = torch.linalg.cholesky(second_moments(q))
    values = torch.linalg.eigvalsh(factor.mT @ second_moments(k) @ factor)
    scale = alpha.double().mean(-1, keepdim=True) if isinstance(alpha, Tensor) else alpha
    return scale * values.clamp(min=0).sqrt()


def second_moments(x: Tensor) -> Tensor:
    """Return E[x x^T] (..., D, D) of x (..., N, D) in float64, of full rank."""
    x = x.double()
    moments = x.mT @ x / max(1, x.shape[-2])
    mean = moments.diagonal(dim1=-2, dim2=-1).mean(-1)
    least = (LEAST * mean).clamp(min=torch.finfo(x.dtype).tiny ** 0.5)
    return moments + least[..., None, None] * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
