"""k-means among tokens: learned centres collect the tokens nearest to them, and tokens read the moved centres.

    A = argmax_K(C K^T),    out = softmax_K(Q (C + A K)^T / sqrt(d)) A V

The k-means step of Q. Yu et al., k-means Mask Transformer (kMaX-DeepLab), ECCV 2022, and back again as in its dual-path
form. With metric="euclidean" and reduce="mean" the step from C to A K is Lloyd's.
"""

import torch
from torch import Tensor

from attention_zoo.functional import clustering
from attention_zoo.mixers.learned_centres import LearnedCentres
from attention_zoo.registry import register


@register
class KMeans(LearnedCentres):
    """k-means of the keys: a token belongs to the centre it is nearest to, without a gradient through that choice.

    A centre that no token chose has nothing to be read; its mean of keys stays where it was. Arguments: see
    `LearnedCentres`.
    """

    reading = "clustering, k-means"
    paper = "Yu et al. 2022b (kMaX)"
    equation = "softmax(Q (C + A K)ᵀ/√d) A V, A = argmax_K C Kᵀ"

    def assign(self, centres: Tensor, k: Tensor) -> Tensor:
        """Index (B, H, N) of the centre nearest to each key."""
        with torch.no_grad():
            return clustering.hard_assignment(clustering.affinity(centres, k, metric=self.metric))

    def collect(self, values: Tensor, assignment: Tensor, empty: Tensor | float = 0.0) -> Tensor:
        """Sum or mean over the tokens of each cluster: (B, H, K, D)."""
        return clustering.collect(values, assignment, self.num_clusters, reduce=self.reduce, empty=empty)

    def memberships(self, assignment: Tensor) -> Tensor:
        """One-hot over the centres."""
        return clustering.one_hot(assignment, self.num_clusters, self.centres.dtype)

    def taken(self, assignment: Tensor) -> Tensor:
        """The memberships, in a mean over the size of the cluster."""
        return clustering.weights(self.memberships(assignment), self.reduce)
