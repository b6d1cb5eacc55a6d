"""VARS-SD: attention as sparse reconstruction in the union of a learned dictionary and one made from the input.

    u* = argmin_u 1/2 |[P; Phi] u - v|^2 + lam |u|_1    by LISTA steps (eq. 1.12, 1.16),    out = [P; Phi] u*

The residual of the block adds x. P are kernels at every position of the grid, as in VARS-S, and Phi(X) the random
features of the queries, as in VARS-D. B. Shi, T. Darrell, X. Wang, ICML 2022; technical report EECS-2024-49, ch. 1.
"""

from typing import Unpack

import torch
from torch import Tensor, nn

from attention_zoo.functional.dictionaries import Dictionary, Union, UnitAtoms
from attention_zoo.functional.sparse import Lista
from attention_zoo.interface import HostOptions
from attention_zoo.mixers.random_directions import RandomDirections
from attention_zoo.mixers.sparse_reconstruction import MOST_ATOMS, SparseReconstruction, Variant
from attention_zoo.mixers.static_kernels import StaticKernels
from attention_zoo.mixers.vars_released import ReleasedTable
from attention_zoo.registry import register


@register
class VarsSD(RandomDirections, StaticKernels, ReleasedTable, SparseReconstruction):
    """Recurrent sparse reconstruction, ``D argminᵤ ½‖Du − v‖² + λ‖u‖₁`` in ``D = [P; Φ(X)]``, linear in the tokens.

    All atoms inside the grid have unit length. Γ mixes the kernels alike at every position, and the features; it does
    not mix the two. Prefix tokens take part through Φ, whose atoms span all tokens. L is the sum of bounds of the
    largest eigenvalues of PᵀP and ΦᵀΦ. Features and codes are computed in float32 also under autocast.

    Args:
        dim: token width.
        num_heads: heads.
        steps: LISTA updates k; None for the variant's 3 (released: 5).
        lam: weight of the sparsity, lambda of eq. 1.10; None for 0.3.
        feature_ratio: atoms of Φ per channel of a head.
        num_kernels: kernels of each head (released: the static part is a table, not kernels).
        kernel_size: their side, odd.
        variant: "paper", or "released" as in the authors' code, whose weights load: as `VarsD` there, with a learned
            table of as many static atoms over a fixed ``grid``.
        **host: see `SelfMixer`.
    """

    reading = "recurrent sparse reconstruction"
    paper = "Shi et al. 2022"
    equation = "D argminᵤ ½‖Du − v‖² + λ‖u‖₁, D = [P; Φ] (1.12, 1.16)"
    complexity = "N"
    projections = ("q", "v")
    tokens = "grid"

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        steps: int | None = None,
        lam: float | None = None,
        feature_ratio: float = 2.0,
        num_kernels: int = 5,
        kernel_size: int = 5,
        variant: Variant = "paper",
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        self.choose(variant, steps, lam)
        self.check_kernels(num_kernels, kernel_size)
        num_features = self.draw_directions(feature_ratio, variant == "paper", MOST_ATOMS)
        if variant == "released":
            self.add_table(num_features)
        else:
            self.add_kernels(num_kernels, kernel_size)
            self.add_learned(num_features)
            self.gamma_static = nn.Parameter(torch.eye(num_kernels, **self.made))

    def problem(self, q: Tensor, v: Tensor) -> tuple[Dictionary, Lista]:
        """[P; Φ(X)] from q (B, H, N, D), and the iteration by the atoms that Γ mixed."""
        features = self.rules.features(q, self.directions)
        if self.variant == "released":
            return self.table_problem(features, v)
        gamma, w1, w2 = self.learned(v)
        kernels, atoms = self.kernels(v), UnitAtoms(features)
        dictionary = Union(self.quick(kernels, v), atoms)
        mixed_kernels = kernels.mixed(self.gamma_static.to(v.dtype))
        mixed = Union(self.quick(mixed_kernels, v), atoms.mixed(gamma))
        return dictionary, self.operator_iteration(dictionary, mixed, v, w1, w2)
