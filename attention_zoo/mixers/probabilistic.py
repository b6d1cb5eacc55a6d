"""Probabilistic attention: values inferred from a mixture of memory units that adapts to the queries and to clicks.

    w_ij ~ pi_ij N(q_i | xi_j, 1/alpha_j),    out_i = sum_j w_ij mu_j                                  (Eq. 5, 12)
    xi_k <- (theta xi_k + alpha_k sum_i w_ik q_i) / (theta + alpha_k sum_i w_ik)                       (Eq. 18)
    mu_k <- (theta mu_k + beta sum_i w_ik v_i) / (theta + beta sum_i w_ik),  i over the clicked units  (Eq. 23)

P. Gabbur, M. Bilkhu, J. Movellan, Probabilistic Attention for Interactive Segmentation, NeurIPS 2021.
"""

from dataclasses import fields, replace
from typing import Annotated, Any, TypedDict, Unpack, cast, get_type_hints

import torch
import torch.nn.functional as F
from torch import Tensor

from attention_zoo.domains import Domain, complaint, shown
from attention_zoo.functional.em import (
    adapt_mixing_weights,
    adapt_value_precisions,
    infer_fixed,
    propagate_values,
)
from attention_zoo.functional.fixed_units import FixedValues, resolved
from attention_zoo.functional.gauge import Gauge
from attention_zoo.functional.memory import Prior
from attention_zoo.functional.precision import precise
from attention_zoo.mixers.adapting_mixture import AdaptingMixture, Rate, Shape
from attention_zoo.mixers.mixture import Units, mask_in_parts
from attention_zoo.mixers.options import Amount, Iterations
from attention_zoo.mixers.premise import Measures, mixture, one_space
from attention_zoo.mixers.registry import register
from attention_zoo.mixers.switches import Adapt, Kernel, Switches, UnitPrior, ValueLikelihood


class Adaptation(TypedDict, total=False):
    """The options of `Probabilistic` that can be changed in a built model; the last three are those of `Adapt`."""

    key_adaptation: Iterations
    key_prior_precision: Amount
    value_propagation: Iterations
    value_prior_precision: Amount
    gauge: Gauge
    centre: bool
    fit_positions: bool


ADAPTATION = get_type_hints(Adaptation, include_extras=True)
"""The options of `Adaptation`, each with the kind of value that it takes."""
OF_SWITCH = tuple(name for name in ADAPTATION if name in {part.name for part in fields(Adapt)})
"""The options of `Adaptation` that the switch `Adapt` holds; the others are the constructor's own."""

Alpha = Annotated[float, Domain(least=1e-6, most=1e6)]
"""A precision of queries, by which features are divided."""
Concentration = Annotated[float, Domain(least=1, most=1e6)]
"""The concentration of a Dirichlet prior that has a mode."""


