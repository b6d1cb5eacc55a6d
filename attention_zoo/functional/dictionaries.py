"""Dictionaries of sparse reconstruction as operators P and P^T (tech report, 'VARS Instantiations').

Shapes: values (B, G, N, E), codes (B, G, A, E): G dictionaries of A atoms each over N tokens, E channels coded alone.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from attention_zoo.functional.sparse import largest_eigenvalue


class Dictionary(ABC):
    """P by what it does: `encode` is P^T and `decode` P, exact transposes of each other."""

    num_atoms: int

    @abstractmethod
    def encode(self, values: Tensor) -> Tensor:
        """P^T v: values (B, G, N, E) -> codes (B, G, A, E)."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """P u: codes (B, G, A, E) -> values (B, G, N, E)."""

    def reconstruct(self, codes: Tensor) -> Tensor:
        """What the mixer reads from the codes: P u, unless a dictionary has more to say."""
        return self.decode(codes)


class Atoms(Dictionary):
    """P as a matrix: ``weights`` (B, G, N, A) times ``scale`` (B, G, A, 1) of each column."""

    def __init__(self, weights: Tensor, scale: Tensor | float = 1.0) -> None:
        self.weights, self.scale, self.num_atoms = weights, scale, weights.shape[-1]

    def encode(self, values: Tensor) -> Tensor:
        """P^T v."""
        return (self.weights.mT @ values) * self.scale

    def decode(self, codes: Tensor) -> Tensor:
        """P u."""
        return self.weights @ (self.scale * codes)


class UnitAtoms(Atoms):
    """P as a matrix with columns of unit length; the length is folded into the Gram matrix ``gram_matrix``."""

    def __init__(self, weights: Tensor) -> None:
        gram = weights.mT @ weights
        super().__init__(weights, _inverse_length(gram))
        self.gram_matrix = (gram * self.scale).mul_(self.scale.mT)

    def mixed(self, gamma: Tensor) -> Atoms:
        """P Γ for Γ (A, A)."""
        return Atoms(self.weights @ (self.scale * gamma))

    def bound(self) -> Tensor:
        """Of the largest eigenvalue of P^T P, for atoms without negative entries; (B, G, 1, 1)."""
        return largest_eigenvalue(self.gram_matrix)


class SharedUnitAtoms(Atoms):
    """[Φ; T], columns of unit length: ``features`` (B, G, N, A) of each sample and a ``table`` (1, G, N, A) of all."""

    def __init__(self, features: Tensor, table: Tensor) -> None:
        weights = torch.cat([features, table.expand_as(features)], dim=-1)
        above = features.mT @ weights
        below = torch.cat([above.chunk(2, dim=-1)[1].mT, (table.mT @ table).expand(above.shape[0], -1, -1, -1)], dim=-1)
        gram = torch.cat([above, below], dim=-2)
        super().__init__(weights, _inverse_length(gram))
        self.gram_matrix = (gram * self.scale).mul_(self.scale.mT)


class Kernels(Dictionary):
    """P^T is a convolution and P the transposed one: every kernel at every position of the grid.

    Outside the grid are zeros, so that an atom near the border is its kernel, cut. Atoms go by kernel, then position;
    prefix tokens are left alone (see `PrefixMeans`).

    Args:
        kernels: (G, K, s, s), s odd.
        grid: height and width.
        num_prefix_tokens: tokens before the grid.
    """

    def __init__(self, kernels: Tensor, grid: tuple[int, int], num_prefix_tokens: int = 0) -> None:
        self.kernels, self.grid, self.num_prefix_tokens = kernels, grid, num_prefix_tokens
        self.num_atoms = kernels.shape[1] * math.prod(grid)
        self.weight = kernels.flatten(0, 1)[:, None]  # (G K, 1, s, s)
        self.convolution = {"padding": kernels.shape[-1] // 2, "groups": len(kernels)}

    def encode(self, values: Tensor) -> Tensor:
        """P^T v: values (B, G, N, E), prefix included -> codes (B, G, K height width, E)."""
        images = values[:, :, self.num_prefix_tokens :].permute(0, 3, 1, 2).unflatten(-1, self.grid).flatten(0, 1)
        maps = F.conv2d(images, self.weight, **self.convolution)  # (B E, G K, height, width)
        maps = maps.unflatten(0, values.shape[::3]).unflatten(2, self.kernels.shape[:2])
        return maps.flatten(3).permute(0, 2, 3, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """P u, 0 at the prefix tokens."""
        maps = codes.permute(0, 3, 1, 2).unflatten(-1, (-1, *self.grid)).flatten(2, 3).flatten(0, 1)
        images = F.conv_transpose2d(maps, self.weight, **self.convolution)  # (B E, G, height, width)
        values = images.unflatten(0, codes.shape[::3]).flatten(3).permute(0, 2, 3, 1)
        return F.pad(values, (0, 0, self.num_prefix_tokens, 0))

    def mixed(self, gamma: Tensor) -> "Kernels":
        """P Γ for a Γ (K, K) that mixes the kernels alike at every position."""
        return Kernels(torch.einsum("gjyx,jk->gkyx", self.kernels, gamma), self.grid, self.num_prefix_tokens)

    def bound(self) -> Tensor:
        """Of the largest eigenvalue of P^T P, max over frequencies of the sum of all kernels' power; (G, 1, 1).

        On a torus large enough that no kernel meets the grid from behind, the grid's operator is a part of the torus's,
        which the Fourier transform makes diagonal.
        """
        side = self.kernels.shape[-1]
        torus = [max(length + side // 2, side) for length in self.grid]
        power = torch.fft.rfft2(self.kernels, s=torus).abs().square().sum(1)
        return power.flatten(1).amax(1)[:, None, None]


class Tabulated(Dictionary):
    """Another dictionary as one matrix for all samples: P's entries (G, N, A), each multiplied, the zeros too.

    On a small grid that is faster than convolutions of one channel. Codes lie in memory by dictionary, atom, sample
    and channel, so that one product with the matrix takes all samples.

    Args:
        dictionary: the same for all samples.
        identity: every token's value 1 in a channel of its own, (1, G, N, N).
    """

    def __init__(self, dictionary: Dictionary, identity: Tensor) -> None:
        self.dictionary, self.num_atoms = dictionary, dictionary.num_atoms
        self.transposed = dictionary.encode(identity)[0]  # (G, A, N)

    def encode(self, values: Tensor) -> Tensor:
        """P^T v."""
        return self._product(self.transposed, values)

    def decode(self, codes: Tensor) -> Tensor:
        """P u."""
        return self._product(self.transposed.mT, codes)

    def bound(self) -> Tensor:
        """As the dictionary's."""
        return self.dictionary.bound()

    @staticmethod
    def _product(matrix: Tensor, x: Tensor) -> Tensor:
        columns = matrix @ x.permute(1, 2, 0, 3).flatten(2)
        return columns.unflatten(2, x.shape[::3]).permute(2, 0, 1, 3)


