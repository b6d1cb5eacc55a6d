"""VARS-S: attention as sparse reconstruction of the values in a learned dictionary of translated kernels.

    u* = argmin_u 1/2 |P u - v|^2 + lam |u|_1    by LISTA steps (eq. 1.12),    out = P u*    (eq. 1.11)

The + x of eq. 1.11 is the residual of the block. P^T is a convolution and P the transposed one with the same kernels
('Instantiation of P'). B. Shi, T. Darrell, X. Wang, ICML 2022; technical report EECS-2024-49, ch. 1.
"""

from typing import Unpack

from attention_zoo.mixers.base import HostOptions
from attention_zoo.mixers.options import Amount, Iterations, KernelSide, Number
from attention_zoo.mixers.registry import register
from attention_zoo.mixers.vars.dictionaries import Everywhere
from attention_zoo.mixers.vars.lista import SparseReconstruction, Variant
from attention_zoo.mixers.vars.released import Spectral


@register
class VarsS(SparseReconstruction):
    """Recurrent sparse reconstruction, ``P argminᵤ ½‖Pu − v‖² + λ‖u‖₁``, in kernels at every position of the grid.

    Kernels have unit length and are shared by the channels of a head; beyond the grid are zeros. Γ mixes the kernels
    alike at every position. Each prefix token has an atom of its own, itself and a constant over the grid, by which it
    reads the grid's mean and the grid reads it. L bounds the largest eigenvalue of PᵀP from above. Codes are computed
    in float32 also under autocast.

    Args:
        dim: token width.
        num_heads: heads.
        steps: LISTA updates k; None for 3.
        lam: weight of the sparsity, lambda of eq. 1.10; None for the variant's 0.3 (released: 3.5).
        num_kernels: kernels K of each head (released: of each channel).
        kernel_size: their side, odd (released: as large as the grid).
        variant: "paper", or "released" as in the authors' code, whose weights load: kernels are spectra over a fixed
            ``grid`` that wraps around, codes start thresholded, nothing but the kernels is learned, a second filter
            and a BatchNorm follow.
        **host: see `SelfMixer`.
    """

    reading = "recurrent sparse reconstruction"
    paper = "Shi et al. 2022"
    equation = "P argminᵤ ½‖Pu − v‖² + λ‖u‖₁, Pᵀ a convolution (1.10–1.12)"
    complexity = "N"
    projections = ("v",)
    tokens = "grid"
    defaults = {"paper": (3, 0.3), "released": (3, 3.5)}

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        steps: Iterations | None = None,
        lam: Amount | None = None,
        num_kernels: Number = 5,
        kernel_size: KernelSide = 5,
        variant: Variant = "paper",
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        self.choose(variant, steps, lam)
        self.check(kernel_size % 2 == 1, f"kernel_size={kernel_size} must be odd, so that a kernel has a centre")
        self.norms_by_batch = variant == "released"
        self.form = Spectral(self, num_kernels) if variant == "released" else Everywhere(self, num_kernels, kernel_size)
