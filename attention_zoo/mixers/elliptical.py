"""Elliptical attention: channels count by how much the values change in them from layer to layer.

    out = softmax(q diag(m) k^T / sqrt(d)) v,    m_d = mean_n |v^l - v^(l-1)|_nd, divided by the largest

S. Nielsen, L. Abdullaev, R. Teo, T. Nguyen, Elliptical Attention, NeurIPS 2024.
"""

from typing import Unpack

import torch
from torch import Tensor

from attention_zoo.functional.diagnostics import evenness
from attention_zoo.functional.precision import precise
from attention_zoo.mixers.base import HostOptions
from attention_zoo.mixers.mixture import MixtureMixer
from attention_zoo.mixers.premise import Measure, Measures
from attention_zoo.mixers.registry import register
from attention_zoo.mixers.switches import Kernel, Switches


@register
class Elliptical(MixtureMixer):
    """``softmax(Q M Kᵀ / √d) V`` with a diagonal metric M, the change of the values since the layer before.

    M has no gradient; the paper's factor 1/δ is gone after the division by the largest entry. Layers that are swapped
    into a model, or built with it, hand their values on to the next of this reading (`MixtureMixer.follow`). The first
    layer, and a layer by itself, has equal precisions and is `DotProduct`.

    Arguments: see `SelfMixer`.
    """

    reading = "kernel smoothing, in an elliptical metric"
    paper = "Nielsen et al. 2024"
    equation = "softmax(Q M Kᵀ/√d) V, M = diag(mean |Vˡ − Vˡ⁻¹|)"
    complexity = "N²"
    premise = "From layer to layer the values change in some channels more than in others, the same for all tokens."

    def __init__(self, dim: int, num_heads: int = 8, **host: Unpack[HostOptions]) -> None:
        super().__init__(dim, num_heads, **host)
        self.switch(Switches(kernel=Kernel(metric="layers")))

    def premise_measures(self, q: Tensor, k: Tensor, v: Tensor) -> Measures:
        """Return how evenly the metric is spread over the channels, and whether tokens agree on it, for v (B, H, N, D).

        They agree where the metric of every second token correlates, over the channels, with that of the others. A
        layer without one before it, or of one token, has neither.
        """
        v = precise(v)
        last = None if self.before is None else self.before.value
        metric = self._metric(q, v)
        if metric is None or last is None or v.shape[2] < 2:
            return {}
        change = (v - last.to(v)).abs()
        halves = (change[:, :, start::2].mean(2) for start in (0, 1))
        one, other = (half - half.mean(-1, keepdim=True) for half in halves)
        agreement = torch.linalg.vecdot(one, other) / (one.norm(dim=-1) * other.norm(dim=-1))
        return {
            "evenness of the channels' precisions": Measure(evenness(metric[:, :, 0])),
            "agreement of tokens on the precisions": Measure(agreement, torch.zeros_like(agreement), "higher"),
        }
