"""Learned relative position embeddings of a grid, as `attention_zoo.functional.em` takes them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.functional.positions import FactoredPositions, relative_positions


class RelativePositions(nn.Module):
    """One embedding for each offset between two tokens of a grid; tokens before the grid have none.

    Args:
        grid: rows and columns.
        dim: width of the embeddings.
        prefix: number of tokens without a place before the grid.
        factored: rows and columns each have a table, whose embeddings add up (2 (rows + columns) - 2 of them);
            otherwise every offset has its own ((2 rows - 1) (2 columns - 1)).
        device: where the parameters are made.
        dtype: type of the parameters.
    """

    height: nn.Parameter
    width: nn.Parameter
    table: nn.Parameter

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
        self.prefix, self.factored = prefix, factored
        rows, columns = (2 * side - 1 for side in grid)
        shapes = {"height": (rows, dim), "width": (columns, dim)} if factored else {"table": (rows, columns, dim)}
        for name, shape in shapes.items():
            table = torch.empty(shape, device=device, dtype=dtype)
            self.register_parameter(name, nn.Parameter(nn.init.trunc_normal_(table, std=0.02)))

    def forward(self, dtype: torch.dtype, grid: tuple[int, int]) -> FactoredPositions | Tensor:
        """Return the embeddings in ``dtype``: factored, or (N, N, dim), where entry (i, j) is that of j as i sees it.

        For a ``grid`` of another size than their own they are resampled linearly, farthest offset on farthest.
        """
        if self.factored:
            height = _resampled(self.height[:, None].to(dtype), (grid[0], 1))[:, 0]
            width = _resampled(self.width[None].to(dtype), (1, grid[1]))[0]
            return FactoredPositions(height, width, self.prefix)
        return relative_positions(_resampled(self.table.to(dtype), grid), grid, self.prefix)


def _resampled(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return a table of offsets (2 rows - 1, 2 columns - 1, dim), resampled to that of ``grid``."""
    size = tuple(2 * side - 1 for side in grid)
    if table.shape[:2] == size:
        return table
    planes = table.movedim(-1, 0)[None]
    return F.interpolate(planes, size, mode="bilinear", align_corners=True)[0].movedim(0, -1)
