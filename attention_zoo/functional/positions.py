"""Where tokens are: relative position embeddings, and priors over who reads whom that depend on places.

Tokens are ``prefix`` ones without a place (class and register tokens), then the grid row by row.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class FactoredPositions(NamedTuple):
    """Relative embeddings r[dy, dx] = height[dy] + width[dx]; tokens without a place have none.

    Attributes:
        height: (2 * rows - 1, D), entry dy + rows - 1 for an offset of dy rows.
        width: (2 * columns - 1, D).
        prefix: tokens without a place before the grid.
    """

    height: Tensor
    width: Tensor
    prefix: int = 0

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns."""
        return (self.height.shape[0] + 1) // 2, (self.width.shape[0] + 1) // 2

    @property
    def num_tokens(self) -> int:
        """Tokens N of the grid and before it."""
        return self.prefix + self.grid[0] * self.grid[1]

    def scores(self, x: Tensor) -> Tensor:
        """Products of x (B, H, N, D) with the embeddings towards each row and column: (B, H, N, rows + columns).

        With `indicators` it gives the products with all embeddings: x_i.r[place_j - place_i] = scores_i.indicators_j.
        """
        found = []
        for table, offsets in zip(self[:2], self._offsets(x.device), strict=True):
            products = x[:, :, self.prefix :] @ table.mT.to(x.dtype)  # (B, H, N - prefix, 2 * side - 1)
            found.append(products.gather(-1, offsets.expand(*products.shape[:2], *offsets.shape)))
        return F.pad(torch.cat(found, -1), (0, 0, self.prefix, 0))

    def indicators(self, like: Tensor) -> Tensor:
        """Which row and which column each token is in, (N, rows + columns), of the type and on the device of like."""
        rows, columns = self.grid
        row, column = _places(self.grid, like.device)
        hot = torch.cat((F.one_hot(row, rows), F.one_hot(column, columns)), -1)
        return F.pad(hot, (0, 0, self.prefix, 0)).to(like.dtype)

    def averages(self, weights: Tensor) -> Tensor:
        """Sum of the embeddings towards each row and column, weighted: (B, H, N, rows + columns) -> (B, H, N, D)."""
        rows, _ = self.grid
        totals = []
        parts = (weights[..., self.prefix :, :rows], weights[..., self.prefix :, rows:])
        for table, offsets, part in zip(self[:2], self._offsets(weights.device), parts, strict=True):
            spread = part.new_zeros(*part.shape[:-1], table.shape[0])
            spread = spread.scatter(-1, offsets.expand(*part.shape[:2], *offsets.shape), part)
            totals.append(spread @ table.to(weights.dtype))
        return F.pad(totals[0] + totals[1], (0, 0, self.prefix, 0))

    def full(self) -> Tensor:
        """All embeddings (N, N, D): entry (i, j) is that of token j as seen from token i."""
        height, width = (
            table[offsets] for table, offsets in zip(self[:2], self._offsets(self.height.device), strict=True)
        )  # (N - prefix, rows, D) and (N - prefix, columns, D)
        row, column = _places(self.grid, self.height.device)
        return F.pad(height[:, row] + width[:, column], (0, 0, self.prefix, 0, self.prefix, 0))

    def _offsets(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Entries of the tables from each placed token to each row (N - prefix, rows) and column."""
        rows, columns = (
            torch.arange(side, device=device) - place[:, None] + side - 1
            for side, place in zip(self.grid, _places(self.grid, device), strict=True)
        )
        return rows, columns


class FactoredPrior(NamedTuple):
    """Prior over the units that is a product of features: log pi_ij = queries_i.keys_j.

    Attributes:
        queries: broadcasts to (B, H, N, R).
        keys: broadcasts to (B, H, M, R).
    """

    queries: Tensor
    keys: Tensor

    def full(self) -> Tensor:
        """Log pi (..., N, M)."""
        return self.queries @ self.keys.mT


def relative_positions(table: Tensor, grid: tuple[int, int], prefix: int = 0) -> Tensor:
    """Embeddings of every pair of tokens from one for each offset: (2 rows - 1, 2 columns - 1, D) -> (N, N, D)."""
    row, column = _places(grid, table.device)
    found = table[row - row[:, None] + grid[0] - 1, column - column[:, None] + grid[1] - 1]
    return F.pad(found, (0, 0, prefix, 0, prefix, 0))


def distance_prior(grid: tuple[int, int], precision: float, prefix: int = 0, *, like: Tensor) -> FactoredPrior:
    """Log pi_ij = -precision/2 |place_i - place_j|^2 (Eq. 40), zero to and from tokens without a place."""
    places = torch.stack(_places(grid, like.device), -1).to(like.dtype)
    places = places - places.mean(0)  # the prior does not mind, and rounding errors are smaller
    lengths = -precision / 2 * places.square().sum(-1, keepdim=True)
    ones = torch.ones_like(lengths)
    queries, keys = torch.cat((precision * places, ones, lengths), -1), torch.cat((places, lengths, ones), -1)
    return FactoredPrior(F.pad(queries, (0, 0, prefix, 0)), F.pad(keys, (0, 0, prefix, 0)))


def window_prior(grid: tuple[int, int], window: int, prefix: int = 0, *, like: Tensor) -> Tensor:
    """Log pi (N, N): 0 within a local context of ``window`` rows and columns, -inf outside; all see the prefix.

    An even context reaches one further back than forward.
    """
    near = [_near(place, window) for place in _places(grid, like.device)]
    allowed = F.pad(near[0] & near[1], (prefix, 0, prefix, 0), value=True)
    return torch.zeros(allowed.shape, dtype=like.dtype, device=like.device).masked_fill(~allowed, -torch.inf)


def _near(place: Tensor, window: int) -> Tensor:
    offset = place - place[:, None] + window // 2
    return (offset >= 0) & (offset < window)


def _places(grid: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column of each token of the grid, (rows * columns) each."""
    rows, columns = (torch.arange(side, device=device) for side in grid)
    return rows.repeat_interleave(grid[1]), columns.repeat(grid[0])
