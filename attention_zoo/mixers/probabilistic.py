"""Probabilistic attention: values inferred from a mixture of memory units whose keys adapt to the queries.

    w_ij ~ pi_j N(q_i | xi_j, 1/alpha),    out_i = sum_j w_ij mu_j                                     (Eq. 5, 12)
    xi_k <- (theta xi_k + alpha sum_i w_ik q_i) / (theta + alpha sum_i w_ik)                           (Eq. 18)

P. Gabbur, M. Bilkhu, J. Movellan, Probabilistic Attention for Interactive Segmentation, NeurIPS 2021.
"""

from typing import Literal, Unpack

import torch
from torch import Tensor

from attention_zoo.functional.em import adapt_keys, infer_values
from attention_zoo.interface import HostOptions, SelfMixer
from attention_zoo.registry import register


@register
class Probabilistic(SelfMixer):
    """MAP inference in a Gaussian mixture whose units are the tokens, ``Σⱼ p(uⱼ | qᵢ) μⱼ``, with key adaptation.

    With the magnitude prior and no adaptation it is `DotProduct`. Adaptation has no parameters: it can be switched
    on in a model that was trained without. It runs in float32 also under autocast, since normalisers are exponents.

    Args:
        dim: token width.
        num_heads: heads.
        key_adaptation: EM steps of the keys towards the queries (Eq. 18); 0 is off.
        key_prior_precision: theta >= 0; 0 is the maximum-likelihood update.
        anchor: what theta pulls to, the key of the step before (as Eq. 18 prints) or the initial one (section 3.5).
        alpha: precision of the queries; None is 1/√d, the scale of dot-product attention.
        magnitude_prior: units are as probable as Eq. 10 says; otherwise all alike.
        **host: see `SelfMixer`.
    """

    reading = "MAP inference in a mixture model"
    paper = "Gabbur et al. 2021"
    equation = "Σⱼ p(uⱼ|qᵢ, ξ*) μⱼ (Eq. 12, 18)"
    complexity = "N²"

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        key_adaptation: int = 0,
        key_prior_precision: float = 0.0,
        anchor: Literal["current", "initial"] = "current",
        alpha: float | None = None,
        magnitude_prior: bool = True,
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        self.refuse_dropout()
        self.alpha = self.head_dim**-0.5 if alpha is None else alpha
        self.check(self.alpha > 0, f"alpha={alpha} must be above 0")
        self.check(key_adaptation >= 0, f"key_adaptation={key_adaptation} must not be negative")
        self.check(key_prior_precision >= 0, f"key_prior_precision={key_prior_precision} must not be negative")
        self.check(anchor in ("current", "initial"), f"anchor={anchor!r} must be 'current' or 'initial'")
        self.key_adaptation, self.key_prior_precision, self.anchor = key_adaptation, key_prior_precision, anchor
        self.magnitude_prior = magnitude_prior

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v (B, H, N, D) -> (B, H, N, D)."""
        k = self.adapted_keys(q, k)
        return infer_values(q, k, v, alpha=self.alpha, magnitude_prior=self.magnitude_prior)

    def adapted_keys(self, q: Tensor, k: Tensor) -> Tensor:
        """Keys (B, H, N, D) after ``key_adaptation`` steps."""
        if not self.key_adaptation:
            return k
        with torch.autocast(q.device.type, enabled=False):
            precise = torch.promote_types(q.dtype, torch.float32)
            return adapt_keys(
                q.to(precise),
                k.to(precise),
                alpha=self.alpha,
                prior_precision=self.key_prior_precision,
                iterations=self.key_adaptation,
                anchor=self.anchor,
                magnitude_prior=self.magnitude_prior,
            ).to(k.dtype)

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The responsibilities p(u_j | q_i) under the adapted keys."""
        k = self.adapted_keys(q, k)
        log_joint = self.alpha * (q @ k.mT)
        if not self.magnitude_prior:
            log_joint = log_joint - self.alpha / 2 * k.square().sum(-1)[..., None, :]
        return log_joint.softmax(-1)
