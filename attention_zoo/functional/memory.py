"""A mixture of memory units and the queries drawn from it, as one object that every EM step takes.

The docstring of the module `attention_zoo.functional.em` explains the arguments.
"""

from dataclasses import dataclass, replace
from typing import Required, TypedDict

import torch
from torch import Tensor

from attention_zoo.functional.checks import check_mixture
from attention_zoo.functional.fixed_units import FixedUnits, FixedValues
from attention_zoo.functional.mixture import Joint, Positions, Precision, joint
from attention_zoo.functional.positions import FactoredPrior, SplitPrior
from attention_zoo.functional.precision import widened

Prior = Tensor | FactoredPrior | SplitPrior


class Terms(TypedDict, total=False):
    """The keyword arguments that all functions of a mixture share, beside its queries, units and values."""

    alpha: Required[Precision]
    q_pos: Positions | None
    k_pos: Positions | None
    log_prior: Prior | None
    log_mixing: Tensor | None
    magnitude_prior: bool


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Queries, the units that they are drawn from, and the prior of which query is drawn from which unit.

    Attributes: the arguments that the functions share; without ``v`` the units have no values.
    """

    q: Tensor
    k: Tensor
    v: Tensor | None = None
    alpha: Precision
    beta: Precision = 0.0
    q_pos: Positions | None = None
    k_pos: Positions | None = None
    log_prior: Prior | None = None
    log_mixing: Tensor | None = None
    magnitude_prior: bool = True

    def checked(self, *, v_init: Tensor | None = None, v_pos: Positions | None = None) -> "Mixture":
        """Return the mixture itself if its arguments fit.

        Args:
            v_init: current values of the queries (B, H, N, E) that `joint` is to be given.
            v_pos: position embeddings of the values (N, M, E).

        Raises:
            InputError: an argument does not fit; the error names it.
        """
        check_mixture(
            self.q,
            self.k,
            alpha=self.alpha,
            beta=self.beta,
            v=self.v,
            v_init=v_init,
            q_pos=self.q_pos,
            k_pos=self.k_pos,
            v_pos=v_pos,
            log_mixing=self.log_mixing,
        )
        return self

    def widened(self) -> "Mixture":
        """Return the mixture in float64 where float32 does not resolve its scores, see `functional.precision`."""
        names = ("q", "k", "v", "alpha", "beta", "q_pos", "k_pos", "log_prior", "log_mixing")
        bound = score_bound(self.q, self.k, self.alpha, self.v, self.beta)
        wide = widened(bound, *(getattr(self, name) for name in names))
        return replace(self, **dict(zip(names, wide, strict=True)))

    def joint(self, *, v_init: Tensor | None = None, v_pos: Positions | None = None) -> Joint:
        """Return the joint probability of queries and units, by keys and, where the units have them, by values.

        Args:
            v_init: current values of the queries (B, H, N, E).
            v_pos: position embeddings of the values (N, M, E).
        """
        return joint(
            self.q,
            self.k,
            alpha=self.alpha,
            beta=self.beta,
            v=self.v,
            v_init=v_init,
            q_pos=self.q_pos,
            k_pos=self.k_pos,
            v_pos=v_pos,
            log_prior=self.log_prior,
            log_mixing=self.log_mixing,
            magnitude_prior=self.magnitude_prior,
        )

    def fixed(self, index: Tensor, values: Tensor, mask: Tensor | None = None) -> FixedUnits:
        """Return the units whose values are fixed (see `FixedValues`), with their scores by the keys."""
        keys = replace(self, v=None, beta=0.0)
        return FixedUnits(self.q, FixedValues(index, values, mask), keys.joint(), self.magnitude_prior)


def score_bound(q: Tensor, k: Tensor, alpha: Precision, v: Tensor | None = None, beta: Precision = 0.0) -> Tensor:
    """Return a bound on the scores, one number: alpha max(|q|^2, |k|^2), plus beta |v|^2 where there are values."""
    with torch.no_grad():
        bound = _largest(alpha) * torch.maximum(_longest(q), _longest(k))
        return bound if v is None else bound + _largest(beta) * _longest(v)


def _largest(precision: Precision) -> Tensor | float:
    return precision.amax() if isinstance(precision, Tensor) and precision.numel() else precision


def _longest(x: Tensor) -> Tensor:
    """Return the squared length of the longest of vectors (..., D)."""
    return x.detach().square().sum(-1).amax() if x.numel() else x.new_zeros(())
