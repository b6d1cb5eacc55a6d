"""Probabilistic attention without parameters: attention as inference in a mixture of Gaussian memory units.

Unit j has a key xi_j and a mean value mu_j; a query and its value come from one unit,

    p(q, v | u_j) = N(q | xi_j, 1/alpha_j) N(v | mu_j, 1/beta_j)                                       (Eq. 7-9)
    pi_j ~ exp(alpha_j/2 |xi_j|^2 + beta_j/2 |mu_j|^2)         the magnitude prior, or all alike        (Eq. 10)

With the magnitude prior, one alpha and beta -> 0 the responsibilities are w_ij ~ exp(alpha q_i.xi_j) (Eq. 13), those
of dot-product attention. Expectation maximisation infers values, adapts keys and precisions to the queries, and
propagates values that a user has fixed.

Responsibilities' normalisers come from fused attention (`attention_zoo.functional.mixture`), so that no N x N tensor
is formed. Equations: P. Gabbur, M. Bilkhu, J. Movellan, Probabilistic Attention for Interactive Segmentation, NeurIPS
2021. Where its indices are at odds: the precision in Eq. 28 and 30 is that of the unit, d in Eq. 37 is the width of
the values, pi in Eq. 24 and 38 is that of the unit summed over.

Arguments that functions share, as `Terms` or by name (B batch, H heads, N queries, M units, D and E widths of keys and
values):

* q (B, H, N, D) queries, k (B, H, M, D) keys xi, v (B, H, M, E) mean values mu;
* alpha > 0, beta >= 0: precisions of queries and values about their unit, a float or one for each unit (B, H, M);
* q_pos (N, M, D), k_pos (M, N, D): relative position embeddings r^q, r^k (Eq. 25, 26), those of k_pos as seen from the
  key; or `FactoredPositions`, which cost nothing quadratic under the magnitude prior;
* log_prior: log pi_ij, broadcasting to (B, H, N, M), -inf where i may not read j (local context), or
  `FactoredPrior`, or several of them as `SplitPrior`;
* log_mixing: log pi_j (B, H, M), which is added to the others and is differentiable at no N x M cost;
* magnitude_prior: units are as probable as Eq. 10 says by their current keys and values; otherwise all alike.

Everything is differentiable in all tensors. Bad numbers and shapes raise an InputError that names the argument.
"""

import math
from dataclasses import replace
from numbers import Integral
from typing import Literal, Unpack

import torch
from torch import Tensor

from attention_zoo.errors import InputError
from attention_zoo.functional.attention import attend, attend_to_later, bounded, few, log_normalized, normalized
from attention_zoo.functional.checks import AT_LEAST_ONE, COUNTS, check_gamma, check_mixture, check_number, check_steps
from attention_zoo.functional.distances import pairwise_distances
from attention_zoo.functional.doubly_normalized import by_scores, in_products
from attention_zoo.functional.fixed_units import within
from attention_zoo.functional.memory import Mixture, Terms, score_bound
from attention_zoo.functional.memory import Prior as Prior
from attention_zoo.functional.mixture import Joint, Positions, Precision, collect, split
from attention_zoo.functional.positions import FactoredPositions
from attention_zoo.functional.precision import widened

Anchor = Literal["current", "initial"]


def infer_values(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    beta: Precision = 0.0,
    v_init: Tensor | None = None,
    v_pos: Positions | None = None,
    iterations: int = 1,
    **terms: Unpack[Terms],
) -> Tensor:
    """Return each query's likeliest value, sum_j w_ij beta_j mu_j / sum_j w_ij beta_j, by EM (Eq. 3-6, 12, 29-32).

    For beta -> 0 one step is exact. Above it the responsibilities depend on the current value ``v_init``, and each
    step makes the value likelier; without one only the prior's term beta/2 |mu_j|^2 stays of the values.

    Beside the shared arguments (see the module):
        v_init: current values v^t of the queries (B, H, N, E).
        v_pos: position embeddings of the values (N, M, E), added to the mean values as each query sees them.
        iterations: EM steps, at least one; the value of each is the current value of the next.

    Returns:
        Values (B, H, N, E).
    """
    check_number("iterations", iterations, AT_LEAST_ONE, Integral)
    mixture = Mixture(q=q, k=k, v=v, beta=beta, **terms).checked(v_init=v_init, v_pos=v_pos)
    out = _value_step(mixture, v, v_init, v_pos)
    for _ in range(iterations - 1):
        out = _value_step(mixture, v, out, v_pos)
    return out


