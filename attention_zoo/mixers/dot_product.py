"""Dot-product attention: the reading that all others are measured against.

    out_i = sum_j softmax_j(q_i.k_j / sqrt(d)) v_j

A. Vaswani et al., Attention Is All You Need, NeurIPS 2017 (eq. 1).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from attention_zoo.functional.attention import bounded, opened
from attention_zoo.interface import SelfMixer, log_mask
from attention_zoo.registry import register


@register
class DotProduct(SelfMixer):
    """Kernel smoothing of the values: ``softmax(Q Kᵀ / √d) V`` by torch's fused attention."""

    reading = "kernel smoothing"
    paper = "Vaswani et al. 2017"
    equation = "softmax(Q Kᵀ/√d) V"
    complexity = "N²"
    drops_attention = True

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v (B, H, N, D) -> (B, H, N, D)."""
        q = bounded(q, k, self.head_dim**-0.5)
        return F.scaled_dot_product_attention(q, k, v, dropout_p=self.attn_drop.p if self.training else 0.0)

    def mix_masked(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Tensor:
        """As `mix`, reading only where the mask allows; a token that may read nobody takes nothing."""
        q = bounded(q, k, self.head_dim**-0.5)
        dropout = self.attn_drop.p if self.training else 0.0
        if attn_mask is None:
            return F.scaled_dot_product_attention(q, k, v, None, dropout, is_causal)
        mask, nothing = opened(log_mask(q, k, attn_mask, True) if is_causal else attn_mask)
        mask = mask if mask.dtype == torch.bool else mask.to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, mask, dropout).masked_fill(nothing, 0.0)

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The softmax weights."""
        return (q @ k.mT * self.head_dim**-0.5).softmax(-1)