class PrefixMeans(Dictionary):
    """One atom of unit length for each prefix token: itself, and a constant over the grid, half of the energy each."""

    def __init__(self, num_prefix_tokens: int, num_spatial: int) -> None:
        self.num_prefix_tokens = self.num_atoms = num_prefix_tokens
        self.num_spatial = num_spatial

    def encode(self, values: Tensor) -> Tensor:
        """P^T v, one code for each prefix token."""
        prefix, spatial = values.split([self.num_prefix_tokens, self.num_spatial], dim=2)
        return (prefix + spatial.sum(2, keepdim=True) * self.num_spatial**-0.5) * math.sqrt(0.5)

    def decode(self, codes: Tensor) -> Tensor:
        """P u."""
        constant = codes.sum(2, keepdim=True) * self.num_spatial**-0.5
        return torch.cat([codes, constant.expand(-1, -1, self.num_spatial, -1)], dim=2) * math.sqrt(0.5)

    def bound(self) -> float:
        """The largest eigenvalue of P^T P = (I + 1 1^T) / 2."""
        return (1 + self.num_prefix_tokens) / 2


class Union(Dictionary):
    """The atoms of several dictionaries, one after another: [P; Φ]."""

    def __init__(self, *parts: Dictionary) -> None:
        self.parts, self.sizes = parts, [part.num_atoms for part in parts]
        self.num_atoms = sum(self.sizes)

    def encode(self, values: Tensor) -> Tensor:
        """P^T v, part after part."""
        return torch.cat([part.encode(values) for part in self.parts], dim=2)

    def decode(self, codes: Tensor) -> Tensor:
        """P u, the sum of the parts'."""
        return sum(part.decode(own) for part, own in zip(self.parts, codes.split(self.sizes, dim=2), strict=True))

    def bound(self) -> Tensor:
        """Of the largest eigenvalue of P^T P, and so of P P^T, to which every part adds its own."""
        return sum(part.bound() for part in self.parts)