def _value_step(mixture: Mixture, v: Tensor, v_init: Tensor | None, v_pos: Positions | None) -> Tensor:
    """Return the values (B, H, N, E) after one EM step of `infer_values`."""
    beta, model = mixture.beta, mixture.joint(v_init=v_init, v_pos=v_pos)
    if isinstance(beta, Tensor):
        model = model.with_bias(beta.log())  # values of precise units count for more (Eq. 29)
    if isinstance(v_pos, FactoredPositions) and model.fused:
        indicators = v_pos.indicators(v).expand(*v.shape[:2], -1, -1)
        out = model.read(torch.cat((v, indicators), -1))[0]
        return out[..., : v.shape[-1]] + v_pos.averages(out[..., v.shape[-1] :])
    return model.read(v, v_pos.full() if isinstance(v_pos, FactoredPositions) else v_pos)[0]


def log_likelihood(
    q: Tensor,
    k: Tensor,
    *,
    v: Tensor | None = None,
    values: Tensor | None = None,
    beta: Precision = 0.0,
    **terms: Unpack[Terms],
) -> Tensor:
    """Return log sum_j pi_ij p(q_i, v_i | u_j) (B, H, N), without the powers of 2 pi: what EM raises (Eq. 2, 3).

    The mixing weights pi_ij sum to one over the units. All N x M pairs are formed.

    Beside the shared arguments (see the module), of which positions are refused:
        v: mean values (B, H, M, E).
        values: values v_i of the queries (B, H, N, E); without them the likelihood is that of the queries alone.
    """
    mixture = Mixture(q=q, k=k, v=v, beta=beta, **terms).checked(v_init=values)
    _refuse_positions(mixture)
    alpha, prior = mixture.alpha, mixture.log_prior
    log_pi = k.new_zeros(k.shape[:3]) if mixture.log_mixing is None else mixture.log_mixing
    if mixture.magnitude_prior:
        log_pi = log_pi + alpha / 2 * k.square().sum(-1) + (0.0 if v is None else beta / 2 * v.square().sum(-1))
    scores = _log_gaussian(q, k, alpha)
    if v is not None and values is not None and (isinstance(beta, Tensor) or beta):
        scores = scores + _log_gaussian(values, v, beta)
    log_pi = log_pi[:, :, None]
    if prior is not None:
        log_pi = log_pi + (prior if isinstance(prior, Tensor) else split(prior).full(scores))
    return normalized(scores + log_normalized(log_pi))[1]


def adapt_queries(
    q: Tensor,
    k: Tensor,
    *,
    v: Tensor | None = None,
    beta: Precision = 0.0,
    iterations: int = 1,
    **terms: Unpack[Terms],
) -> Tensor:
    """Return queries adapted to the keys by EM: the mean shift of a Gaussian mixture, modern Hopfield's update.

        q_i <- sum_j w_ij alpha_j xi_j / sum_j w_ij alpha_j

    Each step raises the likelihood of the query, which for one alpha is minus alpha times Hopfield's energy: H.
    Ramsauer et al., Hopfield Networks is All You Need, ICLR 2021 (Eq. 2, 3).

    Beside the shared arguments (see the module), of which positions are refused:
        v: mean values (B, H, M, E), which enter by their magnitude prior only.
        iterations: EM steps; 0 returns the queries as they are.

    Returns:
        Queries (B, H, N, D). One that may read no unit stays.
    """
    check_number("iterations", iterations, COUNTS, Integral)
    mixture = Mixture(q=q, k=k, v=v, beta=beta, **terms).checked()
    _refuse_positions(mixture)
    for _ in range(iterations):
        model = mixture.joint()
        if isinstance(mixture.alpha, Tensor):
            model = model.with_bias(mixture.alpha.log())
        mean, log_sum = model.read(k)
        mixture = replace(mixture, q=torch.where(log_sum[..., None].isneginf(), mixture.q, mean))
    return mixture.q


