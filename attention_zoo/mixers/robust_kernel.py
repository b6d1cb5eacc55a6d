"""Robust kernel density estimation: units that lie apart from all others count less.

    out_i = sum_j pi_j K(q_i, k_j) v_j / sum_j pi'_j K(q_i, k_j),    K(q, k) = exp(-|q - k|^2 / sqrt(d))

pi weighs keys and values together, pi' keys alone, both from a robust fit (kernelised IRLS). X. Han, T. Ren, T. Nguyen,
K. Nguyen, J. Ghosh, N. Ho, Designing Robust Transformers using Robust Kernel Density Estimation, NeurIPS 2023.
"""

from typing import Literal, Unpack

import torch
from torch import Tensor

from attention_zoo.functional.diagnostics import evenness
from attention_zoo.functional.precision import precise
from attention_zoo.mixers.base import HostOptions, SelfMixer
from attention_zoo.mixers.mixture import MixtureMixer
from attention_zoo.mixers.options import Iterations
from attention_zoo.mixers.premise import Measure, Measures
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
    premise = "Keys lie together but for few, which count less."
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

    def premise_measures(self, q: Tensor, k: Tensor, v: Tensor) -> Measures:
        """Return the share of keys k (B, H, N, D) that are outliers, and how evenly the fit weighs the keys.

        Outliers are beyond the threshold from the density in which all keys count alike. It is compared with a half,
        from which on no fit can tell which are the outliers.
        """
        q, k, v = map(precise, (q, k, v))
        units, fit = self._units(q, k, v, self._terms(q, None)), self._robust_fit()
        outliers = fit.outliers(units.k, self.alpha).to(k.dtype).mean(-1)
        return {
            "share of the keys that are outliers": Measure(outliers, torch.full_like(outliers, 0.5), "lower"),
            "evenness of the keys' weights": Measure(evenness(units.terms["log_mixing"].exp())),
        }
