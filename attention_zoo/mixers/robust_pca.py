"""Robust principal components: keys are what attention reads of them plus something sparse, which is taken out.

    S <- S_{lam mu}(K - L + U),    L <- softmax(K' K'^T / sqrt(d)) V, K' = K - S - U,    U <- U + K - L - S
    mu = N C / (4 |K|_1),    out = L

R. Teo, T. Nguyen, Unveiling the Hidden Structure of Self-Attention via Kernel Principal Component Analysis, NeurIPS
2024 (Algorithm 1, RPC-Attention). U is their Y / mu.
"""

import math
from typing import Unpack

import torch
from torch import Tensor

from attention_zoo.functional.attention import softmax_attention
from attention_zoo.functional.precision import precise
from attention_zoo.functional.sparse import SOFT
from attention_zoo.mixers.base import HostOptions, SelfMixer
from attention_zoo.mixers.options import Amount, SomeIterations
from attention_zoo.mixers.premise import Measure, Measures
from attention_zoo.mixers.registry import register

LEAST = 1e-12
"""The least |K|₁ that mu divides by, so that keys of zeros have a gradient."""


@register
class RobustPCA(SelfMixer):
    """Principal component pursuit with softmax attention in the place of the low-rank step; queries are keys.

    C in mu is the width of all heads, as in the released code. The iterates are computed in float32 also under
    autocast.

    The reading behind it, that values are principal axes of the keys' kernel, was tested on ten trained transformers
    by K. Saritas, A. Yildiz, A Reproduction Study: The Kernel PCA Interpretation of Self-Attention Fails Under
    Scrutiny (ACL 2025 student workshop), which saw no such alignment; `premise_measures` asks the same of any model.

    Args:
        dim: token width.
        num_heads: heads.
        iterations: rounds of S, L and U.
        sparsity: lambda, the weight of the sparse part.
        **host: see `SelfMixer`.
    """

    reading = "robust kernel principal components"
    paper = "Teo and Nguyen 2024 (RPC)"
    equation = "L = softmax(K′ K′ᵀ/√d) V, K′ = K − S − U"
    complexity = "N²"
    projections = ("q", "v")
    straight_through: bool = False
    premise = "Values lie along the first principal axes of the keys' kernel, and keys are what is read but for a few."

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        iterations: SomeIterations = 4,
        sparsity: Amount = 4.0,
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        self.iterations, self.sparsity = iterations, sparsity

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the low-rank part (B, H, N, D) of keys q (B, H, N, D), whose values are v; k is not used."""
        with torch.autocast(q.device.type, enabled=False):
            return self._pursuit(precise(q), precise(v))[0].to(v.dtype)

    def _pursuit(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the low-rank part and the sparse part (B, H, N, D), and K - L - S after each round."""
        size = keys.abs().sum((2, 3), keepdim=True).clamp(min=LEAST)
        threshold = self.sparsity * keys.shape[2] * self.dim / (4 * size)
        low, dual = torch.zeros_like(keys), torch.zeros_like(keys)
        rests: list[Tensor] = []
        shrink = SOFT.straight if self.straight_through else SOFT.value
        for _ in range(self.iterations):
            sparse = shrink(keys - low + dual, threshold)
            cleaned = keys - sparse - dual
            low = softmax_attention(cleaned, cleaned, values)
            rests.append(keys - low - sparse)
            dual = dual + rests[-1]
        return low, sparse, rests

    def premise_measures(self, q: Tensor, k: Tensor, v: Tensor) -> Measures:
        """Return what is left of the keys q (B, H, N, D) round by round, and how much of v their principal axes hold.

        The axes are the first D eigenvectors of the keys' centred kernel ``exp(kᵢ·kⱼ/√D)``. Of any other values they
        would hold ``D / (N − 1)`` on average; where that is no less than all of them, nothing can be said.
        """
        keys, values = precise(q), precise(v)
        _, sparse, rests = self._pursuit(keys, values)
        size = keys.square().sum((-2, -1))
        left = torch.stack([(rest.square().sum((-2, -1)) / size).sqrt() for rest in rests], -1)
        held, by_chance = _held_by_axes(keys, values)
        return {
            "share of the keys that L and S leave": Measure(left, torch.ones_like(size), "lower"),
            "sparse part that is zero": Measure((sparse == 0).to(keys.dtype).mean((-2, -1))),
            "values along the axes of the keys": Measure(held, by_chance, "higher"),
        }


def _held_by_axes(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the share (B, H) of the centred values that the first D kernel axes of the keys hold, and chance's."""
    number, width = keys.shape[-2:]
    scores = keys @ keys.mT * width**-0.5
    kernel = (scores - scores.amax((-2, -1), keepdim=True)).double().exp()
    centred = kernel - kernel.mean(-1, keepdim=True)
    centred = centred - centred.mean(-2, keepdim=True)
    axes = torch.linalg.eigh(centred).eigenvectors[..., -width:].to(values.dtype)  # ascending: the largest are last
    values = values - values.mean(-2, keepdim=True)
    held = (axes.mT @ values).square().sum((-2, -1)) / values.square().sum((-2, -1))
    return held, torch.full_like(held, width / (number - 1) if width < number - 1 else math.nan)