@register
class Probabilistic(AdaptingMixture):
    """MAP inference in a Gaussian mixture whose units are the tokens, ``Σⱼ p(uⱼ | qᵢ) μⱼ``, adapted on line.

    With the defaults it is `DotProduct`. Adaptation has no parameters: it can be switched on in a model that was
    trained without. It runs in float32 also under autocast, since normalisers are exponents. Class and register
    tokens are units like all others, at no distance from anyone. Most readings of attention by pairs of tokens are
    settings of its switches, see `attention_zoo.mixers.switches`.

    Args:
        dim: token width.
        num_heads: heads.
        alpha: precision of the queries; None is 1/√d, the scale of dot-product attention.
        beta: precision of the values, needed by value propagation (the paper's: 0.1).
        value_propagation: EM steps that spread the values of clicked units, see `mix` (Eq. 23); 0 is off.
        value_prior_precision: theta >= 0 of the mean values.
        condition_on_values: whether clicked values are part of the responsibilities (Eq. 24); not so in the
            released layer.
        value_precision_prior: shape and rate of a Gamma prior; adapts each unit's beta to the clicks (Eq. 37).
        mixing_concentration: concentration of a Dirichlet prior; adapts the clicked units' mixing weights (Eq. 38).
        magnitude_prior: units are as probable as Eq. 10 says; otherwise all alike.
        kernel: the likelihood of the queries: where alpha comes from, the metric, Gaussians a unit.
        prior: the prior of the units; None is the magnitude prior, or a uniform one for ``magnitude_prior=False``.
        value_likelihood: the likelihood of the values, and the steps that infer a value.
        adapt: what else adapts: queries, both marginals, the firmness of keys and means.
        **layer: see `AdaptingMixture` (keys and alphas that adapt), `PlacedMixture` (positions) and `SelfMixer`.
    """

    reading = "MAP inference in a mixture model"
    paper = "Gabbur et al. 2021"
    equation = "Σⱼ p(uⱼ|qᵢ, ξ*) μⱼ (Eq. 12, 18)"
    complexity = "N²"
    premise = "Queries are drawn from Gaussians about the keys, and likelier after these have adapted to them."

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        alpha: Alpha | None = None,
        beta: Amount = 0.0,
        value_propagation: Iterations = 0,
        value_prior_precision: Amount = 1.0,
        condition_on_values: bool = True,
        value_precision_prior: tuple[Shape, Rate] | None = None,
        mixing_concentration: Concentration | None = None,
        magnitude_prior: bool = True,
        kernel: Kernel | None = None,
        prior: UnitPrior | None = None,
        value_likelihood: ValueLikelihood | None = None,
        adapt: Adapt | None = None,
        **layer: Any,
    ) -> None:
        super().__init__(dim, num_heads, **layer)
        self.value_propagation, self.value_prior_precision = value_propagation, value_prior_precision
        self.condition_on_values = condition_on_values
        self.value_precision_prior, self.mixing_concentration = value_precision_prior, mixing_concentration
        self.check(value_propagation == 0 or beta > 0, "value_propagation needs beta above 0")
        fits = mixing_concentration is None or not self.value_positions
        self.check(fits, "mixing_concentration cannot be used with value_positions=True")
        self.check(magnitude_prior or prior is None, "magnitude_prior=False and prior: give one of them")
        prior = prior or UnitPrior("magnitude" if magnitude_prior else "uniform")
        switches = Switches(kernel or Kernel(), prior, value_likelihood or ValueLikelihood(), adapt or Adapt())
        self._check_thetas(switches)
        self.switch(switches, alpha=alpha, beta=beta, **self._thetas())

    def _check_thetas(self, switches: Switches) -> None:
        """Refuse a theta that is learned of nothing that adapts, and clicks on units of several Gaussians."""
        theta, components = switches.adapt.theta, switches.kernel.components
        fits = components == 1 or not self.value_propagation
        self.check(fits, f"kernel.components={components} cannot be used with value_propagation")
        fits = theta == "fixed" or bool(self._thetas())
        self.check(fits, f"adapt.theta={theta!r} needs key_adaptation or value_propagation")
        for name, start in self._thetas().items():
            self.check(theta == "fixed" or start > 0, f"adapt.theta={theta!r} needs {name} above 0, at which it starts")

    def _thetas(self) -> dict[str, float]:
        """Return the firmness of what adapts, by its option's name."""
        adapting = {"key_prior_precision": self.key_adaptation, "value_prior_precision": self.value_propagation}
        return {name: getattr(self, name) for name, steps in adapting.items() if steps}

    def set_adaptation(self, **options: Unpack[Adaptation]) -> Adaptation:
        """Adapt in this way from now on; options that are not named stay as they are.

        A layer without positions adapts alike with ``fit_positions`` and without.

        Returns:
            The named options as they were before.

        Raises:
            InputError: a value does not fit; then nothing has changed.
        """
        for name, value in options.items():
            why = complaint(value, ADAPTATION[name])
            self.check(why is None, f"{name}={shown(value)} must {why}")
        fits = not options.get("value_propagation") or self.beta > 0
        self.check(fits, "value_propagation needs beta above 0")
        fits = not options.get("value_propagation") or self.components is None
        self.check(fits, "value_propagation cannot be used with kernel.components above 1")
        of_switch: dict[str, Any] = {name: value for name, value in options.items() if name in OF_SWITCH}
        own = {name: value for name, value in options.items() if name not in OF_SWITCH}
        adapt = self.switches.adapt
        before = {name: getattr(adapt if name in OF_SWITCH else self, name) for name in options}
        vars(self).update(own)
        self.switches = replace(self.switches, adapt=replace(adapt, **of_switch))
        return cast(Adaptation, before)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, fixed: FixedValues | None = None) -> Tensor:
        """Return the inferred values (B, H, N, D) of q, k, v (B, H, N, D); values may have a width E of their own.

        Args:
            q: queries (B, H, N, D).
            k: initial keys (B, H, N, D).
            v: initial mean values (B, H, N, E).
            fixed: values that a user has given for some units, spread in ``value_propagation`` steps.
        """
        return self._infer(q, k, v, None, fixed)

    def mix_masked(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attn_mask: Tensor | None,
        is_causal: bool,
        fixed: FixedValues | None = None,
    ) -> Tensor:
        """Mix as `mix` does, with a prior of zero where the mask forbids reading; keys adapt only to their readers."""
        return self._infer(q, k, v, mask_in_parts(q, k, attn_mask, is_causal), fixed)

    def _infer(self, q: Tensor, k: Tensor, v: Tensor, mask: Prior | None, fixed: FixedValues | None) -> Tensor:
        """Return the values (B, H, N, E) that queries read after keys have adapted and clicks have spread."""
        if fixed is None or not self.value_propagation:
            return self.infer(q, k, v, mask)
        kind = v.dtype
        with torch.autocast(q.device.type, enabled=False):
            q, k, v = self._precise(q, k, v)
            units = self._adapted(self._units(q, k, v, self._terms(q, mask)))
            values = resolved(q, FixedValues(fixed.index, fixed.values.to(v.dtype), fixed.mask))
            units = self._propagated(units, values)
            out = self._read(units, None)
            if self.mixing_concentration is not None:
                out = self._read_with_own_weights(out, units, values)
            return out.to(kind)

    def _propagated(self, units: Units, fixed: FixedValues) -> Units:
        """Return units whose mean values (B, H, N, E), and their precisions, the clicks have changed."""
        args = {"beta": units.beta, "fixed_mask": fixed.mask, **units.terms}
        q, k, means = units.q, units.k, units.v
        means = propagate_values(
            q,
            k,
            means,
            fixed.index,
            fixed.values,
            prior_precision=self._theta("value_prior_precision", units),
            iterations=self.value_propagation,
            anchor=self.anchor,
            condition_on_values=self.condition_on_values,
            **args,
        )
        if self.value_precision_prior is None:
            return replace(units, v=means)
        shape, rate = self.value_precision_prior
        beta = adapt_value_precisions(q, k, means, fixed.index, fixed.values, shape=shape, rate=rate, **args)
        return replace(units, v=means, beta=beta)

    def _read_with_own_weights(self, out: Tensor, units: Units, fixed: FixedValues) -> Tensor:
        """Return ``out``, with clicked units' values read under mixing weights that adapted to the clicks (Eq. 38)."""
        q, k, means, terms = units.q, units.k, units.v, units.terms
        args = {"beta": units.beta, "concentration": self.mixing_concentration, **terms}
        log_pi = adapt_mixing_weights(q, k, means, fixed.index, fixed.values, **args)
        known = {name: terms[name] for name in ("alpha", "q_pos", "k_pos")}
        own = infer_fixed(q, k, means, fixed.index, log_pi, beta=units.beta, **known)
        # one row more, for entries that do not count
        rows = fixed.index.masked_fill(~cast(Tensor, fixed.mask), q.shape[2])[:, None, :, None]
        return F.pad(out, (0, 0, 0, 1)).scatter(2, rows.expand_as(own), own)[:, :, :-1]

    def _precise(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors, in float32 or wider unless the options leave plain dot-product attention."""
        spreads = self.value_propagation or self.beta
        return tuple(map(precise, tensors)) if spreads else super()._precise(*tensors)

    def premise_measures(self, q: Tensor, k: Tensor, v: Tensor) -> Measures:
        """Return the likelihood of queries as keys adapt, and whether both share a space, for q and k (B, H, N, D)."""
        q, k = precise(q), precise(k)
        likelihoods = mixture(
            q,
            k,
            alpha=self._number("alpha", self.alpha, k),
            prior_precision=self.key_prior_precision,
            anchor=self.anchor,
            magnitude_prior=self.switches.prior.form == "magnitude",
            precision_prior=cast(tuple[float, float], self.precision_prior),  # which `switch` has set
        )
        return likelihoods | one_space(q, k)
