"""The forms of VARS-S and -SD that the authors released (github.com/bfshi/VARS); that of VARS-D has the paper's atoms.

Names and shapes of parameters and buffers are the released ones, so that released weights load. Both forms are bound
to the grid that they are made for.
"""

import torch
from torch import Tensor, nn

from attention_zoo.compat import in_backward
from attention_zoo.functional.dictionaries import Dictionary, SharedUnitAtoms, Spectra
from attention_zoo.functional.sparse import Lista
from attention_zoo.mixers.protocols import OfPasses
from attention_zoo.mixers.running_statistics import hold_statistics
from attention_zoo.mixers.vars.dictionaries import add_features, add_unread_bound, features
from attention_zoo.mixers.vars.lista import Form, SparseReconstruction

MOMENTUM = 1 - 0.9**0.01
"""The fraction by which L follows the kernels in a batch; the authors move it by 0.1 every hundred batches."""


class Table(Form):
    """The released form of VARS-SD, [Φ; table]: static atoms are a learned table ``kernel`` (1, H, N, M).

    The table has one row for each token.

    Raises:
        InputError: there is no grid.
    """

    def __init__(self, mixer: SparseReconstruction, feature_ratio: float) -> None:
        num_atoms = add_features(mixer, feature_ratio)
        height, width = _required_grid(mixer, "a row for each token")
        number = height * width + mixer.num_prefix_tokens
        drawn = torch.randn(1, mixer.num_heads, number, num_atoms, device=mixer.made["device"])
        mixer.kernel = nn.Parameter(drawn.to(mixer.made["dtype"]))
        mixer.add_learned(2 * num_atoms)
        add_unread_bound(mixer)

    def problem(self, mixer: SparseReconstruction, q: Tensor, v: Tensor) -> tuple[Dictionary, Lista]:
        """Return [Φ; table] and the iteration on its Gram matrix, for queries and values (B, H, N, D)."""
        found = features(mixer, q)
        mixer.spatial_shape(v.shape[2])
        atoms = SharedUnitAtoms(found, mixer.kernel.to(v.dtype))
        return atoms, mixer.matrix_iteration(atoms, v)


class Spectral(Form):
    """The released form of VARS-S: every channel has kernels as large as the grid.

    They are spectra ``kernel`` (dim, K, 1, height, width // 2 + 1, 2). ``kernel2`` filters what they reconstruct, and
    ``norm`` is a BatchNorm. ``L`` (dim), by which the step is divided, follows the kernels in training as a running
    average.

    Raises:
        InputError: there is no grid, or there are prefix tokens, which the released layer cannot take.
    """

    def __init__(self, mixer: SparseReconstruction, num_kernels: int) -> None:
        height, width = _required_grid(mixer, "kernels of a fixed size")
        prefix = mixer.num_prefix_tokens
        mixer.check(prefix == 0, f"num_prefix_tokens={prefix}: variant='released' takes tokens of the grid alone")
        mixer.num_dictionaries = mixer.dim
        made = mixer.made
        shape = (mixer.dim, num_kernels, 1, height, width // 2 + 1, 2)
        drawn, after = (torch.randn(s, device=made["device"]) for s in (shape, (mixer.dim, 1, *shape[2:])))
        power = drawn.square().sum((2, 3, 4, 5), keepdim=True) * 2 / (height * width)
        mixer.kernel = nn.Parameter((drawn / power.sqrt()).to(made["dtype"]))
        mixer.kernel2 = nn.Parameter((after * 0.02).to(made["dtype"]))
        mixer.register_buffer("L", largest_singular_value(mixer.kernel))
        mixer.register_buffer("kernel_norm", torch.ones((), **made))  # in its weights, but never read
        mixer.recent = OfPasses()
        mixer.norm = ChannelBatchNorm(mixer.dim, **made)

    def problem(self, mixer: SparseReconstruction, q: Tensor, v: Tensor) -> tuple[Dictionary, Lista]:
        """Return the spectra for values v (B, dim, N, 1), and the iteration, which learned nothing but them."""
        grid = mixer.spatial_shape(v.shape[2])
        kernel, after = (torch.view_as_complex(p.to(v.dtype))[:, :, 0] for p in (mixer.kernel, mixer.kernel2))
        dictionary = Spectra(kernel, after[:, 0], grid)
        step_size = 1 / self._lengths(mixer).to(v.dtype)[:, None, None]
        contract = dictionary.contraction(step_size)
        drive, straight = dictionary.encode(v), mixer.straight_through
        lista = Lista(contract, drive, mixer.lam, step_size, mixer.steps, shrinks_start=True, straight_through=straight)
        return dictionary, lista

    @staticmethod
    def _lengths(mixer: SparseReconstruction) -> Tensor:
        """Return the L (dim) of this pass, and move it on; what is computed again in a backward pass has the same."""
        if not mixer.training:
            return mixer.L
        before = mixer.recent.of_this_pass(mixer.L.clone())
        if not in_backward():
            mixer.L.lerp_(largest_singular_value(mixer.kernel), MOMENTUM)
        return before


def largest_singular_value(kernel: Tensor) -> Tensor:
    """Return each channel's largest singular value (dim) of PᵀP's real part, over frequencies, as the authors do.

    At a frequency where the kernels are a + ib, a and b in ℝᴷ, PᵀP has rank one and the singular value |a|² + |b|².
    Its real part a aᵀ + b bᵀ has the eigenvalues of a's and b's Gram matrix; the larger is between half of that and the
    whole, so the released step is up to twice what surely lets the energy fall.

    Args:
        kernel: spectra (dim, K, 1, height, width // 2 + 1, 2).
    """
    real, imaginary = kernel.detach().flatten(1, 2).unbind(-1)  # (dim, K, height, width // 2 + 1)
    a, b, both = real.square().sum(1), imaginary.square().sum(1), (real * imaginary).sum(1)
    return ((a + b) / 2 + torch.hypot((a - b) / 2, both)).flatten(1).amax(1)


def _required_grid(mixer: SparseReconstruction, what: str) -> tuple[int, int]:
    """Return the mixer's grid, to which the form binds the mixer; the error says that it has ``what`` for it."""
    if mixer.grid is None:
        raise mixer.refusal(f"variant='released' has {what}; give grid=(height, width)")
    mixer.bound_to_grid = True
    return mixer.grid


class ChannelBatchNorm(nn.Module):
    """A BatchNorm of the channels of tokens (B, N, dim)."""

    def __init__(self, dim: int, device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(dim, device=device, dtype=dtype)
        hold_statistics(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised tokens (B, N, dim) of tokens x (B, N, dim)."""
        return self.bn(x.mT).mT
