"""Mixtures whose units have places on a grid: relative positions, a prior for near units, and windows."""

from abc import abstractmethod
from typing import Any, Literal, Unpack, cast

from torch import Tensor, nn

from attention_zoo.domains import PositiveInt
from attention_zoo.functional.em import Prior, infer_values
from attention_zoo.functional.mixture import split
from attention_zoo.functional.positions import FactoredPositions, distance_prior, window_features, window_prior
from attention_zoo.functional.precision import precise
from attention_zoo.mixers.base import HostOptions
from attention_zoo.mixers.mixture import MixtureMixer, Units
from attention_zoo.mixers.options import Amount
from attention_zoo.mixers.relative_positions import RelativePositions
from attention_zoo.mixers.switches import Switches

HELD = 1 << 12
"""Tokens up to which a CPU is faster with the matrix of a window than with further channels."""


class PlacedMixture(MixtureMixer):
    """A mixture whose units may have places, which a subclass gives its switches.

    Class and register tokens are units like all others, at no distance from anyone.

    Args:
        dim: token width.
        num_heads: heads.
        positions: relative embeddings of queries and keys (Eq. 25, 26), factored into rows and columns or full.
        value_positions: whether the values have relative embeddings too.
        distance_precision: precision of a prior for near units, exp(-precision/2 distance²) in tokens (Eq. 40).
        window: local context: a token reads those within so many rows and columns, and the class token.
        **host: see `SelfMixer`; all of them need ``grid``.
    """

    @abstractmethod
    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        positions: Literal["factored", "full"] | None = None,
        value_positions: bool = False,
        distance_precision: Amount = 0.0,
        window: PositiveInt | None = None,
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        fits = positions is not None or not value_positions
        self.check(fits, "value_positions=True needs positions='factored' or 'full'")
        for name, value in (("positions", positions), ("distance_precision", distance_precision), ("window", window)):
            self.check(not value or self.grid is not None, f"{name}={value!r} needs grid=(height, width)")
        self.value_positions, self.distance_precision, self.window = value_positions, distance_precision, window
        self.positions: nn.ModuleDict | None = None
        if positions and self.grid:
            names = ("q", "k", "v") if value_positions else ("q", "k")
            prefix, factored = self.num_prefix_tokens, positions == "factored"
            tables = {
                name: RelativePositions(self.grid, self.head_dim, prefix, factored=factored, **self.made)
                for name in names
            }
            self.positions = nn.ModuleDict(tables)
        if positions or distance_precision or window:
            self.tokens = "grid"

    def switch(self, switches: Switches, *, alpha: float | None = None, beta: float = 0.0, **theta: float) -> None:
        """Choose the switches as `MixtureMixer.switch` does; refuse those that do not fit together with places."""
        kernel, adapt = switches.kernel, switches.adapt
        fits = self.positions is None or (kernel.metric == "isotropic" and not adapt.queries)
        self.check(fits, "positions need kernel.metric='isotropic' and adapt.queries=0")
        fits = kernel.components == 1 or self.tokens != "grid"
        wrong = "positions, distance_precision and window"
        self.check(fits, f"kernel.components={kernel.components} cannot be used with {wrong}")
        fits = self.positions is not None or not adapt.fit_positions
        self.check(fits, "adapt.fit_positions=True needs positions='factored' or 'full'")
        a_softmax = not (switches.penalised or switches.balanced or switches.prior.form == "robust")
        fits = not self.value_positions or a_softmax
        self.check(fits, "value_positions=True needs a softmax: no penalty, no half_steps, no robust prior")
        super().switch(switches, alpha=alpha, beta=beta, **theta)

    def _precise(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors, in float32 or wider unless the options leave plain dot-product attention."""
        return tuple(map(precise, tensors)) if self.tokens == "grid" else super()._precise(*tensors)

    def _read(self, units: Units, read: Tensor | None) -> Tensor:
        """Return the values (B, H, N, E) of the queries, with the values' positions where they have some."""
        if not self.positions or "v" not in self.positions:
            return super()._read(units, read)
        args: dict[str, Any] = {"beta": units.beta, "iterations": self.switches.likelihood.iterations}
        v_pos = self._position("v", units.v)
        return infer_values(units.q, units.k, units.v, v_pos=v_pos, **args, **units.terms)

    def _prior(self, q: Tensor, mask: Prior | None) -> Prior | None:
        """Return the log prior of who reads whom, of distances, the window and a mask, in parts for many tokens."""
        if not (self.distance_precision or self.window):
            return mask
        grid = self.spatial_shape(q.shape[2])
        args: dict[str, Any] = {"prefix": self.num_prefix_tokens, "like": q}
        near = distance_prior(grid, self.distance_precision, **args) if self.distance_precision else None
        prior = split(mask)._replace(near=near)
        if not self.window:
            return prior
        if q.device.type == "cpu" and grid[0] * grid[1] <= HELD:
            matrix = window_prior(grid, self.window, **args)
            return prior._replace(mask=matrix if prior.mask is None else matrix + prior.mask)
        return prior._replace(window=window_features(grid, self.window, **args))

    def _position(self, name: str, x: Tensor) -> FactoredPositions | Tensor:
        """Return the relative embeddings of queries ("q"), keys ("k") or values ("v") for tokens x (B, H, N, D)."""
        tables = cast(nn.ModuleDict, self.positions)
        return tables[name](x.dtype, self.spatial_shape(x.shape[2]))

    def _terms(self, q: Tensor, mask: Prior | None) -> dict[str, Any]:
        """Return the keyword arguments that all EM functions share, without the precisions."""
        places = {
            "q_pos": self._position("q", q) if self.positions else None,
            "k_pos": self._position("k", q) if self.positions else None,
        }
        return super()._terms(q, mask) | places | {"log_prior": self._prior(q, mask)}
