"""Dictionaries of sparse reconstruction as operators on tokens, whose gradients `unrolled` takes by hand.

Tokens are (B, T, C), the prefix first, with channels C = H E in the order of the heads: as a mixer projects them, so
that nothing is moved. An operator P has codes in a layout of its own: `Operator.encode` applies P^T, and
`Operator.decode` P. Both come from one form <values, P codes>, linear in each of the three, so one gradient by the
weights serves both (`operator_gradients`).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from attention_zoo.functional.dictionaries import Atoms, Dictionary, Joined, Kernels, PrefixMeans
from attention_zoo.functional.operator_gradients import Gradient, KernelGradient, MatrixGradient


@dataclass(frozen=True)
class Operator(ABC):
    """A part P of a dictionary.

    Attributes:
        weights: what P is made of; None where it is fixed.
        heads: number of heads H.
        width: channels E of a head.
        grid: height and width of the grid of tokens.
        prefix: tokens before the grid.
    """

    weights: Tensor | None
    heads: int
    width: int
    grid: tuple[int, int]
    prefix: int

    def bound_to(self, weights: Tensor | None) -> Self:
        """Return the same operator with other weights."""
        return replace(self, weights=weights)

    def split(self, size: int, count: int) -> list[Self]:
        """Return ``count`` operators, each for ``size`` samples; the same, unless every sample has its own weights."""
        return [self] * count

    def gathered(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return the gradient by the weights from those of operators that `split` returned."""
        return sum(gradients[1:], gradients[0])

    @abstractmethod
    def codes_shape(self, batch: int) -> tuple[int, ...]:
        """Return the shape of the codes of ``batch`` samples."""

    @abstractmethod
    def encode(self, values: Tensor) -> Tensor:
        """Return the codes P^T v, a new tensor, of values (B, T, C)."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Return the values P u (B, T, C), a new tensor."""

    @abstractmethod
    def spread(self, numbers: Tensor) -> Tensor:
        """Return numbers (B, H) of each sample and head so that they broadcast to codes."""

    @abstractmethod
    def collect(self, codes: Tensor) -> Tensor:
        """Return the sums (B, H) of the codes of each sample and head."""

    @abstractmethod
    def gradient(self, batch: int) -> Gradient | None:
        """Return the gradient by the weights for ``batch`` samples, still zero; None where there are no weights."""


def decoded_by(parts: Sequence[Operator], codes: Sequence[Tensor]) -> Tensor:
    """Return the sum (B, T, C) of what the parts decode, a new tensor."""
    out = parts[0].decode(codes[0])
    for part, own in zip(parts[1:], codes[1:], strict=True):
        out = out + part.decode(own)
    return out


def by_channel(numbers: Tensor, width: int) -> Tensor:
    """Return numbers (B, H) of heads for each of their channels, (B, 1, H width)."""
    return numbers[:, None, :, None].expand(-1, -1, -1, width).flatten(2)


