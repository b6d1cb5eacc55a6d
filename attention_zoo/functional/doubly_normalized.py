"""Doubly normalised attention on a CPU, by products of matrices that stay in its cache.

With weights A_ij = exp(alpha q_i.k_j - m_j) for any m, the normaliser a_j = sum_i A_ij over the queries and the one
over the keys, s_i = sum_j A_ij / a_j, what a query takes is

    out_i = sum_j A_ij v_j / a_j / s_i,

and of a loss whose gradient at out is g, the gradient at the score of i and j is

    A_ij (g_i.v_j - g_i.out_i - s_i b_j) / (s_i a_j),    b_j = sum_i A_ij (g_i.v_j - g_i.out_i) / (s_i a_j),

where b comes from a. The bracket is a product of two vectors, (g_i, -g_i.out_i, s_i) and (v_j, 1, -b_j), and both
normalisers divide vectors, so that weights are only made and multiplied. Two fused passes, see `functional.attention`,
make them as often but look at them more often. Source: N. Ding, X. Fan, Z. Lan, D. Schuurmans, R. Soricut, Attention
That Does Not Explain Away, 2020; the gradient is derived from its equations.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from attention_zoo.compat import stands_for_many
from attention_zoo.functional.attention import largest, readable
from attention_zoo.functional.further_gradients import further_gradients

WHOLE = 1 << 20
"""Number of one head's weights up to which they are held from one use to the next."""

AT_ONCE = 1 << 19
"""Number of weights that are made together where they are not held: more would leave the cache before their use."""

ROOM = 1e12
"""How many times the smallest number of their type the product of the smallest normalisers is at least."""


def in_products(q: Tensor, k: Tensor, v: Tensor, alpha: float) -> Tensor | None:
    """Return what queries (B, H, N, D) take of values (B, H, M, E), (B, H, N, E); None if that is left to the caller.

    It is left where `pays` says no, and where it does not count: where a normaliser is so small that weights which
    matter beside it may have become zero, or where anything is NaN. Keys are (B, H, M, D).
    """
    if not pays(q, k, v):
        return None
    out, counts = _DoublyNormalized.apply(q, k, v, alpha)
    return out if counts else None


