"""Robust kernel density estimation: units that lie apart from all others count less.

    out_i = sum_j pi_j K(q_i, k_j) v_j / sum_j pi'_j K(q_i, k_j),    K(q, k) = exp(-|q - k|^2 / sqrt(d))

pi weighs keys and values together, pi' keys alone, both from a robust fit (kernelised IRLS). X. Han, T. Ren, T. Nguyen,
K. Nguyen, J. Ghosh, N. Ho, Designing Robust Transformers using Robust Kernel Density Estimation, NeurIPS 2023.
"""

from typing import Literal, Unpack

from attention_zoo.mixers.base import HostOptions, SelfMixer
from attention_zoo.mixers.mixture import MixtureMixer
from attention_zoo.mixers.options import Iterations
from attention_zoo.mixers.registry import register
from attention_zoo.mixers.switches import Kernel, Switches, Threshold, UnitPrior


@register
class RobustKernel(MixtureMixer):
    """Kernel smoothing with a Gaussian kernel, keys of length one, and weights of the units that outliers hardly move.

    It is the mixture with a robust prior of the units, fitted for each image and head; without steps it is a Gaussian
    kernel smoother. The squared distance of a unit from the density is 1 - 2 (K π)ⱼ + πᵀ K π; the released code has
    plus signs in all three places. All passes are fused. Rows of weights need not sum to one.

    Args:
        dim: token width.
        num_heads: heads.
        loss: "huber" or "hampel".
        threshold: distance from which a unit is an outlier; no distance is above √2.
        steps: reweightings of the fit.
        **host: see `SelfMixer`.
    """

    reading = "kernel smoothing, robust"
    paper = "Han et al. 2023 (RKDE)"
    equation = "Σⱼ πⱼ K(qᵢ, kⱼ) vⱼ / Σⱼ π′ⱼ K(qᵢ, kⱼ)"
    complexity = "N²"
    mix_masked = SelfMixer.mix_masked  # refused: the fit is one to all units, whoever may read them

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        loss: Literal["huber", "hampel"] = "huber",
        threshold: Threshold = 0.2,
        steps: Iterations = 1,
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        prior = UnitPrior("robust", loss, threshold, steps)
        self.switch(Switches(kernel=Kernel(unit_keys=True), prior=prior), alpha=2 * self.head_dim**-0.5)
