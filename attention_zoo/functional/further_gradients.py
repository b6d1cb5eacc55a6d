"""The gradients that a function of ours returns where further gradients are to be taken from them."""

from collections.abc import Sequence

import torch
from torch import Tensor


def further_gradients(
    outputs: Sequence[Tensor], grads: Sequence[Tensor], inputs: Sequence[Tensor | None], wanted: Sequence[bool]
) -> list[Tensor | None]:
    """Return the gradients by those inputs that are wanted, from which further gradients can be taken.

    Args:
        outputs: what plain operations make of the inputs that the function saved.
        grads: the gradient by each output.
        inputs: the inputs of the function; None for one that is not there.
        wanted: whether the gradient by each input is wanted.
    """
    places = [place for place, needed in enumerate(wanted) if needed and inputs[place] is not None]
    learned = [x for place in places if (x := inputs[place]) is not None]
    found = torch.autograd.grad(outputs, learned, grads, create_graph=True, allow_unused=True)
    by_place = dict(zip(places, found, strict=True))
    return [by_place.get(place) for place in range(len(inputs))]
