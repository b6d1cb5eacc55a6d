"""Cross-attention: every query looks for its pixels, the baseline of the mask transformers.

    C <- C + softmax_HW(Q^c K^p^T / sqrt(d)) V^p

A. Vaswani et al., Attention Is All You Need, NeurIPS 2017; the query update of MaX-DeepLab, H. Wang et al., CVPR 2021.
"""

from torch import Tensor

from attention_zoo.mixers.cross import CrossMixer
from attention_zoo.mixers.registry import register


@register
class CrossAttention(CrossMixer):
    """Kernel smoothing of the pixels: ``C + softmax_HW(Q Kᵀ / √d) V``.

    It does not read by its masks, which are the softmax of the same affinity over the queries (`assign`).
    """

    reading = "kernel smoothing"
    paper = "Vaswani et al. 2017"
    equation = "C + softmax_HW(Q Kᵀ/√d) V"
    complexity = "L·M"

    def weights(self, affinity: Tensor) -> Tensor:
        """Return the softmax (B, H, L, M) of the affinity over the pixels; rows sum to one."""
        return affinity.softmax(-1)
