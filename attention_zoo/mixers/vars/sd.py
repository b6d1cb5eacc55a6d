"""VARS-SD: attention as sparse reconstruction in the union of a learned dictionary and one made from the input.

    u* = argmin_u 1/2 |[P; Phi] u - v|^2 + lam |u|_1    by LISTA steps (eq. 1.12, 1.16),    out = [P; Phi] u*

The residual of the block adds x. P are kernels at every position of the grid, as in VARS-S, and Phi(X) the random
features of the queries, as in VARS-D. B. Shi, T. Darrell, X. Wang, ICML 2022; technical report EECS-2024-49, ch. 1.
"""

from typing import Unpack

from attention_zoo.mixers.base import HostOptions
from attention_zoo.mixers.options import Amount, Iterations, KernelSide, Number, Ratio
from attention_zoo.mixers.registry import register
from attention_zoo.mixers.vars.dictionaries import EverywhereAndFeatures
from attention_zoo.mixers.vars.lista import SparseReconstruction, Variant
from attention_zoo.mixers.vars.released import Table


@register
class VarsSD(SparseReconstruction):
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
        steps: Iterations | None = None,
        lam: Amount | None = None,
        feature_ratio: Ratio = 2.0,
        num_kernels: Number = 5,
        kernel_size: KernelSide = 5,
        variant: Variant = "paper",
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        self.choose(variant, steps, lam)
        self.check(kernel_size % 2 == 1, f"kernel_size={kernel_size} must be odd, so that a kernel has a centre")
        if variant == "released":
            self.form = Table(self, feature_ratio)
        else:
            self.form = EverywhereAndFeatures(self, feature_ratio, num_kernels, kernel_size)
