"""What a reading takes for granted, and how a layer with trained weights is asked whether it holds there.

A mixer that brings a premise states it in one sentence and measures it on the queries, keys and values of a layer:

    premise = "Tokens lie in few clusters."

    def premise_measures(self, q, k, v):
        return {"within-cluster variance": Measure(within, within_random, "lower")}

``python -m attention_zoo premises`` runs it on the layers of checkpoints. `kernel_smoothing`, `approximation`,
`coding`, `retrieval`, `mixture` and `one_space` are premises that several readings can share.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypedDict, Unpack, runtime_checkable

import torch
from torch import Tensor

from attention_zoo.functional.diagnostics import coding_rate, leave_one_out_error, log_likelihood, row_distance
from attention_zoo.functional.em import Anchor, adapt_keys, adapt_precisions
from attention_zoo.functional.gauge import score_spreads
from attention_zoo.functional.mixture import Precision
from attention_zoo.functional.precision import precise


@dataclass(frozen=True)
class Measure:
    """A number for every image and head, and what the premise says it should be compared with.

    Attributes:
        values: (B, H), or (B, H, S) for a path of S steps, the last of which is compared; H may be 1 where heads have
            no number of their own.
        reference: (B, H), what the values are compared with; None where a path is compared with its own first step,
            and where there is nothing to compare.
        better: on which side of the reference the premise says the values lie; None says nothing.
    """

    values: Tensor
    reference: Tensor | None = None
    better: Literal["higher", "lower"] | None = None

    def over_heads(self, number: int) -> "Measure":
        """Return the measure of ``number`` heads, each the mean of equally many of those of this one."""
        reference = None if self.reference is None else self.reference.unflatten(1, (number, -1)).mean(2)
        return Measure(self.values.unflatten(1, (number, -1)).mean(2), reference, self.better)

    @property
    def last(self) -> Tensor:
        """The values (B, H), those after the last step of a path."""
        return self.values if self.values.dim() == 2 else self.values[..., -1]

    @property
    def compared_with(self) -> Tensor | None:
        """The reference (B, H), a path's own first step if it has none; None where nothing is compared."""
        if self.better is None:
            return None
        if self.reference is None and self.values.dim() == 3:
            return self.values[..., 0]
        return self.reference

    @property
    def holds(self) -> Tensor | None:
        """Where the premise holds: booleans (B, H); None where nothing is compared."""
        reference = self.compared_with
        if reference is None:
            return None
        return self.last > reference if self.better == "higher" else self.last < reference


Measures = dict[str, Measure]
"""Measures by what they measure, in words that can head a row of a table."""


@runtime_checkable
class Premise(Protocol):
    """A self-mixer whose reading has a premise that can be measured: ``isinstance(mixer, Premise)``."""

    premise: str
    """The premise, in one sentence."""

    def premise_measures(self, q: Tensor, k: Tensor, v: Tensor) -> Measures:
        """Return measures of the premise on the queries, keys and values (B, H, N, D) of a layer."""


@runtime_checkable
class ModelPremise(Protocol):
    """A model around several layers whose reading has a premise, such as `TopDown`."""

    premise: str
    """The premise, in one sentence."""

    def premise_measures(self, images: Tensor) -> list[Measures]:
        """Return measures of the premise on images (B, 3, H, W), normalised, for each layer of the model."""


def kernel_smoothing(weights: Tensor, v: Tensor) -> Measures:
    """Return whether tokens' values are foretold by the tokens they read, themselves left out.

    Args:
        weights: who reads whom, (B, H, N, N).
        v: values (B, H, N, D).
    """
    uniform = weights.new_ones(()).expand_as(weights)
    error, mean = (leave_one_out_error(each, v) for each in (weights, uniform))
    return {"leave-one-out error of the values": Measure(error, mean, "lower")}