def pays(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Return whether products take less time than two fused passes do.

    No graph should hold a loop over heads, and whether its result counts has to be read. Two fused passes win where no
    gradient is asked for and weights are too many to be held.
    """
    if not (readable(q, k, v) and q.numel() and k.numel() and v.numel()):
        return False
    trains = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    return trains or q.shape[-2] * k.shape[-2] <= WHOLE


class _DoublyNormalized(torch.autograd.Function):
    """Computes `in_products` and a boolean tensor (), whether the result counts."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
        ctx.alpha = alpha
        heads = zip(*(x.flatten(0, 1) for x in (q, k, v)), strict=True)
        mixed, *norms = (
            torch.stack(parts) for parts in zip(*(_forward(ctx.alpha, *head) for head in heads), strict=True)
        )
        over_queries, over_keys, _ = norms
        counts = over_queries.amin() * over_keys.amin() >= ROOM * torch.finfo(q.dtype).tiny
        out = mixed.view(*q.shape[:3], v.shape[-1])
        ctx.save_for_backward(q, k, v, out, *norms)
        ctx.mark_non_differentiable(counts)
        return out, counts

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, out, over_queries, over_keys, highest = ctx.saved_tensors
        if torch.is_grad_enabled():  # further gradients are wanted
            plain = lambda q, k, v: [by_scores(q, k, v, ctx.alpha)]  # noqa: E731
            return *further_gradients(plain, inputs, [grad], ctx.needs_input_grad[:3]), None
        if stands_for_many(grad):
            return *_backward_of_many(ctx.alpha, grad, *ctx.saved_tensors), None
        heads = zip(*(x.flatten(0, 1) for x in (*inputs, out, grad)), over_queries, over_keys, highest, strict=True)
        grads = zip(*(_backward(ctx.alpha, *head) for head in heads), strict=True)
        return *(torch.stack(parts).view_as(x) for parts, x in zip(grads, inputs, strict=True)), None


def by_scores(q: Tensor, k: Tensor, v: Tensor, alpha: float) -> Tensor:
    """Return what queries (B, H, N, D) take of values (B, H, M, E), (B, H, N, E), by the scores themselves."""
    return ((alpha * q) @ k.mT).log_softmax(-2).softmax(-1) @ v


def _forward(alpha: float, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what one head's queries (N, D) take (N, E), a (M), s (N), and m (M), a bound on each key's scores."""
    highest = alpha * q.norm(dim=-1).amax() * k.norm(dim=-1)
    weights, size = _Weights(q, k, highest, alpha), _size(v)
    over_queries = torch.zeros_like(highest)
    for _, block in weights:
        over_queries += block.sum(0)
    shared = torch.cat((v / size, torch.ones_like(v[:, :1])), -1) / over_queries[:, None]
    mixed = torch.cat([block @ shared for _, block in weights])
    values, over_keys = mixed[:, :-1], mixed[:, -1]
    return values / over_keys[:, None] * size, over_queries, over_keys, highest


def _backward(
    alpha: float,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    grad: Tensor,
    over_queries: Tensor,
    over_keys: Tensor,
    highest: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients at one head's q (N, D), k (M, D) and v (M, E) from the one at its out, both (N, E).

    It is linear in v and in the gradient at out, which are brought to the size of 1 between the normalisers.
    """
    weights, size, steepness = _Weights(q, k, highest, alpha), _size(v), _size(grad)
    v, out, grad = v / size, out / size, grad / steepness
    taken = (grad * out).sum(-1, keepdim=True)
    share = torch.cat((grad, -taken), -1) / over_keys[:, None]  # (N, E + 1)
    passed = v.new_zeros(len(v), v.shape[-1] + 1)  # sum_i A_ij (g_i, -g_i.out_i) / s_i / a_j
    for rows, block in weights:
        passed.addmm_(block.T, share[rows])
    passed /= over_queries[:, None]
    grad_v = passed[:, :-1]
    pulled = (v * grad_v).sum(-1, keepdim=True) + passed[:, -1:]  # b (M, 1)
    asking = torch.cat((share, torch.ones_like(taken)), -1)
    giving = (torch.cat((v, torch.ones_like(pulled), -pulled), -1) / over_queries[:, None]).T.contiguous()
    grad_q, grad_k = [], torch.zeros_like(k)
    space = weights.space()
    for rows, block in weights:
        grad_scores = torch.mm(asking[rows], giving, out=space[: len(block)]).mul_(block)
        grad_q.append(grad_scores @ k)
        grad_k.addmm_(grad_scores.T, q[rows])
    scale = alpha * size * steepness
    return torch.cat(grad_q).mul_(scale), grad_k.mul_(scale), grad_v * steepness


def _backward_of_many(
    alpha: float,
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    over_queries: Tensor,
    over_keys: Tensor,
    highest: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients at q, k and v (B, H, N or M, D) where ``grad`` stands for several gradients at once.

    Such a tensor, of ``is_grads_batched`` or ``vmap``, takes part in no operation in place. All weights are held.
    """
    a, s, m = (norm.unflatten(0, q.shape[:2])[..., None] for norm in (over_queries, over_keys, highest))
    weights = (alpha * q @ k.mT - m.mT).exp() / a.mT / s  # (B, H, N, M)
    slope = grad @ v.mT - (grad * out).sum(-1, keepdim=True)
    pulled = (weights * slope).sum(-2, keepdim=True)
    grad_scores = weights * (slope - s * pulled)
    return grad_scores @ k * alpha, grad_scores.mT @ q * alpha, weights.mT @ grad


def _size(x: Tensor) -> float:
    """Return the size of the largest entry of x; 1 where that is 0 or no number."""
    size = largest(x)
    return size if 0 < size < math.inf else 1.0


class _Weights:
    """The weights A of one head, a block of rows at a time: few are held, many made anew by each loop over them.

    A block is there until the next one is made, in its place: new memory for each would cost as much as its product.
    """

    def __init__(self, q: Tensor, k: Tensor, highest: Tensor, alpha: float) -> None:
        self.q, self.k, self.least, self.alpha = q, k, -highest, alpha
        self.rows = len(q) if len(q) * len(k) <= WHOLE else max(1, AT_ONCE // len(k))
        self.block = self.space()
        self.made: slice | None = None

    def space(self) -> Tensor:
        """Return room for a block (rows, M)."""
        return self.q.new_empty(self.rows, len(self.k))

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, len(self.q), self.rows):
            rows = slice(start, min(start + self.rows, len(self.q)))
            block = self.block[: rows.stop - rows.start]
            if rows != self.made:
                torch.addmm(self.least, self.q[rows], self.k.T, alpha=self.alpha, out=block).exp_()
                self.made = rows
            yield rows, block
