"""Masks as the lengths of their runs, as COCO has them: short, plain values that files and pages can hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from attention_zoo.errors import InputError

LARGEST_SIDE = 2**24
"""A number of pixels that no side of an image reaches."""


@dataclass(frozen=True)
class RunLengths:
    """A mask as COCO's uncompressed run lengths (T.-Y. Lin et al., ECCV 2014).

    Attributes:
        size: height and width in pixels.
        counts: lengths of runs of equal pixels, column by column: first of background (maybe 0), then of object, and
            so on in turn.

    Raises:
        InputError: a side or a length is negative or no whole number, or the lengths do not make up the size.
    """

    size: tuple[int, int]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.size) != 2 or not all(map(_is_count, (*self.size, *self.counts))) or max(self.size) > LARGEST_SIDE:
            raise InputError('a mask is {"size": [height, width], "counts": [lengths of runs]}, of whole numbers')
        height, width = self.size
        if sum(self.counts) != height * width:
            runs = sum(self.counts)
            raise InputError(f"the runs of a mask of {width} x {height} pixels have {runs} pixels together")

    @classmethod
    def parse(cls, content: Any) -> Self:
        """Return the runs made from plain values ``{"size": [height, width], "counts": [...]}``.

        Raises:
            InputError: the content does not have this form.
        """
        whole = isinstance(content, Mapping) and content.keys() == {"size", "counts"}
        if not (whole and all(isinstance(content[key], (list, tuple)) for key in ("size", "counts"))):
            raise InputError('a mask is {"size": [height, width], "counts": [lengths of runs]}, of whole numbers')
        return cls(tuple(content["size"]), tuple(content["counts"]))

    @classmethod
    def of(cls, mask: Tensor) -> Self:
        """Return the runs of a mask (H, W) bool."""
        pixels = mask.mT.reshape(-1)
        changes = (pixels[1:] != pixels[:-1]).nonzero()[:, 0] + 1
        borders = torch.cat([changes.new_zeros(1), changes, changes.new_tensor([pixels.numel()])])
        counts = borders.diff().tolist() if pixels.numel() else []
        first = [0] if pixels.numel() and bool(pixels[0]) else []
        return cls((mask.shape[0], mask.shape[1]), tuple(first + counts))

    def plain(self) -> dict[str, list[int]]:
        """Return the plain values that `parse` takes."""
        return {"size": list(self.size), "counts": list(self.counts)}

    def mask(self) -> Tensor:
        """Return the mask (H, W) bool."""
        counts = torch.tensor(self.counts, dtype=torch.int64)
        pixels = (torch.arange(len(counts)) % 2 == 1).repeat_interleave(counts)
        return pixels.view(self.size[1], self.size[0]).mT.contiguous()


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
