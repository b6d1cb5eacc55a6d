"""What the VARS mixers share: values are coded in a dictionary by LISTA, and the codes decoded again.

B. Shi, T. Darrell, X. Wang, ICML 2022; technical report EECS-2024-49, ch. 1. What the authors released differs from
what they printed; `Rules` holds how.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from attention_zoo.functional.dictionaries import Dictionary, SharedUnitAtoms, UnitAtoms
from attention_zoo.functional.precision import precise
from attention_zoo.functional.random_features import column_features, unit_features
from attention_zoo.functional.sparse import GELU, SOFT, Lista, Shrinkage
from attention_zoo.interface import SelfMixer
from attention_zoo.options import MOST_STEPS, one_of, real, whole

Variant = Literal["paper", "released"]
MOST_ATOMS = 1 << 12
"""Of a head: Γ and the Gram matrix have as many rows."""


@dataclass(frozen=True)
class Rules:
    """How the learned iteration goes.

    Attributes:
        names: of the parameters Γ, w₁ and w₂ of eq. 1.12.
        shrinkage: threshold of the codes.
        shrinks_start: whether the codes start from the thresholded drive.
        features: Φ(X) from queries and directions, columns of any length.
        learned_gram: what Γ makes of the Gram matrix.
        step_size: from the dictionary and w₂.
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


