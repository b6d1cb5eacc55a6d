"""Dictionaries of sparse reconstruction as operators P and P^T (tech report, 'VARS Instantiations').

Values are (B, G, N, E) and codes (B, G, A, E): there are G dictionaries of A atoms each over N tokens, and each of the
E channels is coded alone.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attention_zoo.functional.sparse import largest_eigenvalue


class Dictionary(ABC):
    """The operator P: `encode` applies P^T and `decode` applies P, exact transposes of each other."""

    num_atoms: int

    @abstractmethod
    def encode(self, values: Tensor) -> Tensor:
        """Return the codes P^T v (B, G, A, E) of values v (B, G, N, E)."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Return the values P u (B, G, N, E) of codes u (B, G, A, E)."""

    def reconstruct(self, codes: Tensor) -> Tensor:
        """Return what the mixer outputs for codes (B, G, A, E): P u (B, G, N, E), unless a dictionary overrides it."""
        return self.decode(codes)


class Bounded(Dictionary):
    """A dictionary that bounds the largest eigenvalue of P^T P, and so says how long a step may be."""

    @abstractmethod
    def bound(self) -> Tensor | float:
        """Return an upper bound on the largest eigenvalue of P^T P, which broadcasts to codes."""


class _Gram(torch.autograd.Function):
    """Computes ``weights.mT @ weights``, whose gradient autograd would take as two products, one for each factor."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weights: Tensor) -> Tensor:
        return weights.mT @ weights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (weights,) = ctx.saved_tensors
        return weights @ (grad + grad.mT)


def gram(weights: Tensor) -> Tensor:
    """Return the products (..., A, A) of the columns of weights (..., N, A) with each other."""
    return _Gram.apply(weights)


class Atoms(Dictionary):
    """P given as a matrix: ``weights`` (B, G, N, A) with each column multiplied by ``scale`` (B, G, A, 1)."""

    def __init__(self, weights: Tensor, scale: Tensor | float = 1.0) -> None:
        self.weights, self.scale, self.num_atoms = weights, scale, weights.shape[-1]

    def encode(self, values: Tensor) -> Tensor:
        """Return the codes P^T v."""
        return (self.weights.mT @ values) * self.scale

    def decode(self, codes: Tensor) -> Tensor:
        """Return the values P u."""
        return self.weights @ (self.scale * codes)


class GramAtoms(Atoms):
    """P given as a matrix whose columns have unit length; the division by their length is folded into the Gram matrix.

    Args:
        weights: (B, G, N, A), columns of any length.
        gram: products (B, G, A, A) of these columns; ``gram_matrix`` holds those of the columns of unit length.
    """

    def __init__(self, weights: Tensor, gram: Tensor) -> None:
        scale = _inverse_length(gram)
        super().__init__(weights, scale)
        self.gram_matrix = (gram * scale).mul_(scale.mT)


class UnitAtoms(GramAtoms, Bounded):
    """Atoms of unit length made from ``weights`` (B, G, N, A), where every sample has its own."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__(weights, gram(weights))

    def mixed(self, gamma: Tensor) -> Atoms:
        """Return the dictionary P Γ for a matrix Γ (A, A)."""
        return Atoms(self.weights @ (self.scale * gamma))

    def bound(self) -> Tensor:
        """Return a bound (B, G, 1, 1) on the largest eigenvalue of P^T P, for atoms without negative entries."""
        return largest_eigenvalue(self.gram_matrix)


class SharedUnitAtoms(GramAtoms):
    """Unit atoms [Φ; T]: ``features`` (B, G, N, A) of each sample, and a ``table`` (1, G, N, A) that all share."""

    def __init__(self, features: Tensor, table: Tensor) -> None:
        weights = torch.cat([features, table.expand_as(features)], dim=-1)
        above = features.mT @ weights
        below = torch.cat([above.chunk(2, dim=-1)[1].mT, (table.mT @ table).expand(above.shape[0], -1, -1, -1)], dim=-1)
        gram = torch.cat([above, below], dim=-2)
        super().__init__(weights, gram)


