"""ProTransformer: the value is a robust mean, found by reweighting those that are far from it.

    z = A v;    then z_i <- sum_j w_ij A_ij v_j / sum_j w_ij A_ij,    w_ij = rho'(d) / d at d = |z_i - v_j|

Z. Hou, W. Gao, Y. Shen, F. Wang, X. Liu, ProTransformer: Robustify Transformers via Plug-and-Play Paradigm, NeurIPS
2024.
"""

from typing import Literal, Unpack

import torch
from torch import Tensor

from attention_zoo.domains import PositiveFloat
from attention_zoo.functional.diagnostics import row_distance
from attention_zoo.functional.distances import pairwise_distances
from attention_zoo.functional.precision import precise
from attention_zoo.functional.robust import infer_robust_values
from attention_zoo.mixers.base import HostOptions
from attention_zoo.mixers.mixture import MixtureMixer
from attention_zoo.mixers.options import Iterations
from attention_zoo.mixers.premise import Measure, Measures
from attention_zoo.mixers.registry import register
from attention_zoo.mixers.switches import Epsilon, Switches, ValueLikelihood


@register
class Pro(MixtureMixer):
    """``argmin_z Σⱼ Aᵢⱼ ρ(|z − vⱼ|)`` by Newton-IRLS, A the softmax weights; no parameters, so it fits trained models.

    It is the mixture with a heavy-tailed likelihood of the values. No step, or Huber with a large δ, is `DotProduct`.

    Args:
        dim: token width.
        num_heads: heads.
        penalty: ρ: "l1" has w = 1 / (d + eps), "mcp" max(1 / (d + eps) - 1 / gamma, eps), "huber"
            min(1, delta / (d + eps)).
        steps: reweightings.
        eps: what keeps w finite.
        gamma: for "mcp", the distance from which values count no more.
        delta: for "huber", the distance from which the penalty is linear.
        distance_gradient: whether gradients pass through d; in the released code they do not, which is also what makes
            maps quick to draw.
        **host: see `SelfMixer`.
    """

    reading = "robust mean of the values"
    paper = "Hou et al. 2024"
    equation = "argmin_z Σⱼ Aᵢⱼ ρ(‖z − vⱼ‖), A = softmax(Q Kᵀ/√d)"
    complexity = "N²"
    premise = "Some of the values that a token reads are outliers, so that a robust mean lies apart from the mean."

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        penalty: Literal["l1", "mcp", "huber"] = "l1",
        steps: Iterations = 3,
        eps: Epsilon = 1e-2,
        gamma: PositiveFloat = 4.0,
        delta: PositiveFloat = 4.0,
        distance_gradient: bool = True,
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        likelihood = ValueLikelihood(penalty, steps, eps, gamma, delta, through_distance=distance_gradient)
        self.switch(Switches(likelihood=likelihood))

    def premise_measures(self, q: Tensor, k: Tensor, v: Tensor) -> Measures:
        """Return the penalty ``Σⱼ Aᵢⱼ ρ(|zᵢ − vⱼ|)`` of the mean and after each step, for q, k, v (B, H, N, D).

        Also the share of the weights that the steps move to other values. Both are means over the queries; without
        steps there is nothing to say.
        """
        steps, penalty = self.switches.likelihood.iterations, self._penalty()
        if not steps:
            return {}
        q, k, v = map(precise, (q, k, v))
        model = self._mixture(self._units(q, k, v, self._terms(q, None))).joint()
        scores, path = model.scores(slice(None)), []
        for step in range(steps + 1):
            values = infer_robust_values(model, v, penalty, step)
            distances = pairwise_distances(values, v)
            path.append((scores.softmax(-1) * penalty.cost(distances)).sum(-1).mean(-1))
        moved = (scores + penalty.log_weights(values, v, slice(None))).softmax(-1)
        return {
            "penalty of the values": Measure(torch.stack(path, -1), better="lower"),
            "share of a row that moves to other values": Measure(row_distance(moved, scores.softmax(-1))),
        }
