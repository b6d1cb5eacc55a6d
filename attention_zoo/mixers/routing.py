"""Routing attention: tokens read those that the same centroid of an online k-means takes.

    q, k <- q/|q|, k/|k|,    S_c = the N/C queries and the N/C keys nearest to centroid mu_c
    out_i = mean over the c with i in S_c of sum_{j in S_c} softmax_j(q_i.k_j / sqrt(d)) v_j

A. Roy, M. Saffar, A. Vaswani, D. Grangier, Efficient Content-Based Sparse Attention with Routing Transformers, TACL
2021 (section 4.1, algorithm 1).
"""

from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from attention_zoo.compat import in_backward
from attention_zoo.domains import Fraction
from attention_zoo.functional.attention import softmax_attention
from attention_zoo.functional.diagnostics import evenness, within_cluster_share
from attention_zoo.functional.precision import precise
from attention_zoo.functional.straight_through import straight_through
from attention_zoo.mixers.base import HostOptions, SelfMixer
from attention_zoo.mixers.learned_centres import Clusters
from attention_zoo.mixers.options import Amount
from attention_zoo.mixers.premise import Measure, Measures
from attention_zoo.mixers.protocols import Kept
from attention_zoo.mixers.registry import register


@register
class Routing(SelfMixer):
    """Softmax attention of unit queries and keys inside clusters of equal size.

    Each centroid takes the ``ceil(N / clusters)`` nearest queries, at least two, and as many keys. A query that several
    take gets the mean of what it reads there, one that none takes gets zero. In training the centroids, which are
    buffers, follow the mean of the queries and keys nearest to them; the first batch moves them all the way. A small
    loss of the mixer's own pulls queries and keys to their centroids. Under gradient checkpointing a forward pass needs
    a backward pass of its own: what is computed again takes the centroids as the last pass left them.

    Args:
        dim: token width.
        num_heads: heads.
        clusters: centroids of each head.
        decay: how much of a centroid stays at a step of training.
        commitment: factor of the mean squared distance of queries and keys to the nearest centroid.
        **host: see `SelfMixer`.
    """

    reading = "clustering, online k-means"
    paper = "Roy et al. 2021"
    equation = "softmax_{S_c}(Q Kᵀ/√d) V, S_c = top N/C of μ_c"
    complexity = "N²/C + N C"
    premise = "Keys lie in clusters of equal size around the centroids, so that each is read by one of them."
    drops_attention = True
    straight_through: bool = False
    centroids: Tensor
    updates: Tensor

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        clusters: Clusters = 8,
        decay: Fraction = 0.999,
        commitment: Amount = 1e-4,
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        self.clusters, self.decay, self.commitment = clusters, decay, commitment
        start = F.normalize(torch.randn((num_heads, clusters, self.head_dim), **self.made), dim=-1)
        self.register_buffer("centroids", start)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64, device=self.made["device"]))
        self.own_loss = Kept()

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the mixed values (B, H, N, D) of queries q, keys k and values v, all (B, H, N, D)."""
        if torch.compiler.is_exporting():  # a graph for any number of tokens cannot gather the top of so many
            return self.map_weights(q, k, v).to(v.dtype) @ v
        q, k = _unit(q), _unit(k)
        if self.training:
            self._learn(q, k)
        asked, read = self.members(q), self.members(k)  # (B, H, C, w)
        queries, keys, values = (
            _take(tokens, index).flatten(1, 2) for tokens, index in ((q, asked), (k, read), (v, read))
        )
        dropout = self.attn_drop.p if self.training else 0.0
        mixed = softmax_attention(queries, keys, values, dropout=dropout)
        total = torch.zeros_like(v).scatter_add(
            2, _of_channels(asked.flatten(2), v), mixed.unflatten(1, (q.shape[1], -1)).flatten(2, 3)
        )
        times = torch.zeros_like(v[..., 0]).scatter_add(2, asked.flatten(2), v.new_ones(asked.shape).flatten(2))
        mixed = total / times.clamp(min=1)[..., None]
        return straight_through(mixed, self._soft_reading(q, k, v)) if self.straight_through else mixed

    def _soft_reading(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return what `mix` reads of unit queries and keys, with a gradient in who is taken by which centroid.

        That is the gradient of a softmax over the centroids.
        """
        queries, keys = (
            straight_through(self.membership(x).to(x.dtype), self.similarity(x).softmax(-1).to(x.dtype)).mT
            for x in (q, k)
        )  # (B, H, C, N)
        scores = (q @ k.mT * self.head_dim**-0.5)[:, :, None].exp() * keys[:, :, :, None]
        read = scores / scores.sum(-1, keepdim=True)  # (B, H, C, N, N); no score of unit tokens overflows
        of_each = read @ v[:, :, None] * queries[..., None]
        return of_each.sum(2) / queries.sum(2).clamp(min=1)[..., None]

    def members(self, tokens: Tensor) -> Tensor:
        """Return the indices (B, H, C, w) of the tokens (B, H, N, D) that each centroid takes."""
        with torch.no_grad():
            return self.similarity(tokens).topk(self.size(tokens), 2).indices.mT

    def size(self, tokens: Tensor) -> Any:
        """Return the number w of the tokens (B, H, N, D) that a centroid takes; in a graph it may be a symbol."""
        number = tokens.shape[2]
        return torch.sym_max((number + self.clusters - 1) // self.clusters, torch.sym_min(2, number))

    def membership(self, tokens: Tensor) -> Tensor:
        """Return which of the tokens (B, H, N, D) each centroid takes, (B, H, N, C) bool."""
        with torch.no_grad():
            place = self.similarity(tokens).argsort(2, descending=True).argsort(2)
            return place < self.size(tokens)

    def similarity(self, tokens: Tensor) -> Tensor:
        """Return the products (B, H, N, C) of unit tokens (B, H, N, D) with the centroids, in float32 at least."""
        with torch.autocast(tokens.device.type, enabled=False):
            return precise(tokens) @ precise(self.centroids).mT

    def _learn(self, q: Tensor, k: Tensor) -> None:
        """Move the centroids to what is nearest to them, and keep the loss that moves queries and keys there."""
        both = precise(torch.cat((q, k), 2))
        if not both.numel():
            return
        with torch.no_grad():
            nearest = self.similarity(both).argmax(-1)  # (B, H, 2 N)
            mine = F.one_hot(nearest, self.clusters).to(both.dtype)  # (B, H, 2 N, C)
            sums = torch.einsum("bhnc,bhnd->hcd", mine, both)
            taken = mine.sum((0, 2))[..., None] > 0
            stays = self.decay * (self.updates > 0).to(both.dtype)
            old = precise(self.centroids)
            moved = stays * old + (1 - stays) * F.normalize(sums, dim=-1)
            if not in_backward():  # where checkpointing computes the layer again, they have moved
                self.centroids.copy_(torch.where(taken, moved, old))
                self.updates.add_(1)
            target = _take(precise(self.centroids).expand(both.shape[0], -1, -1, -1), nearest)
        self.own_loss.value = self.commitment * F.mse_loss(both, target)

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the softmax weights (B, H, N, N), zero between tokens that share no centroid."""
        q, k = _unit(q), _unit(k)
        queries, keys = self.membership(q), self.membership(k)  # (B, H, N, C)
        scores = (q @ k.mT * self.head_dim**-0.5)[:, :, None]  # (B, H, 1, N, N)
        weights = scores.masked_fill(~keys.mT[:, :, :, None], -torch.inf).softmax(-1)  # (B, H, C, N, N)
        inside = queries.mT.to(weights.dtype)[..., None]
        return (weights * inside).sum(2) / inside.sum(2).clamp(min=1)

    def premise_measures(self, q: Tensor, k: Tensor, v: Tensor) -> Measures:
        """Return how tightly and evenly keys k (B, H, N, D) lie around the centroids, and how many are read by none.

        A key belongs to the nearest centroid. By lot the centroids would leave out ``(1 - w/N)^C`` of the keys.
        """
        k = F.normalize(precise(k), dim=-1)
        mine = F.one_hot(self.similarity(k).argmax(-1), self.clusters).mT  # (B, H, C, N)
        within, by_lot = within_cluster_share(k, mine)
        members = self.members(k)
        read = torch.zeros_like(k[..., 0]).scatter(2, members.flatten(2), 1.0)
        chance = (1 - members.shape[3] / k.shape[2]) ** self.clusters
        left_out = 1 - read.mean(-1)
        return {
            "variance of keys within clusters": Measure(within, by_lot, "lower"),
            "evenness of the clusters": Measure(evenness(mine.sum(-1).to(k.dtype))),
            "share of the keys that no centroid takes": Measure(left_out, torch.full_like(left_out, chance), "lower"),
        }


def _unit(tokens: Tensor) -> Tensor:
    """Return tokens (B, H, N, D) of length one, in their own type also under autocast."""
    return F.normalize(tokens, dim=-1).to(tokens.dtype)


def _of_channels(index: Tensor, like: Tensor) -> Tensor:
    """Return an index (B, H, n) for every channel of tokens like (B, H, N, D)."""
    return index[..., None].expand(-1, -1, -1, like.shape[-1])


def _take(tokens: Tensor, index: Tensor) -> Tensor:
    """Return the tokens (B, H, *rest, D) at an index (B, H, *rest) into tokens (B, H, N, D)."""
    return tokens.gather(2, _of_channels(index.flatten(2), tokens)).unflatten(2, index.shape[2:])
