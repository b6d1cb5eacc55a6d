"""Sparse reconstruction as one function whose gradient is written by hand (tech report, eq. 1.10-1.12).

    u <- S_t(u + A^T r + s P^T v),    r = -s A u,    starting from u = P^T v;    out = P u

`sparse.Lista` computes the same step by step. Codes are by far the largest tensors: here they are changed in place, and
only those of each step are kept for the gradient, in the layout of `operators`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attention_zoo.compat import in_transform
from attention_zoo.functional.dictionaries import Dictionary
from attention_zoo.functional.operators import Gradient, Operator, by_channel, operators
from attention_zoo.functional.sparse import soft_threshold, straight_soft_threshold

MOST_AT_ONCE = 1 << 19
"""Codes of the samples that are computed together: more would leave the cache between one operation and the next."""

Codes = list[Tensor]
"""The codes of each part of a dictionary."""


def unrolled(
    values: Tensor,
    step_size: Tensor,
    threshold: Tensor,
    steps: int,
    dictionary: Dictionary,
    mixed: Dictionary,
    straight_through: bool = False,
) -> Tensor:
    """Return values coded in a dictionary and decoded again; differentiable, also twice, by all that it is given.

    Args:
        values: v (B, H, T, E), quickest where they are a view of tokens (B, T, H E).
        step_size: s, broadcasting to (B, H, 1, 1).
        threshold: t of the codes, broadcasting to (B, H, 1, 1).
        steps: the number of updates.
        dictionary: P, of parts that `operators` knows.
        mixed: A, what was learned in its place.
        straight_through: whether gradients pass the threshold as if it cut nothing to 0.

    Returns:
        The reconstructed values (B, H, T, E), a view of tokens (B, T, H E).
    """
    batch, heads, _, width = values.shape
    tokens = values.transpose(1, 2).flatten(2)
    numbers = [number.expand(batch, heads, 1, 1)[..., 0, 0] for number in (step_size, threshold)]
    size = max(1, MOST_AT_ONCE // (dictionary.num_atoms * heads * width))
    some = [x.split(size) for x in (tokens, *numbers)]
    parts, others = (
        zip(*(part.split(size, len(some[0])) for part in operators(whole, heads, width)), strict=True)
        for whole in (dictionary, mixed)
    )
    reconstructed = [
        reconstruct(own, step, limit, steps, own_parts, own_others, straight_through)
        for own, step, limit, own_parts, own_others in zip(*some, parts, others, strict=True)
    ]
    return torch.cat(reconstructed).unflatten(2, (heads, width)).transpose(1, 2)


def reconstruct(
    values: Tensor,
    step_size: Tensor,
    threshold: Tensor,
    steps: int,
    dictionary: Sequence[Operator],
    mixed: Sequence[Operator],
    straight_through: bool = False,
) -> Tensor:
    """Return values coded in a dictionary and decoded again; differentiable, also twice, by all tensors and weights.

    Args:
        values: v (B, T, C).
        step_size: s (B, H).
        threshold: t (B, H) of the codes.
        steps: the number of updates.
        dictionary: the parts of P.
        mixed: the parts of A, what was learned in its place.
        straight_through: whether gradients pass the threshold as if it cut nothing to 0.

    Returns:
        The reconstructed values (B, T, C).
    """
    if in_transform():  # torch.func cannot enter a function of ours
        return reconstruct_plainly(values, step_size, threshold, steps, dictionary, mixed, straight_through)
    weights = [part.weights for part in (*dictionary, *mixed)]
    learned = [tensor for tensor in (values, step_size, threshold, *weights) if tensor is not None]
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in learned)):
        return _Solution(step_size, threshold, dictionary, mixed).solve(values, steps)[0]
    empty = [part.bound_to(None) for part in (*dictionary, *mixed)]
    return _Reconstruction.apply(values, step_size, threshold, steps, empty, straight_through, *weights)


def reconstruct_plainly(
    values: Tensor,
    step_size: Tensor,
    threshold: Tensor,
    steps: int,
    dictionary: Sequence[Operator],
    mixed: Sequence[Operator],
    straight_through: bool = False,
) -> Tensor:
    """Return what `reconstruct` does, as plain operations that autograd follows any number of times."""
    shrink = straight_soft_threshold if straight_through else soft_threshold
    drive = [part.encode(values) for part in dictionary]
    pull = [part.spread(step_size) * own for part, own in zip(dictionary, drive, strict=True)]
    step, codes = by_channel(step_size, mixed[0].width), drive
    for _ in range(steps):
        residual = -step * _decoded(mixed, codes)
        before = [u + part.encode(residual) + p for part, u, p in zip(mixed, codes, pull, strict=True)]
        codes = [shrink(u, part.spread(threshold)) for part, u in zip(mixed, before, strict=True)]
    return _decoded(dictionary, codes)


class _Reconstruction(torch.autograd.Function):
    """Computes `reconstruct`; ``parts`` are those of P, then those of A, with their weights apart."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        step_size: Tensor,
        threshold: Tensor,
        steps: int,
        parts: Sequence[Operator],
        straight_through: bool,
        *weights: Tensor | None,
    ) -> Tensor:
        solution = _Solution(step_size, threshold, *_bound(parts, weights))
        out, path, decoded = solution.solve(values, steps, keep=True)
        ctx.save_for_backward(values, step_size, threshold, *weights, *decoded, *(t for codes in path for t in codes))
        ctx.steps, ctx.parts, ctx.straight_through = steps, parts, straight_through
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        parts, steps, saved = ctx.parts, ctx.steps, iter(ctx.saved_tensors)
        values, step_size, threshold = (next(saved) for _ in range(3))
        weights = [next(saved) for _ in parts]
        wanted = [*ctx.needs_input_grad[:3], *ctx.needs_input_grad[6:]]
        if torch.is_grad_enabled():
            twice = (steps, parts, ctx.straight_through, grad)
            grads = _gradients_twice(values, step_size, threshold, weights, wanted, *twice)
        else:
            decoded = [next(saved) for _ in range(steps)]
            path = [[next(saved) for _ in parts[::2]] for _ in range(steps + 1)]
            solution = _Solution(step_size, threshold, *_bound(parts, weights), ctx.straight_through)
            grads = solution.gradients(values, path, decoded, grad.contiguous(), wanted[3:])
        return *grads[:3], None, None, None, *grads[3:]


