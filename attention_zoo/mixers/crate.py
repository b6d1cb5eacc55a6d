"""CRATE's multi-head subspace self-attention: tokens are compressed towards the subspaces that the heads stand for.

    out_h = softmax(w w^T / sqrt(d)) w,    w = U_h^T x

Y. Yu, S. Buchanan, D. Pai, T. Chu, Z. Wu, S. Tong, B. Haeffele, Y. Ma, White-Box Transformers via Sparse Rate
Reduction, NeurIPS 2023 (eq. 13, 14).
"""

from torch import Tensor

from attention_zoo.functional.attention import softmax_attention
from attention_zoo.mixers.base import SelfMixer
from attention_zoo.mixers.premise import Measures, coding
from attention_zoo.mixers.registry import register


@register
class CRATE(SelfMixer):
    """``softmax(W Wᵀ / √d) W``: dot-product attention whose queries, keys and values are one projection.

    It is a step down the coding rate of the tokens within the subspaces of the heads. The sparse-coding step that
    follows it in the paper's block is no mixer: ``model_args: {feed_forward: ista}`` builds a model with it.
    """

    reading = "compression towards subspaces"
    paper = "Yu et al. 2023"
    equation = "softmax(W Wᵀ/√d) W, W = Uᵀ X (14)"
    complexity = "N²"
    projections = ("q",)
    premise = "A step towards what it reads brings the tokens nearer to the subspaces of the heads."

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the mixed projections v (B, H, N, D), which differ from q where a top-down signal enters them."""
        return softmax_attention(q, q, v)

    def mix_masked(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Tensor:
        """Mix as `mix` does, reading only where the mask allows."""
        return softmax_attention(q, q, v, attn_mask, is_causal=is_causal)

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the softmax weights (B, H, N, N)."""
        return (q @ q.mT * self.head_dim**-0.5).softmax(-1)

    def premise_measures(self, q: Tensor, k: Tensor, v: Tensor) -> Measures:
        """Return the coding rate of the projections q (B, H, N, D) before and after half a step to what they read."""
        return coding(q, (q + self.mix(q, q, q)) / 2)
