"""The mixture behind most readings of attention, as the base of the mixers that fix its switches."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Literal, Unpack, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.functional.em import adapt_queries, infer_values
from attention_zoo.functional.memory import Mixture, Prior
from attention_zoo.functional.mixture import Joint, Precision, joint
from attention_zoo.functional.positions import SplitPrior
from attention_zoo.functional.precision import precise
from attention_zoo.functional.robust import Penalty, RobustFit, infer_by_robust_units, infer_robust_values
from attention_zoo.functional.sinkhorn import infer_balanced_values
from attention_zoo.mixers.base import HostOptions, SelfMixer, log_mask
from attention_zoo.mixers.protocols import KeptByThread
from attention_zoo.mixers.switches import Switches
from attention_zoo.mixers.unit_numbers import GaussianComponents, UnitNumber, of_keys, repeat_terms, softplus_inverse


@dataclass(frozen=True)
class Units:
    """Queries and the units that they read, under the kernel and prior that the switches choose.

    Attributes:
        q: queries (B, H, N, D).
        k: keys (B, H, M, D).
        v: mean values (B, H, M, E).
        single_keys: one key of each unit (B, H, M', D), where ``k`` has one of each component; numbers are predicted
            from them.
        terms: keyword arguments that all functions of the mixture share.
        beta: precisions of the values.
        log_robust: log weights of keys and values together under a robust fit (B, H, M).
    """

    q: Tensor
    k: Tensor
    v: Tensor
    single_keys: Tensor
    terms: dict[str, Any]
    beta: Precision = 0.0
    log_robust: Tensor | None = None


class MixtureMixer(SelfMixer):
    """A reading that is one setting of the switches of the mixture; its constructor ends with `switch`."""

    switches: Switches
    plain: bool
    alpha: float
    beta: float
    before: KeptByThread | None
    onward: KeptByThread

    @abstractmethod
    def __init__(self, dim: int, num_heads: int = 8, **host: Unpack[HostOptions]) -> None:
        super().__init__(dim, num_heads, **host)

    def switch(self, switches: Switches, *, alpha: float | None = None, beta: float = 0.0, **theta: float) -> None:
        """Choose the switches, and make the parameters that they need.

        Args:
            switches: the setting.
            alpha: precision of the queries, or its start; None is 1/√d.
            beta: precision of the values, or its start.
            **theta: by name, precisions that hold what adapts; they are learned where ``switches.adapt.theta`` says so.

        Raises:
            InputError: two switches exclude each other.
        """
        why = switches.conflict(beta)
        self.check(why is None, str(why))
        self.switches, self.plain = switches, switches == Switches()
        if switches.kernel.shared:
            self._share_projection()
        self.alpha, self.beta = self.head_dim**-0.5 if alpha is None else alpha, beta
        self.before, self.onward = None, KeptByThread()
        starts = {"alpha": (switches.kernel.alpha, self.alpha), "beta": (switches.likelihood.beta, beta)}
        starts |= {name: (switches.adapt.theta, start) for name, start in theta.items()}
        chosen = {
            name: UnitNumber(start, self.dim, self.num_heads, source, **self.made)
            for name, (source, start) in starts.items()
            if source != "fixed"
        }
        self.numbers = nn.ModuleDict(chosen)
        self.metric: nn.Parameter | None = None
        if switches.kernel.metric == "diagonal":
            shape = (self.num_heads, self.head_dim)
            self.metric = nn.Parameter(torch.full(shape, softplus_inverse(1.0), **self.made))
        self.components: GaussianComponents | None = None
        if switches.kernel.components > 1:
            self.components = GaussianComponents(switches.kernel.components, self.num_heads, self.head_dim, **self.made)
        self.mixing: nn.Linear | None = None
        if switches.prior.form == "predicted":
            self.mixing = nn.Linear(self.dim, self.num_heads, bias=False, **self.made)
            nn.init.zeros_(self.mixing.weight)

    def _share_projection(self) -> None:
        """Project queries and values alone; keys are the queries."""
        self.projections = ("q", "v")  # type: ignore[misc]  # of this mixer, in place of its class
        self.qkv = nn.Linear(self.dim, 2 * self.dim, bias=cast(nn.Linear, self.qkv).bias is not None, **self.made)
        self.k_norm = nn.Identity()

    def follow(self, before: "MixtureMixer | None") -> None:
        """Compare the values with those of the layer ``before`` where the kernel's metric is that of the "layers".

        They are its last ones: of the same pass where a model runs its layers in this order. The first layer, and one
        whose values have another shape than those before it, take all channels alike.
        """
        self.before = None
        if before is not None and before.switches.kernel.metric == self.switches.kernel.metric == "layers":
            self.before = before.onward

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the inferred values (B, H, N, D) of queries q, keys k and mean values v, all (B, H, N, D)."""
        return self.infer(q, k, v, None)

    def mix_masked(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Tensor:
        """Mix as `mix` does, with a prior of zero where the mask forbids reading.

        Raises:
            InputError: the prior is robust, a fit to all units whoever may read them.
        """
        return self.infer(q, k, v, mask_in_parts(q, k, attn_mask, is_causal))

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return p(u_j | q_i) (B, H, N, N) under the units as they adapt, which with beta > 0 are held.

        Where the switches leave no softmax over one Gaussian of each unit, the identity is read if the reading is
        linear in the values, and it is the derivative of the base if not.
        """
        found = self.joint_probability(q, k, v)
        if found is not None:
            return found.scores(slice(None)).softmax(-1)
        if not self._is_linear:
            return super().map_weights(q, k, v)
        q, k, v = map(precise, (q, k, v))
        identity = torch.eye(k.shape[2], dtype=v.dtype, device=v.device)
        return self.infer(q, k, v, None, identity.expand(*k.shape[:2], -1, -1))

    @property
    def has_closed_map(self) -> bool:
        """Whether `attention_map` is computed at once, and not by differentiating `mix` token by token."""
        return self._is_softmax or self._is_linear

    @property
    def _is_softmax(self) -> bool:
        """Whether the switches leave a softmax over one Gaussian of each unit."""
        switches, likelihood = self.switches, self.switches.likelihood
        several = switches.balanced or self.components is not None or likelihood.iterations > 1
        robust = switches.penalised or switches.prior.form == "robust"
        return not (several or robust) and likelihood.beta == "fixed"

    @property
    def _is_linear(self) -> bool:
        """Whether the switches leave a reading that is linear in the values."""
        switches, steps = self.switches, self.switches.likelihood
        moving = switches.penalised and steps.iterations > 0 and steps.through_distance
        return not (moving or self.beta > 0 or switches.prior.form == "robust")

    def joint_probability(self, q: Tensor, k: Tensor, v: Tensor) -> Joint | None:
        """Return log p(q_i, u_j) of q, k and v (B, H, N, D) under the units as they adapt.

        It is None where the switches leave no softmax over one Gaussian of each unit.
        """
        if not self._is_softmax:
            return None
        units = self._adapted_units(*map(precise, (q, k, v)))
        return joint(units.q, units.k, beta=units.beta, v=units.v, **units.terms)

    def _adapted_units(self, q: Tensor, k: Tensor, v: Tensor) -> Units:
        """Return queries and units as they adapt, for q, k and v (B, H, N, D)."""
        q, k, v = self._precise(q, k, v)
        return self._adapted(self._units(q, k, v, self._terms(q, None)))

    def infer(self, q: Tensor, k: Tensor, v: Tensor, mask: Prior | None, read: Tensor | None = None) -> Tensor:
        """Return the values (B, H, N, E) that the queries read from the units.

        Args:
            q: queries (B, H, N, D).
            k: keys (B, H, M, D).
            v: mean values (B, H, M, E).
            mask: added to the log prior, broadcasting to (B, H, N, M), or see `mask_in_parts`.
            read: what is read in the place of the values under the weights that they lead to, (B, H, M, F).
        """
        self._check_mask_fits(mask)
        kind = v.dtype if read is None else read.dtype
        with torch.autocast(q.device.type, enabled=False):
            q, k, v = self._precise(q, k, v)
            units = self._adapted(self._units(q, k, v, self._terms(q, mask)))
            if read is not None and self.components is not None:
                read = self.components.repeated(read, 2)
            return self._read(units, read).to(kind)

    def _check_mask_fits(self, mask: Prior | None) -> None:
        fits = mask is None or self.switches.prior.form != "robust"
        self.check(fits, "the prior 'robust' is a fit to all units and cannot use attn_mask or is_causal")

    def _precise(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors, in float32 or wider unless the switches leave plain dot-product attention."""
        return tensors if self.plain else tuple(map(precise, tensors))

    def _terms(self, q: Tensor, mask: Prior | None) -> dict[str, Any]:
        """Return the keyword arguments that the functions of the mixture share, without the precisions."""
        return {"log_prior": mask, "magnitude_prior": self.switches.prior.form == "magnitude"}

    def _units(self, q: Tensor, k: Tensor, v: Tensor, terms: dict[str, Any]) -> Units:
        """Return queries and units under the kernel and the prior of the switches."""
        kernel = self.switches.kernel
        k = single_keys = F.normalize(k, dim=-1) if kernel.unit_keys else k
        alpha, beta = self._number("alpha", self.alpha, k), self._number("beta", self.beta, k)
        metric = self._metric(q, v)
        log_robust = None
        if self.mixing is not None:
            terms = terms | {"log_mixing": of_keys(self.mixing, k)}
        if metric is not None:  # of the diagonal metric m, q^T diag(m) k; distances are those after this scaling
            q, k = q * metric.sqrt(), k * metric.sqrt()
        if self.switches.prior.form == "robust":
            fit = self._robust_fit()
            terms = terms | {"log_mixing": fit.log_weights(k, self.alpha)}
            log_robust = fit.log_weights(torch.cat((k, v), -1), self.alpha)
        if self.components is not None:
            k, alpha, shares = self.components(k, alpha)
            terms = repeat_terms(terms, self.components)
            mixing = terms.get("log_mixing")
            terms["log_mixing"] = shares if mixing is None else shares + mixing
            v = self.components.repeated(v, 2)
            beta = self._of_components(beta)
        return Units(q, k, v, single_keys, terms | {"alpha": alpha}, beta, log_robust)

    def _number(self, name: str, fixed: float, k: Tensor) -> Precision:
        """Return a number of the units: the fixed one, or one for each unit (B, H, M)."""
        return self.numbers[name](k) if name in self.numbers else fixed

    def _of_components(self, number: Precision) -> Precision:
        """Return a number of the units as one of their components."""
        if self.components is None or not isinstance(number, Tensor):
            return number
        return self.components.repeated(number, -1)

    def _metric(self, q: Tensor, v: Tensor) -> Tensor | None:
        """Return the relative precisions of the channels, (H, 1, D) or (B, H, 1, D); None where all are alike."""
        if self.metric is not None:
            return F.softplus(self.metric.to(q.dtype))[:, None]
        if self.switches.kernel.metric != "layers":
            return None
        last = None if self.before is None else self.before.value
        self.onward.value = v.detach()
        if last is None or last.shape != v.shape or v.shape[-1] != q.shape[-1]:
            return None
        change = (v.detach() - last.to(v)).abs().mean(2, keepdim=True)
        largest = change.amax(-1, keepdim=True)
        return (change / largest.masked_fill(largest == 0, 1.0)).masked_fill(largest == 0, 1.0)

    def _adapted(self, units: Units) -> Units:
        """Return the units, and queries that have adapted to them."""
        if not self.switches.adapt.queries:
            return units
        args: dict[str, Any] = {"v": units.v, "beta": units.beta, "iterations": self.switches.adapt.queries}
        return replace(units, q=adapt_queries(units.q, units.k, **args, **units.terms))

    def _read(self, units: Units, read: Tensor | None) -> Tensor:
        """Return the values (B, H, N, E) of the queries, or ``read`` under the weights that the values lead to."""
        shown, likelihood = units.v if read is None else read, self.switches.likelihood
        if self.switches.penalised:
            model = self._mixture(units).joint()
            return infer_robust_values(model, units.v, self._penalty(), likelihood.iterations, shown)
        if self.switches.balanced:
            adapt = self.switches.adapt
            model = self._mixture(units).widened().joint()
            return infer_balanced_values(model, shown.to(model.q.dtype), adapt.half_steps, adapt.begin)
        if units.log_robust is not None:
            mixture = self._mixture(units).widened()
            log_marginal = cast(Tensor, mixture.log_mixing)
            model = replace(mixture, log_mixing=None).joint()
            wide = log_marginal.dtype
            return infer_by_robust_units(model, shown.to(wide), units.log_robust.to(wide), log_marginal)
        args: dict[str, Any] = {"beta": units.beta, "iterations": likelihood.iterations}
        return infer_values(units.q, units.k, shown, **args, **units.terms)

    def _penalty(self) -> Penalty:
        """Return the penalty of a heavy-tailed likelihood of the values."""
        likelihood = self.switches.likelihood
        kind = cast(Literal["l1", "mcp", "huber"], likelihood.form)
        return Penalty(kind, likelihood.eps, likelihood.gamma, likelihood.delta, likelihood.through_distance)

    def _robust_fit(self) -> RobustFit:
        """Return how the prior of the units is fitted where it is robust."""
        prior = self.switches.prior
        return RobustFit(prior.loss, prior.threshold, prior.iterations)

    def _mixture(self, units: Units) -> Mixture:
        """Return queries and units as one object, without values."""
        return Mixture(q=units.q, k=units.k, **units.terms).checked()


def mask_in_parts(q: Tensor, k: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Prior | None:
    """Return `log_mask`, but causality by itself, so that it needs no matrix of queries and keys."""
    mask = log_mask(q, k, attn_mask, is_causal=False)
    return SplitPrior(mask=mask, is_causal=True) if is_causal else mask
