"""Sparse reconstruction of `unrolled` as one operator of a compiled graph, with its gradient as another.

A compiler would take the iteration step by step with autograd's gradient, and keep the loop over samples for one number
of them. The operators do what is done without a compiler, so that a compiled model is no slower.

torch lets an operator take tensors, numbers and strings only: the parts of a dictionary come as the names of their
classes (``kinds``), their ``sizes`` and their weights, empty where a part has none.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from attention_zoo.functional.operators import Convolutions, Matrices, Means, Operator
from attention_zoo.functional.solution import Codes, Problem, Solution, keep_freed_memory

KINDS: dict[str, type[Operator]] = {kind.__name__: kind for kind in (Convolutions, Means, Matrices)}


def reconstruct_in_graph(problem: Problem, steps: int, straight_through: bool) -> Tensor:
    """Return the reconstructed values (B, T, C) of a problem of any number of samples; differentiable once."""
    return _reconstruct(*arguments(problem), steps, straight_through, problem.learned())[0]


def arguments(problem: Problem) -> tuple[Tensor, Tensor, Tensor, list[Tensor], str, list[int]]:
    """Return values, step size, threshold, weights, kinds and sizes of a problem, as the operators take them."""
    values, step_size, threshold, dictionary, mixed = problem
    weights = [values.new_empty(0) if part.weights is None else part.weights for part in (*dictionary, *mixed)]
    kinds = " ".join(type(part).__name__ for part in dictionary)
    sizes = [size for part in dictionary for size in (part.heads, part.width, *part.grid, part.prefix)]
    return values, step_size, threshold, weights, kinds, sizes


@torch.library.custom_op("attention_zoo::reconstruct", mutates_args=())
def _reconstruct(
    values: Tensor,
    step_size: Tensor,
    threshold: Tensor,
    weights: Sequence[Tensor],
    kinds: str,
    sizes: Sequence[int],
    steps: int,
    straight_through: bool,
    keep: bool,
) -> list[Tensor]:
    """Return the reconstruction (B, T, C), and if to ``keep`` what the gradient needs.

    That is what A makes of the codes before each update (steps, B, T, C), and for each part the codes before the first
    update and after each (steps + 1, B, ...).
    """
    keep_freed_memory()
    problem = Problem(values, step_size, threshold, *_parts(kinds, sizes, weights))
    reconstructed, kept = [], _rooms(problem, steps) if keep else []
    for few, path, decoded in _pieces(problem, kept):
        out, found, updates = Solution(few).solve(steps, path[1:] if keep else None)
        reconstructed.append(out)
        if keep:
            for room, own in zip((*path[0], *decoded), (*found[0], *updates), strict=True):
                room.copy_(own)
    return [torch.cat(reconstructed), *kept]


@_reconstruct.register_fake
def _(
    values: Tensor,
    step_size: Tensor,
    threshold: Tensor,
    weights: Sequence[Tensor],
    kinds: str,
    sizes: Sequence[int],
    steps: int,
    straight_through: bool,
    keep: bool,
) -> list[Tensor]:
    problem = Problem(values, step_size, threshold, *_parts(kinds, sizes, weights))
    return [values.new_empty(values.shape), *(_rooms(problem, steps) if keep else [])]


@torch.library.custom_op("attention_zoo::reconstruct_backward", mutates_args=())
def _gradients(
    grad: Tensor,
    kept: Sequence[Tensor],
    values: Tensor,
    step_size: Tensor,
    threshold: Tensor,
    weights: Sequence[Tensor],
    kinds: str,
    sizes: Sequence[int],
    straight_through: bool,
    learned: Sequence[bool],
) -> list[Tensor]:
    """Return the gradients by values, step size, threshold and the weights; empty for weights not ``learned``."""
    dictionary, mixed = _parts(kinds, sizes, weights)
    pieces = list(_pieces(Problem(values, step_size, threshold, dictionary, mixed), kept))
    of_pieces = grad.contiguous().split(len(pieces[0][0].values))
    found = [
        Solution(few).gradients(path, decoded, own, learned, straight_through)
        for (few, path, decoded), own in zip(pieces, of_pieces, strict=True)
    ]
    by_values, by_step, by_threshold, *by_weights = zip(*found, strict=True)
    whole = [
        part.gathered(own) if needed else values.new_empty(0)
        for part, own, needed in zip((*dictionary, *mixed), by_weights, learned, strict=True)
    ]
    return [torch.cat(by_values), torch.cat(by_step), torch.cat(by_threshold), *whole]


@_gradients.register_fake
def _(
    grad: Tensor,
    kept: Sequence[Tensor],
    values: Tensor,
    step_size: Tensor,
    threshold: Tensor,
    weights: Sequence[Tensor],
    kinds: str,
    sizes: Sequence[int],
    straight_through: bool,
    learned: Sequence[bool],
) -> list[Tensor]:
    numbers = [x.new_empty(x.shape) for x in (values, step_size, threshold)]
    return [*numbers, *(x.new_empty(x.shape if own else 0) for x, own in zip(weights, learned, strict=True))]


def _keep_for_gradients(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    values, step_size, threshold, weights, ctx.kinds, ctx.sizes, _, ctx.straight_through, _ = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.number = len(weights)
    ctx.save_for_backward(values, step_size, threshold, *weights, *output[1:])


def _gradients_of(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    values, step_size, threshold, *rest = ctx.saved_tensors
    weights, kept, learned = rest[: ctx.number], rest[ctx.number :], list(ctx.needs_input_grad[3])
    how = ctx.kinds, ctx.sizes, ctx.straight_through, learned
    found = _gradients(grads[0], kept, values, step_size, threshold, weights, *how)
    by_weights = [own if needed else None for own, needed in zip(found[3:], learned, strict=True)]
    return *found[:3], by_weights, None, None, None, None, None


_reconstruct.register_autograd(_gradients_of, setup_context=_keep_for_gradients)


def _parts(kinds: str, sizes: Sequence[int], weights: Sequence[Tensor]) -> tuple[list[Operator], list[Operator]]:
    """Return the parts of P and of A."""
    names = kinds.split() * 2
    parts: list[Operator] = []
    for name, own, start in zip(names, weights, itertools.cycle(range(0, len(sizes), 5)), strict=False):
        heads, width, height, across, prefix = sizes[start : start + 5]
        kind = KINDS[name]
        parts.append(kind(None if kind is Means else own, heads, width, (height, across), prefix))
    half = len(parts) // 2
    return parts[:half], parts[half:]


def _rooms(problem: Problem, steps: int) -> list[Tensor]:
    """Return empty tensors for what is kept for the gradient: `_reconstruct` says what."""
    values = problem.values
    shapes = [part.codes_shape(values.shape[0]) for part in problem.dictionary]  # a len would be a fixed number
    return [values.new_empty(steps, *values.shape), *(values.new_empty(steps + 1, *shape) for shape in shapes)]


def _pieces(problem: Problem, kept: Sequence[Tensor]) -> Iterator[tuple[Problem, list[Codes], list[Tensor]]]:
    """Yield the problems of a few samples at once, with the codes and decoded codes of these samples that are kept."""
    start = 0
    for few in problem.few_at_once():
        stop = start + len(few.values)
        decoded, *codes = ([step[start:stop] for step in own] for own in kept) if kept else [[]]
        yield few, [list(step) for step in zip(*codes, strict=True)], decoded
        start = stop