def _by_largest_row(dictionary: UnitAtoms, w2: Tensor) -> Tensor:
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
    """Base of the VARS mixers: a subclass writes `problem`, the dictionary and the iteration that codes values."""

    complexity = "N"
    defaults: ClassVar[dict[str, tuple[int, float]]] = {"paper": (3, 0.3), "released": (5, 0.3)}
    """Steps and lambda of each variant."""

    def choose(self, variant: Variant, steps: int | None, lam: float | None) -> None:
        """Set ``variant``, and ``steps`` and ``lam`` to what is given or the variant's own.

        Raises:
            InputError: one of them does not fit.
        """
        self.check(*one_of("variant", variant, tuple(self.defaults)))
        default_steps, default_lam = self.defaults[variant]
        self.variant = variant
        self.steps = default_steps if steps is None else steps
        self.lam = default_lam if lam is None else lam
        self.check(*whole("steps", self.steps, 0, MOST_STEPS))
        self.check(*real("lam", self.lam))
        self.num_dictionaries = self.num_heads

    @property
    def rules(self) -> Rules:
        """Those of the variant."""
        return RULES[self.variant]

    @property
    def made(self) -> dict[str, Any]:
        """Device and type of the parameters."""
        return {"device": self.proj.weight.device, "dtype": self.proj.weight.dtype}

    def add_learned(self, gamma_size: int) -> None:
        """Register Γ (gamma_size, gamma_size), w₁ and w₂ under the variant's names; they start where ISTA is."""
        for name, start in zip(self.rules.names, (torch.eye(gamma_size), torch.ones(1), torch.ones(1)), strict=True):
            self.register_parameter(name, nn.Parameter(start.to(**self.made)))

    def learned(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Γ, w₁ and w₂ in the type of ``like``."""
        gamma, w1, w2 = (getattr(self, name).to(like.dtype) for name in self.rules.names)
        return gamma, w1, w2

    @abstractmethod
    def problem(self, q: Tensor, v: Tensor) -> tuple[Dictionary, Lista]:
        """The dictionary of queries q (B, H, N, D) and the iteration that codes values v (B, G, N, E) in it."""

    def iteration(self, contract: Callable[[Tensor], Tensor], drive: Tensor, step_size: Tensor, w1: Tensor) -> Lista:
        """The iteration by the variant's rules."""
        shrinkage, shrinks_start = self.rules.shrinkage, self.rules.shrinks_start
        return Lista(contract, drive, w1 * self.lam, step_size, self.steps, shrinkage, shrinks_start)

    def matrix_iteration(self, dictionary: UnitAtoms | SharedUnitAtoms, v: Tensor) -> Lista:
        """As `iteration`, for a dictionary with a Gram matrix, which Γ and the step are multiplied into once."""
        gamma, w1, w2 = self.learned(v)
        step_size = self.rules.step_size(dictionary, w2)
        gram = self.rules.learned_gram(gamma, dictionary.gram_matrix)
        identity = torch.eye(dictionary.num_atoms, dtype=v.dtype, device=v.device)
        contraction = torch.addcmul(identity, gram, step_size, value=-1)  # not in place, which no ONNX graph can be
        return self.iteration(contraction.matmul, dictionary.encode(v), step_size, w1)

    def operator_iteration(self, dictionary: Dictionary, mixed: Dictionary, v: Tensor, w1: Tensor, w2: Tensor) -> Lista:
        """As `iteration`, for a dictionary of operators: ``mixed`` is P Γ, and no Gram matrix is formed."""
        step_size = self.rules.step_size(dictionary, w2)

        def contract(codes: Tensor) -> Tensor:
            # not in place: what a dictionary returns may be a view, whose gradient would then copy all codes
            return codes + mixed.encode(mixed.decode(codes) * -step_size)

        return self.iteration(contract, dictionary.encode(v), step_size, w1)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, v (B, H, N, D) -> (B, H, N, D)."""
        with torch.autocast(q.device.type, enabled=False):
            dictionary, lista = self.problem(precise(q), self.split(precise(v)))
            mixed = dictionary.reconstruct(lista.solve())
            return mixed.mT.reshape(v.mT.shape).mT.to(v.dtype)

    def split(self, v: Tensor) -> Tensor:
        """Values (B, H, N, D) by dictionary: (B, G, N, E); the same tensor where every head has one."""
        each = self.dim // self.num_dictionaries
        return v.mT.reshape(v.shape[0], self.num_dictionaries, each, v.shape[2]).mT

    def attention_path(self, x: Tensor) -> Tensor:
        """How attention is refined (tech report, Fig. 1.5): (steps + 1, B, H, N, N) for tokens ``x`` (B, N, dim).

        The `attention_map` if the codes before the first step, and after each, were decoded; the last is the map.
        """
        q, _, v = self.project(x)
        return self.weights_path(q, v)

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Mean over channels of P (∂u/∂Pᵀv) Pᵀ: what each value contributes through the atoms that stay active."""
        return self.weights_path(q, v)[-1]

    def weights_path(self, q: Tensor, v: Tensor) -> Tensor:
        """`attention_path` from q, v (B, H, N, D)."""
        with torch.autocast(q.device.type, enabled=False):
            dictionary, lista = self.problem(precise(q), self.split(precise(v)))
            jacobians = lista.mean_jacobians(self.dense(dictionary, v).mT)
            weights = torch.stack([dictionary.reconstruct(jacobian) for jacobian in jacobians])
        return weights.unflatten(2, (self.num_heads, -1)).mean(3)

    def dictionary(self, x: Tensor) -> Tensor:
        """The atoms that tokens ``x`` (B, N, dim) are coded in: (B, H, N, number of atoms).

        Atoms made from the input have unit length; kernels stand at every position. Where every channel has atoms of
        its own, those of a head's channels follow one another.
        """
        q, _, v = self.project(x)
        with torch.autocast(q.device.type, enabled=False):
            atoms = self.dense(self.problem(precise(q), self.split(precise(v)))[0], v)  # (B, G, N, A)
        return atoms.unflatten(1, (self.num_heads, -1)).transpose(2, 3).flatten(3)

    def dense(self, dictionary: Dictionary, v: Tensor) -> Tensor:
        """The dictionary as a matrix (B, G, N, A): every token's values 1 in a channel of its own, encoded."""
        return dictionary.encode(self.identity(precise(v)).expand(v.shape[0], -1, -1, -1)).mT

    def identity(self, v: Tensor) -> Tensor:
        """Every token's value 1 in a channel of its own, for values v (B, H, N, D): (1, G, N, N)."""
        number = v.shape[2]
        return torch.eye(number, dtype=v.dtype, device=v.device).expand(1, self.num_dictionaries, -1, -1)
