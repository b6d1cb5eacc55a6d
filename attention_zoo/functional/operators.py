"""Dictionaries of sparse reconstruction as operators on tokens, whose gradients `unrolled` takes by hand.

Tokens are (B, T, C), the prefix first, with channels C = H E in the order of the heads: as a mixer projects them, so
that nothing is moved. An operator P has codes in a layout of its own: `Operator.encode` applies P^T, and
`Operator.decode` P. Both come from one form <values, P codes>, linear in each of the three, so one `Gradient` by the
weights serves both.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from attention_zoo.functional.dictionaries import Atoms, Dictionary, Joined, Kernels, PrefixMeans

BLOCK = 4
"""Columns of the grid whose codes share a matrix product in `KernelGradient`; more waste arithmetic, fewer calls."""


class Gradient(ABC):
    """The gradient of a sum of forms <values, P codes> by the weights of an operator P."""

    @abstractmethod
    def add(self, values: Tensor, codes: Tensor) -> None:
        """Add the form of values (B, T, C) and codes."""

    @abstractmethod
    def total(self) -> Tensor:
        """Return the gradient, of the shape of the weights."""


@dataclass(frozen=True)
class Operator(ABC):
    """A part P of a dictionary.

    Attributes:
        weights: what P is made of; None where it is fixed.
        heads: number of heads H.
        width: channels E of a head.
    """

    weights: Tensor | None
    heads: int
    width: int

    def bound_to(self, weights: Tensor | None) -> Self:
        """Return the same operator with other weights."""
        return replace(self, weights=weights)

    def split(self, size: int, count: int) -> list[Self]:
        """Return ``count`` operators, each for ``size`` samples; the same, unless every sample has its own weights."""
        return [self] * count

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
    def gradient(self) -> Gradient | None:
        """Return the gradient by the weights, still zero; None where there are none."""


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
    grid: tuple[int, int]
    prefix: int

    @property
    def number(self) -> int:
        """The number of kernels K."""
        return self.weights.shape[1]

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

    def gradient(self) -> "KernelGradient":
        """Return the gradient by the kernels."""
        return KernelGradient(self)

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


class KernelGradient(Gradient):
    """The gradient by the kernels of `Convolutions`, each shared by the positions and by the channels of a head.

    The codes of a few columns in a row read values of a few more columns, in s rows. Products of both, summed over the
    channels of a head, are a matrix product; the gradient of a kernel lies on its diagonals. With one row and `BLOCK`
    columns in a product little of it is needless, and codes are not copied. Torch's backward pass of a depthwise
    convolution, which can sum over positions only, takes five times as long.
    """

    def __init__(self, operator: Convolutions) -> None:
        self.operator = operator
        (heads, number, self.side, _), (self.height, across) = operator.weights.shape, operator.grid
        self.columns = min(BLOCK, across)
        self.reach = self.columns + self.side - 1
        self.starts = range(0, across, self.columns)
        # each row of the grid has sums of its own, since no batched product adds them up; the last block may be narrow
        widths = {min(self.columns, across - start) for start in self.starts}
        shape = heads, self.height, self.side * self.reach
        self.sums = {width: operator.weights.new_zeros(*shape[:2], width * number, shape[2]) for width in widths}

    def add(self, values: Tensor, codes: Tensor) -> None:
        """Add the form of values (B, T, C) and codes (B, height width, K C), both contiguous."""
        number, across = self.operator.number, self.operator.grid[1]
        blocks = self._blocks(values)  # (blocks, B, height + s - 1, reach, C)
        shape = self.height, self.side * self.reach, self.operator.width
        strides = blocks.stride(2), values.shape[2], 1  # the s rows that a row of the grid reads lie in one piece
        of_heads = codes.unflatten(2, (number, -1)).flatten(1, 2).unflatten(1, (self.height, -1)).split(shape[2], -1)
        for head, rows in enumerate(of_heads):  # (B, height, width K, E)
            for index, start in enumerate(self.starts):
                stop = min(start + self.columns, across)
                sums = self.sums[stop - start][head]
                for sample, own in enumerate(rows[:, :, start * number : stop * number].unbind()):
                    offset = index * blocks.stride(0) + sample * blocks.stride(1) + head * shape[2]
                    sums.baddbmm_(own, blocks.as_strided(shape, strides, offset).mT)

    def total(self) -> Tensor:
        """Return the gradient (H, K, s, s)."""
        total = torch.zeros_like(self.operator.weights)
        for width, sums in self.sums.items():
            both = sums.sum(1).unflatten(2, (self.side, self.reach)).unflatten(1, (width, -1))
            # (H, width, K, s, reach), of which column x and what it reads from x to x + s - 1 are wanted
            total += both.unfold(-1, self.side, 1)[..., :width, :].diagonal(dim1=1, dim2=4).sum(-1)
        return total

    def _blocks(self, values: Tensor) -> Tensor:
        """Return what the blocks of columns read of values (B, T, C): (blocks, B, height + s - 1, reach, C)."""
        half = self.side // 2
        image = values[:, self.operator.prefix :].unflatten(1, self.operator.grid)
        image = F.pad(image, (0, 0, half, half + -self.operator.grid[1] % self.columns, half, half))
        return image.unfold(2, self.reach, self.columns).permute(2, 0, 1, 4, 3).contiguous()


@dataclass(frozen=True)
class Means(Operator):
    """The fixed atoms of `PrefixMeans`, one for each of the ``prefix`` tokens; codes (B, prefix, C)."""

    prefix: int
    number: int

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

    def gradient(self) -> None:
        """Return None, as nothing is learned."""


@dataclass(frozen=True)
class Matrices(Operator):
    """Atoms (B, H, T, M) of each sample; codes (B, H, M, E)."""

    weights: Tensor

    def split(self, size: int, count: int) -> list[Self]:
        """Return the operators with the atoms of ``size`` samples each."""
        return [self.bound_to(weights) for weights in self.weights.split(size)]

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

    def gradient(self) -> "MatrixGradient":
        """Return the gradient by the atoms."""
        return MatrixGradient(self)


class MatrixGradient(Gradient):
    """The gradient by the atoms of `Matrices`."""

    def __init__(self, operator: Matrices) -> None:
        self.operator, self.sums = operator, torch.zeros_like(operator.weights).flatten(0, 1)

    def add(self, values: Tensor, codes: Tensor) -> None:
        """Add the form of values (B, T, C) and codes (B, H, M, E)."""
        self.sums.baddbmm_(self.operator.by_head(values).flatten(0, 1), codes.flatten(0, 1).mT)

    def total(self) -> Tensor:
        """Return the gradient (B, H, T, M)."""
        return self.sums.view_as(self.operator.weights)


def operators(dictionary: Dictionary, heads: int, width: int) -> list[Operator]:
    """Return the parts of a dictionary as operators on tokens of ``heads`` heads of ``width`` channels.

    Raises:
        TypeError: there is no such operator for a part.
    """
    match dictionary:
        case Kernels():
            return [Convolutions(dictionary.kernels, heads, width, dictionary.grid, dictionary.num_prefix_tokens)]
        case PrefixMeans():
            return [Means(None, heads, width, dictionary.num_prefix_tokens, dictionary.num_spatial)]
        case Atoms():
            scaled = dictionary.weights * dictionary.scale.mT if isinstance(dictionary.scale, Tensor) else None
            return [Matrices(dictionary.weights if scaled is None else scaled, heads, width)]
        case Joined():
            return [operator for part in dictionary.parts for operator in operators(part, heads, width)]
    raise TypeError(f"{type(dictionary).__name__} has no operator on tokens")