def adapt_keys(
    q: Tensor,
    k: Tensor,
    *,
    v: Tensor | None = None,
    beta: Precision = 0.0,
    prior_precision: Precision = 0.0,
    iterations: int = 1,
    anchor: Anchor = "current",
    observed: Tensor | None = None,
    fit_positions: bool = False,
    **terms: Unpack[Terms],
) -> Tensor:
    """Return keys adapted to the queries by EM under a Gaussian prior of precision theta (Eq. 18).

        xi_k <- (theta xi_k + alpha_k S_k m_k) / (theta + alpha_k S_k),    S_k = sum_i w_ik,  m_k = sum_i w_ik q_i / S_k

    m_k is a softmax over the queries, so an iteration is two fused attentions, with queries and keys in each other's
    place in the second. Eq. 18 is the maximum of log N(q | xi_k, 1/alpha) alone. With ``fit_positions`` it is that of
    the density that Eq. 25 ends in, N(q | (xi_k + r^q_ik)/2, 1/(2 alpha)), whose normaliser the key moves too:

        xi_k <- (theta xi_k + alpha_k/2 S_k m_k) / (theta + alpha_k/2 S_k),    m_k = sum_i w_ik (2 q_i - r^q_ik) / S_k

    Beside the shared arguments (see the module):
        v: mean values (B, H, M, E), which enter by their magnitude prior only.
        prior_precision: theta >= 0, how firmly a key stays; 0 is the maximum-likelihood update.
        iterations: EM steps; 0 returns the keys as they are.
        anchor: what theta pulls to: the key of the step before (as Eq. 18 prints) or the one given (section 3.5).
        observed: the queries (B, H, N, D) as the space of the keys has them, whose means are written (see
            `attention_zoo.functional.gauge`); None is the queries themselves. Responsibilities are those of ``q``.
        fit_positions: whether keys are fitted together with ``q_pos``, where there is one.

    Returns:
        Keys (B, H, M, D). A key that no query may read stays.
    """
    mixture = Mixture(q=q, k=k, v=v, beta=beta, **terms).checked()
    check_steps(prior_precision, iterations, anchor, k.shape[:3])
    if iterations == 0:
        return k
    mixture = mixture.widened()
    initial, alpha = mixture.k, mixture.alpha
    written = mixture.q if observed is None else observed.to(mixture.q.dtype)
    q_pos = mixture.q_pos if fit_positions else None
    for _ in range(iterations):
        model, current = mixture.joint(), mixture.k
        mean, log_mass = _means_to_write(model, written, q_pos, model.read(current)[1])
        held = current if anchor == "current" else initial
        precision = alpha if q_pos is None else alpha / 2
        mixture = replace(mixture, k=_pulled(held, current, mean, log_mass, precision, prior_precision))
    return mixture.k.to(k.dtype)


def _means_to_write(model: Joint, q: Tensor, q_pos: Positions | None, log_normaliser: Tensor) -> tuple[Tensor, Tensor]:
    """Return each unit's mean (B, H, M, D) of the queries, or of 2 q - r^q, and the log of its responsibility."""
    if q_pos is None:
        return model.read_back(q, log_normaliser)
    if isinstance(q_pos, FactoredPositions) and model.fused:
        rows = q_pos.indicators(q).expand(*q.shape[:2], -1, -1)
        mean, log_mass = model.read_back(torch.cat((q, rows), -1), log_normaliser)
        width = q.shape[-1]
        return 2 * mean[..., :width] - q_pos.reversed().averages(mean[..., width:]), log_mass
    table = q_pos.full() if isinstance(q_pos, FactoredPositions) else q_pos
    return model.read_back(2 * q, log_normaliser, -table.transpose(0, 1))


def adapt_precisions(q: Tensor, k: Tensor, *, shape: float, rate: float, **terms: Unpack[Terms]) -> Tensor:
    """Return precisions of the units adapted to the queries by one EM step under a Gamma prior (Eq. 36).

        alpha_k <- (shape + d/2 S_k - 1) / (rate + 1/2 sum_i w_ik |q_i - xi_k|^2)

    Beside the shared arguments (see the module):
        shape: theta_{alpha,1} >= 1 of the prior.
        rate: theta_{alpha,2} > 0 of the prior.

    Returns:
        The precisions alpha (B, H, M).
    """
    mixture = Mixture(q=q, k=k, v=None, beta=0.0, **terms).checked()
    check_gamma(shape, rate)
    kind, mixture = k.dtype, mixture.widened()
    q, k, model = mixture.q, mixture.k, mixture.joint()
    mean, log_mass = model.read_back(torch.cat((q, q.square().sum(-1, keepdim=True)), -1), model.read(k)[1])
    mass = log_mass.exp()
    spread = mean[..., -1] - 2 * (mean[..., :-1] * k).sum(-1) + k.square().sum(-1)  # mean of |q_i - xi_k|^2
    adapted = (shape - 1 + q.shape[-1] / 2 * mass) / (rate + mass * spread.clamp(min=0) / 2)
    return adapted.to(kind).clamp(min=torch.finfo(kind).tiny)  # else 0 for an unread unit under a prior of shape 1


