"""Mixtures that outliers hardly move: heavy-tailed likelihoods of the values, and robust weights of the units.

Both are found by iteratively reweighted least squares, which for a heavy-tailed likelihood is EM: the weight of a
distance takes the place of the responsibilities' Gaussian exp(-beta/2 |v_i - mu_j|^2).

* Values: Z. Hou, W. Gao, Y. Shen, F. Wang, X. Liu, ProTransformer: Robustify Transformers via Plug-and-Play Paradigm,
  NeurIPS 2024.
* Units: X. Han, T. Ren, T. Nguyen, K. Nguyen, J. Ghosh, N. Ho, Designing Robust Transformers using Robust Kernel
  Density Estimation, NeurIPS 2023.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from attention_zoo.functional.attention import attend, bounded
from attention_zoo.functional.distances import pairwise_distances
from attention_zoo.functional.memory import score_bound
from attention_zoo.functional.mixture import Joint
from attention_zoo.functional.precision import widened


@dataclass(frozen=True)
class Penalty:
    """A penalty rho(d) of the distance d between a value and a mean value, by its weight w = rho'(d) / d.

    Attributes:
        kind: "l1" has the weight 1 / (d + eps), "mcp" max(1 / (d + eps) - 1 / gamma, eps), and "huber"
            min(1, delta / (d + eps)).
        eps: what keeps the weight finite.
        gamma: the distance from which "mcp" counts no more.
        delta: the distance from which "huber" grows like d and no longer like its square.
        through_distance: whether a gradient passes through the distances; in the released code none does.
    """

    kind: Literal["l1", "mcp", "huber"]
    eps: float
    gamma: float
    delta: float
    through_distance: bool = False

    def log_weights(self, values: Tensor, v: Tensor, rows: slice) -> Tensor:
        """Return log w_ij (B, H, rows, M) of rows of the values (B, H, N, E) and mean values v (B, H, M, E)."""
        values = values[:, :, rows]
        if not self.through_distance:
            values, v = values.detach(), v.detach()
        distances = pairwise_distances(values, v) + self.eps
        if self.kind == "mcp":
            return (1 / distances - 1 / self.gamma).clamp(min=self.eps).log()
        inverse = -distances.log()
        return inverse if self.kind == "l1" else (inverse + math.log(self.delta)).clamp(max=0)

    def cost(self, distances: Tensor) -> Tensor:
        """Return rho(d) of distances of any shape, the integral of w(d) d from 0."""
        if self.kind == "l1":
            return self._linear(distances)
        if self.kind == "huber":
            bend = max(0.0, self.delta - self.eps)
            near = distances.clamp(max=bend)
            further = self._linear(distances.clamp(min=bend)) - self._linear(near.new_tensor(bend))
            return near.square() / 2 + self.delta * further
        bend = max(0.0, 1 / (self.eps + 1 / self.gamma) - self.eps)
        near = distances.clamp(max=bend)
        floor = self.eps / 2 * (distances.square() - near.square())
        return self._linear(near) - near.square() / (2 * self.gamma) + floor

    def _linear(self, distances: Tensor) -> Tensor:
        """Return the integral of d / (d + eps) from 0."""
        return distances - self.eps * (distances / self.eps).log1p()


def infer_robust_values(model: Joint, v: Tensor, penalty: Penalty, steps: int, read: Tensor | None = None) -> Tensor:
    """Return the values z_i that make sum_j w_ij rho(|z_i - mu_j|) small, by reweighting the mean ``steps`` times.

        z_i <- sum_j w_ij r_ij mu_j / sum_j w_ij r_ij,    r_ij = rho'(d) / d at d = |z_i - mu_j|

    beginning with the mean. w are the responsibilities by the keys. No step makes the sum larger. Its N x M distances
    are worked off in blocks of rows.

    Args:
        model: the joint probability of queries and units by their keys.
        v: mean values (B, H, M, E).
        penalty: rho.
        steps: times that the mean is reweighted; 0 leaves the mean.
        read: what the last step reads under its weights in the place of v, (B, H, M, F).

    Returns:
        Values (B, H, N, E), or what was read (B, H, N, F).
    """
    reweighted: Callable[[slice], Tensor] | None = None
    for _ in range(steps):
        reweighted = partial(penalty.log_weights, model.read(v, reweighted=reweighted)[0], v)
    return model.read(v if read is None else read, reweighted=reweighted)[0]


@dataclass(frozen=True)
class RobustFit:
    """How the density of the units is fitted: weights pi_j that make sum_j rho(|phi(x_j) - sum_l pi_l phi(x_l)|) small.

    phi is the feature map of the Gaussian kernel exp(-alpha/2 |x - y|^2), so no distance is above sqrt(2).

    Attributes:
        loss: rho. "huber" has the weight min(1, a / d). "hampel" has the same up to b = 2 a, then falls to 0 at
            c = 3 a; its weights have a floor of 0.01.
        threshold: the distance a.
        steps: reweightings of the fit.
    """

    loss: Literal["huber", "hampel"]
    threshold: float
    steps: int

    def log_weights(self, x: Tensor, alpha: float) -> Tensor:
        """Return log pi_j (B, H, M) of units x (B, H, M, D); without a step they are all alike.

        Each step is one fused attention of the units among themselves.
        """
        kind = x.dtype
        x = x - x.mean(2, keepdim=True).detach()  # the kernel does not see it, and the squares are smaller
        (x,) = widened(score_bound(x, x, alpha), x)
        scaled, squares = bounded(x, x, alpha), alpha / 2 * x.square().sum(-1)
        log_weights = torch.zeros_like(squares).log_softmax(-1)
        for _ in range(self.steps):
            log_sum = attend(scaled, x, x[..., :1], alpha, key_bias=log_weights - squares)[1] - squares
            near = log_sum.clamp(max=0).exp()  # sum_l pi_l K(x_j, x_l)
            distances = 1 - 2 * near + (log_weights.exp() * near).sum(-1, keepdim=True)  # squared
            log_weights = self._log_weight(distances).log_softmax(-1)
        return log_weights.to(kind)

    def outliers(self, x: Tensor, alpha: float) -> Tensor:
        """Return which units x (B, H, M, D) lie beyond the threshold from their own density, (B, H, M)."""
        kernel = (-alpha / 2 * pairwise_distances(x, x).square()).exp()
        near = kernel.mean(-1)
        return 1 - 2 * near + near.mean(-1, keepdim=True) > self.threshold**2

    def _log_weight(self, squares: Tensor) -> Tensor:
        """Return log(psi(d) / d) for squared distances."""
        a = self.threshold
        far = squares > a * a
        distances = squares.masked_fill(~far, 1.0).sqrt()
        huber = (a / distances).masked_fill(~far, 1.0)
        if self.loss == "huber":
            return huber.log()
        falling = huber * ((3 * a - distances) / a).clamp(max=1)
        return torch.where(far, falling, huber).clamp(min=HAMPEL_FLOOR).log()


HAMPEL_FLOOR = 0.01
"""The least weight of a unit under Hampel's loss, which else would be 0."""


def infer_by_robust_units(model: Joint, v: Tensor, log_joint: Tensor, log_marginal: Tensor) -> Tensor:
    """Return sum_j pi_j K_ij mu_j / sum_j pi'_j K_ij, with weights of keys and values together, and of keys alone.

    Rows need not sum to one, since the two fits differ. Two fused attentions.

    Args:
        model: the joint probability of queries and units, all units alike.
        v: mean values (B, H, M, E).
        log_joint: log pi_j (B, H, M).
        log_marginal: log pi'_j (B, H, M).

    Returns:
        Values (B, H, N, E); 0 for a query that may read no unit.
    """
    out, above = model.with_bias(log_joint).read(v)
    below = model.with_bias(log_marginal).read(v[..., :1])[1]
    nothing = below.isneginf()
    return out * (above.masked_fill(nothing, 0.0) - below.masked_fill(nothing, 0.0)).exp()[..., None]
