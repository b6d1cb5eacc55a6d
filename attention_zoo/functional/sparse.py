"""Recurrent sparse reconstruction: LISTA on a dictionary given by its Gram operator (tech report eq. 1.10-1.12).

    u* = argmin_u 1/2 |P u - v|^2 + lam |u|_1

B. Shi, T. Darrell, X. Wang, Visual Attention Emerges from Recurrent Sparse Reconstruction (VARS), ICML 2022; chapter 1
of technical report EECS-2024-49.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from attention_zoo.functional.straight_through import straight_through


class _SoftThreshold(torch.autograd.Function):
    """Computes `soft_threshold`, with a gradient that needs only its output.

    A clamp between tensors would make training 1.4 times slower. Codes are the largest tensors of a mixer, so no more
    tensors of their size are made than must be.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, threshold: Tensor | float) -> Tensor:
        return x.clamp_max(threshold).clamp_min_(-threshold).sub_(x).neg_()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.shape = getattr(inputs[1], "shape", None)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        (left,) = ctx.saved_tensors
        sign = left.sign()
        outwards = grad * sign
        by_threshold = -outwards.sum_to_size(ctx.shape) if ctx.needs_input_grad[1] else None
        return outwards.mul_(sign), by_threshold


def soft_threshold(x: Tensor, threshold: Tensor | float) -> Tensor:
    """Return S(x) = sgn(x) (|x| - threshold)_+ of each entry: by how much x is beyond the threshold on either side."""
    return _SoftThreshold.apply(x, threshold)


def soft_slope(x: Tensor, threshold: Tensor | float) -> Tensor:
    """Return the derivative of `soft_threshold` by x: 1 where a code stays active, 0 elsewhere."""
    return (x.abs() > threshold).to(x.dtype)


def gelu_threshold(x: Tensor, threshold: Tensor | float) -> Tensor:
    """Return sgn(x) GELU(|x| - threshold), the smoother threshold of the released code."""
    return F.gelu(x.abs().sub_(threshold)).mul_(x.detach().sign())


def gelu_slope(x: Tensor, threshold: Tensor | float) -> Tensor:
    """Return the derivative of `gelu_threshold` by x."""
    excess = x.abs() - threshold
    density = (-excess.square() / 2).exp() / math.sqrt(2 * math.pi)
    return torch.special.ndtr(excess) + excess * density


class Shrinkage(NamedTuple):
    """A function that thresholds codes, its derivative, and the function with a gradient that passes the threshold."""

    value: Callable[[Tensor, Tensor | float], Tensor]
    slope: Callable[[Tensor, Tensor | float], Tensor]
    straight: Callable[[Tensor, Tensor | float], Tensor]


def straight_soft_threshold(x: Tensor, threshold: Tensor | float) -> Tensor:
    """Return `soft_threshold`, with the gradient of x - threshold sgn(S(x)): what is cut to 0 passes it on as well."""
    value = soft_threshold(x, threshold)
    return straight_through(value, x - threshold * value.detach().sign())


def straight_gelu_threshold(x: Tensor, threshold: Tensor | float) -> Tensor:
    """Return `gelu_threshold`, with the gradient of x - threshold sgn(x)."""
    surrogate = x - threshold * x.detach().sign()
    return straight_through(gelu_threshold(x, threshold), surrogate)


SOFT = Shrinkage(soft_threshold, soft_slope, straight_soft_threshold)
GELU = Shrinkage(gelu_threshold, gelu_slope, straight_gelu_threshold)


@dataclass(frozen=True)
class Lista:
    """The learned iteration of eq. 1.12, which computes sparse codes u.

        u <- S_{lam step}(u - step (G u - P^T v)),    starting from u = P^T v

    Attributes:
        contract: u -> u - step G u for codes (..., A, D) of any number of channels D, where G is P^T P or what was
            learned in its place. It returns a new tensor.
        drive: the drive P^T v (..., A, D).
        lam: weight of the sparsity.
        step_size: the step 1 / (w_2 L), broadcasting to (..., A, 1).
        steps: number of updates.
        shrinkage: the threshold S.
        shrinks_start: whether to start from S_lam(P^T v) instead.
        straight_through: whether gradients pass the threshold as if it cut nothing to 0.
    """

    contract: Callable[[Tensor], Tensor]
    drive: Tensor
    lam: Tensor | float
    step_size: Tensor | float
    steps: int
    shrinkage: Shrinkage = SOFT
    shrinks_start: bool = False
    straight_through: bool = False

    def path(self) -> Iterator[Tensor]:
        """Yield the codes (..., A, D) before the first update and after each, ``steps + 1`` times."""
        shrink = self.shrinkage.straight if self.straight_through else self.shrinkage.value
        codes = shrink(self.drive, self.lam) if self.shrinks_start else self.drive
        yield codes
        pull, threshold = self.step_size * self.drive, self.lam * self.step_size
        for _ in range(self.steps):
            codes = shrink(self.contract(codes).add_(pull), threshold)
            yield codes

    def solve(self) -> Tensor:
        """Return the codes (..., A, D) after the last update."""
        for codes in self.path():
            last = codes
        return last

    def slopes(self) -> list[Tensor]:
        """Return derivatives (..., A, D) of each threshold on the path: one for the start and one for every update."""
        slope, drive = self.shrinkage.slope, self.drive
        first = slope(drive, self.lam) if self.shrinks_start else torch.ones_like(drive)
        pull, threshold = self.step_size * drive, self.lam * self.step_size
        befores = list(self.path())[:-1]
        return [first] + [slope(self.contract(codes) + pull, threshold) for codes in befores]

    def mean_jacobians(self, basis: Tensor) -> list[Tensor]:
        """Return derivatives of codes by the drive along ``basis``, mean over channels, before and after each update.

        Every channel is coded alone, so its codes move linearly with its drive between two slopes.

        Args:
            basis: directions (..., A, R) of the drive.

        Returns:
            A list of ``steps + 1`` tensors (..., A, R).
        """
        slopes, pull = self.slopes(), self.step_size * basis
        sums = [torch.zeros_like(basis) for _ in slopes]
        channels = self.drive.shape[-1]
        for channel in range(channels):
            moved = basis
            for total, slope in zip(sums, slopes, strict=True):
                jacobian = slope[..., channel, None] * moved
                total += jacobian
                moved = self.contract(jacobian) + pull
        return [total / channels for total in sums]


def largest_eigenvalue(gram: Tensor, iterations: int = 8) -> Tensor:
    """Return an upper bound, tight after a few power iterations, on each ``gram``'s largest eigenvalue.

    For a matrix without negative entries max_i (G x)_i / x_i bounds the largest eigenvalue for every positive x
    (Collatz-Wielandt), so a step of its inverse never overshoots. The gradient is that of the eigenvalue, x x^T for
    its unit eigenvector x, in further gradients a constant.

    Args:
        gram: symmetric matrices (..., M, M) without negative entries and with a positive diagonal.
        iterations: number of matrix-vector products.

    Returns:
        The bounds (..., 1, 1), ready to broadcast over codes.
    """
    with torch.no_grad():
        x = torch.ones_like(gram[..., :1, :])
        for _ in range(iterations):
            previous, x = x, x @ gram  # of rows, which takes a tenth of the time that columns take
            bound = (x / previous).amax(-1, keepdim=True)
            x = x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    bound, x = bound.detach(), x.detach()  # an exported graph forgets no_grad, and keeps this
    rayleigh = x @ gram @ x.mT
    return bound + rayleigh - rayleigh.detach()