def propagate_values(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    fixed_index: Tensor,
    fixed_values: Tensor,
    *,
    beta: Precision,
    prior_precision: Precision,
    iterations: int = 1,
    anchor: Anchor = "current",
    condition_on_values: bool = True,
    fixed_mask: Tensor | None = None,
    **terms: Unpack[Terms],
) -> Tensor:
    """Return the mean values after the fixed ones of some units have spread, by EM (Eq. 23, 24).

        mu_k <- (theta mu_k + beta_k sum_i w_ik v_i) / (theta + beta_k sum_i w_ik),    i over the fixed units

    Only the rows of the fixed units enter, S x M responsibilities. Read the result with `infer_values`.

    Beside the shared arguments (see the module):
        fixed_index: units that are fixed, (S,) for all samples or (B, S). Of one unit named twice the last counts.
        fixed_values: their values (B, H, S, E).
        prior_precision: theta >= 0, how firmly a mean stays.
        iterations: EM steps.
        anchor: what theta pulls to: the mean of the step before (as Eq. 23 prints) or the one given.
        condition_on_values: whether p(v_i | u_k) is part of the responsibilities (Eq. 24); the released layer
            leaves it out.
        fixed_mask: (B, S), false where an entry does not count, for samples with fewer fixed units.

    Returns:
        Means (B, H, M, E); those given where nothing is fixed.
    """
    check_steps(prior_precision, iterations, anchor, k.shape[:3])
    mixture = Mixture(q=q, k=k, v=v, beta=beta, **terms).checked()
    units = mixture.fixed(fixed_index, fixed_values, fixed_mask)
    initial = v
    for _ in range(iterations if fixed_values.shape[2] else 0):
        log_weights = units.log_weights(v, beta, condition_on_values)  # (B, H, S, M)
        mean, log_mass = collect(log_weights.masked_fill(~units.counted, -torch.inf).mT, units.values)
        v = _pulled(v if anchor == "current" else initial, v, mean, log_mass, beta, prior_precision)
    return v


def adapt_value_precisions(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    fixed_index: Tensor,
    fixed_values: Tensor,
    *,
    beta: Precision,
    shape: float,
    rate: float,
    fixed_mask: Tensor | None = None,
    **terms: Unpack[Terms],
) -> Tensor:
    """Return precisions of the values by one EM step on the fixed ones, under a Gamma prior (Eq. 37).

        beta_k <- (shape + m/2 sum_i w_ik - 1) / (rate + 1/2 sum_i w_ik |v_i - mu_k|^2),    i over the fixed units

    Beside the shared arguments (see the module):
        shape: theta_{beta,1} >= 1 of the prior.
        rate: theta_{beta,2} > 0 of the prior.

    Returns:
        The precisions beta (B, H, M); the prior's mode (shape - 1) / rate where nothing is fixed.
    """
    check_gamma(shape, rate)
    mixture = Mixture(q=q, k=k, v=v, beta=beta, **terms).checked()
    units = mixture.fixed(fixed_index, fixed_values, fixed_mask)
    weights = units.log_weights(v, beta, True).exp() * units.counted  # (B, H, S, M)
    fixed = units.values
    distances = fixed.square().sum(-1, keepdim=True) - 2 * fixed @ v.mT + v.square().sum(-1)[:, :, None]
    spread = (weights * distances.clamp(min=0)).sum(2)
    adapted = (shape - 1 + v.shape[-1] / 2 * weights.sum(2)) / (rate + spread / 2)
    return adapted.clamp(min=torch.finfo(v.dtype).tiny)


def adapt_mixing_weights(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    fixed_index: Tensor,
    fixed_values: Tensor,
    *,
    beta: Precision,
    concentration: float = 1.0,
    **terms: Unpack[Terms],
) -> Tensor:
    """Return log pi_ik of the fixed units i by one EM step under a symmetric Dirichlet prior (Eq. 38).

        pi_ik <- (w_ik + concentration - 1) / sum_j (w_ij + concentration - 1)

    Beside the shared arguments (see the module):
        concentration: theta_pi >= 1 of the prior; 1 makes the weights the responsibilities.

    Returns:
        The logarithm log pi (B, H, S, M), the ``log_prior`` of these units' queries; -inf where the prior was.
    """
    check_number("concentration", concentration, AT_LEAST_ONE)
    mixture = Mixture(q=q, k=k, v=v, beta=beta, **terms).checked()
    units = mixture.fixed(fixed_index, fixed_values)
    log_weights = units.log_weights(v, beta, True)
    if concentration == 1:
        return log_weights
    weights = log_weights.exp() + (concentration - 1)
    return log_normalized(weights.log().masked_fill(log_weights.isneginf(), -torch.inf))


