"""Mixture of Gaussian keys: each token is read through several Gaussians around its key.

    out_i = sum_jr pi_r N(q_i | k_j + b_r, 1/alpha_r) v_j / sum_jr pi_r N(q_i | k_j + b_r, 1/alpha_r)

T. Nguyen, T. Nguyen, D. Le, D. Nguyen, V.-A. Tran, R. Baraniuk, N. Ho, S. Osher, Improving Transformers with
Probabilistic Attention Keys, ICML 2022; of its two forms the one whose keys are shifts of one another.
"""

from typing import Unpack, cast

import torch
from torch import Tensor

from attention_zoo.functional.diagnostics import log_likelihood
from attention_zoo.functional.precision import precise
from attention_zoo.mixers.base import HostOptions
from attention_zoo.mixers.mixture import MixtureMixer
from attention_zoo.mixers.premise import Measure, Measures
from attention_zoo.mixers.registry import register
from attention_zoo.mixers.switches import Components, Kernel, Switches, UnitPrior


@register
class MixtureOfGaussianKeys(MixtureMixer):
    """``Σⱼ p(uⱼ | qᵢ) vⱼ`` where each unit has several Gaussians, of learned shifts, precisions and shares.

    It is the mixture with a uniform prior of the units; one component is a Gaussian kernel smoother. A fused pass over
    as many keys as there are components of all units. The shares are soft; the paper's hard variant takes the likeliest
    component alone. At the start a component has the key of its unit and thrice the precision of the one before.

    Args:
        dim: token width.
        num_heads: heads.
        components: Gaussians of each unit.
        **host: see `SelfMixer`.
    """

    reading = "MAP inference, several Gaussians a unit"
    paper = "Nguyen et al. 2022 (MGK)"
    equation = "Σⱼᵣ πᵣ N(qᵢ|kⱼ+bᵣ, 1/αᵣ) vⱼ / Σⱼᵣ πᵣ N(qᵢ|kⱼ+bᵣ, 1/αᵣ)"
    complexity = "N²"
    premise = "Queries are likelier under several Gaussians around each key than under any one of them."

    def __init__(
        self, dim: int, num_heads: int = 8, *, components: Components = 2, **host: Unpack[HostOptions]
    ) -> None:
        super().__init__(dim, num_heads, **host)
        self.switch(Switches(kernel=Kernel(components=components), prior=UnitPrior("uniform")))

    def premise_measures(self, q: Tensor, k: Tensor, v: Tensor) -> Measures:
        """Return the likelihood of queries under all Gaussians and under the best one, for q and k (B, H, N, D).

        Also the responsibility, mean over the queries, of all Gaussians of the units but the one that has most. With
        one component there is nothing to say.
        """
        if self.components is None:
            return {}
        q, k, v = map(precise, (q, k, v))
        units, number = self._units(q, k, v, self._terms(q, None)), self.components.number
        alpha, shares = (cast(Tensor, units.terms[name]) for name in ("alpha", "log_mixing"))
        parts = zip(units.k.chunk(number, 2), alpha.chunk(number, 2), strict=True)
        single = torch.stack([log_likelihood(q, keys, a, torch.zeros_like(a)) for keys, a in parts])
        weights = self._mixture(units).joint().scores(slice(None)).softmax(-1)
        taken = weights.mean(2).unflatten(-1, (number, -1)).sum(-1)
        return {
            "log-likelihood of the queries, against one Gaussian": Measure(
                log_likelihood(q, units.k, alpha, shares), single.amax(0), "higher"
            ),
            "responsibility of further Gaussians": Measure(1 - taken.amax(-1)),
        }
