"""VARS-D: attention as sparse reconstruction of the values in a dictionary made from the input.

    u* = argmin_u 1/2 |Phi u - v|^2 + lam |u|_1    by LISTA steps (eq. 1.12, 1.16),    out = Phi u*    (eq. 1.17)

The + x of eq. 1.17 is the residual of the block. Phi = Phi(X) are the random features of the queries, which share
their projection with the keys (eq. 1.14). B. Shi, T. Darrell, X. Wang, ICML 2022; technical report EECS-2024-49, ch. 1.
"""

from typing import Any, Unpack

import torch
from torch import Tensor, nn

from attention_zoo.functional.random_features import log_features
from attention_zoo.functional.sparse import largest_eigenvalue, lista, mean_code_jacobian
from attention_zoo.interface import HostOptions, SelfMixer
from attention_zoo.mixers.random_directions import RandomDirections
from attention_zoo.registry import register


@register
class VarsD(RandomDirections, SelfMixer):
    """Recurrent sparse reconstruction, ``Φ(X) argminᵤ ½‖Φ(X)u − v‖² + λ‖u‖₁``, linear in the tokens.

    Atoms (columns of Phi over the tokens) have unit length, as sparse coding wants them; that is folded into the
    M x M Gram matrix. Features and codes are computed in float32 also under autocast.

    Args:
        dim: token width.
        num_heads: heads.
        steps: LISTA updates k.
        lam: weight of the sparsity, lambda of eq. 1.10.
        feature_ratio: atoms per channel of a head.
        **host: see `SelfMixer`.
    """

    reading = "recurrent sparse reconstruction"
    paper = "Shi et al. 2022"
    equation = "Φ argminᵤ ½‖Φu − v‖² + λ‖u‖₁ (1.12, 1.16)"
    complexity = "N"
    projections = ("q", "v")

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        steps: int = 3,
        lam: float = 0.3,
        feature_ratio: float = 2.0,
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        self.refuse_dropout()
        self.check(steps >= 0, f"steps={steps} must not be negative")
        self.check(lam >= 0, f"lam={lam} must not be negative")
        self.steps, self.lam = steps, lam
        num_atoms = self.draw_directions(feature_ratio)
        made = {"device": self.proj.weight.device, "dtype": self.proj.weight.dtype}
        self.gamma = nn.Parameter(torch.eye(num_atoms, **made))  # Γ, w₁ and w₂ of eq. 1.12
        self.w1 = nn.Parameter(torch.ones(1, **made))
        self.w2 = nn.Parameter(torch.ones(1, **made))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, v (B, H, N, D) -> (B, H, N, D)."""
        with torch.autocast(q.device.type, enabled=False):
            atoms, inverse_length = self.atoms(q)
            codes = lista(**self.problem(atoms, inverse_length, v))  # (B, H, M, D)
            return (atoms @ (inverse_length * codes)).to(v.dtype)

    def atoms(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Atoms (B, H, N, M), each up to its length, and one over that length (B, H, M, 1)."""
        directions = self.directions
        log_atoms = log_features(q.to(directions.dtype) * self.head_dim**-0.25, directions)
        atoms = log_atoms.sub_(log_atoms.detach().amax(-2, keepdim=True)).exp_()
        return atoms, atoms.square().sum(-2)[..., None].rsqrt()

    def problem(self, atoms: Tensor, inverse_length: Tensor, v: Tensor) -> dict[str, Any]:
        """The arguments of `lista` that code the values ``v`` (B, H, N, D) in the unit-length atoms."""
        gram = (atoms.mT @ atoms) * inverse_length * inverse_length.mT  # Φᵀ Φ, (B, H, M, M)
        drive = (atoms.mT @ v.to(atoms.dtype)) * inverse_length  # Φᵀ v, (B, H, M, D)
        gamma, w1, w2 = (p.to(atoms.dtype) for p in (self.gamma, self.w1, self.w2))
        step_size = 1 / (w2 * largest_eigenvalue(gram))
        return {
            "gram": gamma.mT @ gram @ gamma,
            "drive": drive,
            "lam": w1 * self.lam,
            "step_size": step_size,
            "steps": self.steps,
        }

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Mean over channels of Φ (∂u/∂Φᵀv) Φᵀ: what each value contributes through the atoms that stay active."""
        atoms, inverse_length = self.atoms(q)
        jacobian = mean_code_jacobian(**self.problem(atoms, inverse_length, v))
        unit = atoms * inverse_length.mT
        return unit @ jacobian @ unit.mT
