"""Sparse reconstruction as one function whose gradient is written by hand (tech report, eq. 1.10-1.12).

    u <- S_t(u + A^T r + s P^T v),    r = -s A u,    starting from u = P^T v;    out = P u

`sparse.Lista` computes the same step by step. Codes are by far the largest tensors: here they are changed in place, and
only those of each step are kept for the gradient, in the layout of `operators`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attention_zoo.compat import in_transform, stands_for_many
from attention_zoo.functional.dictionaries import Dictionary
from attention_zoo.functional.further_gradients import further_gradients
from attention_zoo.functional.operators import Operator, by_channel, decoded_by, operators
from attention_zoo.functional.solution import Problem, Solution, keep_freed_memory
from attention_zoo.functional.sparse import soft_threshold, straight_soft_threshold
from attention_zoo.functional.unrolled_in_graphs import reconstruct_in_graph


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
    step, limit = (number.expand(batch, heads, 1, 1)[..., 0, 0] for number in (step_size, threshold))
    parts, others = (operators(whole, heads, width) for whole in (dictionary, mixed))
    problem = Problem(values.transpose(1, 2).flatten(2), step, limit, parts, others)
    if torch.compiler.is_compiling():  # a graph would hold the loop over the samples written out
        reconstructed = reconstruct_in_graph(problem, steps, straight_through)
    else:
        reconstructed = torch.cat([reconstruct(few, steps, straight_through) for few in problem.few_at_once()])
    return reconstructed.unflatten(2, (heads, width)).transpose(1, 2)


def reconstruct(problem: Problem, steps: int, straight_through: bool = False) -> Tensor:
    """Return values coded in a dictionary and decoded again; differentiable, also twice, by all tensors and weights.

    Args:
        problem: the values, numbers and dictionaries.
        steps: the number of updates.
        straight_through: whether gradients pass the threshold as if it cut nothing to 0.

    Returns:
        The reconstructed values (B, T, C).
    """
    if in_transform():  # torch.func cannot enter a function of ours
        return reconstruct_plainly(problem, steps, straight_through)
    if not problem.learned():
        return Solution(problem).solve(steps)[0]
    parts = [*problem.dictionary, *problem.mixed]
    empty, weights = [part.bound_to(None) for part in parts], [part.weights for part in parts]
    return _Reconstruction.apply(*problem[:3], steps, empty, straight_through, *weights)


def reconstruct_plainly(problem: Problem, steps: int, straight_through: bool = False) -> Tensor:
    """Return what `reconstruct` does, as plain operations that autograd follows any number of times."""
    values, step_size, threshold, dictionary, mixed = problem
    shrink = straight_soft_threshold if straight_through else soft_threshold
    drive = [part.encode(values) for part in dictionary]
    pull = [part.spread(step_size) * own for part, own in zip(dictionary, drive, strict=True)]
    step, codes = by_channel(step_size, mixed[0].width), drive
    for _ in range(steps):
        residual = -step * decoded_by(mixed, codes)
        before = [u + part.encode(residual) + p for part, u, p in zip(mixed, codes, pull, strict=True)]
        codes = [shrink(u, part.spread(threshold)) for part, u in zip(mixed, before, strict=True)]
    return decoded_by(dictionary, codes)


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
        keep_freed_memory()
        problem = Problem(values, step_size, threshold, *_bound(parts, weights))
        shapes = [part.codes_shape(len(values)) for part in problem.dictionary]
        # one tensor for all updates: many large ones would be given back to the system and fetched again
        rooms = [values.new_empty(steps, *shape).unbind() for shape in shapes]
        out, path, decoded = Solution(problem).solve(steps, [list(room) for room in zip(*rooms, strict=True)])
        ctx.save_for_backward(*problem[:3], *weights, *decoded, *(t for codes in path for t in codes))
        ctx.steps, ctx.parts, ctx.straight_through = steps, parts, straight_through
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        parts, steps, saved = ctx.parts, ctx.steps, iter(ctx.saved_tensors)
        values, step_size, threshold = (next(saved) for _ in range(3))
        weights = [next(saved) for _ in parts]
        wanted = [*ctx.needs_input_grad[:3], *ctx.needs_input_grad[6:]]
        further = torch.is_grad_enabled()

        def plainly(values: Tensor, step_size: Tensor, threshold: Tensor, *weights: Tensor | None) -> list[Tensor]:
            problem = Problem(values, step_size, threshold, *_bound(parts, weights))
            return [reconstruct_plainly(problem, steps, ctx.straight_through)]

        with torch.autocast(grad.device.type, enabled=False):  # as it was forwards
            if further or stands_for_many(grad):
                inputs = (values, step_size, threshold, *weights)
                grads = further_gradients(plainly, inputs, [grad], wanted, further=further)
            else:
                decoded = [next(saved) for _ in range(steps)]
                problem = Problem(values, step_size, threshold, *_bound(parts, weights))
                path = [[next(saved) for _ in problem.dictionary] for _ in range(steps + 1)]
                grads = Solution(problem).gradients(path, decoded, grad.contiguous(), wanted[3:], ctx.straight_through)
        return *grads[:3], None, None, None, *grads[3:]


def _bound(parts: Sequence[Operator], weights: Sequence[Tensor | None]) -> tuple[list[Operator], list[Operator]]:
    """Return the parts of P and of A with their weights."""
    whole = [part.bound_to(own) for part, own in zip(parts, weights, strict=True)]
    return whole[: len(whole) // 2], whole[len(whole) // 2 :]
