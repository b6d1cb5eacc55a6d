"""Answers to what a program asks of tensors without numbers: integers are all alike, truth values true, all counts."""

import math

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Answers(TorchDispatchMode):
    """Carries a step beyond the places where it waits for numbers, as if all of its samples counted.

    To be entered before a `Watch`, which sees the questions first.

    Args:
        number: the value of every integer.
    """

    def __init__(self, number: int = 1) -> None:
        super().__init__()
        self.number = number

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        answer = ANSWERS.get(func.overloadpacket.__name__)
        found = None if answer is None else answer(self.number, func, *args, **kwargs)
        return func(*args, **kwargs) if found is None else found


def _number(number, func, x: Tensor):
    return True if x.dtype == torch.bool else float(number) if x.is_floating_point() else number


def _places(x: Tensor) -> list[Tensor]:
    """Return the indices that truth values (B, ...) choose: all of (B,), and one in each row of those with more."""
    return list(torch.arange(len(x), device=x.device).expand(x.dim(), -1).unbind())


def _chosen(number, func, x: Tensor, indices, *rest, **options):
    """Take every entry that truth values choose from."""
    if not any(index is not None and index.dtype == torch.bool for index in indices):
        return None
    places = []
    for index in indices:
        places += _places(index) if index is not None and index.dtype == torch.bool else [index]
    return func(x, places, *rest, **options)


def _repeated(number, func, *args, output_size=None):
    if func._overloadname != "Tensor" or output_size is not None:
        return None
    return args[0].new_zeros(number * args[0].numel())


ANSWERS = {
    "_local_scalar_dense": _number,
    "equal": lambda number, func, x, y: True,
    "index": _chosen,
    "index_put": _chosen,
    "index_put_": _chosen,
    "_index_put_impl_": _chosen,
    "nonzero": lambda number, func, x: x.new_zeros(x.numel(), x.dim(), dtype=torch.int64),
    "masked_select": lambda number, func, x, mask: x.new_zeros(math.prod(torch.broadcast_shapes(x.shape, mask.shape))),
    "bincount": lambda number, func, x, weights=None, minlength=0: x.new_zeros(max(minlength, 1)),
    "_unique2": lambda number, func, x, *rest, **options: (x.flatten(), x.new_zeros(x.numel()), x.new_zeros(0)),
    "repeat_interleave": _repeated,
}
"""What is returned in the place of an operator, from the integers' value, it and its arguments; None lets it run."""
