"""Differential attention: the difference of two softmax maps, which takes away what both have in common.

    out = (1 - lambda_init) RMSNorm((softmax(q1 k1^T / sqrt(d)) - lambda softmax(q2 k2^T / sqrt(d))) v)
    lambda = exp(lambda_q1.lambda_k1) - exp(lambda_q2.lambda_k2) + lambda_init
    lambda_init = 0.8 - 0.6 exp(-0.3 l)                                            in layer l = 0, 1, ...

T. Ye et al., Differential Transformer, ICLR 2025 (eq. 1 to 3).
"""

import math
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.functional.attention import softmax_attention
from attention_zoo.mixers.base import HostOptions, SelfMixer
from attention_zoo.mixers.registry import register


@register
class Differential(SelfMixer):
    """Two softmax maps of half a head's width each, the second subtracted. timm's ``DiffAttention`` weights load.

    Args:
        dim: token width.
        num_heads: heads; a head's width must be even.
        depth: index l of the layer, which sets where λ starts and the scale of the output; None takes that which
            the model tells, 0 outside of one.
        **host: see `SelfMixer`; ``qk_norm`` normalises halves of a head.
    """

    reading = "kernel smoothing, a difference of two"
    paper = "Ye et al. 2025"
    equation = "(softmax(Q₁ K₁ᵀ/√d) − λ softmax(Q₂ K₂ᵀ/√d)) V (1)"
    complexity = "N²"
    drops_attention = True
    lambda_q1: nn.Parameter
    lambda_k1: nn.Parameter
    lambda_q2: nn.Parameter
    lambda_k2: nn.Parameter

    def __init__(self, dim: int, num_heads: int = 8, *, depth: int | None = None, **host: Unpack[HostOptions]) -> None:
        super().__init__(dim, num_heads, **host)
        self.check(self.head_dim % 2 == 0, f"dim={dim} and num_heads={num_heads} give heads of odd width")
        half, made = self.head_dim // 2, self.made
        if host.get("qk_norm"):
            norm = host.get("norm_layer") or nn.LayerNorm
            self.q_norm, self.k_norm = norm(half, **made), norm(half, **made)
            for normalised in (self.q_norm, self.k_norm):
                normalised.register_forward_pre_hook(_into_halves)
                normalised.register_forward_hook(_into_heads)
        self.depth = depth
        self.set_layer(0)
        for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
            self.register_parameter(name, nn.Parameter(0.1 * torch.randn((half,), **made)))
        self.sub_norm = nn.RMSNorm(self.head_dim, eps=1e-5, **made)

    def set_layer(self, index: int) -> None:
        """Be the mixer of the layer ``index``, unless its ``depth`` was chosen."""
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * (index if self.depth is None else self.depth))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the mixed values (B, H, N, D) of queries q, keys k and values v, all (B, H, N, D)."""
        return self.mix_masked(q, k, v, None, False)

    def mix_masked(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Tensor:
        """Mix as `mix` does, where both maps read only where the mask allows."""
        dropout = self.attn_drop.p if self.training else 0.0
        half = self.head_dim // 2
        # the fused kernels want keys as wide as the values
        halves = zip(*(F.pad(x.unflatten(-1, (2, half)), (0, half)).unbind(-2) for x in (q, k)), strict=True)
        first, second = (
            softmax_attention(asking, keys, v, attn_mask, dropout, is_causal, scale=half**-0.5)
            for asking, keys in halves
        )
        mixed = first - self.weight_of_second(v) * second
        return self.sub_norm(mixed) * (1 - self.lambda_init)

    def weight_of_second(self, like: Tensor) -> Tensor:
        """Return λ, a scalar; the exponentials are in float32 whatever the type of the layer, as in timm."""
        first = (self.lambda_q1 * self.lambda_k1).sum().float().exp()
        second = (self.lambda_q2 * self.lambda_k2).sum().float().exp()
        return (first - second + self.lambda_init).to(like.dtype)

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the difference of the maps, times the gain of the output's norm; entries may be negative."""
        scale = (self.head_dim // 2) ** -0.5
        first, second = (
            (queries @ keys.mT * scale).softmax(-1)
            for queries, keys in zip(q.chunk(2, -1), k.chunk(2, -1), strict=True)
        )
        weights = first - self.weight_of_second(v) * second
        mixed = weights @ v
        square = mixed.square().mean(-1, keepdim=True) + self.sub_norm.eps
        gain = self.sub_norm.weight * (1 - mixed.square() / (self.head_dim * square)) * square.rsqrt()
        return weights * gain.mean(-1, keepdim=True) * (1 - self.lambda_init)


def _into_halves(norm: nn.Module, heads: tuple[Tensor]) -> tuple[Tensor]:
    return (heads[0].unflatten(-1, (2, -1)),)


def _into_heads(norm: nn.Module, heads: tuple[Tensor], halves: Tensor) -> Tensor:
    return halves.flatten(-2)
