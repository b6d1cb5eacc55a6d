"""Sinkformer: attention weights whose rows and columns are normalised in turn, towards double stochasticity.

    log W <- log W - logsumexp of its rows, then of its columns, and so on, from q k^T / sqrt(d);    out = W v

M. Sander, P. Ablin, M. Blondel, G. Peyré, Sinkformers: Transformers with Doubly Stochastic Attention, AISTATS 2022.
"""

from typing import Unpack

import torch
from torch import Tensor

from attention_zoo.functional.diagnostics import marginal_distance
from attention_zoo.functional.precision import precise
from attention_zoo.functional.sinkhorn import Marginal
from attention_zoo.mixers.base import HostOptions
from attention_zoo.mixers.mixture import MixtureMixer
from attention_zoo.mixers.options import SomeIterations
from attention_zoo.mixers.premise import Measure, Measures
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
    premise = "Tokens are read about as much as they read, and each normalisation brings the weights nearer to that."

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

    def premise_measures(self, q: Tensor, k: Tensor, v: Tensor) -> Measures:
        """Return how far row and column sums of the weights are from one, after each normalisation, for q, k, v.

        They are compared with those of softmax.
        """
        adapt = self.switches.adapt
        log_weights = precise(q) @ precise(k).mT * self.alpha
        softmax, path = log_weights.softmax(-1), []
        for step in range(adapt.half_steps):
            rows = (adapt.begin == "rows") == (step % 2 == 0)
            log_weights = log_weights.log_softmax(-1 if rows else -2)
            path.append(marginal_distance(log_weights.exp()))
        reached = Measure(torch.stack(path, -1), marginal_distance(softmax), "lower")
        return {"distance of row and column sums from one": reached}
