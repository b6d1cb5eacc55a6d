"""Elliptical attention: channels count by how much the values change in them from layer to layer.

    out = softmax(q diag(m) k^T / sqrt(d)) v,    m_d = mean_n |v^l - v^(l-1)|_nd, divided by the largest

S. Nielsen, L. Abdullaev, R. Teo, T. Nguyen, Elliptical Attention, NeurIPS 2024.
"""

from typing import Unpack

from attention_zoo.mixers.base import HostOptions
from attention_zoo.mixers.mixture import MixtureMixer
from attention_zoo.mixers.registry import register
from attention_zoo.mixers.switches import Kernel, Switches


@register
class Elliptical(MixtureMixer):
    """``softmax(Q M Kᵀ / √d) V`` with a diagonal metric M, the change of the values since the layer before.

    M has no gradient; the paper's factor 1/δ is gone after the division by the largest entry. Layers that are swapped
    into a model, or built with it, hand their values on (`attention_zoo.mixers.mixture.chain`). The first layer, and
    a layer by itself, has equal precisions and is `DotProduct`.

    Arguments: see `SelfMixer`.
    """

    reading = "kernel smoothing, in an elliptical metric"
    paper = "Nielsen et al. 2024"
    equation = "softmax(Q M Kᵀ/√d) V, M = diag(mean |Vˡ − Vˡ⁻¹|)"
    complexity = "N²"

    def __init__(self, dim: int, num_heads: int = 8, **host: Unpack[HostOptions]) -> None:
        super().__init__(dim, num_heads, **host)
        self.switch(Switches(kernel=Kernel(metric="layers")))
