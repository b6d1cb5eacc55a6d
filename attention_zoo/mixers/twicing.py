"""Twicing attention: the residual that smoothing took away is smoothed and added back.

    out = A v + A (v - A v) = (2 A - A^2) v,    A = softmax(q k^T / sqrt(d))

L. Abdullaev, T. Nguyen, Transformer Meets Twicing: Harnessing Unattended Residual Information, ICLR 2025 (eq. 13).
"""

from torch import Tensor

from attention_zoo.functional.attention import softmax_attention
from attention_zoo.functional.diagnostics import leave_one_out_error, without_self
from attention_zoo.mixers.base import SelfMixer
from attention_zoo.mixers.premise import Measure, Measures, kernel_smoothing
from attention_zoo.mixers.registry import register


@register
class Twicing(SelfMixer):
    """``(2A − A²) V`` in two fused passes: a kernel smoother of the residual of the first, of less bias.

    It has the parameters of dot-product attention and can take its place in a trained model.
    """

    reading = "kernel smoothing, twice"
    paper = "Abdullaev and Nguyen 2025"
    equation = "(2A − A²) V, A = softmax(Q Kᵀ/√d)"
    complexity = "N²"
    premise = "What smoothing leaves of the values can be smoothed too: twice foretells a token better than once."

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the mixed values (B, H, N, D) of queries q, keys k and values v, all (B, H, N, D)."""
        return self.mix_masked(q, k, v, None, False)

    def mix_masked(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Tensor:
        """Mix as `mix` does, with A under the mask."""
        smoothed = softmax_attention(q, k, v, attn_mask, is_causal=is_causal)
        residual = softmax_attention(q, k, v - smoothed, attn_mask, is_causal=is_causal)
        return smoothed + residual

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return 2A − A² (B, H, N, N); rows sum to one, entries may be negative."""
        weights = (q @ k.mT * self.head_dim**-0.5).softmax(-1)
        return 2 * weights - weights @ weights

    def premise_measures(self, q: Tensor, k: Tensor, v: Tensor) -> Measures:
        """Return how well tokens are foretold by those they read, smoothed twice and once, for q, k, v (B, H, N, D).

        Both smoothers leave the token itself out from the start.
        """
        once = without_self((q @ k.mT * self.head_dim**-0.5).softmax(-1))
        twice = 2 * once - once @ once
        error, error_once = leave_one_out_error(twice, v), leave_one_out_error(once, v)
        against_once = Measure(error, error_once, "lower")
        return {**kernel_smoothing(twice, v), "leave-one-out error, against smoothing once": against_once}