def infer_fixed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    fixed_index: Tensor,
    log_mixing: Tensor,
    *,
    alpha: Precision,
    beta: Precision = 0.0,
    q_pos: Positions | None = None,
    k_pos: Positions | None = None,
) -> Tensor:
    """Return values (B, H, S, E) of the fixed units' queries under their own mixing weights log pi_ik (B, H, S, M)."""
    terms: Terms = {"alpha": alpha, "q_pos": q_pos, "k_pos": k_pos, "magnitude_prior": False}
    Mixture(q=q, k=k, v=v, beta=beta, **terms).checked()
    scores = Mixture(q=q, k=k, **terms).joint().scores(within(q, fixed_index, None)[0]) + log_mixing
    if isinstance(beta, Tensor):
        scores = scores + beta.log()[:, :, None]
    return normalized(scores)[0] @ v


def doubly_normalize(
    q: Tensor, k: Tensor, v: Tensor, *, alpha: float, mask: Tensor | None = None, is_causal: bool = False
) -> Tensor:
    """Return attention (B, H, N, E) whose scores are normalised over the queries, then over the keys.

        out_i = sum_j w_ij v_j / sum_j w_ij,    w_ij = exp(alpha q_i.k_j) / sum_l exp(alpha q_l.k_j)

    so that no key is explained away; ``mask``, broadcasting to (B, H, N, M), and ``is_causal`` say who may read whom.
    N. Ding, X. Fan, Z. Lan, D. Schuurmans, R. Soricut, Attention That Does Not Explain Away, 2020. It is the
    maximum-likelihood `adapt_keys` with queries and keys in each other's place.
    """
    check_mixture(q, k, alpha=alpha, v=v)
    kind = v.dtype
    with torch.autocast(q.device.type, enabled=False):
        q, k, v, mask = widened(score_bound(q, k, alpha), q, k, v, mask)
        q = bounded(q, k, alpha)
        free = mask is None and not is_causal
        if free and few(q, k):
            return by_scores(q, k, v, alpha).to(kind)
        if free and (out := in_products(q, k, v, alpha)) is not None:
            return out.to(kind)
        back = attend_to_later if is_causal else attend
        _, log_normaliser = back(k, q, q, alpha, mask=None if mask is None else mask.mT)
        log_normaliser = log_normaliser.masked_fill(log_normaliser.isneginf(), 0.0)  # for a key that no query may read
        return attend(q, k, v, alpha, key_bias=-log_normaliser, mask=mask, is_causal=is_causal)[0].to(kind)


def _refuse_positions(mixture: Mixture) -> None:
    if mixture.q_pos is not None or mixture.k_pos is not None:
        raise InputError("q_pos, k_pos: this function has no relative positions; give None")


def _log_gaussian(x: Tensor, centres: Tensor, precision: Precision) -> Tensor:
    """Return log N(x_i | centre_j, 1/precision_j) (B, H, N, M) of x (B, H, N, D), without the power of 2 pi."""
    squares = pairwise_distances(x, centres).square()
    if isinstance(precision, Tensor):
        precision = precision[:, :, None]
    return x.shape[-1] / 2 * _log_of(precision) - precision / 2 * squares


def _pulled(
    held: Tensor, current: Tensor, mean: Tensor, log_mass: Tensor, precision: Precision, prior_precision: Precision
) -> Tensor:
    """Return (theta held + precision S mean) / (theta + precision S) (B, H, M, ·); what nothing pulls stays."""
    if not isinstance(prior_precision, Tensor) and prior_precision == 0:
        return torch.where(log_mass[..., None].isneginf(), current, mean)
    odds = log_mass - _log_of(prior_precision) + _log_of(precision)
    return held + odds.sigmoid()[..., None] * (mean - held)  # overflows for no precision and no mass


def _log_of(precision: Precision) -> Tensor | float:
    """Return the logarithm of a precision, finite for a tensor and -inf for the number 0."""
    if isinstance(precision, Tensor):
        return precision.clamp(min=torch.finfo(precision.dtype).tiny).log()
    return math.log(precision) if precision else -math.inf
