"""Modern Hopfield networks: queries fall into the minima that the keys make, then read their values.

    q <- softmax(q k^T / sqrt(d)) k, T times;    out = softmax(q k^T / sqrt(d)) v

H. Ramsauer et al., Hopfield Networks is All You Need, ICLR 2021 (eq. 3, 10).
"""

from typing import Unpack

from torch import Tensor

from attention_zoo.mixers.base import HostOptions
from attention_zoo.mixers.mixture import MixtureMixer
from attention_zoo.mixers.options import Iterations
from attention_zoo.mixers.premise import Measures, retrieval
from attention_zoo.mixers.registry import register
from attention_zoo.mixers.switches import Adapt, Switches


@register
class Hopfield(MixtureMixer):
    """``softmax(Q Kᵀ / √d) V`` after T retrieval steps ``Q ← softmax(Q Kᵀ / √d) K``; the energy falls with each.

    It is the mixture whose queries adapt to the keys by EM; T = 0 is `DotProduct`. T + 1 fused passes. The released
    layer stops a query whose step is small; here all take T.

    Args:
        dim: token width.
        num_heads: heads.
        steps: T.
        **host: see `SelfMixer`.
    """

    reading = "retrieval from a Hopfield network"
    paper = "Ramsauer et al. 2021"
    equation = "softmax(ξ Kᵀ/√d) V, ξ ← softmax(ξ Kᵀ/√d) K (3, 10)"
    complexity = "N²"
    premise = "Queries come to rest after few steps, at a lower energy."

    def __init__(self, dim: int, num_heads: int = 8, *, steps: Iterations = 1, **host: Unpack[HostOptions]) -> None:
        super().__init__(dim, num_heads, **host)
        self.switch(Switches(adapt=Adapt(queries=steps)))

    def premise_measures(self, q: Tensor, k: Tensor, v: Tensor) -> Measures:
        """Return the energy of queries q among keys k (B, H, N, D), step by step, and how soon they rest."""
        return retrieval(q, k)
