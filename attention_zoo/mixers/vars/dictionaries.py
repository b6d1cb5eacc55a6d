"""The forms of VARS that the paper has: kernels at every position of the grid, features of the queries, and both.

They register their parameters in the mixer: ``kernel`` (H, K, s, s), shared by the channels of a head,
``rand_matrix`` (H, D, M), the directions of the features, and Γ, w₁, w₂ of eq. 1.12.
"""

import torch
from torch import Tensor, nn

from attention_zoo.functional.dictionaries import Bounded, Dictionary, Joined, Kernels, PrefixMeans, Union, UnitAtoms
from attention_zoo.functional.precision import precise
from attention_zoo.functional.sparse import Lista
from attention_zoo.mixers.random_directions import draw_directions
from attention_zoo.mixers.vars.lista import MOST_ATOMS, Form, Operators, SparseReconstruction


class Features(Form):
    """The form of VARS-D: Φ(X), the random features of the queries, by the rules of the mixer's variant."""

    def __init__(self, mixer: SparseReconstruction, feature_ratio: float) -> None:
        mixer.add_learned(add_features(mixer, feature_ratio))
        if mixer.variant == "released":
            add_unread_bound(mixer)

    def problem(self, mixer: SparseReconstruction, q: Tensor, v: Tensor) -> tuple[Dictionary, Lista]:
        """Return Φ(X) from q (B, H, N, D), and the iteration on its Gram matrix."""
        atoms = UnitAtoms(features(mixer, q))
        return atoms, mixer.matrix_iteration(atoms, v)


class Everywhere(Operators):
    """The form of VARS-S: P, the kernels at every position of the grid, and an atom for each prefix token."""

    def __init__(self, mixer: SparseReconstruction, num_kernels: int, kernel_size: int) -> None:
        add_kernels(mixer, num_kernels, kernel_size)
        mixer.add_learned(num_kernels)

    def dictionaries(self, mixer: SparseReconstruction, q: Tensor, v: Tensor) -> tuple[Bounded, Dictionary]:
        """Return P for values v (B, H, N, D), and the same with the kernels mixed by Γ."""
        gamma, _, _ = mixer.learned(v)
        unit = kernels(mixer, v)
        dictionary, mixed = (mixer.quick(self.with_prefix(mixer, k, v), v) for k in (unit, unit.mixed(gamma)))
        return dictionary, mixed

    def with_prefix(self, mixer: SparseReconstruction, found: Kernels, v: Tensor) -> Bounded:
        """Return the kernels joined with the atoms of the prefix tokens, if there are any."""
        prefix = mixer.num_prefix_tokens
        return Union(found, PrefixMeans(prefix, v.shape[2] - prefix)) if prefix else found


class EverywhereAndFeatures(Operators):
    """The form of VARS-SD: [P; Φ(X)]. Γ mixes kernels by ``gamma_static`` (K, K) and features by ``gamma`` (M, M)."""

    def __init__(self, mixer: SparseReconstruction, feature_ratio: float, num_kernels: int, kernel_size: int) -> None:
        number = add_features(mixer, feature_ratio)
        add_kernels(mixer, num_kernels, kernel_size)
        mixer.add_learned(number)
        mixer.gamma_static = nn.Parameter(torch.eye(num_kernels, **mixer.made))

    def dictionaries(self, mixer: SparseReconstruction, q: Tensor, v: Tensor) -> tuple[Bounded, Dictionary]:
        """Return [P; Φ(X)] from q (B, H, N, D), and the same with the atoms mixed by Γ."""
        gamma, _, _ = mixer.learned(v)
        unit, atoms = kernels(mixer, v), UnitAtoms(features(mixer, q))
        dictionary = Union(mixer.quick(unit, v), atoms)
        mixed_kernels = unit.mixed(mixer.gamma_static.to(v.dtype))
        return dictionary, Joined(mixer.quick(mixed_kernels, v), atoms.mixed(gamma))


def add_features(mixer: SparseReconstruction, feature_ratio: float) -> int:
    """Register the directions of the features, and return the number of atoms M."""
    drawn = draw_directions(mixer, feature_ratio, orthogonal=mixer.variant == "paper", most=MOST_ATOMS)
    mixer.register_buffer("rand_matrix", drawn)
    return drawn.shape[-1]


def features(mixer: SparseReconstruction, q: Tensor) -> Tensor:
    """Return Φ(X) (B, H, N, M) of q (B, H, N, D), in float32 or wider, since features are exponentials."""
    return mixer.rules.features(q, precise(mixer.rand_matrix))


def add_kernels(mixer: SparseReconstruction, num_kernels: int, kernel_size: int) -> None:
    """Register ``num_kernels`` Gaussian kernels of side ``kernel_size`` for every head."""
    drawn = torch.randn(mixer.num_heads, num_kernels, kernel_size, kernel_size, device=mixer.made["device"])
    mixer.kernel = nn.Parameter((drawn / kernel_size).to(mixer.made["dtype"]))


def kernels(mixer: SparseReconstruction, like: Tensor) -> Kernels:
    """Return P for tokens ``like`` (B, H, N, D), in their type; every kernel is scaled to unit length."""
    kernel = mixer.kernel.to(like.dtype)
    unit = kernel / kernel.square().sum((-2, -1), keepdim=True).sqrt()
    return Kernels(unit, mixer.spatial_shape(like.shape[2]), mixer.num_prefix_tokens)


def add_unread_bound(mixer: SparseReconstruction) -> None:
    """Register the buffer L (H), which the released weights have but nothing reads."""
    mixer.register_buffer("L", torch.full((mixer.num_heads,), 25.0, **mixer.made))
