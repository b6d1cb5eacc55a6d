"""The floating types in which exponents, normalisers and long sums are computed."""

from typing import Any

import torch
from torch import Tensor

from attention_zoo.compat import in_transform


def precise(x: Tensor) -> Tensor:
    """Return ``x`` in float32 or wider, whatever type autocast made it."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


RESOLVED = 1024.0
"""The size of score up to which float32 gives responsibilities to about 1e-4."""

HALF = (torch.float16, torch.bfloat16)


def widened(scores: Tensor, *arguments: Any) -> tuple[Any, ...]:
    """Return the arguments of a function that normalises scores twice, in a type that resolves the scores.

    That is float32 in place of half precision, and float64 where float32 is not enough.

    Such a function takes exp(score - logsumexp): two large numbers whose rounding errors are left where they cancel. A
    softmax, which subtracts one of its own scores, loses nothing there. Only on the CPU does it look how
    large the scores are: on other devices that would stall the program, and graphs and transforms have no such number.

    Args:
        scores: a tensor of one number, a bound on the scores.
        *arguments: tensors, named tuples of tensors, or anything else, which stays as it is.
    """
    # by their own types: under autocast on CUDA the sum that a bound is made of is float32
    arguments = tuple(_in_type(x, torch.float32, HALF) for x in arguments)
    unread = torch.compiler.is_compiling() or in_transform()
    if unread or scores.device.type != "cpu" or scores.dtype == torch.float64:
        return arguments
    return tuple(_in_type(x, torch.float64) for x in arguments) if scores > RESOLVED else arguments


def _in_type(x: Any, kind: torch.dtype, of: tuple[torch.dtype, ...] = (*HALF, torch.float32, torch.float64)) -> Any:
    """Return what has one of the types ``of`` in another, itself or within a named tuple; anything else as it is."""
    if isinstance(x, Tensor):
        return x.to(kind) if x.dtype in of else x
    return type(x)(*(_in_type(part, kind, of) for part in x)) if isinstance(x, tuple) else x
