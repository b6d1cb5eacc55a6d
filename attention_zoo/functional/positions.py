"""Relative position embeddings, and priors over who reads whom that depend on the places of tokens.

First come ``prefix`` tokens without a place (class and register tokens), then the tokens of the grid, row by row.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class FactoredPositions(NamedTuple):
    """Relative embeddings r[dy, dx] = height[dy] + width[dx]; tokens without a place have none.

    Attributes:
        height: embeddings (2 * rows - 1, D), entry dy + rows - 1 for an offset of dy rows.
        width: embeddings (2 * columns - 1, D), entry dx + columns - 1 for an offset of dx columns.
        prefix: number of tokens without a place before the grid.
    """

    height: Tensor
    width: Tensor
    prefix: int = 0

    @property
    def grid(self) -> tuple[int, int]:
        """The numbers of rows and columns of the grid."""
        return (self.height.shape[0] + 1) // 2, (self.width.shape[0] + 1) // 2

    @property
    def num_tokens(self) -> int:
        """The number of tokens N, of the grid and before it."""
        return self.prefix + self.grid[0] * self.grid[1]

    def scores(self, x: Tensor) -> Tensor:
        """Return products (B, H, N, rows + columns) of x (B, H, N, D) with the embeddings towards each row and column.

        With `indicators` they give the products with all embeddings: x_i.r[place_j - place_i] = scores_i.indicators_j.
        """
        found = []
        for table, offsets in zip(self[:2], self._offsets(x.device), strict=True):
            products = x[:, :, self.prefix :] @ table.mT.to(x.dtype)  # (B, H, N - prefix, 2 * side - 1)
            found.append(products.gather(-1, offsets.expand(*products.shape[:2], *offsets.shape)))
        return F.pad(torch.cat(found, -1), (0, 0, self.prefix, 0))

    def indicators(self, like: Tensor) -> Tensor:
        """Return each token's row and column, one-hot (N, rows + columns), of the type and device of ``like``."""
        rows, columns = self.grid
        row, column = _places(self.grid, like.device)
        hot = torch.cat((F.one_hot(row, rows), F.one_hot(column, columns)), -1)
        return F.pad(hot, (0, 0, self.prefix, 0)).to(like.dtype)

    def averages(self, weights: Tensor) -> Tensor:
        """Return sums (B, H, N, D) of the embeddings towards rows and columns, by weights (B, H, N, rows + columns)."""
        rows, _ = self.grid
        totals = []
        parts = (weights[..., self.prefix :, :rows], weights[..., self.prefix :, rows:])
        for table, offsets, part in zip(self[:2], self._offsets(weights.device), parts, strict=True):
            spread = part.new_zeros(*part.shape[:-1], table.shape[0])
            spread = spread.scatter(-1, offsets.expand(*part.shape[:2], *offsets.shape), part)
            totals.append(spread @ table.to(weights.dtype))
        return F.pad(totals[0] + totals[1], (0, 0, self.prefix, 0))

    def reversed(self) -> "FactoredPositions":
        """Return the embeddings of the opposite offsets: r[dy, dx] becomes r[-dy, -dx], each pair seen from its end."""
        return FactoredPositions(self.height.flip(0), self.width.flip(0), self.prefix)

    def full(self) -> Tensor:
        """Return all embeddings (N, N, D): entry (i, j) is that of token j as seen from token i."""
        height, width = (
            table[offsets] for table, offsets in zip(self[:2], self._offsets(self.height.device), strict=True)
        )  # (N - prefix, rows, D) and (N - prefix, columns, D)
        row, column = _places(self.grid, self.height.device)
        return F.pad(height[:, row] + width[:, column], (0, 0, self.prefix, 0, self.prefix, 0))

    def _offsets(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return indices into the tables from each token of the grid to each row (N - prefix, rows) and column."""
        rows, columns = (
            torch.arange(side, device=device) - place[:, None] + side - 1
            for side, place in zip(self.grid, _places(self.grid, device), strict=True)
        )
        return rows, columns


class FactoredPrior(NamedTuple):
    """A prior over the units whose logarithm is a product of features: log pi_ij = queries_i.keys_j.

    Attributes:
        queries: R features of each query, broadcasting to (B, H, N, R).
        keys: R features of each unit, broadcasting to (B, H, M, R).
    """

    queries: Tensor
    keys: Tensor

    def full(self) -> Tensor:
        """Return log pi as a matrix (..., N, M)."""
        return self.queries @ self.keys.mT


class Window(NamedTuple):
    """A local context as features: of token j those of its row and column are 1, of token i those out of its reach.

    Attributes:
        far: which rows and columns token i does not read, (N, rows + columns), 0 or 1.
        places: the row and the column of token j (N, rows + columns), 0 or 1.
    """

    far: Tensor
    places: Tensor

    def full(self) -> Tensor:
        """Return log pi (N, N): 0 inside, -inf outside."""
        outside = self.far @ self.places.mT > 0
        return torch.zeros_like(outside, dtype=self.far.dtype).masked_fill(outside, -torch.inf)


class SplitPrior(NamedTuple):
    """A prior log pi_ij in parts, which are not added up to a matrix of all queries and units.

    Attributes:
        near: features whose products are a part of it.
        window: the local context.
        mask: broadcasts to (B, H, N, M), -inf where i may not read j.
        is_causal: whether a query reads only the units up to its own place. Where units are a multiple of the queries,
            the places begin again after each N.
    """

    near: FactoredPrior | None = None
    window: Window | None = None
    mask: Tensor | None = None
    is_causal: bool = False

    def full(self, like: Tensor) -> Tensor:
        """Return log pi as a matrix (..., N, M), as scores ``like`` it (..., N, M) are."""
        total = torch.zeros(like.shape[-2:], dtype=like.dtype, device=like.device)
        for part in (self.near, self.window):
            total = total if part is None else total + part.full()
        total = total if self.mask is None else total + self.mask
        if not self.is_causal:
            return total
        queries, units = (torch.arange(size, device=like.device) for size in like.shape[-2:])
        return total.masked_fill(come_later(units, queries, len(queries)), -torch.inf)


def come_later(units: Tensor, places: Tensor, number: int) -> Tensor:
    """Return which units (M) come after queries at places (..., N), (..., N, M) bool; see `SplitPrior`.

    Args:
        units: the units by their numbers.
        places: the places of the queries.
        number: the number of all queries, after which the places of the units begin again.
    """
    return units % max(1, number) > places[..., None]


def relative_positions(table: Tensor, grid: tuple[int, int], prefix: int = 0) -> Tensor:
    """Return embeddings (N, N, D) of all pairs of tokens from those of offsets (2 rows - 1, 2 columns - 1, D)."""
    row, column = _places(grid, table.device)
    found = table[row - row[:, None] + grid[0] - 1, column - column[:, None] + grid[1] - 1]
    return F.pad(found, (0, 0, prefix, 0, prefix, 0))


def distance_prior(grid: tuple[int, int], precision: float, prefix: int = 0, *, like: Tensor) -> FactoredPrior:
    """Return log pi_ij = -precision/2 |place_i - place_j|^2 (Eq. 40), zero to and from tokens without a place."""
    places = torch.stack(_places(grid, like.device), -1).to(like.dtype)
    places = places - places.mean(0)  # the prior does not mind, and rounding errors are smaller
    lengths = -precision / 2 * places.square().sum(-1, keepdim=True)
    ones = torch.ones_like(lengths)
    queries, keys = torch.cat((precision * places, ones, lengths), -1), torch.cat((places, lengths, ones), -1)
    return FactoredPrior(F.pad(queries, (0, 0, prefix, 0)), F.pad(keys, (0, 0, prefix, 0)))


def window_prior(grid: tuple[int, int], window: int, prefix: int = 0, *, like: Tensor) -> Tensor:
    """Return log pi (N, N): 0 within a local context of ``window`` rows and columns, -inf outside.

    All tokens read prefix tokens and are read by them. An even context reaches one further back than forward.
    """
    near = [_near(place, window, place) for place in _places(grid, like.device)]
    allowed = F.pad(near[0] & near[1], (prefix, 0, prefix, 0), value=True)
    return torch.zeros(allowed.shape, dtype=like.dtype, device=like.device).masked_fill(~allowed, -torch.inf)


def window_features(grid: tuple[int, int], window: int, prefix: int = 0, *, like: Tensor) -> Window:
    """Return `window_prior` as features of rows and columns, which are few."""
    places = _places(grid, like.device)
    sides = [torch.arange(side, device=like.device) for side in grid]
    far = [~_near(side, window, place) for side, place in zip(sides, places, strict=True)]
    hot = [place[:, None] == side for side, place in zip(sides, places, strict=True)]
    features = (F.pad(torch.cat(parts, -1), (0, 0, prefix, 0)).to(like.dtype) for parts in (far, hot))
    return Window(*features)


def _near(place: Tensor, window: int, reader: Tensor) -> Tensor:
    """Return which places (M,) are in the window of each reader's (N,), (N, M) bool."""
    offset = place - reader[:, None] + window // 2
    return (offset >= 0) & (offset < window)


def _places(grid: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the row and the column of each token of the grid, (rows * columns,) int64 each."""
    rows, columns = (torch.arange(side, device=device) for side in grid)
    return rows.repeat_interleave(grid[1]), columns.repeat(grid[0])
