"""The static dictionaries of VARS as the authors released them (github.com/bfshi/VARS), beside the paper's kernels.

Names and shapes of parameters and buffers are the released ones, so that released weights load.
"""

import torch
from torch import Tensor, nn

from attention_zoo.functional.dictionaries import SharedUnitAtoms, Spectra
from attention_zoo.functional.sparse import Lista
from attention_zoo.options import sides


class BoundToGrid:
    """Mix-in of mixers whose released parameters are for one grid."""

    def set_grid(self, grid: tuple[int, int]) -> None:
        """As `SelfMixer.set_grid`."""
        self.check(*sides("grid", grid))
        fits = self.variant != "released" or tuple(grid) == tuple(self.grid)
        self.check(fits, f"variant='released' is bound to grid={self.grid} and cannot take tokens of grid={grid}")
        super().set_grid(grid)


class ReleasedTable(BoundToGrid):
    """Mix-in of `VarsSD`: the static atoms are a learned table ``kernel`` (1, H, N, M), one row for each token."""

    kernel: Tensor

    def add_table(self, num_atoms: int) -> None:
        """Register the table for the tokens of ``grid`` and Γ, w₁, w₂ of all atoms.

        Raises:
            InputError: there is no grid.
        """
        self.check(self.grid is not None, "variant='released' has a row for each token; give grid=(height, width)")
        number = self.grid[0] * self.grid[1] + self.num_prefix_tokens
        drawn = torch.randn(1, self.num_heads, number, num_atoms, device=self.made["device"])
        self.kernel = nn.Parameter(drawn.to(self.made["dtype"]))
        self.add_learned(2 * num_atoms)
        self.register_buffer("L", torch.full((self.num_heads,), 25.0, **self.made))  # in its weights, but never read

    def table_problem(self, features: Tensor, v: Tensor) -> tuple[SharedUnitAtoms, Lista]:
        """[Φ; table] and the iteration on its Gram matrix, for features (B, H, N, M) and values (B, H, N, D)."""
        self.spatial_shape(v.shape[2])
        atoms = SharedUnitAtoms(features, self.kernel.to(v.dtype))
        return atoms, self.matrix_iteration(atoms, v)


class ReleasedSpectra(BoundToGrid):
    """Mix-in of `VarsS`: every channel has kernels as large as the grid, ``kernel`` (dim, K, 1, h, w // 2 + 1, 2).

    ``kernel2`` filters what they reconstruct, and ``norm`` is a BatchNorm. ``L`` (dim), by which the step is divided,
    follows the kernels in training as a running average; the authors move it by 0.1 every hundred batches.
    """

    kernel: Tensor
    kernel2: Tensor
    L: Tensor
    momentum = 1 - 0.9**0.01

    def add_spectra(self, num_kernels: int) -> None:
        """Register the spectra for ``grid``, scaled to unit length, and what follows them.

        Raises:
            InputError: there is no grid, or there are prefix tokens, which the released layer has no place for.
        """
        self.check(self.grid is not None, "variant='released' has kernels of a fixed size; give grid=(height, width)")
        prefix = self.num_prefix_tokens
        self.check(prefix == 0, f"num_prefix_tokens={prefix}: variant='released' takes tokens of the grid alone")
        self.num_dictionaries = self.dim
        height, width = self.grid
        shape = (self.dim, num_kernels, 1, height, width // 2 + 1, 2)
        drawn, after = (torch.randn(s, device=self.made["device"]) for s in (shape, (self.dim, 1, *shape[2:])))
        power = drawn.square().sum((2, 3, 4, 5), keepdim=True) * 2 / (height * width)
        self.kernel = nn.Parameter((drawn / power.sqrt()).to(self.made["dtype"]))
        self.kernel2 = nn.Parameter((after * 0.02).to(self.made["dtype"]))
        self.register_buffer("L", self.largest_singular_value())
        self.register_buffer("kernel_norm", torch.ones((), **self.made))  # in its weights, but never read
        self.norm = ChannelBatchNorm(self.dim, **self.made)

    def largest_singular_value(self) -> Tensor:
        """Of the real part of PᵀP for each channel (dim), the largest over the frequencies, as the authors compute it.

        At a frequency where the kernels are a + ib, a and b in ℝᴷ, PᵀP has rank one and the singular value
        |a|² + |b|². Its real part a aᵀ + b bᵀ has the eigenvalues of a's and b's Gram matrix; the larger is between
        half of that and the whole, so the released step is up to twice what surely lets the energy fall.
        """
        real, imaginary = self.kernel.detach().flatten(1, 2).unbind(-1)  # (dim, K, height, width // 2 + 1)
        a, b, both = real.square().sum(1), imaginary.square().sum(1), (real * imaginary).sum(1)
        return ((a + b) / 2 + torch.hypot((a - b) / 2, both)).flatten(1).amax(1)

    def spectral_problem(self, v: Tensor) -> tuple[Spectra, Lista]:
        """The spectra of values v (B, dim, N, 1), and the iteration that learned nothing but them."""
        self.spatial_shape(v.shape[2])
        kernel, after = (torch.view_as_complex(p.to(v.dtype))[:, :, 0] for p in (self.kernel, self.kernel2))
        dictionary = Spectra(kernel, after[:, 0], self.grid)
        step_size = 1 / self.L.to(v.dtype)[:, None, None]
        if self.training:
            self.L.lerp_(self.largest_singular_value(), self.momentum)
        contract = dictionary.contraction(step_size)
        return dictionary, Lista(contract, dictionary.encode(v), self.lam, step_size, self.steps, shrinks_start=True)


class ChannelBatchNorm(nn.Module):
    """BatchNorm of the channels of tokens (B, N, dim)."""

    def __init__(self, dim: int, device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(dim, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim)."""
        return self.bn(x.mT).mT