class Spectra(Dictionary):
    """Kernels as large as the grid, given by their spectra, one set for each channel (released VARS-S).

    Everything wraps around. A spectrum is half a plane, whose columns of frequency 0 and of the highest one are taken
    as symmetric, as the inverse transform of a real signal does.

    Args:
        spectra: (G, K, height, width // 2 + 1), complex.
        after: spectrum (G, height, width // 2 + 1) of what filters the reconstruction.
        grid: height and width.
    """

    def __init__(self, spectra: Tensor, after: Tensor, grid: tuple[int, int]) -> None:
        self.spectra, self.conjugate, self.after, self.grid = spectra, spectra.conj_physical(), after[:, None], grid
        self.num_atoms = spectra.shape[1] * math.prod(grid)

    def encode(self, values: Tensor) -> Tensor:
        """P^T v, codes (B, G, K N, E)."""
        return self.codes(self.spectrum(values.mT))

    def decode(self, codes: Tensor) -> Tensor:
        """P u."""
        return self.signal(self.decoded(codes)).flatten(3).mT

    def reconstruct(self, codes: Tensor) -> Tensor:
        """P u, filtered once more."""
        return self.signal(self.spectrum(self.decode(codes).mT) * self.after).flatten(3).mT

    def contraction(self, step_size: Tensor) -> Callable[[Tensor], Tensor]:
        """What takes u to u - step P^T P u, for steps (G, 1, 1).

        P^T P has rank one at every frequency. As released, the spectrum of P u is not made symmetric before P^T.
        """
        backwards = Spectra(self.spectra * -step_size[..., None], self.after[:, 0], self.grid)
        return lambda codes: backwards.codes(self.decoded(codes)).add_(codes)

    def codes(self, spectrum: Tensor) -> Tensor:
        """Codes (B, G, K N, E) of a spectrum (B, G, E, height, width // 2 + 1)."""
        return self.signal(spectrum[:, :, :, None] * self.spectra[:, None]).flatten(3).mT

    def decoded(self, codes: Tensor) -> Tensor:
        """Spectrum (B, G, E, height, width // 2 + 1) of P u."""
        maps = codes.mT.unflatten(-1, (self.spectra.shape[1], -1))
        return self.spectrum(maps).mul_(self.conjugate[:, None]).sum(3)

    def spectrum(self, signal: Tensor) -> Tensor:
        """Transform of a signal (..., N): (..., height, width // 2 + 1)."""
        return torch.fft.rfft2(signal.unflatten(-1, self.grid), norm="ortho")

    def signal(self, spectrum: Tensor) -> Tensor:
        """Its inverse: (..., height, width)."""
        return torch.fft.irfft2(spectrum, s=self.grid, norm="ortho")


def _inverse_length(gram: Tensor) -> Tensor:
    """One over the length of each atom, (..., A, 1), from the Gram matrix (..., A, A)."""
    return gram.diagonal(dim1=-2, dim2=-1)[..., None].rsqrt()
