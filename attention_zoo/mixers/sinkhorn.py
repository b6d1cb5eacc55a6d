"""Sinkformer: attention weights whose rows and columns are normalised in turn, towards double stochasticity.

    log W <- log W - logsumexp of its rows, then of its columns, and so on, from q k^T / sqrt(d);    out = W v

M. Sander, P. Ablin, M. Blondel, G. Peyré, Sinkformers: Transformers with Doubly Stochastic Attention, AISTATS 2022.
"""

from typing import Unpack

from attention_zoo.functional.sinkhorn import Marginal
from attention_zoo.mixers.base import HostOptions
from attention_zoo.mixers.mixture import MixtureMixer
from attention_zoo.mixers.options import SomeIterations
from attention_zoo.mixers.registry import register
from attention_zoo.mixers.switches import Adapt, Switches


@register
class Sinkhorn(MixtureMixer):
    """``Sinkhorn(Q Kᵀ / √d) V`` after some normalisations of rows and columns in turn.

    One that begins with rows is `DotProduct`, two that begin with columns are `DoublyNormalized`. An odd number from
    rows has rows that sum to one, as in the released code, whose values have no gradient in the queries' potentials;
    here all gradients are whole. Each normalisation is a fused pass.

    Args:
        dim: token width.
        num_heads: heads.
        iterations: normalisations of rows or columns.
        begin: "rows" or "columns", whichever is normalised first.
        **host: see `SelfMixer`.
    """

    reading = "kernel smoothing, doubly stochastic"
    paper = "Sander et al. 2022"
    equation = "Sinkhorn(exp(Q Kᵀ/√d)) V"
    complexity = "N²"

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        iterations: SomeIterations = 3,
        begin: Marginal = "rows",
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        self.switch(Switches(adapt=Adapt(half_steps=iterations, begin=begin)))
