"""Dot-product attention: the reading that all others are measured against.

    out_i = sum_j softmax_j(q_i.k_j / sqrt(d)) v_j

A. Vaswani et al., Attention Is All You Need, NeurIPS 2017 (eq. 1).
"""

import torch
from torch import Tensor

from attention_zoo.functional.attention import softmax_attention
from attention_zoo.functional.mixture import Joint
from attention_zoo.mixers.base import SelfMixer
from attention_zoo.mixers.premise import Measures, kernel_smoothing
from attention_zoo.mixers.registry import register


@register
class DotProduct(SelfMixer):
    """Kernel smoothing of the values: ``softmax(Q Kᵀ / √d) V`` by torch's fused attention."""

    reading = "kernel smoothing"
    paper = "Vaswani et al. 2017"
    equation = "softmax(Q Kᵀ/√d) V"
    complexity = "N²"
    drops_attention = True
    premise = "The values of the tokens that a token reads foretell its own better than the mean of all does."

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the mixed values (B, H, N, D) of queries q, keys k and values v, all (B, H, N, D)."""
        return self.mix_masked(q, k, v, None, False)

    def mix_masked(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Tensor:
        """Mix as `mix` does, reading only where the mask allows; a token that may read no token takes nothing."""
        return softmax_attention(q, k, v, attn_mask, self.attn_drop.p if self.training else 0.0, is_causal)

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the softmax weights (B, H, N, N)."""
        return (q @ k.mT * self.head_dim**-0.5).softmax(-1)

    def masked_map_weights(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor) -> Tensor:
        """Return the softmax weights (B, H, N, N) under a mask; a token that may read no token has zeros."""
        scores = q @ k.mT * self.head_dim**-0.5
        masked = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        return masked.softmax(-1).nan_to_num(0.0)

    def joint_probability(self, q: Tensor, k: Tensor, v: Tensor) -> Joint:
        """Return the scores whose softmax over the keys is `map_weights`, for q, k and v (B, H, N, D)."""
        return Joint(q, k, self.head_dim**-0.5)

    def premise_measures(self, q: Tensor, k: Tensor, v: Tensor) -> Measures:
        """Return how well tokens are foretold by those they read, for q, k and v (B, H, N, D)."""
        return kernel_smoothing(self.map_weights(q, k, v), v)