class Kernels(Bounded):
    """A dictionary of every kernel at every position of the grid: P^T is a convolution and P the transposed one.

    Outside the grid are zeros, so an atom near the border is a kernel that is cut off there. Atoms are ordered by
    kernel, then by position. They leave prefix tokens alone (see `PrefixMeans`).

    Args:
        kernels: K kernels of each dictionary (G, K, s, s), with s odd.
        grid: height and width.
        num_prefix_tokens: tokens before the grid.
    """

    def __init__(self, kernels: Tensor, grid: tuple[int, int], num_prefix_tokens: int = 0) -> None:
        self.kernels, self.grid, self.num_prefix_tokens = kernels, grid, num_prefix_tokens
        self.num_atoms = kernels.shape[1] * math.prod(grid)
        self.weight = kernels.flatten(0, 1)[:, None]  # (G K, 1, s, s)
        self.padding, self.groups = kernels.shape[-1] // 2, len(kernels)

    def encode(self, values: Tensor) -> Tensor:
        """Return the codes P^T v (B, G, K height width, E) of values (B, G, N, E), prefix included."""
        images = values[:, :, self.num_prefix_tokens :].permute(0, 3, 1, 2).unflatten(-1, self.grid).flatten(0, 1)
        maps = F.conv2d(images, self.weight, padding=self.padding, groups=self.groups)  # (B E, G K, height, width)
        maps = maps.unflatten(0, values.shape[::3]).unflatten(2, self.kernels.shape[:2])
        return maps.flatten(3).permute(0, 2, 3, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the values P u (B, G, N, E), which are 0 at the prefix tokens."""
        maps = codes.permute(0, 3, 1, 2).unflatten(-1, (-1, *self.grid)).flatten(2, 3).flatten(0, 1)
        images = F.conv_transpose2d(
            maps, self.weight, padding=self.padding, groups=self.groups
        )  # (B E, G, height, width)
        values = images.unflatten(0, codes.shape[::3]).flatten(3).permute(0, 2, 3, 1)
        return F.pad(values, (0, 0, self.num_prefix_tokens, 0))

    def mixed(self, gamma: Tensor) -> "Kernels":
        """Return the dictionary P Γ for a Γ (K, K) that mixes the kernels alike at every position."""
        return Kernels(torch.einsum("gjyx,jk->gkyx", self.kernels, gamma), self.grid, self.num_prefix_tokens)

    def bound(self) -> Tensor:
        """Return a bound (G, 1, 1) on the largest eigenvalue of P^T P: the most power of all kernels at one frequency.

        On a torus large enough that no kernel meets the grid from behind, the grid's operator is a part of the torus's,
        which the Fourier transform makes diagonal.
        """
        side = self.kernels.shape[-1]
        torus = [max(length + side // 2, side) for length in self.grid]
        power = torch.fft.rfft2(self.kernels, s=torus).abs().square().sum(1)
        return power.flatten(1).amax(1)[:, None, None]


class Tabulated(Bounded):
    """Another dictionary written out as one dense matrix (G, N, A), zeros included, that serves all samples.

    On a small grid that is faster than convolutions of one channel. Codes lie in memory by dictionary, atom, sample
    and channel, so that one product with the matrix takes all samples.

    Args:
        dictionary: the dictionary to write out, the same for all samples.
        identity: values (1, G, N, N) in which every token has a 1 in a channel of its own.
    """

    def __init__(self, dictionary: Bounded, identity: Tensor) -> None:
        self.dictionary, self.num_atoms = dictionary, dictionary.num_atoms
        self.transposed = dictionary.encode(identity)[0]  # (G, A, N)

    def encode(self, values: Tensor) -> Tensor:
        """Return the codes P^T v."""
        return self._product(self.transposed, values)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the values P u."""
        return self._product(self.transposed.mT, codes)

    def bound(self) -> Tensor | float:
        """Return the bound of the dictionary that was written out."""
        return self.dictionary.bound()

    @staticmethod
    def _product(matrix: Tensor, x: Tensor) -> Tensor:
        columns = matrix @ x.permute(1, 2, 0, 3).flatten(2)
        return columns.unflatten(2, x.shape[::3]).permute(2, 0, 1, 3)


class PrefixMeans(Bounded):
    """One atom of unit length for each prefix token: itself, and a constant over the grid, half of the energy each."""

    def __init__(self, num_prefix_tokens: int, num_spatial: int) -> None:
        self.num_prefix_tokens = self.num_atoms = num_prefix_tokens
        self.num_spatial = num_spatial

    def encode(self, values: Tensor) -> Tensor:
        """Return the codes P^T v, one for each prefix token and channel."""
        prefix, spatial = values.split([self.num_prefix_tokens, self.num_spatial], dim=2)
        return (prefix + spatial.sum(2, keepdim=True) * self.num_spatial**-0.5) * math.sqrt(0.5)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the values P u."""
        constant = codes.sum(2, keepdim=True) * self.num_spatial**-0.5
        return torch.cat([codes, constant.expand(-1, -1, self.num_spatial, -1)], dim=2) * math.sqrt(0.5)

    def bound(self) -> float:
        """Return the largest eigenvalue of P^T P = (I + 1 1^T) / 2."""
        return (1 + self.num_prefix_tokens) / 2


class Joined(Dictionary):
    """A dictionary that lists the atoms of several dictionaries, one after another."""

    parts: tuple[Dictionary, ...]

    def __init__(self, *parts: Dictionary) -> None:
        self.parts, self.sizes = parts, [part.num_atoms for part in parts]
        self.num_atoms = sum(self.sizes)

    def encode(self, values: Tensor) -> Tensor:
        """Return the codes P^T v, part after part."""
        return torch.cat([part.encode(values) for part in self.parts], dim=2)

    def decode(self, codes: Tensor) -> Tensor:
        """Return P u, the sum of the values that the parts decode."""
        decoded = [part.decode(own) for part, own in zip(self.parts, codes.split(self.sizes, dim=2), strict=True)]
        return sum(decoded[1:], decoded[0])


class Union(Joined, Bounded):
    """A `Joined` dictionary [P; Φ] of which every part bounds its eigenvalues."""

    parts: tuple[Bounded, ...]

    def __init__(self, *parts: Bounded) -> None:
        super().__init__(*parts)

    def bound(self) -> Tensor | float:
        """Return a bound on the largest eigenvalue of P^T P, which is that of P P^T, the sum of the parts' own."""
        return sum(part.bound() for part in self.parts)


class Spectra(Dictionary):
    """Kernels as large as the grid, given by their spectra, one set for each channel (released VARS-S).

    The grid wraps around. A spectrum is half a plane, whose columns of frequency 0 and of the highest one are taken
    as symmetric, as the inverse transform of a real signal does.

    Args:
        spectra: K spectra of each channel (G, K, height, width // 2 + 1), complex.
        after: spectrum (G, height, width // 2 + 1) of the filter of the reconstruction.
        grid: height and width.
    """

    def __init__(self, spectra: Tensor, after: Tensor, grid: tuple[int, int]) -> None:
        self.spectra, self.conjugate, self.after, self.grid = spectra, spectra.conj_physical(), after[:, None], grid
        self.num_atoms = spectra.shape[1] * math.prod(grid)

    def encode(self, values: Tensor) -> Tensor:
        """Return the codes P^T v (B, G, K N, E)."""
        return self.codes(self.spectrum(values.mT))

    def decode(self, codes: Tensor) -> Tensor:
        """Return the values P u."""
        return self.signal(self.decoded(codes)).flatten(3).mT

    def reconstruct(self, codes: Tensor) -> Tensor:
        """Return P u, filtered once more by the spectrum ``after``."""
        return self.signal(self.spectrum(self.decode(codes).mT) * self.after).flatten(3).mT

    def contraction(self, step_size: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the function that takes codes u to u - step P^T P u, for steps (G, 1, 1).

        P^T P has rank one at every frequency. As released, the spectrum of P u is not made symmetric before P^T.
        """
        backwards = Spectra(self.spectra * -step_size[..., None], self.after[:, 0], self.grid)
        return lambda codes: backwards.codes(self.decoded(codes)).add_(codes)

    def codes(self, spectrum: Tensor) -> Tensor:
        """Return the codes (B, G, K N, E) of a spectrum (B, G, E, height, width // 2 + 1)."""
        return self.signal(spectrum[:, :, :, None] * self.spectra[:, None]).flatten(3).mT

    def decoded(self, codes: Tensor) -> Tensor:
        """Return the spectrum (B, G, E, height, width // 2 + 1) of P u."""
        maps = codes.mT.unflatten(-1, (self.spectra.shape[1], -1))
        return self.spectrum(maps).mul_(self.conjugate[:, None]).sum(3)

    def spectrum(self, signal: Tensor) -> Tensor:
        """Return the Fourier transform (..., height, width // 2 + 1) of a signal (..., N) on the grid."""
        return torch.fft.rfft2(signal.unflatten(-1, self.grid), norm="ortho")

    def signal(self, spectrum: Tensor) -> Tensor:
        """Return the signal (..., height, width) of a spectrum, the inverse of `spectrum`."""
        return torch.fft.irfft2(spectrum, s=self.grid, norm="ortho")


def _inverse_length(gram: Tensor) -> Tensor:
    """Return one over the length of each atom, (..., A, 1), from the Gram matrix (..., A, A)."""
    return gram.diagonal(dim1=-2, dim2=-1)[..., None].rsqrt()
