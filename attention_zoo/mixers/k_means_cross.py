"""k-means cross-attention: every pixel chooses one query, every query collects its pixels.

    C <- C + argmax_N(Q^c K^p^T) V^p

Q. Yu et al., k-means Mask Transformer (kMaX-DeepLab), ECCV 2022. Deviation from the released layer: the affinity is
that of the projected queries and pixels; there it is the mask logits of a predictor, which `read` takes as well.
"""

from typing import Any

from torch import Tensor

from attention_zoo.functional import clustering
from attention_zoo.functional.clustering import Metric, Reduce
from attention_zoo.mixers.cross import CrossMixer
from attention_zoo.mixers.registry import register


@register
class KMeansCross(CrossMixer):
    """k-means step, ``C + argmax_N(Q Kᵀ / √d) V``: a pixel gives its whole value to the query it is nearest to.

    The assignment carries no gradient, so queries and keys learn through the logits alone; values learn through the
    update. Each head assigns for itself. A query that no pixel chose reads nothing.

    Args:
        dim: width of queries and pixels.
        num_heads: heads.
        metric: affinity of queries and keys: "dot" (kMaX), or "euclidean" (Lloyd), q.k - |q|²/2.
        reduce: a query reads the "sum" (kMaX) or the "mean" (Lloyd) of the values assigned to it.
        **shared: see `CrossMixer`.
    """

    reading = "clustering, k-means"
    paper = "Yu et al. 2022b (kMaX)"
    equation = "C + argmax_N(Q Kᵀ) V"
    complexity = "L·M"
    straight_through: bool = False

    def __init__(
        self, dim: int, num_heads: int = 8, *, metric: Metric = "dot", reduce: Reduce = "sum", **shared: Any
    ) -> None:
        super().__init__(dim, num_heads, **shared)
        self.metric, self.reduce = metric, reduce

    def affinity(self, q: Tensor, k: Tensor) -> Tensor:
        """Return the affinity (B, H, L, M) of queries (B, H, L, D) and keys (B, H, M, D), divided by √D."""
        return clustering.affinity(q, k, metric=self.metric, scale=self.scale)

    def read(self, affinity: Tensor, v: Tensor) -> Tensor:
        """Return the sum or mean (B, H, L, D) of the values v (B, H, M, D) assigned to each query."""
        if self.straight_through:
            return clustering.straight_collect(v, clustering.straight_assignment(affinity), reduce=self.reduce)
        index = clustering.hard_assignment(affinity)
        return clustering.collect(v, index, affinity.shape[-2], reduce=self.reduce)

    def weights(self, affinity: Tensor) -> Tensor:
        """Return the assignment (B, H, L, M), divided by the size of the cluster if a query reads a mean."""
        return clustering.weights(self.assign(affinity), self.reduce)

    def assign(self, affinity: Tensor) -> Tensor:
        """Return the assignment (B, H, L, M) of each pixel to its nearest query, one-hot over the queries."""
        return clustering.one_hot(clustering.hard_assignment(affinity), affinity.shape[-2], affinity.dtype)
