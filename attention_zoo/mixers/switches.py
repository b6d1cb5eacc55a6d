"""The switches of the mixture behind most readings of attention, as typed values that a config can hold.

Unit j has a key xi_j and a mean value mu_j; queries and values come from sum_j pi_j p(q | xi_j) p(v | mu_j). A reading
is a choice of each factor, and of what is inferred:

=================  ==========================================================================================
`Kernel`           p(q | xi_j): alpha, its metric, how many Gaussians a unit has
`UnitPrior`        pi_j: by magnitude (dot-product attention), all alike, predicted, or a robust fit
`ValueLikelihood`  p(v | mu_j): Gaussian, or heavy-tailed; how many steps infer the value
`Adapt`            what else is inferred: queries, both marginals; how firm the priors of what adapts are
=================  ==========================================================================================
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from attention_zoo.domains import Domain, PositiveFloat, checked
from attention_zoo.functional.gauge import Gauge
from attention_zoo.functional.sinkhorn import Marginal
from attention_zoo.mixers.options import Iterations, SomeIterations

Source = Literal["fixed", "learned", "predicted"]
"""Where a number of each unit comes from: an option, a parameter of each head, or a linear map of the unit's key."""
Components = Annotated[int, Domain(least=1, most=16)]
"""A number of Gaussians of each unit."""
Epsilon = Annotated[float, Domain(least=1e-12, most=1e6)]
"""What keeps the weight of a distance finite."""
Threshold = Annotated[float, Domain(least=1e-6, most=1e6)]
"""A distance in the features of a Gaussian kernel, where none is above the root of 2."""


@checked
@dataclass(frozen=True)
class Kernel:
    """The likelihood of the queries p(q | xi_j), Gaussian.

    Args:
        alpha: where the precisions come from; they start at the number ``alpha``.
        metric: all channels alike; a learned precision for each channel of a head; or those of the "layers": how much
            each channel of the values changes from the layer before to this one (Elliptical attention), without a
            gradient, and all alike where there is no layer before. All other options hold in the metric.
        components: Gaussians of each unit, at learned distances from its key, with learned shares and precisions.
        unit_keys: whether keys have length one.
        shared: whether keys are the queries, by one projection, so that both are in one space by construction: of the
            changes A that leave scores of dot products as they are (see `attention_zoo.functional.gauge`) those with
            A^T = A^-1 are left, rotations, under which key adaptation does not change.
    """

    alpha: Source = "fixed"
    metric: Literal["isotropic", "diagonal", "layers"] = "isotropic"
    components: Components = 1
    unit_keys: bool = False
    shared: bool = False


@checked
@dataclass(frozen=True)
class UnitPrior:
    """The prior of the units pi_j.

    Args:
        form: "magnitude" is Eq. 10, with which attention is that of dot products; "uniform" makes all units alike;
            "predicted" is a softmax of a linear map of the keys; "robust" is a fit to keys and values that outliers
            hardly move (robust kernel density estimation).
        loss: of the robust fit, "huber" or "hampel".
        threshold: distance in the kernel's features from which a unit is an outlier to the robust fit.
        iterations: steps of the robust fit.
    """

    form: Literal["magnitude", "uniform", "predicted", "robust"] = "magnitude"
    loss: Literal["huber", "hampel"] = "huber"
    threshold: Threshold = 0.2
    iterations: Iterations = 1


@checked
@dataclass(frozen=True)
class ValueLikelihood:
    """The likelihood of the values p(v | mu_j), and how a value is inferred from it.

    Args:
        form: "gaussian" of precision beta, or a heavy-tailed one, by its penalty "l1", "mcp" or "huber".
        iterations: EM steps. The first step of a Gaussian has no value yet and is the mean under the prior; more need
            beta above 0 (Eq. 3-6). Those of a penalty come after the mean.
        eps: what keeps the weight 1 / (distance + eps) finite.
        gamma: distance from which "mcp" counts no more.
        delta: distance from which "huber" is linear.
        through_distance: whether a gradient passes through the distances of a penalty's weights.
        beta: where the precisions come from; they start at the number ``beta``.
    """

    form: Literal["gaussian", "l1", "mcp", "huber"] = "gaussian"
    iterations: Iterations = 1
    eps: Epsilon = 1e-2
    gamma: PositiveFloat = 4.0
    delta: PositiveFloat = 4.0
    through_distance: bool = False
    beta: Source = "fixed"


