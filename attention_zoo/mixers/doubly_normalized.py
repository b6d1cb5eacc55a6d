"""Doubly normalised attention: no token is explained away.

    w_ij = exp(q_i.k_j / sqrt(d)) / sum_l exp(q_l.k_j / sqrt(d)),    out_i = sum_j w_ij v_j / sum_j w_ij

N. Ding, X. Fan, Z. Lan, D. Schuurmans, R. Soricut, Attention That Does Not Explain Away, 2020.
"""

from torch import Tensor

from attention_zoo.functional.attention import bounded
from attention_zoo.functional.em import doubly_normalize
from attention_zoo.functional.precision import precise
from attention_zoo.mixers.base import SelfMixer, log_mask
from attention_zoo.mixers.premise import Measures, kernel_smoothing
from attention_zoo.mixers.registry import register


@register
class DoublyNormalized(SelfMixer):
    """Softmax over the queries, so that every token is read by some token, then normalised over the keys.

    It is the maximum-likelihood key adaptation of `Probabilistic` with queries and keys in each other's place, and
    costs two fused passes; less in training on a CPU, see `functional.doubly_normalized`.

    Arguments: see `SelfMixer`.
    """

    reading = "kernel smoothing, doubly normalised"
    paper = "Ding et al. 2020"
    equation = "normⱼ(softmaxᵢ(Q Kᵀ/√d)) V"
    complexity = "N²"
    premise = "The values of the tokens that a token reads foretell its own better than the mean of all does."

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the mixed values (B, H, N, D) of queries q, keys k and values v, all (B, H, N, D)."""
        return doubly_normalize(q, k, v, alpha=self.head_dim**-0.5)

    def mix_masked(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Tensor:
        """Mix as `mix` does, with both normalisations over those pairs that the mask allows."""
        mask = log_mask(q, k, attn_mask, is_causal=False)
        return doubly_normalize(q, k, v, alpha=self.head_dim**-0.5, mask=mask, is_causal=is_causal)

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the weights (B, H, N, N), normalised over the queries, then over the keys."""
        q, k = precise(q), precise(k)
        scores = bounded(q, k, self.head_dim**-0.5) @ k.mT * self.head_dim**-0.5
        return scores.log_softmax(-2).softmax(-1)  # a token may read no other's share that float32 holds

    def premise_measures(self, q: Tensor, k: Tensor, v: Tensor) -> Measures:
        """Return how well tokens are foretold by those they read, for q, k and v (B, H, N, D)."""
        return kernel_smoothing(self.map_weights(q, k, v), v)
