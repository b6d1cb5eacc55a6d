"""Clustering cross-attention: every pixel chooses among the queries, softly, and masks and update are one assignment.

    C <- C + softmax_N(K^p Q^c^T)^T V^p    (+ softmax_HW(Q^c K^p^T) V^p with the complement)

Q. Yu et al., CMT-DeepLab: Clustering Mask Transformers for Panoptic Segmentation, CVPR 2022.
"""

from typing import Any

from torch import Tensor

from attention_zoo.functional import clustering
from attention_zoo.mixers.cross import CrossMixer
from attention_zoo.mixers.registry import register


@register
class ClusterCross(CrossMixer):
    """Cluster assignment, ``C + softmax_N(K Qᵀ / √d)ᵀ V``: a pixel is shared out among the queries it is near to.

    Args:
        dim: width of queries and pixels.
        num_heads: heads.
        complement: whether queries also read as cross-attention does; the paper's update has both terms, in which the
            clustering complements spatial cross-attention.
        **shared: see `CrossMixer`.
    """

    reading = "clustering, soft"
    paper = "Yu et al. 2022a (CMT)"
    equation = "C + softmax_N(K Qᵀ/√d)ᵀ V"
    complexity = "L·M"

    def __init__(self, dim: int, num_heads: int = 8, *, complement: bool = False, **shared: Any) -> None:
        super().__init__(dim, num_heads, **shared)
        self.complement = complement

    def affinity(self, q: Tensor, k: Tensor) -> Tensor:
        """Return the affinity ``q.k / √D`` (B, H, L, M) of queries (B, H, L, D) and keys (B, H, M, D)."""
        return clustering.affinity(q, k, scale=self.scale)

    def weights(self, affinity: Tensor) -> Tensor:
        """Return how far each pixel is assigned to a query, (B, H, L, M); the complement is added to it."""
        assigned = self.assign(affinity)
        return assigned + affinity.softmax(-1) if self.complement else assigned

    def assign(self, affinity: Tensor) -> Tensor:
        """Return the softmax (B, H, L, M) of the affinity over the queries; columns sum to one."""
        return clustering.soft_assignment(affinity)
