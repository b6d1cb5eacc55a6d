"""The gradients that a function of ours returns where further gradients are to be taken from them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def further_gradients(
    function: Callable[..., Sequence[Tensor]],
    inputs: Sequence[Tensor | None],
    grads: Sequence[Tensor | None],
    wanted: Sequence[bool],
    *,
    further: bool = True,
) -> list[Tensor | None]:
    """Return the gradients by those inputs that are wanted, from which further gradients can be taken.

    Inputs may depend on each other, or be one tensor: the gradient by each is that with the others held, since the
    function is applied to views of them, which stand for nothing else.

    Args:
        function: what the function is in plain operations; it takes the inputs and returns the outputs.
        inputs: the inputs that the function saved; None for one that is not there.
        grads: the gradient by each output; None for one that no gradient comes from.
        wanted: whether the gradient by each input is wanted.
        further: whether further gradients are to be taken from these.
    """
    with torch.enable_grad():
        held = [None if x is None else x.view_as(x) for x in inputs]
        given = zip(function(*held), grads, strict=True)
        outputs, by = zip(*((output, grad) for output, grad in given if grad is not None), strict=True)
    places = [place for place, needed in enumerate(wanted) if needed and held[place] is not None]
    learned = [x for place in places if (x := held[place]) is not None]
    found = torch.autograd.grad(outputs, learned, by, create_graph=further, allow_unused=True)
    by_place = dict(zip(places, found, strict=True))
    return [by_place.get(place) for place in range(len(inputs))]
