"""Mixtures whose keys and precisions adapt to the queries on line."""

from abc import abstractmethod
from dataclasses import replace
from typing import Annotated, Any, cast

from torch import Tensor

from attention_zoo.domains import Domain
from attention_zoo.functional.em import Anchor, adapt_keys, adapt_precisions
from attention_zoo.functional.gauge import towards_keys
from attention_zoo.functional.mixture import Precision
from attention_zoo.functional.precision import precise
from attention_zoo.mixers.mixture import Units
from attention_zoo.mixers.options import Amount, Iterations
from attention_zoo.mixers.placed_mixture import PlacedMixture
from attention_zoo.mixers.switches import Switches

Shape = Annotated[float, Domain(least=1, most=1e6)]
"""The shape of a Gamma prior that has a mode."""
Rate = Annotated[float, Domain(above=0, most=1e12)]
"""The rate of a Gamma prior; the limit is above the default rate of the least alpha."""


class AdaptingMixture(PlacedMixture):
    """A mixture whose keys, and then precisions, may take EM steps towards the queries before these read.

    Args:
        dim: token width.
        num_heads: heads.
        key_adaptation: EM steps of the keys towards the queries (Eq. 18); 0 is off.
        key_prior_precision: theta >= 0 of the keys; 0 is the maximum-likelihood update.
        precision_adaptation: EM steps of each unit's alpha after those of the keys (Eq. 36); 0 is off.
        precision_prior: shape and rate of the Gamma prior of the alphas; None is (1 + d/2, d/2 / alpha), one query
            at the distance that alpha expects.
        anchor: what theta pulls to, the step before (as Eq. 18 and 23 print) or the initial one (section 3.5).
        **layer: see `PlacedMixture`.
    """

    @abstractmethod
    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        key_adaptation: Iterations = 0,
        key_prior_precision: Amount = 0.0,
        precision_adaptation: Iterations = 0,
        precision_prior: tuple[Shape, Rate] | None = None,
        anchor: Anchor = "current",
        **layer: Any,
    ) -> None:
        super().__init__(dim, num_heads, **layer)
        self.key_adaptation, self.key_prior_precision, self.anchor = key_adaptation, key_prior_precision, anchor
        self.precision_adaptation, self.precision_prior = precision_adaptation, precision_prior

    def switch(self, switches: Switches, *, alpha: float | None = None, beta: float = 0.0, **theta: float) -> None:
        """Choose the switches as `PlacedMixture.switch` does, and the prior of the alphas if none is chosen."""
        super().switch(switches, alpha=alpha, beta=beta, **theta)
        if self.precision_prior is None:
            self.precision_prior = (1 + self.head_dim / 2, self.head_dim / 2 / self.alpha)

    def _adapted(self, units: Units) -> Units:
        """Return the units after the EM steps of keys and alphas, and then of the queries."""
        if self.key_adaptation:
            adapt = self.switches.adapt
            k = adapt_keys(
                units.q,
                units.k,
                v=units.v,
                beta=units.beta,
                iterations=self.key_adaptation,
                prior_precision=self._theta("key_prior_precision", units),
                anchor=self.anchor,
                observed=towards_keys(units.q, units.k, gauge=adapt.gauge, centre=adapt.centre),
                fit_positions=adapt.fit_positions,
                **units.terms,
            )
            units = replace(units, k=k)
        shape, rate = cast(tuple[float, float], self.precision_prior)  # which `switch` has set
        for _ in range(self.precision_adaptation):
            alpha = adapt_precisions(units.q, units.k, shape=shape, rate=rate, **units.terms)
            units = replace(units, terms=units.terms | {"alpha": alpha})
        return super()._adapted(units)

    def _theta(self, name: str, units: Units) -> Precision:
        """Return a firmness: the option of this name, or a number for each unit (B, H, M)."""
        return self._of_components(self._number(name, getattr(self, name), units.single_keys))

    def adapted_keys(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return keys (B, H, N, D) after ``key_adaptation`` steps, for queries, initial keys and mean values.

        Where the kernel has a metric, keys are in its coordinates, each channel times the root of its precision, in
        which ``key_prior_precision`` holds them too; where units have components, there are keys of each.
        """
        return self._adapted_units(q, k, v).k

    def _precise(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors, in float32 or wider unless the options leave plain dot-product attention."""
        adapts = self.key_adaptation or self.precision_adaptation
        return tuple(map(precise, tensors)) if adapts else super()._precise(*tensors)