def approximation(weights: Tensor, exact: Tensor) -> Measures:
    """Return whether tokens read what an exact kernel would have them read, and not all alike.

    Args:
        weights: who reads whom, (B, H, N, N).
        exact: the same under the exact kernel, rows that sum to one.
    """
    uniform = torch.full_like(exact, 1 / exact.shape[-1])
    missed = Measure(row_distance(weights, exact), row_distance(uniform, exact), "lower")
    return {"share of a row that is read elsewhere than by softmax": missed}


def coding(before: Tensor, after: Tensor) -> Measures:
    """Return whether tokens need fewer bits within the subspaces of their heads after a step than before.

    Args:
        before: projections onto the subspaces before the step, (B, H, N, D).
        after: the same after it; tokens are compared at the same overall length.
    """
    size = before.square().mean((-2, -1), keepdim=True) / after.square().mean((-2, -1), keepdim=True)
    return {"coding rate in the subspaces": Measure(coding_rate(after * size.sqrt()), coding_rate(before), "lower")}


STEPS = 3
"""The number of steps of an adaptation after each of which something is measured."""

STILL, MOST_STEPS = 1e-4, 32
"""The relative move below which a query rests (the released code's), and the most steps that it is given."""


def retrieval(q: Tensor, k: Tensor) -> Measures:
    """Return whether queries come to rest where the keys put them, as states of a Hopfield network do.

    The energy of a state is ``½|q|² − √D log Σⱼ exp(q·kⱼ/√D)``, mean over the queries; steps count until the queries
    of a head move less than 1e-4 of their length all together, or 32.

    Args:
        q: queries (B, H, N, D).
        k: keys (B, H, N, D).
    """
    q, k = precise(q), precise(k)
    scale, energies = q.shape[-1] ** -0.5, []
    steps = torch.zeros_like(q[..., 0, 0])
    for _ in range(MOST_STEPS):
        scores = q @ k.mT * scale
        energies.append((q.square().sum(-1) / 2 - scores.logsumexp(-1) / scale).mean(-1))
        moved = scores.softmax(-1) @ k
        change = (moved - q).square().sum((-2, -1)).sqrt() / q.square().sum((-2, -1)).sqrt()
        steps = steps + (change >= STILL).to(steps.dtype)
        q = moved
    return {
        "energy of the queries": Measure(torch.stack(energies[: STEPS + 1], -1), better="lower"),
        "steps until the queries rest": Measure(steps, torch.full_like(steps, MOST_STEPS), "lower"),
    }


class MixtureOptions(TypedDict):
    """How the units of a mixture start and adapt; the names are those of `attention_zoo.functional.em`."""

    alpha: Precision
    prior_precision: float
    anchor: Anchor
    magnitude_prior: bool
    precision_prior: tuple[float, float]


def mixture(q: Tensor, k: Tensor, **options: Unpack[MixtureOptions]) -> Measures:
    """Return whether the queries become likelier under a mixture of the keys that adapts to them.

    It is measured twice: on the queries that the mixture adapts to, and on every second query where it adapts to the
    others alone. With the magnitude prior the mixing weights move with the keys, as they do in the layer, so that the
    likelihood can fall. Keys of a mean query each may end up alike, so the share of their variance that is left is
    measured too, and whether the scores are spread by more than 1 in any direction, without which keys that differ
    little come together with every step (`attention_zoo.functional.gauge`). Positions and priors of distance are left
    out.

    Args:
        q: queries (B, H, N, D).
        k: keys (B, H, N, D), the means of the units.
        **options: see `MixtureOptions`.
    """
    found: Measures = {}
    for whose, fitted, judged in (("the queries", q, q), ("queries kept back", q[:, :, ::2], q[:, :, 1::2])):
        path = _adapted_keys(fitted, k, options)
        found[f"log-likelihood of {whose}, keys adapted"] = _by_keys(judged, path, options)
        found[f"log-likelihood of {whose}, alpha adapted"] = _by_precisions(fitted, judged, k, options)
        if fitted is q:
            variances = torch.stack([_covariance(keys).diagonal(dim1=-2, dim2=-1).sum(-1) for keys in path], -1)
            found["variance of the keys as they adapt, of what it was"] = Measure(variances / variances[..., :1])
            spread = score_spreads(q, k, options["alpha"])[..., -1].to(q.dtype)
            found["largest spread of the scores in a direction"] = Measure(spread, torch.ones_like(spread), "higher")
    return found