@checked
@dataclass(frozen=True)
class Adapt:
    """What adapts on line beside keys, precisions and means, which have options of their own, and how keys do.

    Key adaptation writes sum_i w_ik q_i / S_k in the place of the key xi_k (Eq. 18). That is a maximum of the
    likelihood if queries are drawn from Gaussians about the keys. But scores alpha q^T xi are the same for q -> A^T q,
    xi -> A^-1 xi and any invertible A, so under the magnitude prior training says nothing of where keys are in relation
    to queries: the update is of a choice of A that nobody made. ``gauge`` and ``centre`` make one by the moments of the
    tokens (`attention_zoo.functional.gauge`): x_i = T q_i is what the keys' space has of a query, and means of x_i are
    written; who reads whom stays with q and xi. With both options T is optimal transport between two Gaussians.

    Under positions N(q | xi_k, 1/alpha) N(q | r_ik, 1/alpha) is N(q | (xi_k + r_ik)/2, 1/(2 alpha)) but for a factor
    exp(-alpha/4 |xi_k - r_ik|^2), which depends on the key. Eq. 18 is the maximum of the product as it stands, where
    positions fall out. That of Eq. 25's last density, alpha/2 sum_i w_ik (2 q_i - r_ik - xi_k) = 0, is reached with
    ``fit_positions`` by writing means of 2 x_i - r_ik, at half the precision against theta.

    Args:
        queries: EM steps of the queries towards the keys (Hopfield's update, mean shift).
        half_steps: normalisations of the responsibilities, of rows and of columns in turn; one of rows is softmax.
        begin: which of the two comes first.
        theta: where the precisions come from that hold keys and means where they are; they start at the numbers
            ``key_prior_precision`` and ``value_prior_precision``.
        gauge: the map from queries to keys where keys adapt: none, as "trained", or that which matches the second
            "moments" of both, T = M with M E[q q^T] M = E[xi xi^T].
        centre: whether keys adapt about the means, T q = q - mean(q) + mean(xi); "moments" are about the means then.
        fit_positions: whether keys adapt together with the queries' positions (Eq. 25), which there must be.
    """

    queries: Iterations = 0
    half_steps: SomeIterations = 1
    begin: Marginal = "rows"
    theta: Source = "fixed"
    gauge: Gauge = "trained"
    centre: bool = False
    fit_positions: bool = False


@dataclass(frozen=True)
class Switches:
    """All switches together; the defaults are dot-product attention."""

    kernel: Kernel = field(default_factory=Kernel)
    prior: UnitPrior = field(default_factory=UnitPrior)
    likelihood: ValueLikelihood = field(default_factory=ValueLikelihood)
    adapt: Adapt = field(default_factory=Adapt)

    @property
    def balanced(self) -> bool:
        """Whether the responsibilities are normalised in another way than by a softmax over the units."""
        return self.adapt.half_steps > 1 or self.adapt.begin == "columns"

    @property
    def penalised(self) -> bool:
        """Whether the likelihood of the values is heavy-tailed."""
        return self.likelihood.form != "gaussian"

    def conflict(self, beta: float) -> str | None:
        """Return what does not fit together, in one line, or None.

        Args:
            beta: precision of the values.
        """
        readers = {
            "the prior 'robust'": self.prior.form == "robust",
            f"the value likelihood {self.likelihood.form!r}": self.penalised,
            f"beta={beta}": beta > 0,
            f"half_steps={self.adapt.half_steps} begun with {self.adapt.begin}": self.balanced,
        }
        chosen = [name for name, on in readers.items() if on]
        if len(chosen) > 1:
            return f"{' and '.join(chosen)} infer values in ways that exclude each other; choose one"
        if not self.penalised and self.likelihood.iterations < 1:
            return "value_likelihood.iterations=0 must be at least 1 for a Gaussian"
        needs_beta = self.likelihood.iterations > 1 and not self.penalised
        if not beta and needs_beta:
            return f"value_likelihood.iterations={self.likelihood.iterations} needs beta above 0"
        if not beta and self.likelihood.beta != "fixed":
            return f"value_likelihood.beta={self.likelihood.beta!r} needs beta above 0, at which it starts"
        if self.prior.form == "robust" and (self.kernel.alpha != "fixed" or self.kernel.components > 1):
            return "the prior 'robust' needs kernel.alpha='fixed' and kernel.components=1"
        return None
