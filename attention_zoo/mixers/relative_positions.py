"""Learned relative position embeddings of a grid, as `attention_zoo.functional.em` takes them."""

import torch
from torch import Tensor, nn

from attention_zoo.functional.positions import FactoredPositions, relative_positions


class RelativePositions(nn.Module):
    """One embedding for each offset between two tokens of a grid; tokens before the grid have no place and none.

    Args:
        grid: rows and columns.
        dim: width of the embeddings.
        prefix: tokens without a place before the grid.
        factored: rows and columns each have a table, whose embeddings add up (2 (rows + columns) - 2 of them);
            otherwise every offset has its own ((2 rows - 1) (2 columns - 1)).
        device: where the parameters are made.
        dtype: type of the parameters.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        dim: int,
        prefix: int = 0,
        *,
        factored: bool,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.grid, self.prefix, self.factored = grid, prefix, factored
        rows, columns = (2 * side - 1 for side in grid)
        shapes = {"height": (rows, dim), "width": (columns, dim)} if factored else {"table": (rows, columns, dim)}
        for name, shape in shapes.items():
            table = torch.empty(shape, device=device, dtype=dtype)
            self.register_parameter(name, nn.Parameter(nn.init.trunc_normal_(table, std=0.02)))

    def forward(self, dtype: torch.dtype) -> FactoredPositions | Tensor:
        """The embeddings in ``dtype``: factored, or (N, N, dim), entry (i, j) that of token j as token i sees it."""
        if self.factored:
            return FactoredPositions(self.height.to(dtype), self.width.to(dtype), self.prefix)
        return relative_positions(self.table.to(dtype), self.grid, self.prefix)
