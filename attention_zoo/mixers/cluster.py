"""Clustering among tokens: tokens share themselves out among learned centres, and read the moved centres.

    A = softmax_K(C K^T / sqrt(d)),    out = softmax_K(Q (C + A K)^T / sqrt(d)) A V

The cluster assignment of Q. Yu et al., CMT-DeepLab: Clustering Mask Transformers for Panoptic Segmentation, CVPR 2022,
and back again as in its dual-path form.
"""

from torch import Tensor

from attention_zoo.functional import clustering
from attention_zoo.mixers.learned_centres import LearnedCentres
from attention_zoo.mixers.registry import register


@register
class Cluster(LearnedCentres):
    """Soft clustering of the keys: a token belongs to each centre by a softmax over the centres.

    Arguments: see `LearnedCentres`.
    """

    reading = "clustering, soft"
    paper = "Yu et al. 2022a (CMT)"
    equation = "softmax(Q (C + A K)ᵀ/√d) A V, A = softmax_K C Kᵀ/√d"

    def assign(self, centres: Tensor, k: Tensor) -> Tensor:
        """Return the logarithm of the probabilities (B, H, K, N) of the centres for each key."""
        affinity = clustering.affinity(centres, k, metric=self.metric, scale=self.head_dim**-0.5)
        return clustering.log_soft_assignment(affinity)

    def collect(self, values: Tensor, assignment: Tensor, empty: Tensor | float = 0.0) -> Tensor:
        """Return sums or means (B, H, K, D) of the values, weighted by the assignment. No cluster is empty."""
        return self.taken(assignment) @ values

    def memberships(self, assignment: Tensor) -> Tensor:
        """Return the probabilities (B, H, K, N) of the centres for each key."""
        return assignment.exp()

    def taken(self, assignment: Tensor) -> Tensor:
        """Return the probabilities (B, H, K, N), divided by each centre's sum if it takes a mean."""
        return clustering.log_weights(assignment, self.reduce)
