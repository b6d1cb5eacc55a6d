"""Numbers that tell what attention does in a layer: how its rows are spread, and whether readings' premises hold.

Every function takes tensors (B, H, ...) and returns one number for each image and head, (B, H), in float32 or wider.
Where a number is not defined (a variance of equal values to divide by, say) it is NaN, which callers leave out.
"""

import math

import torch
from torch import Tensor

from attention_zoo.functional.distances import pairwise_distances
from attention_zoo.functional.precision import precise

MASS = 0.9
"""The share of a row that `tokens_of_mass` looks for."""

DISTORTION = 0.5
"""The distortion epsilon of the coding rate, as in the paper on CRATE."""


def row_entropy(weights: Tensor) -> Tensor:
    """Return the mean entropy of the rows of maps (B, H, N, M), from 0 (one token) to 1 (all alike).

    Rows count by the size of their entries, whose signs are left out; a row of zeros has no entropy.
    """
    shares = _shares(weights)
    entropy = -torch.special.xlogy(shares, shares).sum(-1)
    return (entropy / math.log(max(weights.shape[-1], 2))).mean(-1)


def effective_rank(weights: Tensor) -> Tensor:
    """Return the participation ratio ``(Σ s²)² / Σ s⁴`` of the singular values s of maps (B, H, N, M).

    It is 1 where all rows are alike, and N for the identity.
    """
    weights = precise(weights)
    weights = weights / weights.abs().amax((-2, -1), keepdim=True)
    gram = weights @ weights.mT if weights.shape[-2] <= weights.shape[-1] else weights.mT @ weights
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    return trace.square() / gram.square().sum((-2, -1))


def tokens_of_mass(weights: Tensor, mass: float = MASS) -> Tensor:
    """Return how many tokens hold ``mass`` of each row of maps (B, H, N, M): float counts (B, H, N).

    This is how H. Ramsauer et al., Hopfield Networks is All You Need (ICLR 2021), tell in which regime a head is.
    """
    held = _shares(weights).sort(-1, descending=True).values.cumsum(-1)
    return 1.0 + (held[..., :-1] < mass * held[..., -1:]).sum(-1).to(held.dtype)


def evenness(counts: Tensor) -> Tensor:
    """Return how evenly counts (..., K) are spread: the exponential of their entropy over K, 1 where all are alike."""
    shares = _shares(counts)
    entropy = -torch.special.xlogy(shares, shares).sum(-1)
    return entropy.exp() / counts.shape[-1]


def marginal_distance(weights: Tensor) -> Tensor:
    """Return how far row and column sums of maps (B, H, N, N) are from one: the mean over tokens of both distances."""
    rows, columns = (precise(weights).sum(dim) for dim in (-1, -2))
    return (rows - 1).abs().mean(-1) + (columns - 1).abs().mean(-1)


def row_distance(weights: Tensor, others: Tensor) -> Tensor:
    """Return the share of a row by which maps (B, H, N, M) differ: half the sum of differences, mean over the rows."""
    return (precise(weights) - precise(others)).abs().sum(-1).mean(-1) / 2


def token_diversity(x: Tensor) -> Tensor:
    """Return how far tokens (..., N, C) are from being all alike: the share of their length beside their mean."""
    x = precise(x)
    return (x - x.mean(-2, keepdim=True)).square().sum((-2, -1)).div(x.square().sum((-2, -1))).sqrt()


def leave_one_out_error(weights: Tensor, v: Tensor) -> Tensor:
    """Return the share of the variance of v (B, H, N, D) that the other tokens, weighted, leave unexplained.

    A token is foretold by the mean of the other tokens' values under its row of the ``weights`` (B, H, N, N), as in
    the cross-validation of the smoother of Nadaraya and Watson; a token that reads itself alone, by their plain mean.
    """
    weights, v = without_self(weights), precise(v)
    plain = (v.sum(-2, keepdim=True) - v) / (v.shape[-2] - 1) if v.shape[-2] > 1 else torch.full_like(v, math.nan)
    foretold = torch.where((weights == 0).all(-1, keepdim=True), plain, weights @ v)
    variance = (v - v.mean(-2, keepdim=True)).square().sum((-2, -1))
    return (v - foretold).square().sum((-2, -1)) / variance


def without_self(weights: Tensor) -> Tensor:
    """Return maps (B, H, N, N) whose tokens leave themselves out, with rows that sum to one; empty rows stay empty."""
    weights = precise(weights)
    others = weights - torch.diag_embed(weights.diagonal(dim1=-2, dim2=-1))
    total = others.sum(-1, keepdim=True)
    return others / torch.where(total == 0, 1.0, total)


def log_likelihood(q: Tensor, k: Tensor, alpha: Tensor | float, log_prior: Tensor) -> Tensor:
    """Return the mean over queries of ``log Σⱼ πⱼ N(q | kⱼ, 1/αⱼ)``, in nats a channel.

    Args:
        q: queries (B, H, N, D).
        k: means of the units (B, H, M, D).
        alpha: precision of all units, or of each (B, H, M).
        log_prior: logarithm of the mixing weights of the units (B, H, M), of any sum: it is normalised here.
    """
    q, k = precise(q), precise(k)
    width = q.shape[-1]
    alpha = torch.as_tensor(alpha, dtype=k.dtype, device=k.device).expand(k.shape[:-1])[..., None, :]
    distance = pairwise_distances(q, k).square()
    density = width / 2 * (alpha / (2 * math.pi)).log() - alpha / 2 * distance
    prior = log_prior.to(k.dtype).log_softmax(-1)[..., None, :]
    return (density + prior).logsumexp(-1).mean(-1) / width


def within_cluster_share(x: Tensor, memberships: Tensor) -> tuple[Tensor, Tensor]:
    """Return the share of the variance of x (B, H, N, D) within clusters, and what chance would leave there.

    Chance is the mean over all ways to give tokens the same clusters by lot: ``(N - clusters with a token) / (N - 1)``.

    Args:
        x: tokens (B, H, N, D).
        memberships: one-hot over the K clusters, (B, H, K, N).
    """
    x = precise(x)
    memberships = memberships.to(x.dtype)
    sizes = memberships.sum(-1, keepdim=True)
    means = memberships @ x / sizes.clamp(min=1)
    within = (x - memberships.mT @ means).square().sum((-2, -1))
    total = (x - x.mean(-2, keepdim=True)).square().sum((-2, -1))
    number = x.shape[-2]
    alive = (sizes > 0).sum((-2, -1)).to(x.dtype)
    return within / total, (number - alive) / (number - 1) if number > 1 else torch.full_like(alive, math.nan)


def coding_rate(w: Tensor, distortion: float = DISTORTION) -> Tensor:
    """Return the coding rate ``½ log det(I + D / (N ε²) Wᵀ W)`` in nats of tokens w (B, H, N, D) (CRATE, eq. 8)."""
    w = precise(w)
    number, width = w.shape[-2:]
    identity = torch.eye(width, dtype=w.dtype, device=w.device)
    return torch.logdet(identity + width / (number * distortion**2) * (w.mT @ w)) / 2


def _shares(weights: Tensor) -> Tensor:
    """Return the sizes of the entries of maps (B, H, N, M) as shares of their row; rows of zeros stay zero."""
    sizes = precise(weights).abs()
    total = sizes.sum(-1, keepdim=True)
    return sizes / torch.where(total > 0, total, 1.0)
