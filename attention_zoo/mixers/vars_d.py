"""VARS-D: attention as sparse reconstruction of the values in a dictionary made from the input.

    u* = argmin_u 1/2 |Phi u - v|^2 + lam |u|_1    by LISTA steps (eq. 1.12, 1.16),    out = Phi u*    (eq. 1.17)

The + x of eq. 1.17 is the residual of the block. Phi = Phi(X) are the random features of the queries, which share
their projection with the keys (eq. 1.14). B. Shi, T. Darrell, X. Wang, ICML 2022; technical report EECS-2024-49, ch. 1.
"""

from typing import Unpack

import torch
from torch import Tensor

from attention_zoo.functional.dictionaries import UnitAtoms
from attention_zoo.functional.sparse import Lista
from attention_zoo.interface import HostOptions
from attention_zoo.mixers.random_directions import RandomDirections
from attention_zoo.mixers.sparse_reconstruction import MOST_ATOMS, SparseReconstruction, Variant
from attention_zoo.registry import register


@register
class VarsD(RandomDirections, SparseReconstruction):
    """Recurrent sparse reconstruction, ``Φ(X) argminᵤ ½‖Φ(X)u − v‖² + λ‖u‖₁``, linear in the tokens.

    Atoms (columns of Phi over the tokens) have unit length, as sparse coding wants them; that is folded into the
    M x M Gram matrix. Features and codes are computed in float32 also under autocast.

    Args:
        dim: token width.
        num_heads: heads.
        steps: LISTA updates k; None for the variant's 3 (released: 5).
        lam: weight of the sparsity, lambda of eq. 1.10; None for 0.3.
        feature_ratio: atoms per channel of a head.
        variant: "paper", or "released" as in the authors' code, whose weights load: queries have unit length, codes
            start thresholded, the threshold is a GELU, L is the largest row sum of the Gram matrix and one.
        **host: see `SelfMixer`.
    """

    reading = "recurrent sparse reconstruction"
    paper = "Shi et al. 2022"
    equation = "Φ argminᵤ ½‖Φu − v‖² + λ‖u‖₁ (1.12, 1.16)"
    complexity = "N"
    projections = ("q", "v")

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        steps: int | None = None,
        lam: float | None = None,
        feature_ratio: float = 2.0,
        variant: Variant = "paper",
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        self.choose(variant, steps, lam)
        self.add_learned(self.draw_directions(feature_ratio, variant == "paper", MOST_ATOMS))
        if variant == "released":
            self.register_buffer("L", torch.full((num_heads,), 25.0, **self.made))  # in its weights, but never read

    def problem(self, q: Tensor, v: Tensor) -> tuple[UnitAtoms, Lista]:
        """Φ(X) from q (B, H, N, D), and the iteration on its Gram matrix."""
        atoms = UnitAtoms(self.rules.features(q, self.directions))
        return atoms, self.matrix_iteration(atoms, v)
