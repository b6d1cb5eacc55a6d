"""Base of the clustering self-mixers: learned centres read the tokens, and the tokens read their centres back."""

from abc import abstractmethod
from typing import Annotated, Unpack

import torch
from torch import Tensor, nn

from attention_zoo.domains import Domain
from attention_zoo.functional import clustering
from attention_zoo.functional.attention import softmax_attention
from attention_zoo.functional.clustering import Metric, Reduce
from attention_zoo.functional.diagnostics import within_cluster_share
from attention_zoo.functional.precision import precise
from attention_zoo.mixers.base import HostOptions, SelfMixer, TopDownOptions
from attention_zoo.mixers.options import SomeIterations
from attention_zoo.mixers.premise import Measure, Measures

Clusters = Annotated[int, Domain(least=1, most=1 << 16)]
"""The number of centres of a head."""


class LearnedCentres(SelfMixer):
    """Clusters the keys around learned centres C, then reads both sides of the update back.

        Ĉ = A K,    out = softmax(Q (C + Ĉ)ᵀ / √d) A V

    The subclass makes the assignment A. The centre stays beside its update, as the residual of the mask transformers,
    so that it learns where A passes no gradient. Under ``reduce="sum"`` both updates are divided by N/K, the size of an
    average cluster: a sum grows with the tokens, and there is no BatchNorm behind it as in kMaX. Everything is
    computed in float32 also under autocast, since rounded affinities tie.

    Args:
        dim: token width.
        num_heads: heads.
        num_clusters: learned centres K of each head.
        iterations: updates of the centres; the last one is read back.
        metric: affinity of centres and keys: "dot" (kMaX), or "euclidean" (Lloyd), c.k - |c|²/2.
        reduce: a centre collects the "sum" (kMaX) or the "mean" (Lloyd) of what is assigned to it.
        **host: see `SelfMixer`.
    """

    complexity = "N"
    premise = "Keys lie in clusters around the centres, and every centre has tokens of its own."

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        num_clusters: Clusters = 16,
        iterations: SomeIterations = 1,
        metric: Metric = "dot",
        reduce: Reduce = "sum",
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        self.num_clusters, self.iterations, self.metric, self.reduce = num_clusters, iterations, metric, reduce
        shape = (num_heads, num_clusters, self.head_dim)
        self.centres = nn.Parameter(torch.randn(shape, **self.made))

    @abstractmethod
    def assign(self, centres: Tensor, k: Tensor) -> Tensor:
        """Return the assignment of keys k (B, H, N, D) to centres (B, H, K, D), in a form that `collect` takes."""

    @abstractmethod
    def collect(self, values: Tensor, assignment: Tensor, empty: Tensor | float = 0.0) -> Tensor:
        """Return what the centres take from values (B, H, N, D): (B, H, K, D); ``empty`` is the mean over no tokens."""

    @abstractmethod
    def memberships(self, assignment: Tensor) -> Tensor:
        """Return the assignment as a matrix (B, H, K, N); columns sum to one."""

    @abstractmethod
    def taken(self, assignment: Tensor) -> Tensor:
        """Return how much each centre takes from each token, (B, H, K, N): the matrix that does what `collect` does."""

    def assignments(self, x: Tensor, top_down: Tensor | None = None, **how: Unpack[TopDownOptions]) -> Tensor:
        """Return which centre each token of ``x`` (B, N, dim) belongs to: (B, H, K, N), soft or one-hot."""
        _, k, _ = self.project(x, top_down, **how)
        return self.memberships(self.cluster(precise(k))[0])

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the mixed values (B, H, N, D) of queries q, keys k and values v, all (B, H, N, D)."""
        with torch.autocast(q.device.type, enabled=False):
            q, k, values = map(precise, (q, k, v))
            assignment, centres = self.cluster(k)
            collected = self.collect(values, assignment) / self.average_size(k)
            keys = self.read_keys(centres)
            return softmax_attention(q, keys, collected).to(v.dtype)

    def cluster(self, k: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last assignment of the keys k (B, H, N, D), and the centres Ĉ (B, H, K, D) that it moved."""
        centres = self.centres.to(k.dtype).expand(k.shape[0], -1, -1, -1)
        for _ in range(self.iterations):
            assignment = self.assign(centres, k)
            centres = self.collect(k, assignment, empty=centres) / self.average_size(k)
        return assignment, centres

    def average_size(self, k: Tensor) -> float:
        """Return what sums over the tokens are divided by: N/K, or 1 where they are means already."""
        return k.shape[2] / self.num_clusters if self.reduce == "sum" else 1.0

    def read_keys(self, centres: Tensor) -> Tensor:
        """Return C + Ĉ (B, H, K, D), the keys by which tokens read the centres back."""
        return self.centres.to(centres.dtype) + centres

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return softmax(Q (C + Ĉ)ᵀ / √d) A (B, H, N, N): what tokens take from each other through the centres."""
        q, k = precise(q), precise(k)
        assignment, centres = self.cluster(k)
        read = (q @ self.read_keys(centres).mT * self.head_dim**-0.5).softmax(-1)  # (B, H, N, K)
        return read @ self.taken(assignment).to(read.dtype) / self.average_size(k)

    def premise_measures(self, q: Tensor, k: Tensor, v: Tensor) -> Measures:
        """Return how tightly keys k (B, H, N, D) lie in their clusters, and how many centres have none of them.

        A token belongs to the centre that has most of it.
        """
        owner = self.memberships(self.cluster(precise(k))[0]).argmax(2)
        members = clustering.one_hot(owner, self.num_clusters, k.dtype)
        within, by_lot = within_cluster_share(k, members)
        dead = (members.sum(-1) == 0).to(within.dtype).mean(-1)
        return {"variance of keys within clusters": Measure(within, by_lot, "lower"), "dead centres": Measure(dead)}
