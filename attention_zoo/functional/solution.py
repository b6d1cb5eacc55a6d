"""The iteration of `unrolled` for one choice of numbers and dictionaries, forwards and backwards.

    u <- S_t(u + A^T r + s P^T v),    r = -s A u,    starting from u = P^T v;    out = P u

Nothing here is followed by autograd: codes are changed in place.
"""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from attention_zoo.functional.operator_gradients import Gradient
from attention_zoo.functional.operators import Operator, by_channel, decoded_by

MOST_AT_ONCE = 1 << 19
"""Codes of the samples that are computed together: more would leave the cache between one operation and the next."""

Codes = list[Tensor]
"""The codes of each part of a dictionary."""


@functools.cache
def keep_freed_memory() -> None:
    """Have the C library keep what a training step frees for the next one.

    glibc gives memory back to the system above twice the largest block that was ever freed, up to 64 MiB (mallopt(3),
    "dynamic mmap threshold"). Small layers stay above it, and fetching their codes page by page again takes a sixth of
    a step. The block that is freed here is never written to; other C libraries lose nothing by it.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


class Problem(NamedTuple):
    """The numbers and dictionaries of some samples.

    Attributes:
        values: v (B, T, C).
        step_size: s (B, H).
        threshold: t (B, H) of the codes.
        dictionary: the parts of P.
        mixed: the parts of A, what was learned in its place.
    """

    values: Tensor
    step_size: Tensor
    threshold: Tensor
    dictionary: Sequence[Operator]
    mixed: Sequence[Operator]

    def learned(self) -> bool:
        """Return whether a gradient by any of the tensors is wanted."""
        weights = [part.weights for part in (*self.dictionary, *self.mixed)]
        return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (*self[:3], *weights))

    def few_at_once(self) -> Iterator["Problem"]:
        """Yield the problems of as many samples as `MOST_AT_ONCE` has room for."""
        size = max(1, MOST_AT_ONCE // sum(math.prod(part.codes_shape(1)) for part in self.dictionary))
        numbers = [number.split(size) for number in self[:3]]
        parts = (zip(*(part.split(size, len(numbers[0])) for part in whole), strict=True) for whole in self[3:])
        yield from itertools.starmap(Problem, zip(*numbers, *parts, strict=True))


class Solution:
    """The iteration for one choice of the numbers and dictionaries, forwards and backwards."""

    def __init__(self, problem: Problem) -> None:
        self.values, step_size, threshold, self.dictionary, self.mixed = problem
        self.step = by_channel(step_size, self.mixed[0].width)
        self.steps_of_codes = [part.spread(step_size) for part in self.mixed]
        self.thresholds = [part.spread(threshold) for part in self.mixed]

    def solve(self, steps: int, rooms: Sequence[Codes] | None = None) -> tuple[Tensor, list[Codes], list[Tensor]]:
        """Return the reconstruction, and what `gradients` needs.

        Args:
            steps: the number of updates.
            rooms: where to write the codes after each update; None keeps the last ones only.

        Returns:
            The reconstruction (B, T, C); the codes before the first update and after each; what A makes of the codes
            before each update (B, T, C).
        """
        drive = [part.encode(self.values) for part in self.dictionary]
        if rooms is None:
            rooms = [[torch.empty_like(own) for own in drive]] * steps
        path, decoded = [drive], []
        for room in rooms:
            decoded.append(decoded_by(self.mixed, path[-1]))
            path.append(self._updated(path[-1], decoded[-1], drive, room))
        return decoded_by(self.dictionary, path[-1]), path, decoded

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
        self,
        path: Sequence[Codes],
        decoded: Sequence[Tensor],
        grad: Tensor,
        learned: Sequence[bool],
        straight_through: bool,
    ) -> list[Tensor | None]:
        """Return the gradients by values, step size, threshold, and the weights of P and of A that are ``learned``.

        Args:
            path: the codes before and after every update, as `solve` returns them.
            decoded: what A makes of the codes before every update (B, T, C).
            grad: the gradient (B, T, C) by the reconstruction.
            learned: whether the gradients by the weights of each part are wanted.
            straight_through: whether gradients pass the threshold as if it cut nothing to 0.
        """
        values = self.values
        size = len(self.dictionary)
        by_dictionary = _Gradients(self.dictionary, learned[:size], len(values))
        by_mixed = _Gradients(self.mixed, learned[size:], len(values))
        by_step, by_threshold = (values.new_zeros(len(values), self.mixed[0].heads) for _ in range(2))
        by_dictionary.add(grad, path[-1])
        by_codes = [part.encode(grad) for part in self.dictionary]
        by_pull = [torch.zeros_like(own) for own in by_codes]
        rooms = [torch.empty_like(own) for own in by_codes]
        for before, after, values_before in zip(path[-2::-1], path[:0:-1], decoded[::-1], strict=True):
            for part, own, pulled, left, room in zip(self.mixed, by_codes, by_pull, after, rooms, strict=True):
                by_threshold -= part.collect(torch.sign(left, out=room).mul_(own))
                if not straight_through:  # nothing passes where the code after the threshold is 0
                    torch.ops.aten.hardshrink_backward(own, left, 0.0, grad_input=own)
                pulled.add_(own)
            by_residual = decoded_by(self.mixed, by_codes)
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
        by_values = decoded_by(self.dictionary, by_codes)
        return [by_values, by_step, by_threshold, *by_dictionary.totals(), *by_mixed.totals()]

    def _by_head(self, values: Tensor) -> Tensor:
        """Return the sums (B, H) of values (B, T, C)."""
        part = self.mixed[0]
        return values.sum(1).unflatten(1, (part.heads, part.width)).sum(2)


class _Gradients:
    """The gradients by the weights of those parts of a dictionary that are learned."""

    def __init__(self, parts: Sequence[Operator], learned: Sequence[bool], batch: int) -> None:
        self.parts: list[Gradient | None] = [
            part.gradient(batch) if needed else None for part, needed in zip(parts, learned, strict=True)
        ]

    def add(self, values: Tensor, codes: Codes) -> None:
        for part, own in zip(self.parts, codes, strict=True):
            if part is not None:
                part.add(values, own)

    def totals(self) -> list[Tensor | None]:
        return [None if part is None else part.total() for part in self.parts]
