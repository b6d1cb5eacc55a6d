"""The gradients of sparse reconstruction by the weights of its `operators`.

All are of the form <values, P codes>, which is linear in values (B, T, C), in codes and in the weights of P.
"""

from abc import ABC, abstractmethod

from torch import Tensor

BLOCK = 4
"""Columns of the grid whose codes share a matrix product in `KernelGradient`; more waste arithmetic, fewer calls."""


class Gradient(ABC):
    """The gradient of a sum of forms <values, P codes> by the weights of an operator P."""

    @abstractmethod
    def add(self, values: Tensor, codes: Tensor) -> None:
        """Add the form of values (B, T, C) and codes."""

    @abstractmethod
    def total(self) -> Tensor:
        """Return the gradient, of the shape of the weights."""


class KernelGradient(Gradient):
    """The gradient by kernels, each shared by the positions of a grid and by the channels of a head.

    The codes of a few columns in a row read values of a few more columns, in s rows. Products of both, summed over the
    channels of a head, are a matrix product; the gradient of a kernel lies on its diagonals. With one row and `BLOCK`
    columns in a product little of it is needless, and codes are not copied. Torch's backward pass of a depthwise
    convolution, which can sum over positions only, takes five times as long.

    The products are small, so what leads to them is made once: the views that they read and add to.

    Args:
        kernels: (H, K, s, s).
        grid: height and width.
        prefix: tokens before the grid.
        batch: the number of samples B of the values and codes.
        width: channels of a head.
    """

    def __init__(self, kernels: Tensor, grid: tuple[int, int], prefix: int, batch: int, width: int) -> None:
        self.kernels, self.grid, self.prefix, self.width = kernels, grid, prefix, width
        (heads, self.number, self.side, _), (self.height, across) = kernels.shape, grid
        self.columns = min(BLOCK, across)
        self.reach = self.columns + self.side - 1
        starts = range(0, across, self.columns)
        # what the blocks of columns read, with zeros around the grid: the s rows that a row reads lie in one piece
        rows = self.height + self.side - 1
        self.read = kernels.new_zeros(len(starts), batch, rows, self.reach, heads * width)
        # each row of the grid has sums of its own, since no batched product adds them up; the last block may be narrow
        widths = {min(self.columns, across - start) for start in starts}
        self.sums = {
            own: kernels.new_zeros(heads, self.height, own * self.number, self.side * self.reach) for own in widths
        }
        self.targets = [
            [self.sums[min(self.columns, across - start)][head] for start in starts] for head in range(heads)
        ]
        self.windows = [[self._windows(block, head) for block in range(len(starts))] for head in range(heads)]
        self.copies = [self._copied(block, start) for block, start in enumerate(starts)]

    def add(self, values: Tensor, codes: Tensor) -> None:
        """Add the form of values (B, T, C) and codes (B, height width, K C), both contiguous."""
        image = values[:, self.prefix :].unflatten(1, self.grid)
        for room, start, stop in self.copies:
            room.copy_(image[:, :, start:stop])
        rows = codes.unflatten(2, (self.number, -1)).flatten(1, 2).unflatten(1, (self.height, -1))
        of_heads = rows.split(self.width, -1)  # each (B, height, width K, E)
        for head, targets, windows in zip(of_heads, self.targets, self.windows, strict=True):
            blocks = head.split(self.columns * self.number, 2)
            for block, target, reads in zip(blocks, targets, windows, strict=True):
                for own, read in zip(block.unbind(), reads, strict=True):
                    target.baddbmm_(own, read)

    def total(self) -> Tensor:
        """Return the gradient (H, K, s, s)."""
        total = self.kernels.new_zeros(self.kernels.shape)
        for width, sums in self.sums.items():
            both = sums.sum(1).unflatten(2, (self.side, self.reach)).unflatten(1, (width, -1))
            # (H, width, K, s, reach), of which column x and what it reads from x to x + s - 1 are wanted
            total += both.unfold(-1, self.side, 1)[..., :width, :].diagonal(dim1=1, dim2=4).sum(-1)
        return total

    def _windows(self, block: int, head: int) -> list[Tensor]:
        """Return what the rows of each sample read in a block of columns, (height, E, s reach)."""
        shape = self.height, self.side * self.reach, self.width
        strides = self.read.stride(2), self.read.stride(3), 1
        of_samples = self.read[block, ..., head * self.width :]
        return [own.as_strided(shape, strides).mT for own in of_samples]

    def _copied(self, block: int, start: int) -> tuple[Tensor, int, int]:
        """Return the room of a block of columns, and from and to which column of the grid it is copied."""
        half, (height, across) = self.side // 2, self.grid
        left = start - half
        first, last = max(left, 0), min(left + self.reach, across)
        return self.read[block, :, half : half + height, first - left : last - left], first, last


class MatrixGradient(Gradient):
    """The gradient by atoms (B, H, T, M), of codes (B, H, M, E)."""

    def __init__(self, atoms: Tensor) -> None:
        self.sums = atoms.new_zeros(atoms.shape)

    def add(self, values: Tensor, codes: Tensor) -> None:
        """Add the form of values (B, T, C) and codes (B, H, M, E)."""
        by_head = values.unflatten(2, (self.sums.shape[1], -1)).transpose(1, 2)
        self.sums.flatten(0, 1).baddbmm_(by_head.flatten(0, 1), codes.flatten(0, 1).mT)

    def total(self) -> Tensor:
        """Return the gradient (B, H, T, M)."""
        return self.sums
