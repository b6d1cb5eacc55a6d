"""Base of the VARS mixers: values are coded in a dictionary by LISTA, and the codes are decoded again.

Every form of a mixer (`Form`) is a class of its own: the paper's in `dictionaries`, the authors' in `released`. Their
parameters belong to the mixer all the same, under the released names: files of weights find them there by name, and
optimizers that resume a run by their order.

B. Shi, T. Darrell, X. Wang, ICML 2022; technical report EECS-2024-49, ch. 1. What the authors released differs from
what they printed; `Rules` holds how.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor, nn

from attention_zoo.functional.dictionaries import Bounded, Dictionary, GramAtoms, Tabulated
from attention_zoo.functional.precision import precise
from attention_zoo.functional.random_features import column_features, unit_features
from attention_zoo.functional.sparse import GELU, SOFT, Lista, Shrinkage
from attention_zoo.functional.unrolled import unrolled
from attention_zoo.mixers.base import SelfMixer, TopDownOptions, gated
from attention_zoo.mixers.premise import Measures
from attention_zoo.mixers.protocols import OfPasses
from attention_zoo.mixers.vars.premise import sparse_coding

Variant = Literal["paper", "released"]
MOST_ATOMS = 1 << 12
"""The most atoms of a head: Γ and the Gram matrix have as many rows."""


@dataclass(frozen=True)
class Rules:
    """The rules of the learned iteration of a variant.

    Attributes:
        names: names of the parameters Γ, w₁ and w₂ of eq. 1.12.
        shrinkage: the threshold of the codes.
        shrinks_start: whether the codes start from the thresholded drive.
        features: computes Φ(X), with columns of any length, from queries and directions.
        learned_gram: computes the learned Gram matrix from Γ and the Gram matrix.
        step_size: computes the step from the dictionary and w₂.
    """

    names: tuple[str, str, str]
    shrinkage: Shrinkage
    shrinks_start: bool
    features: Callable[[Tensor, Tensor], Tensor]
    learned_gram: Callable[[Tensor, Tensor], Tensor]
    step_size: Callable[[Any, Tensor], Tensor]


def _congruent(gamma: Tensor, gram: Tensor) -> Tensor:
    return gamma.mT[None, None] @ (gram @ gamma)  # a matrix times a batch of them would be transposed and copied


def _sandwiched(gamma: Tensor, gram: Tensor) -> Tensor:
    return gamma[None, None] @ (gram @ gamma)


def _by_largest_eigenvalue(dictionary: Any, w2: Tensor) -> Tensor:
    return 1 / (w2 * dictionary.bound())


def _by_largest_row(dictionary: Any, w2: Tensor) -> Tensor:
    rows = dictionary.gram_matrix.detach().abs().sum(-1, keepdim=True)
    largest = rows.amax(-2, keepdim=True)
    return w2 / (largest + 1)


RULES = {
    "paper": Rules(("gamma", "w1", "w2"), SOFT, False, column_features, _congruent, _by_largest_eigenvalue),
    "released": Rules(
        ("learned_k", "learned_lam", "learned_L"), GELU, True, unit_features, _sandwiched, _by_largest_row
    ),
}


class SparseReconstruction(SelfMixer):
    """Base of the VARS mixers: a subclass chooses the `Form` that makes its dictionary and the iteration."""

    complexity = "N"
    premise = "Values have sparse codes in the dictionary, which a few steps come near to."
    defaults: ClassVar[dict[str, tuple[int, float]]] = {"paper": (3, 0.3), "released": (5, 0.3)}
    """The number of steps and the lambda of each variant."""
    most_tabulated = 150
    """Tokens up to which a matrix takes less time than convolutions step by step."""
    fewest_unrolled = 90
    """Tokens from which `functional.unrolled` takes less time than a matrix; see benchmarks/static_kernels.py."""
    form: "Form"
    straight_through: bool = False
    hear: Callable[[Tensor], None] | None = None
    """A function that `mix` tells the codes (B, G, A, E) after the last update; None tells nobody."""

    # parameters and buffers that a form may register
    rand_matrix: Tensor
    kernel: nn.Parameter
    kernel2: nn.Parameter
    gamma_static: nn.Parameter
    L: Tensor
    recent: OfPasses
    """The L of passes in training."""

    def choose(self, variant: Variant, steps: int | None, lam: float | None) -> None:
        """Set ``variant``, ``steps`` and ``lam``; None for the last two takes the variant's own."""
        default_steps, default_lam = self.defaults[variant]
        self.variant = variant
        self.steps = default_steps if steps is None else steps
        self.lam = default_lam if lam is None else lam
        self.num_dictionaries = self.num_heads

    @property
    def rules(self) -> Rules:
        """The rules of the mixer's variant."""
        return RULES[self.variant]

    def add_learned(self, gamma_size: int) -> None:
        """Register Γ (gamma_size, gamma_size), w₁ and w₂ under the variant's names; they start as in ISTA."""
        for name, start in zip(self.rules.names, (torch.eye(gamma_size), torch.ones(1), torch.ones(1)), strict=True):
            self.register_parameter(name, nn.Parameter(start.to(**self.made)))

    def learned(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return Γ, w₁ and w₂ in the type of ``like``."""
        # not get_parameter: torch.func puts tensors in their place that are no parameters
        gamma, w1, w2 = (getattr(self, name).to(like.dtype) for name in self.rules.names)
        return gamma, w1, w2

    def problem(self, q: Tensor, v: Tensor) -> tuple[Dictionary, Lista]:
        """Return the dictionary of queries q (B, H, N, D), and the iteration that codes values v (B, G, N, E) in it."""
        return self.form.problem(self, q, v)

    def quick(self, dictionary: Bounded, v: Tensor) -> Bounded:
        """Return the same dictionary for values v (B, G, N, E), written out as a matrix where that is quickest."""
        written_out = v.shape[2] <= self.most_tabulated and not self.unrolls(v)
        return Tabulated(dictionary, self.identity(v)) if written_out else dictionary

    def unrolls(self, v: Tensor) -> bool:
        """Return whether operators on values v (B, G, N, E) are quickest as `functional.unrolled` has them.

        An exported graph keeps no operators of ours, so it takes the iteration step by step.
        """
        many = v.shape[2] >= self.fewest_unrolled and v.numel() > 0
        return many and v.device.type == "cpu" and not torch.compiler.is_exporting()

    def iteration(self, contract: Callable[[Tensor], Tensor], drive: Tensor, step_size: Tensor, w1: Tensor) -> Lista:
        """Return the iteration by the variant's rules, with lambda scaled by w₁."""
        shrinkage, shrinks_start = self.rules.shrinkage, self.rules.shrinks_start
        lam, straight = w1 * self.lam, self.straight_through
        return Lista(contract, drive, lam, step_size, self.steps, shrinkage, shrinks_start, straight)

    def matrix_iteration(self, dictionary: GramAtoms, v: Tensor) -> Lista:
        """Return the `iteration` on a dictionary's Gram matrix, which Γ and the step are multiplied into once."""
        gamma, w1, w2 = self.learned(v)
        step_size = self.rules.step_size(dictionary, w2)
        gram = self.rules.learned_gram(gamma, dictionary.gram_matrix)
        identity = torch.eye(dictionary.num_atoms, dtype=v.dtype, device=v.device)
        contraction = identity + gram * -step_size  # not in place, which no ONNX graph can be
        return self.iteration(contraction.matmul, dictionary.encode(v), step_size, w1)

    def operator_iteration(self, dictionary: Bounded, mixed: Dictionary, v: Tensor) -> Lista:
        """Return the `iteration` on a dictionary of operators: ``mixed`` is P Γ, and no Gram matrix is formed."""
        _, w1, w2 = self.learned(v)
        step_size = self.rules.step_size(dictionary, w2)

        def contract(codes: Tensor) -> Tensor:
            # not in place: what a dictionary returns may be a view, whose gradient would then copy all codes
            return codes + mixed.encode(mixed.decode(codes) * -step_size)

        return self.iteration(contract, dictionary.encode(v), step_size, w1)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the reconstructed values (B, H, N, D) of queries q and values v (B, H, N, D); k is not used."""
        if self.hear is not None:
            return self._mix_and_tell(q, v, self.hear)
        with torch.autocast(q.device.type, enabled=False):
            mixed = self.form.reconstruct(self, precise(q), self.split(precise(v)))
            return mixed.mT.reshape(v.mT.shape).mT.to(v.dtype)

    def _mix_and_tell(self, q: Tensor, v: Tensor, hear: Callable[[Tensor], None]) -> Tensor:
        """Return what `mix` does, and tell the codes."""
        with torch.autocast(q.device.type, enabled=False):
            dictionary, lista = self.problem(precise(q), self.split(precise(v)))
            codes = lista.solve()
            hear(codes)
            return dictionary.reconstruct(codes).mT.reshape(v.mT.shape).mT.to(v.dtype)

    def split(self, v: Tensor) -> Tensor:
        """Return values (B, H, N, D) by dictionary, (B, G, N, E); equal to v where every head has one."""
        each = self.dim // self.num_dictionaries
        return v.mT.reshape(v.shape[0], self.num_dictionaries, each, v.shape[2]).mT

    def attention_path(self, x: Tensor, top_down: Tensor | None = None, **how: Unpack[TopDownOptions]) -> Tensor:
        """Return how attention is refined (tech report, Fig. 1.5), (steps + 1, B, H, N, N), for tokens (B, N, dim).

        Entry s is the `attention_map` if the codes after s steps were decoded; the last is the map itself.
        """
        q, _, v = self.project(x, top_down, **how)
        return gated(self.weights_path(q, v), how)

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return P (∂u/∂Pᵀv) Pᵀ, mean over channels: what each value contributes through atoms that stay active."""
        return self.weights_path(q, v)[-1]

    def weights_path(self, q: Tensor, v: Tensor, along: Tensor | None = None) -> Tensor:
        """Return the `attention_path` (steps + 1, B, H, N, N) from q and v (B, H, N, D).

        With ``along`` (B, H, N, R) it is the product of these maps with it, (steps + 1, B, H, N, R), for which they are
        not formed.
        """
        with torch.autocast(q.device.type, enabled=False):
            dictionary, lista = self.problem(precise(q), self.split(precise(v)))
            if along is None:
                basis = self.identity(precise(v)).expand(v.shape[0], -1, -1, -1)
            else:
                basis = along.repeat_interleave(self.num_dictionaries // self.num_heads, 1)
            jacobians = lista.mean_jacobians(dictionary.encode(basis))
            weights = torch.stack([dictionary.reconstruct(jacobian) for jacobian in jacobians])
        return weights.unflatten(2, (self.num_heads, -1)).mean(3)

    def premise_measures(self, q: Tensor, k: Tensor, v: Tensor) -> Measures:
        """Return how sparse the codes of v (B, H, N, D) are, and how near to the best, step by step; k is not used.

        A head that has several dictionaries counts by their mean.
        """
        with torch.autocast(q.device.type, enabled=False):
            values = self.split(precise(v))
            measures = sparse_coding(*self.problem(precise(q), values), values)
        return {name: measure.over_heads(self.num_heads) for name, measure in measures.items()}

    def dictionary(self, x: Tensor, top_down: Tensor | None = None, **how: Unpack[TopDownOptions]) -> Tensor:
        """Return the atoms that tokens ``x`` (B, N, dim) are coded in, (B, H, N, number of atoms).

        Atoms made from the input have unit length; kernels stand at every position. Where every channel has atoms of
        its own, those of a head's channels follow one another.
        """
        q, _, v = self.project(x, top_down, **how)
        with torch.autocast(q.device.type, enabled=False):
            atoms = self.dense(self.problem(precise(q), self.split(precise(v)))[0], v)  # (B, G, N, A)
        return atoms.unflatten(1, (self.num_heads, -1)).transpose(2, 3).flatten(3)

    def dense(self, dictionary: Dictionary, v: Tensor) -> Tensor:
        """Return the dictionary as a matrix (B, G, N, A), by encoding the `identity`."""
        return dictionary.encode(self.identity(precise(v)).expand(v.shape[0], -1, -1, -1)).mT

    def identity(self, v: Tensor) -> Tensor:
        """Return values (1, G, N, N) in which each token of v (B, H, N, D) has a 1 in a channel of its own."""
        number = v.shape[2]
        return torch.eye(number, dtype=v.dtype, device=v.device).expand(1, self.num_dictionaries, -1, -1)


class Form(ABC):
    """A form of a VARS mixer: its constructor registers the mixer's parameters, `problem` uses them.

    It has no state of its own, so that a mixer and its copies can share it.
    """

    @abstractmethod
    def problem(self, mixer: SparseReconstruction, q: Tensor, v: Tensor) -> tuple[Dictionary, Lista]:
        """Return what `SparseReconstruction.problem` does, with the parameters of ``mixer``."""

    def reconstruct(self, mixer: SparseReconstruction, q: Tensor, v: Tensor) -> Tensor:
        """Return the values (B, G, N, E) that the codes of v (B, G, N, E) in the dictionary of q stand for."""
        dictionary, lista = self.problem(mixer, q, v)
        return dictionary.reconstruct(lista.solve())


class Operators(Form):
    """A form whose dictionary is of operators, of which no Gram matrix is formed."""

    @abstractmethod
    def dictionaries(self, mixer: SparseReconstruction, q: Tensor, v: Tensor) -> tuple[Bounded, Dictionary]:
        """Return the dictionary P of q (B, H, N, D), and P Γ in its place, for values v (B, H, N, D)."""

    def problem(self, mixer: SparseReconstruction, q: Tensor, v: Tensor) -> tuple[Dictionary, Lista]:
        """Return P and the iteration with the atoms mixed by Γ."""
        dictionary, mixed = self.dictionaries(mixer, q, v)
        return dictionary, mixer.operator_iteration(dictionary, mixed, v)

    def reconstruct(self, mixer: SparseReconstruction, q: Tensor, v: Tensor) -> Tensor:
        """Return the reconstructed values (B, H, N, D), all at once where that is quick."""
        if not mixer.unrolls(v):
            return super().reconstruct(mixer, q, v)
        dictionary, mixed = self.dictionaries(mixer, q, v)
        _, w1, w2 = mixer.learned(v)
        step_size = mixer.rules.step_size(dictionary, w2)
        threshold = w1 * mixer.lam * step_size
        return unrolled(v, step_size, threshold, mixer.steps, dictionary, mixed, mixer.straight_through)
