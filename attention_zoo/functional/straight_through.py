"""Straight-through gradients: an operation keeps its value and passes on the gradient of another one.

Y. Bengio, N. Leonard, A. Courville, Estimating or Propagating Gradients Through Stochastic Neurons for Conditional
Computation, 2013. As the backward pass of an attack it is BPDA: A. Athalye, N. Carlini, D. Wagner, Obfuscated Gradients
Give a False Sense of Security, ICML 2018 (section 4.1).
"""

from typing import Any

from torch import Tensor, autograd


class _StraightThrough(autograd.Function):
    """Computes `straight_through`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, surrogate: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad


def straight_through(value: Tensor, surrogate: Tensor) -> Tensor:
    """Return ``value`` bit by bit, with the gradient of ``surrogate``, a tensor of the same shape."""
    return _StraightThrough.apply(value.detach(), surrogate)
