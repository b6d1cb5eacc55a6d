"""Token statistics self-attention: tokens meet in second moments alone, never in pairs.

    Pi = softmax_h(tau_h sum_d (w / |w|_N)^2),    m = sum_n Pi_n w_n^2 / sum_n Pi_n,    out = -Pi w / (1 + m)

Z. Wu, T. Ding, Y. Lu, D. Pai, J. Zhang, W. Wang, Y. Yu, Y. Ma, B. Haeffele, Token Statistics Transformer: Linear-Time
Attention via Variational Rate Reduction, ICLR 2025 (eq. 12, 15).
"""

from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.mixers.base import HostOptions, SelfMixer
from attention_zoo.mixers.premise import Measures, coding
from attention_zoo.mixers.registry import register

EPSILON = 1e-8
"""A constant that keeps a head's weights finite where no token belongs to it, as in the released code."""


@register
class ToST(SelfMixer):
    """``−Π ∘ W / (1 + m)``: each channel shrinks by how much the tokens of its head use it; linear in the tokens.

    Other tokens enter through m alone: with that held, as `attention_map` has it, a token takes from itself alone.

    Args:
        dim: token width.
        num_heads: heads, the subspaces that tokens belong to; with one head all belong to it.
        **host: see `SelfMixer`.
    """

    reading = "compression by token statistics"
    paper = "Wu et al. 2025"
    equation = "−Π ∘ W / (1 + Σ Π W²/Σ Π)"
    complexity = "N"
    projections = ("q",)
    premise = "The step brings the tokens nearer to the subspaces of the heads."

    def __init__(self, dim: int, num_heads: int = 8, **host: Unpack[HostOptions]) -> None:
        super().__init__(dim, num_heads, **host)
        self.temp = nn.Parameter(torch.ones(num_heads, 1, **self.made))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the values v (B, H, N, D) times their gain, where projections q (B, H, N, D) give the statistics."""
        return v * self.gain(q).to(v.dtype)

    def gain(self, w: Tensor) -> Tensor:
        """Return -Π / (1 + m) of projections w (B, H, N, D): the factor of each channel of each token."""
        belongs = (F.normalize(w, dim=2).square().sum(-1) * self.temp).softmax(1)  # (B, H, N)
        share = belongs / (belongs.sum(-1, keepdim=True) + EPSILON)
        moment = share[..., None, :] @ w.square()  # (B, H, 1, D)
        return -belongs[..., None] / (1 + moment)

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return a diagonal map (B, H, N, N) of the mean gain of each token's channels, which is negative."""
        return torch.diag_embed(self.gain(q).mean(-1))

    def premise_measures(self, q: Tensor, k: Tensor, v: Tensor) -> Measures:
        """Return the coding rate of the projections q (B, H, N, D) before the step and after it."""
        return coding(q, q + self.mix(q, q, q))