@dataclass(frozen=True)
class Convolutions(Operator):
    """Kernels (H, K, s, s) at every position of the grid, with zeros beyond it; codes (B, height width, K C).

    Each channel is convolved alone. As channels lie side by side, that is a depthwise convolution in its quickest
    layout: a core does some 60 GFLOP/s there, and 10 where a channel is an image of its own with K kernels.
    """

    weights: Tensor

    @property
    def number(self) -> int:
        """The number of kernels K."""
        return self.weights.shape[1]

    def codes_shape(self, batch: int) -> tuple[int, ...]:
        """Return (B, height width, K C)."""
        return batch, math.prod(self.grid), self.number * self.heads * self.width

    def encode(self, values: Tensor) -> Tensor:
        """Return the codes P^T v."""
        repeated = values[:, self.prefix :, None].expand(-1, -1, self.number, -1).flatten(2)
        return self._convolved(repeated, turned=False)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the values P u, 0 at the prefix."""
        values = self._convolved(codes, turned=True).unflatten(2, (self.number, -1)).sum(2)
        return F.pad(values, (0, 0, self.prefix, 0)) if self.prefix else values

    def spread(self, numbers: Tensor) -> Tensor:
        """Return numbers (B, H) as (B, 1, K C)."""
        return by_channel(numbers, self.width).repeat(1, 1, self.number)

    def collect(self, codes: Tensor) -> Tensor:
        """Return the sums (B, H) of codes."""
        return codes.sum(1).unflatten(1, (self.number, self.heads, self.width)).sum((1, 3))

    def gradient(self, batch: int) -> KernelGradient:
        """Return the gradient by the kernels."""
        return KernelGradient(self.weights, self.grid, self.prefix, batch, self.width)

    def _convolved(self, codes: Tensor, *, turned: bool) -> Tensor:
        """Return codes (B, height width, K C), each channel convolved with its kernel or the kernel turned around."""
        padding = self.weights.shape[-1] // 2
        if codes.dtype == torch.float32 and torch.backends.mkldnn.is_available():
            weight = self._turned_filters if turned else self._filters
            images = codes.unflatten(1, self.grid).permute(0, 3, 1, 2)  # in memory the channels are last
            convolved = F.conv2d(images, weight, padding=padding, groups=codes.shape[2])
            return convolved.permute(0, 2, 3, 1).flatten(1, 2).contiguous()
        kernels = self.weights.transpose(0, 1).flatten(0, 1)[:, None]  # (K H, 1, s, s)
        kernels = kernels.flip(-2, -1) if turned else kernels
        images = codes.mT.unflatten(1, (len(kernels), -1)).unflatten(-1, self.grid)  # (B, K H, E, height, width)
        convolved = F.conv2d(images.transpose(1, 2).flatten(0, 1), kernels, padding=padding, groups=len(kernels))
        return convolved.unflatten(0, (-1, self.width)).transpose(1, 2).flatten(3).flatten(1, 2).mT.contiguous()

    @cached_property
    def _filters(self) -> Tensor:
        """The kernel of each channel, (K C, 1, s, s)."""
        kernels = self.weights.transpose(0, 1)[:, :, None]
        return kernels.expand(-1, -1, self.width, -1, -1).flatten(0, 2)[:, None]

    @cached_property
    def _turned_filters(self) -> Tensor:
        """The kernel of each channel, turned around."""
        return self._filters.flip(-2, -1)


@dataclass(frozen=True)
class Means(Operator):
    """The fixed atoms of `PrefixMeans`, one for each of the ``prefix`` tokens; codes (B, prefix, C)."""

    @property
    def number(self) -> int:
        """The number of tokens of the grid."""
        return math.prod(self.grid)

    def codes_shape(self, batch: int) -> tuple[int, ...]:
        """Return (B, prefix, C)."""
        return batch, self.prefix, self.heads * self.width

    def encode(self, values: Tensor) -> Tensor:
        """Return the codes P^T v."""
        prefix, spatial = values.split([self.prefix, self.number], dim=1)
        return (prefix + spatial.sum(1, keepdim=True) * self.number**-0.5) * 0.5**0.5

    def decode(self, codes: Tensor) -> Tensor:
        """Return the values P u."""
        constant = codes.sum(1, keepdim=True) * self.number**-0.5
        return torch.cat([codes, constant.expand(-1, self.number, -1)], dim=1) * 0.5**0.5

    def spread(self, numbers: Tensor) -> Tensor:
        """Return numbers (B, H) as (B, 1, C)."""
        return by_channel(numbers, self.width)

    def collect(self, codes: Tensor) -> Tensor:
        """Return the sums (B, H) of codes."""
        return codes.sum(1).unflatten(1, (self.heads, self.width)).sum(2)

    def gradient(self, batch: int) -> None:
        """Return None, as nothing is learned."""


@dataclass(frozen=True)
class Matrices(Operator):
    """Atoms (B, H, T, M) of each sample; codes (B, H, M, E)."""

    weights: Tensor

    def split(self, size: int, count: int) -> list[Self]:
        """Return the operators with the atoms of ``size`` samples each."""
        return [self.bound_to(weights) for weights in self.weights.split(size)]

    def gathered(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return the gradient by the weights from those of a few samples each."""
        return torch.cat(list(gradients))

    def codes_shape(self, batch: int) -> tuple[int, ...]:
        """Return (B, H, M, E)."""
        return batch, self.heads, self.weights.shape[3], self.width

    def encode(self, values: Tensor) -> Tensor:
        """Return the codes P^T v."""
        return self.weights.mT @ self.by_head(values)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the values P u."""
        return (self.weights @ codes).transpose(1, 2).flatten(2)

    def by_head(self, values: Tensor) -> Tensor:
        """Return values (B, T, C) as (B, H, T, E)."""
        return values.unflatten(2, (self.heads, self.width)).transpose(1, 2)

    def spread(self, numbers: Tensor) -> Tensor:
        """Return numbers (B, H) as (B, H, 1, 1)."""
        return numbers[..., None, None]

    def collect(self, codes: Tensor) -> Tensor:
        """Return the sums (B, H) of codes."""
        return codes.sum((2, 3))

    def gradient(self, batch: int) -> MatrixGradient:
        """Return the gradient by the atoms."""
        return MatrixGradient(self.weights)


def operators(dictionary: Dictionary, heads: int, width: int) -> list[Operator]:
    """Return the parts of a dictionary as operators on tokens of ``heads`` heads of ``width`` channels.

    Raises:
        TypeError: there is no such operator for a part.
    """
    match dictionary:
        case Kernels():
            return [Convolutions(dictionary.kernels, heads, width, dictionary.grid, dictionary.num_prefix_tokens)]
        case PrefixMeans():
            return [Means(None, heads, width, (1, dictionary.num_spatial), dictionary.num_prefix_tokens)]
        case Atoms():
            scaled = dictionary.weights * dictionary.scale.mT if isinstance(dictionary.scale, Tensor) else None
            atoms = dictionary.weights if scaled is None else scaled
            return [Matrices(atoms, heads, width, (1, atoms.shape[2]), 0)]
        case Joined():
            return [operator for part in dictionary.parts for operator in operators(part, heads, width)]
    raise TypeError(f"{type(dictionary).__name__} has no operator on tokens")
