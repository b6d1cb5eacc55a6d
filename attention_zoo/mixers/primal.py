"""Primal attention: a kernel singular value decomposition of queries and keys, read in its few components.

    e = phi(q) (X^T W_e),    r = phi(k) (X^T W_r),    phi(z) = z / |z|,    out = W [e; r]
    J = 1/2 mean |e Lambda|^2 + 1/2 mean |r Lambda|^2 - tr(W_e^T W_r),    loss = eta J^2

Y. Chen, Q. Tao, F. Tonin, J. Suykens, Primal-Attention: Self-attention through Asymmetric Kernel SVD in Primal
Representation, NeurIPS 2023 (eq. 6, 8).
"""

from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.mixers.base import HostOptions, SelfMixer
from attention_zoo.mixers.losses import joined
from attention_zoo.mixers.options import Amount, Number
from attention_zoo.mixers.premise import Measure, Measures
from attention_zoo.mixers.registry import register


@register
class Primal(SelfMixer):
    """Scores of queries and keys in the left and right singular directions of an asymmetric kernel, linear in N.

    The directions are made from the values of evenly spaced tokens, each weighted by where it stands, so that the
    reading is of a grid. (The released layer takes the tokens themselves for values: the value projection there is the
    identity.) In training the loss ``eta J²``, which is zero for singular vectors, joins the backward pass
    (`losses.joined`), that of each layer in full; the released training divides their sum by the number of layers.

    With the released layer's weights, and the identity for the value projection, outputs, J and gradients are its own
    to rounding in float64.

    Args:
        dim: token width.
        num_heads: heads.
        low_rank: components of each side.
        rank_multi: tokens that directions are made from, for each component.
        eta: weight of the loss; 0 leaves it out, and the singular values Λ with it.
        **host: see `SelfMixer`.
    """

    reading = "kernel singular value decomposition"
    paper = "Chen et al. 2023"
    equation = "W [φ(Q) XᵀW_e; φ(K) XᵀW_r]"
    complexity = "N"
    tokens = "grid"
    premise = "The scores are singular vectors: the objective of the decomposition is zero."

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        low_rank: Number = 20,
        rank_multi: Number = 10,
        eta: Amount = 0.05,
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        self.eta = eta
        count = low_rank * rank_multi
        if self.grid is not None:
            count = min(count, self.grid[0] * self.grid[1] + self.num_prefix_tokens)
        shape = (num_heads, count, low_rank)
        self.we, self.wr = (nn.Parameter(self._orthogonal(shape)) for _ in range(2))
        self.Lambda = nn.Parameter(torch.rand(num_heads, low_rank, **self.made)) if eta else None
        self.concate_weight = nn.Linear(2 * low_rank, self.head_dim, **self.made)

    def _orthogonal(self, shape: tuple[int, ...]) -> Tensor:
        """Return an orthogonal start of directions, drawn in float32, which half precision could not."""
        drawn = nn.init.orthogonal_(torch.empty(shape, device=self.made["device"], dtype=torch.float32))
        return drawn.to(self.made["dtype"] or torch.get_default_dtype())

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the scores of q and k, brought to the width of a head, in directions made of v, all (B, H, N, D)."""
        left, right = self.scores(q, k, v)
        out = self.concate_weight(torch.cat((left, right), -1)).to(v.dtype)
        if self.training and self.Lambda is not None:
            out = joined(out, self.eta * self.objective(left, right).mean().square())
        return out

    def scores(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return left and right scores (B, H, N, low_rank) of q and k, in directions made of v, all (B, H, N, D)."""
        sample = v[:, :, self._places(v)].mT  # (B, H, D, tokens)
        sides = ((q, self.we), (k, self.wr))
        left, right = (F.normalize(x, dim=-1) @ (sample @ weight.to(v.dtype)) for x, weight in sides)
        return left, right

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return how the scores take the values of the sampled tokens, (B, H, N, N); entries can be negative."""
        total = v.new_zeros(*v.shape[:3], v.shape[2])
        sides = self.concate_weight.weight.to(v.dtype).chunk(2, dim=1)  # (D, low_rank) each
        for x, weight, side in ((q, self.we, sides[0]), (k, self.wr, sides[1])):
            taken = F.normalize(x, dim=-1) @ (side @ weight.to(v.dtype).mT) / self.head_dim
            total = total.index_add(-1, self._places(v), taken)
        return total

    def _places(self, v: Tensor) -> Tensor:
        """Return which tokens of values v (B, H, N, D) directions are made from; of few tokens some come twice.

        Whole numbers are divided, so that no rounding decides and all devices take the same ones. The released layer
        lets ``linspace`` round, which takes a neighbour of some at some sizes, such as one of 96 in 106 tokens.
        """
        self.spatial_shape(v.shape[2])
        count = self.we.shape[1]
        return torch.arange(count, device=v.device) * (v.shape[2] - 1) // max(count - 1, 1)

    def objective(self, left: Tensor, right: Tensor) -> Tensor:
        """Return J (B, H) for scores (B, H, N, low_rank); it is 0 for singular vectors.

        Raises:
            InputError: there are no singular values, since eta is 0.
        """
        if self.Lambda is None:
            raise self.refusal("eta=0 leaves out the singular values, and so the objective")
        values = self.Lambda[:, None].to(left.dtype)
        energy = [(side * values).square().sum(-1).mean(-1) / 2 for side in (left, right)]
        trace = (self.we * self.wr).sum((1, 2)).to(left.dtype)
        return energy[0] + energy[1] - trace

    def premise_measures(self, q: Tensor, k: Tensor, v: Tensor) -> Measures:
        """Return the size of the objective J, beside that of its parts; nothing where eta is 0."""
        if self.Lambda is None:
            return {}
        objective = self.objective(*self.scores(q, k, v))
        trace = (self.we * self.wr).sum((1, 2)).to(objective.dtype)
        parts = (objective + trace).abs() + trace.abs()
        return {"objective of the decomposition": Measure(objective.abs(), parts, "lower")}