def one_space(q: Tensor, k: Tensor) -> Measures:
    """Return whether queries and keys lie in one space, where a mean of queries can stand for a key.

    Means should differ by less than a standard deviation: the distance between them is divided by the root mean square
    distance of queries and keys from their own means. Covariances should have one size, and one shape: the cosine
    tr(C_q C_k) / (|C_q| |C_k|) is compared with that between every second query and the others. All of it depends on
    the gauge (see `attention_zoo.functional.gauge`), which training leaves open under the magnitude prior.

    Args:
        q: queries (B, H, N, D).
        k: keys (B, H, M, D).
    """
    q, k = precise(q), precise(k)
    of_queries, of_keys = _covariance(q), _covariance(k)
    sizes = [each.diagonal(dim1=-2, dim2=-1).sum(-1) for each in (of_queries, of_keys)]
    distance = (q.mean(2) - k.mean(2)).norm(dim=-1) / ((sizes[0] + sizes[1]) / 2).sqrt()
    halves = [_covariance(q[:, :, start::2]) for start in (0, 1)]
    return {
        "means of queries and keys apart, in standard deviations": Measure(
            distance, torch.ones_like(distance), "lower"
        ),
        "variance of the queries, as a multiple of the keys'": Measure(sizes[0] / sizes[1]),
        "cosine of the covariances of queries and keys": Measure(
            _cosine(of_queries, of_keys), _cosine(*halves), "higher"
        ),
    }


def _covariance(x: Tensor) -> Tensor:
    """Return the covariance (B, H, D, D) of tokens (B, H, N, D)."""
    deviations = x - x.mean(2, keepdim=True)
    return deviations.mT @ deviations / x.shape[2]


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    """Return the cosine (B, H) between matrices (B, H, D, D); NaN where one of them is zero."""
    return (one * other).sum((-2, -1)) / (one.square().sum((-2, -1)) * other.square().sum((-2, -1))).sqrt()


def _adapted_keys(q: Tensor, k: Tensor, options: MixtureOptions) -> list[Tensor]:
    """Return the keys after 0 to `STEPS` steps towards the queries."""
    given: Any = {name: value for name, value in options.items() if name != "precision_prior"}
    return [adapt_keys(q, k, iterations=steps, **given) for steps in range(STEPS + 1)]


def _by_keys(judged: Tensor, path: list[Tensor], options: MixtureOptions) -> Measure:
    """Return the likelihood of the queries to judge under the keys of each step."""
    alpha, prior = options["alpha"], options["magnitude_prior"]
    likelihoods = [log_likelihood(judged, keys, alpha, _log_prior(keys, alpha, prior)) for keys in path]
    return Measure(torch.stack(likelihoods, -1), better="higher")


def _by_precisions(fitted: Tensor, judged: Tensor, k: Tensor, options: MixtureOptions) -> Measure:
    """Return the likelihood of the queries to judge after one step of the precisions, and before it."""
    alpha, magnitude_prior = options["alpha"], options["magnitude_prior"]
    shape, rate = options["precision_prior"]
    own = adapt_precisions(fitted, k, shape=shape, rate=rate, alpha=alpha, magnitude_prior=magnitude_prior)
    before, after = (log_likelihood(judged, k, a, _log_prior(k, a, magnitude_prior)) for a in (alpha, own))
    return Measure(after, before, "higher")


def _log_prior(k: Tensor, alpha: Precision, magnitude_prior: bool) -> Tensor:
    """Return the logarithm (B, H, M) of mixing weights, not normalised: those of Eq. 10, or all alike."""
    lengths = precise(k).square().sum(-1)
    return lengths * alpha / 2 if magnitude_prior else torch.zeros_like(lengths)
