"""Kuramoto oscillators: tokens are unit vectors that turn towards those they read, until they move together.

    x_i <- norm(x_i + gamma (Omega x_i + Proj_{x_i}(c_i + sum_j J_ij x_j))),    Proj_x(y) = y - <y, x> x

T. Miyato, S. Loewe, A. Geiger, M. Welling, Artificial Kuramoto Oscillatory Neurons, ICLR 2025 (eq. 2, 3).
"""

from collections.abc import Iterator
from typing import Annotated, Unpack

import torch
from torch import Tensor, nn

from attention_zoo.domains import Domain, PositiveInt
from attention_zoo.functional.precision import precise
from attention_zoo.mixers.base import HostOptions, MixerFactory, SelfMixer
from attention_zoo.mixers.dot_product import DotProduct
from attention_zoo.mixers.inside import building_inside
from attention_zoo.mixers.options import SomeIterations
from attention_zoo.mixers.premise import Measure, Measures
from attention_zoo.mixers.registry import as_factory, register

StepSize = Annotated[float, Domain(above=0, most=1e3)]
"""The length of a step of the oscillators."""

WIDTHS = (4, 3, 2, 1)
"""The widths of an oscillator that are tried where none is chosen."""

LEAST = 1e-6
"""The length from which on an oscillator has a direction."""

FREQUENCY = 0.1
"""The size that natural frequencies start with."""


@register
class Kuramoto(SelfMixer):
    """Oscillators coupled by an inner mixer: groups of channels turn on their sphere for a few steps.

    The state starts as the values, at unit length; the values themselves are the stimulus c that keeps pulling at it.
    The coupling J is the inner reading with the queries and keys of the layer, held for all steps. What comes out is
    the state. It is computed in float32 also under autocast.

    One turn is the released layer's to rounding in float64, with one head and the same weights; so are several where
    its coupling is held. As it stands it differs (``source/layers/klayer.py``, ``common_layers.py``): it projects
    queries, keys and values anew from the state at each turn, and its output too; it normalises c over groups; its
    frequencies turn pairs of channels, so that widths are even, where Ω here is any antisymmetric matrix, as in eq. 2;
    with several heads, channel j is of head j mod H, so that an oscillator lies across heads, which here has all its
    channels in one; and the energy that it reports leaves out the ½ before ⟨x, J x⟩, and is of the state before a turn.

    Args:
        dim: token width.
        num_heads: heads.
        mixer: the reading that couples the oscillators, a name, a dotted path or a factory; None is `DotProduct`.
        steps: turns T of the oscillators.
        step_size: gamma of each turn.
        width: channels n of an oscillator, which divide the width of a head; None is the first of 4, 3, 2 that does.
        **host: see `SelfMixer`.
    """

    reading = "synchronisation of oscillators"
    paper = "Miyato et al. 2025 (AKOrN)"
    equation = "x ← norm(x + γ(Ωx + Proj_x(c + J x)))"
    complexity = "T × that of J"
    premise = "Turning towards what they read brings the oscillators to a lower energy."

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        mixer: str | MixerFactory | None = None,
        steps: SomeIterations = 3,
        step_size: StepSize = 1.0,
        width: PositiveInt | None = None,
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        inner: HostOptions = {**host, "qk_norm": False, "scale_norm": False, "attn_drop": 0.0, "proj_drop": 0.0}
        with building_inside(self, mixer):
            self.inner = as_factory(DotProduct if mixer is None else mixer)(dim, num_heads, **inner)
            self.inner.check(bool(self.inner.projections), "no queries to couple oscillators by")
            self.inner.drop_projections()
        self.tokens, self.bound_to_grid = self.inner.tokens, self.inner.bound_to_grid
        self.steps, self.step_size = steps, step_size
        self.width = next(n for n in WIDTHS if self.head_dim % n == 0) if width is None else width
        fits = self.head_dim % self.width == 0
        self.check(fits, f"width={self.width} must divide the width of a head, {self.head_dim}")
        shape = (num_heads, self.head_dim // self.width, self.width, self.width)
        self.omega = nn.Parameter(FREQUENCY * torch.randn(shape, **self.made)) if self.width > 1 else None

    def set_grid(self, grid: tuple[int, int]) -> None:
        """Expect tokens of another grid from now on, as `SelfMixer.set_grid` does, in the inner mixer too."""
        self.inner.set_grid(grid)
        super().set_grid(grid)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the oscillators (B, H, N, D) after the last turn, coupled by q and k, with stimuli v (B, H, N, D)."""
        with torch.autocast(q.device.type, enabled=False):
            for state in self.turns(*map(precise, (q, k, v))):
                last = state
        return last.to(v.dtype)

    def turns(self, q: Tensor, k: Tensor, v: Tensor) -> Iterator[Tensor]:
        """Yield the state (B, H, N, D) before the first turn and after each."""
        state = self._unit(v)
        yield state
        for _ in range(self.steps):
            state = self._turned(state, v + self.inner.mix(q, k, state))
            yield state

    def _turned(self, state: Tensor, pull: Tensor) -> Tensor:
        """Return the state (B, H, N, D) one turn on."""
        x, y = (z.unflatten(-1, (-1, self.width)) for z in (state, pull))
        moved = y - (y * x).sum(-1, keepdim=True) * x
        if self.omega is not None:
            frequency = (self.omega - self.omega.mT).to(x.dtype)
            moved = moved + torch.einsum("hgmn,bhign->bhigm", frequency, x)
        return self._unit((x + self.step_size * moved).flatten(-2))

    def _unit(self, x: Tensor) -> Tensor:
        """Return x (B, H, N, D) with each oscillator at unit length; one of next to no length stays as it is."""
        oscillators = x.unflatten(-1, (-1, self.width))
        length = torch.linalg.vector_norm(oscillators, dim=-1, keepdim=True)
        return (oscillators / torch.where(length > LEAST, length, 1.0)).flatten(-2)

    def premise_measures(self, q: Tensor, k: Tensor, v: Tensor) -> Measures:
        """Return the energy ``−⟨x, c + ½ J x⟩`` of an oscillator, mean over all, before the turns and after each."""
        q, k, v = map(precise, (q, k, v))
        energies = [
            -(state * (v + self.inner.mix(q, k, state) / 2)).sum(-1).mean(-1) * self.width / self.head_dim
            for state in self.turns(q, k, v)
        ]
        return {"energy of an oscillator": Measure(torch.stack(energies, -1), better="lower")}
