"""k-means among tokens: learned centres collect the tokens nearest to them, and tokens read the moved centres.

    A = argmax_K(C K^T),    out = softmax_K(Q (C + A K)^T / sqrt(d)) A V

The k-means step of Q. Yu et al., k-means Mask Transformer (kMaX-DeepLab), ECCV 2022, and back again as in its dual-path
form. With metric="euclidean" and reduce="mean" the step from C to A K is Lloyd's.
"""

import torch
from torch import Tensor

from attention_zoo.functional import clustering
from attention_zoo.mixers.learned_centres import LearnedCentres
from attention_zoo.mixers.registry import register


@register
class KMeans(LearnedCentres):
    """k-means of the keys: a token belongs to the centre it is nearest to, without a gradient through that choice.

    A centre that no token chose has nothing to be read; its mean of keys stays where it was. Arguments: see
    `LearnedCentres`.
    """

    reading = "clustering, k-means"
    paper = "Yu et al. 2022b (kMaX)"
    equation = "softmax(Q (C + A K)ᵀ/√d) A V, A = argmax_K C Kᵀ"
    straight_through: bool = False

    def assign(self, centres: Tensor, k: Tensor) -> Tensor:
        """Return the index (B, H, N) of the centre nearest to each key; (B, H, K, N) one-hot if it has a gradient."""
        if self.straight_through:
            return clustering.straight_assignment(clustering.affinity(centres, k, metric=self.metric))
        with torch.no_grad():
            return clustering.hard_assignment(clustering.affinity(centres, k, metric=self.metric))

    def collect(self, values: Tensor, assignment: Tensor, empty: Tensor | float = 0.0) -> Tensor:
        """Return the sums or means (B, H, K, D) of the values over the tokens of each cluster."""
        if self.straight_through:
            return clustering.straight_collect(values, assignment, reduce=self.reduce, empty=empty)
        return clustering.collect(values, assignment, self.num_clusters, reduce=self.reduce, empty=empty)

    def memberships(self, assignment: Tensor) -> Tensor:
        """Return the assignment one-hot over the centres, (B, H, K, N)."""
        if self.straight_through:
            return assignment
        return clustering.one_hot(assignment, self.num_clusters, self.centres.dtype)

    def taken(self, assignment: Tensor) -> Tensor:
        """Return the memberships (B, H, K, N), divided by the size of the cluster if a centre takes a mean."""
        return clustering.weights(self.memberships(assignment), self.reduce)
