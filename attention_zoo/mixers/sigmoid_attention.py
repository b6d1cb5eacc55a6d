"""Sigmoid attention: every pair of tokens is weighed on its own, without a normaliser over the keys.

    out_i = sum_j sigmoid(q_i.k_j / sqrt(d) + b) v_j,    b = -log N

J. Ramapuram et al., Theory, Analysis, and Best Practices for Sigmoid Self-Attention, ICLR 2025 (eq. 3).
"""

from typing import Annotated, Unpack

import torch
from torch import Tensor

from attention_zoo.domains import Domain
from attention_zoo.functional.precision import precise
from attention_zoo.mixers.base import HostOptions, SelfMixer, log_mask
from attention_zoo.mixers.premise import Measure, Measures, kernel_smoothing
from attention_zoo.mixers.registry import register

Bias = Annotated[float, Domain(least=-1e6, most=1e6)]
"""A number that is added to the score of every pair of tokens."""


@register
class SigmoidAttention(SelfMixer):
    """``σ(Q Kᵀ / √d + b) V``: what a token takes from one token does not depend on the others.

    Args:
        dim: token width.
        num_heads: heads.
        bias: b; None is -log N for N tokens, with which rows sum to about one where queries and keys are small.
        **host: see `SelfMixer`.
    """

    reading = "kernel smoothing, without a normaliser"
    paper = "Ramapuram et al. 2025"
    equation = "σ(Q Kᵀ/√d − log N) V"
    complexity = "N²"
    premise = "Rows of weights sum to about one by themselves, and foretell values better than the mean of all does."
    drops_attention = True

    def __init__(self, dim: int, num_heads: int = 8, *, bias: Bias | None = None, **host: Unpack[HostOptions]) -> None:
        super().__init__(dim, num_heads, **host)
        self.bias = bias

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the mixed values (B, H, N, D) of queries q, keys k and values v, all (B, H, N, D)."""
        return self.mix_masked(q, k, v, None, False)

    def mix_masked(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Tensor:
        """Mix as `mix` does, with weight 0 for pairs that the mask forbids; b stays that of all N tokens."""
        weights = self.weights(q, k, log_mask(q, k, attn_mask, is_causal))
        return self.attn_drop(weights).to(v.dtype) @ v

    def weights(self, q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the weights σ(Q Kᵀ/√d + b + mask), (B, H, N, N)."""
        scores = q @ k.mT * self.head_dim**-0.5
        if self.bias is None:
            scores = scores - torch.full((), k.shape[2], dtype=scores.dtype, device=k.device).log()
        else:
            scores = scores + self.bias
        return (scores if mask is None else scores + mask).sigmoid()

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the weights (B, H, N, N); rows need not sum to one."""
        return self.weights(q, k)

    def premise_measures(self, q: Tensor, k: Tensor, v: Tensor) -> Measures:
        """Return how far rows sum from one, mean over them, and how well they foretell tokens, for q, k and v."""
        weights = precise(self.weights(q, k))
        off = (weights.sum(-1) - 1).abs().mean(-1)
        return {"distance of row sums from one": Measure(off), **kernel_smoothing(weights, v)}
