"""Performer: dot-product attention with its kernel approximated by random features, linear in the tokens.

    exp(q_i.k_j / sqrt(d)) ~ phi(q_i).phi(k_j),    out_i = phi(q_i) (sum_j phi(k_j) v_j^T) / (phi(q_i).sum_j phi(k_j))

K. Choromanski et al., Rethinking Attention with Performers, ICLR 2021 (eq. 4, 5, 7).
"""

from typing import Literal, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from attention_zoo.functional.precision import precise
from attention_zoo.functional.random_features import kernel_factors, unit_kernel_factors
from attention_zoo.mixers.base import HostOptions, SelfMixer
from attention_zoo.mixers.options import Ratio
from attention_zoo.mixers.premise import Measures, approximation
from attention_zoo.mixers.random_directions import draw_directions
from attention_zoo.mixers.registry import register

_FACTORS = {"paper": kernel_factors, "released": unit_kernel_factors}


@register
class Performer(SelfMixer):
    """Kernel smoothing in linear time: ``D⁻¹ Φ(Q) (Φ(K)ᵀ V)`` with positive orthogonal random features.

    The directions are drawn once, when the layer is built, and saved with it. Features are computed in float32 also
    under autocast, since they are exponentials.

    Args:
        dim: token width.
        num_heads: heads.
        feature_ratio: random features per channel of a head.
        variant: "paper", or "released" as in the released code of VARS: queries and keys have unit length, and
            directions are independent. Its weights load.
        **host: see `SelfMixer`.
    """

    reading = "kernel smoothing, random features"
    paper = "Choromanski et al. 2021"
    equation = "D⁻¹ Φ(Q) (Φ(K)ᵀ V)"
    complexity = "N"
    premise = "Few random features tell who reads whom about as the kernel does that they stand for."
    rand_matrix: Tensor

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        feature_ratio: Ratio = 2.0,
        variant: Literal["paper", "released"] = "paper",
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        self.variant = variant
        drawn = draw_directions(self, feature_ratio, orthogonal=variant == "paper")
        self.register_buffer("rand_matrix", drawn)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the mixed values (B, H, N, D) of queries q, keys k and values v, all (B, H, N, D)."""
        with torch.autocast(q.device.type, enabled=False):
            phi_q, phi_k = self.factors(q, k)  # (B, H, N, M)
            context = phi_k.mT @ v.to(phi_k.dtype)  # (B, H, M, D)
            normaliser = phi_q @ phi_k.sum(-2)[..., None]  # (B, H, N, 1)
            return (phi_q @ context / normaliser).to(v.dtype)

    def factors(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Return Φ(Q) and Φ(K) (B, H, N, M), up to factors that cancel in the quotient."""
        directions = precise(self.rand_matrix)  # features are exponentials
        scale = self.head_dim**-0.25
        q, k = q.to(directions.dtype) * scale, k.to(directions.dtype) * scale
        return _FACTORS[self.variant](q, k, directions)

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the approximated softmax weights (B, H, N, N)."""
        phi_q, phi_k = self.factors(q, k)
        weights = phi_q @ phi_k.mT
        return weights / weights.sum(-1, keepdim=True)

    def premise_measures(self, q: Tensor, k: Tensor, v: Tensor) -> Measures:
        """Return how near the weights are to those of the kernel itself, for q and k (B, H, N, D)."""
        wide, keys, scale = precise(q), precise(k), self.head_dim**-0.5
        if self.variant == "released":
            wide, keys, scale = F.normalize(wide, dim=-1), F.normalize(keys, dim=-1), 1.0
        return approximation(self.map_weights(q, k, v), (wide @ keys.mT * scale).softmax(-1))
