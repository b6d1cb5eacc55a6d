"""Probabilistic attention without parameters: attention as inference in a mixture of Gaussian memory units.

Unit j has a key xi_j and a mean value mu_j; a query and its value come from one unit,

    p(q, v | u_j) = N(q | xi_j, 1/alpha) N(v | mu_j, 1/beta),      pi_j ~ exp(alpha/2 |xi_j|^2)         (Eq. 7-10)

and beta -> 0. With the magnitude prior pi_j the responsibilities are w_ij ~ exp(alpha q_i.xi_j) (Eq. 13), that of
dot-product attention; with equal priors they are w_ij ~ exp(-alpha/2 |q_i - xi_j|^2).

Everything is had from fused attention, whose logsumexp gives the responsibilities' normalisers, so that no N x N
tensor is ever formed. Equations: P. Gabbur, M. Bilkhu, J. Movellan, Probabilistic Attention for Interactive
Segmentation, NeurIPS 2021.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from attention_zoo.errors import InputError, unknown
from attention_zoo.functional.attention import attend


def infer_values(q: Tensor, k: Tensor, v: Tensor, *, alpha: float, magnitude_prior: bool = True) -> Tensor:
    """Most probable value of each query, sum_j w_ij mu_j (Eq. 12; one EM step is exact for beta -> 0).

    Args:
        q: queries (B, H, N, D).
        k: keys xi (B, H, M, D).
        v: mean values mu (B, H, M, E).
        alpha: precision of the queries about their unit's key, > 0.
        magnitude_prior: units are as probable as Eq. 10 says; otherwise all alike.

    Returns:
        Values (B, H, N, E).
    """
    if magnitude_prior:
        return F.scaled_dot_product_attention(q, k, v, scale=alpha)
    return attend(_append(q, 1.0), _append(k, _log_bias(k)), v, alpha)[0]


def adapt_keys(
    q: Tensor,
    k: Tensor,
    *,
    alpha: float,
    prior_precision: float = 0.0,
    iterations: int = 1,
    anchor: Literal["current", "initial"] = "current",
    magnitude_prior: bool = True,
) -> Tensor:
    """Keys after EM steps towards the observed queries (Eq. 18).

        xi_k <- (theta xi_k + alpha sum_i w_ik q_i) / (theta + alpha sum_i w_ik)

    With L_i = logsumexp_j log w_ij (unnormalised) the mean of the queries that unit k answers is itself attention,
    softmax_i(alpha xi_k.q_i - L_i) q_i, with queries and keys in each other's place.

    Args:
        q: queries (B, H, N, D).
        k: keys xi (B, H, M, D).
        alpha: precision of the queries about their unit's key, > 0.
        prior_precision: theta >= 0, how firmly a key stays; 0 is the maximum-likelihood update.
        iterations: EM steps; 0 returns the keys as they are.
        anchor: what theta pulls to: the key of the step before (as Eq. 18 prints) or the one given.
        magnitude_prior: units are as probable as Eq. 10 says, by their current keys; otherwise all alike.

    Returns:
        Keys (B, H, M, D), differentiable in q and k.

    Raises:
        InputError: a negative precision or number of iterations, or an unknown anchor.
    """
    _check_adaptation(alpha, prior_precision, iterations, anchor)
    initial = k
    for _ in range(iterations):
        log_bias = torch.zeros_like(k[..., :1]) if magnitude_prior else _log_bias(k)  # over alpha, (B, H, M, 1)
        _, log_normaliser = attend(_append(q, 1.0), _append(k, log_bias), k, alpha)  # (B, H, N)
        mean, log_mass = attend(_append(k, 1.0), _append(q, -log_normaliser[..., None] / alpha), q, alpha)
        if prior_precision == 0:
            k = mean
            continue
        mass = alpha * (log_mass[..., None] + alpha * log_bias).exp()  # alpha sum_i w_ik, (B, H, M, 1)
        held = k if anchor == "current" else initial
        k = (prior_precision * held + mass * mean) / (prior_precision + mass)
    return k


def _check_adaptation(alpha: float, prior_precision: float, iterations: int, anchor: str) -> None:
    """Raise an InputError that names the argument of `adapt_keys` that does not fit."""
    if not alpha > 0:
        raise InputError(f"alpha={alpha} must be above 0")
    if prior_precision < 0:
        raise InputError(f"prior_precision={prior_precision} must not be negative")
    if iterations < 0:
        raise InputError(f"iterations={iterations} must not be negative")
    if anchor not in ("current", "initial"):
        raise unknown("anchor", anchor, ("current", "initial"))


def _log_bias(k: Tensor) -> Tensor:
    """What equal priors add to q.k: -|xi_j|^2 / 2 (over alpha), (B, H, M, 1)."""
    return -k.square().sum(-1, keepdim=True) / 2


def _append(x: Tensor, feature: Tensor | float) -> Tensor:
    """``x`` (..., D) with one more feature (..., 1)."""
    return F.pad(x, (0, 1), value=feature) if isinstance(feature, float) else torch.cat((x, feature), -1)
