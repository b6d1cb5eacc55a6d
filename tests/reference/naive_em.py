"""Naive twin of `attention_zoo.functional.em`: the paper's densities on N x M tensors, float64, no shared helpers."""

import math

import torch


def per_pair(precision):
    """A float or (B, H, M) against (B, H, N, M)."""
    if isinstance(precision, torch.Tensor):
        return precision[:, :, None, :]
    return torch.tensor(precision, dtype=torch.float64)


def gaussian(squared, precision, width):
    return width / 2 * torch.log(precision / (2 * math.pi)) - precision / 2 * squared


def squared_distances(x, y):
    return (x[..., :, None, :] - y[..., None, :, :]).pow(2).sum(-1)


def log_joint(
    q,
    k,
    alpha,
    magnitude_prior=True,
    beta=0.0,
    v=None,
    v_init=None,
    q_pos=None,
    k_pos=None,
    v_pos=None,
    log_prior=None,
):
    """log pi_ij p(q_i | u_j) p(v_i | u_j), Eq. 8-10, 25, 26, with Eq. 9 where v_init is given."""
    alpha, beta = per_pair(alpha), per_pair(beta)
    total = gaussian(squared_distances(q, k), alpha, q.shape[-1])
    key_lengths = k.pow(2).sum(-1)[:, :, None, :]
    prior = alpha / 2 * key_lengths
    if q_pos is not None:
        total = total - alpha / 2 * (q[:, :, :, None] - q_pos).pow(2).sum(-1)
        prior = prior + alpha / 2 * q_pos.pow(2).sum(-1)
    if k_pos is not None:
        seen = k_pos.transpose(0, 1)  # (N, M, D)
        total = total - alpha / 2 * (k[:, :, None] - seen).pow(2).sum(-1)
        prior = prior + alpha / 2 * (key_lengths + seen.pow(2).sum(-1))
    if v is not None and (beta > 0).all():
        means = v[:, :, None] + (0 if v_pos is None else v_pos)  # (B, H, N or 1, M, E)
        if v_init is not None:
            total = total + gaussian((v_init[:, :, :, None] - means).pow(2).sum(-1), beta, v.shape[-1])
        prior = prior + beta / 2 * means.pow(2).sum(-1)
    if magnitude_prior:
        total = total + prior
    return total if log_prior is None else total + log_prior


def normalised(log_weights):
    weights = torch.exp(log_weights - log_weights.amax(-1, keepdim=True))
    return weights / weights.sum(-1, keepdim=True)


def infer_values(q, k, v, *, alpha, beta=0.0, v_pos=None, **rest):
    weights = normalised(log_joint(q, k, alpha, beta=beta, v=v, v_pos=v_pos, **rest))
    if isinstance(beta, torch.Tensor):
        weights = weights * beta[:, :, None, :]
        weights = weights / weights.sum(-1, keepdim=True)
    means = v[:, :, None] + (0 if v_pos is None else v_pos)
    return (weights[..., None] * means).sum(3)


def adapt_keys(q, k, *, alpha, prior_precision=0.0, iterations=1, anchor="current", **rest):
    """Eq. 18, unit by unit."""
    initial, precision = k, per_pair(alpha)
    for _ in range(iterations):
        w = normalised(log_joint(q, k, alpha, **rest))
        held = k if anchor == "current" else initial
        units = []
        for unit in range(k.shape[2]):
            a = precision[..., unit] if precision.dim() else precision
            weight = w[..., unit, None]  # (B, H, N, 1)
            numerator = prior_precision * held[:, :, unit] + a * (weight * q).sum(2)
            units.append(numerator / (prior_precision + a * weight.sum(2)))
        k = torch.stack(units, 2)
    return k


def adapt_precisions(q, k, *, alpha, shape, rate, **rest):
    """Eq. 36."""
    w = normalised(log_joint(q, k, alpha, **rest))
    spread = (w * squared_distances(q, k)).sum(2)
    return (shape + q.shape[-1] / 2 * w.sum(2) - 1) / (rate + spread / 2)


def clicked(q, v, index, values, mask):
    """Values fixed for all units (B, H, N, E) and which are (B, N); of one unit named twice the last counts."""
    fixed, is_fixed = torch.zeros(*q.shape[:3], v.shape[3]).double(), torch.zeros(q.shape[0], q.shape[2]).double()
    for sample in range(q.shape[0]):
        for entry in range(index.shape[-1]):
            unit = index[entry] if index.dim() == 1 else index[sample, entry]
            if mask is None or mask[sample, entry]:
                fixed[sample, :, unit] = values[sample, :, entry]
                is_fixed[sample, unit] = 1
    return fixed, is_fixed[:, None, :, None]


def click_weights(q, k, v, fixed, is_fixed, alpha, beta, condition_on_values, **rest):
    v_init = fixed if condition_on_values else None
    return is_fixed * normalised(log_joint(q, k, alpha, beta=beta, v=v, v_init=v_init, **rest))


def propagate_values(
    q,
    k,
    v,
    index,
    values,
    *,
    alpha,
    beta,
    prior_precision,
    iterations=1,
    anchor="current",
    condition_on_values=True,
    fixed_mask=None,
    **rest,
):
    """Eq. 23, 24 with the N x M responsibilities, as the released layer has them."""
    fixed, is_fixed = clicked(q, v, index, values, fixed_mask)
    initial = v
    b = beta[..., None] if isinstance(beta, torch.Tensor) else beta
    for _ in range(iterations):
        w = click_weights(q, k, v, fixed, is_fixed, alpha, beta, condition_on_values, **rest)
        held = v if anchor == "current" else initial
        numerator = prior_precision * held + b * w.mT @ fixed
        v = numerator / (prior_precision + b * w.sum(2)[..., None])
    return v


def adapt_value_precisions(q, k, v, index, values, *, alpha, beta, shape, rate, fixed_mask=None, **rest):
    """Eq. 37, with the width of the values."""
    fixed, is_fixed = clicked(q, v, index, values, fixed_mask)
    w = click_weights(q, k, v, fixed, is_fixed, alpha, beta, True, **rest)
    spread = (w * squared_distances(fixed, v)).sum(2)
    return (shape + v.shape[-1] / 2 * w.sum(2) - 1) / (rate + spread / 2)


def adapt_mixing_weights(q, k, v, index, values, *, alpha, beta, concentration=1.0, **rest):
    """Eq. 38."""
    fixed, is_fixed = clicked(q, v, index, values, None)
    w = click_weights(q, k, v, fixed, is_fixed, alpha, beta, True, **rest)[:, :, index]
    w = w + concentration - 1
    return (w / w.sum(-1, keepdim=True)).log()


def propagation_likelihood(q, k, v, index, values, *, alpha, beta):
    """log p(q_i, v_i) summed over the fixed units, units equally probable: what propagation makes rise."""
    fixed, is_fixed = clicked(q, v, index, values, None)
    joint = log_joint(q, k, alpha, False, beta=beta, v=v, v_init=fixed)
    return (is_fixed[..., 0] * joint.logsumexp(-1)).sum()
