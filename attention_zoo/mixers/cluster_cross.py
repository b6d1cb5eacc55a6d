"""Clustering cross-attention: every pixel chooses among the queries, softly, and masks and update are one assignment.

    C <- C + softmax_N(K^p Q^c^T)^T V^p

Q. Yu et al., CMT-DeepLab: Clustering Mask Transformers for Panoptic Segmentation, CVPR 2022.
"""

from torch import Tensor

from attention_zoo.functional import clustering
from attention_zoo.mixers.base import CrossMixer
from attention_zoo.mixers.registry import register


@register
class ClusterCross(CrossMixer):
    """Cluster assignment, ``C + softmax_N(K Qᵀ / √d)ᵀ V``: a pixel is shared out among the queries it is near to."""

    reading = "clustering, soft"
    paper = "Yu et al. 2022a (CMT)"
    equation = "C + softmax_N(K Qᵀ/√d)ᵀ V"
    complexity = "L·M"

    def affinity(self, q: Tensor, k: Tensor) -> Tensor:
        """Return the affinity ``q.k / √D`` (B, H, L, M) of queries (B, H, L, D) and keys (B, H, M, D)."""
        return clustering.affinity(q, k, scale=self.scale)

    def weights(self, affinity: Tensor) -> Tensor:
        """Return the assignment (B, H, L, M) itself: a query takes each pixel as far as it is assigned."""
        return self.assign(affinity)

    def assign(self, affinity: Tensor) -> Tensor:
        """Return the softmax (B, H, L, M) of the affinity over the queries; columns sum to one."""
        return clustering.soft_assignment(affinity)