def _gradients_twice(
    values: Tensor,
    step_size: Tensor,
    threshold: Tensor,
    weights: Sequence[Tensor | None],
    wanted: Sequence[bool],
    steps: int,
    parts: Sequence[Operator],
    straight_through: bool,
    grad: Tensor,
) -> list[Tensor | None]:
    """Return the gradients by those tensors that are wanted, from which further gradients can be taken."""
    out = reconstruct_plainly(values, step_size, threshold, steps, *_bound(parts, weights), straight_through)
    inputs = (values, step_size, threshold, *weights)
    learned = [x for x, needed in zip(inputs, wanted, strict=True) if needed and x is not None]
    grads = iter(torch.autograd.grad(out, learned, grad, create_graph=True, allow_unused=True))
    return [next(grads) if needed else None for needed in wanted]


class _Solution:
    """The iteration for one choice of the numbers and dictionaries, forwards and backwards."""

    def __init__(
        self,
        step_size: Tensor,
        threshold: Tensor,
        dictionary: Sequence[Operator],
        mixed: Sequence[Operator],
        straight_through: bool = False,
    ) -> None:
        self.dictionary, self.mixed, self.straight_through = dictionary, mixed, straight_through
        self.step = by_channel(step_size, mixed[0].width)
        self.steps_of_codes = [part.spread(step_size) for part in mixed]
        self.thresholds = [part.spread(threshold) for part in mixed]

    def solve(self, values: Tensor, steps: int, keep: bool = False) -> tuple[Tensor, list[Codes], list[Tensor]]:
        """Return the reconstruction of values (B, T, C), and if to ``keep`` what `gradients` needs.

        Returns:
            The reconstruction (B, T, C); the codes before the first update and after each; what A makes of the codes
            before each update (B, T, C). The codes of all updates are one tensor: many large ones would be given back
            to the system and fetched again.
        """
        drive = [part.encode(values) for part in self.dictionary]
        rooms = [own.new_empty(steps if keep else min(steps, 1), *own.shape) for own in drive]
        path, decoded = [drive], []
        for step in range(steps):
            decoded.append(_decoded(self.mixed, path[-1]))
            path.append(self._updated(path[-1], decoded[-1], drive, [room[step if keep else 0] for room in rooms]))
        return _decoded(self.dictionary, path[-1]), path, decoded

    def _updated(self, codes: Codes, decoded: Tensor, drive: Codes, rooms: Codes) -> Codes:
        """Return the codes after an update, written to ``rooms``, which may be those of the codes before."""
        residual = decoded * -self.step
        for index, part in enumerate(self.mixed):
            step, threshold, room = self.steps_of_codes[index], self.thresholds[index], rooms[index]
            before = part.encode(residual).add_(codes[index]).addcmul_(drive[index], step)
            torch.clamp_max(before, threshold, out=room)
            torch.sub(before, room.clamp_min_(-threshold), out=room)
        return rooms

    def gradients(
        self, values: Tensor, path: list[Codes], decoded: list[Tensor], grad: Tensor, learned: Sequence[bool]
    ) -> list[Tensor | None]:
        """Return the gradients by values, step size, threshold, and the weights of P and of A that are ``learned``.

        Args:
            values: v (B, T, C).
            path: the codes before and after every update, as `solve` keeps them.
            decoded: what A makes of the codes before every update (B, T, C).
            grad: the gradient (B, T, C) by the reconstruction.
            learned: whether the gradients by the weights of each part are wanted.
        """
        size = len(self.dictionary)
        by_dictionary = _Gradients(self.dictionary, learned[:size])
        by_mixed = _Gradients(self.mixed, learned[size:])
        by_step, by_threshold = (values.new_zeros(len(values), self.mixed[0].heads) for _ in range(2))
        by_dictionary.add(grad, path[-1])
        by_codes = [part.encode(grad) for part in self.dictionary]
        by_pull = [torch.zeros_like(own) for own in by_codes]
        rooms = [torch.empty_like(own) for own in by_codes]
        for before, after, values_before in zip(path[-2::-1], path[:0:-1], decoded[::-1], strict=True):
            for part, own, pulled, left, room in zip(self.mixed, by_codes, by_pull, after, rooms, strict=True):
                by_threshold -= part.collect(torch.sign(left, out=room).mul_(own))
                if not self.straight_through:  # nothing passes where the code after the threshold is 0
                    torch.ops.aten.hardshrink_backward(own, left, 0.0, grad_input=own)
                pulled.add_(own)
            by_residual = _decoded(self.mixed, by_codes)
            by_step -= self._by_head(values_before * by_residual)
            by_mixed.add(values_before * -self.step, by_codes)
            by_decoded = by_residual.mul_(-self.step)
            by_mixed.add(by_decoded, before)
            for part, own in zip(self.mixed, by_codes, strict=True):
                own.add_(part.encode(by_decoded))
        for index, (part, own, pulled) in enumerate(zip(self.mixed, by_codes, by_pull, strict=True)):
            by_step += part.collect(torch.mul(pulled, path[0][index], out=rooms[index]))
            own.addcmul_(pulled, self.steps_of_codes[index])
        by_dictionary.add(values, by_codes)
        by_values = _decoded(self.dictionary, by_codes)
        return [by_values, by_step, by_threshold, *by_dictionary.totals(), *by_mixed.totals()]

    def _by_head(self, values: Tensor) -> Tensor:
        """Return the sums (B, H) of values (B, T, C)."""
        part = self.mixed[0]
        return values.sum(1).unflatten(1, (part.heads, part.width)).sum(2)


class _Gradients:
    """The gradients by the weights of those parts of a dictionary that are learned."""

    def __init__(self, parts: Sequence[Operator], learned: Sequence[bool]) -> None:
        self.parts: list[Gradient | None] = [
            part.gradient() if needed else None for part, needed in zip(parts, learned, strict=True)
        ]

    def add(self, values: Tensor, codes: Codes) -> None:
        for part, own in zip(self.parts, codes, strict=True):
            if part is not None:
                part.add(values, own)

    def totals(self) -> list[Tensor | None]:
        return [None if part is None else part.total() for part in self.parts]


def _decoded(parts: Sequence[Operator], codes: Codes) -> Tensor:
    """Return the sum (B, T, C) of what the parts decode, a new tensor."""
    out = parts[0].decode(codes[0])
    for part, own in zip(parts[1:], codes[1:], strict=True):
        out = out + part.decode(own)
    return out


def _bound(parts: Sequence[Operator], weights: Sequence[Tensor | None]) -> tuple[list[Operator], list[Operator]]:
    """Return the parts of P and of A with their weights."""
    whole = [part.bound_to(own) for part, own in zip(parts, weights, strict=True)]
    return whole[: len(whole) // 2], whole[len(whole) // 2 :]
