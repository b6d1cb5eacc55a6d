"""Which pixels belong to which object, read from the files of the data sets."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from attention_zoo.errors import InputError
from datamodules.decoding import decode_colours, decode_greys

OBJECT, BACKGROUND, IGNORE = 1, 0, 255
"""What masks of a batch hold."""


class Instances(NamedTuple):
    """The objects of one image.

    Attributes:
        labels: (H, W) int32: number of the object that a pixel belongs to, 0 background, -1 neither right nor wrong.
        numbers: the objects that a sample may be about; in evaluation one.
        initial: (H, W) bool, a mask of the object that clicks correct; None where they begin with nothing.
    """

    labels: Tensor
    numbers: tuple[int, ...]
    initial: Tensor | None = None

    def mask(self, number: int) -> Tensor:
        """The mask of one object (H, W) uint8: 1 object, 0 background and all other objects, 255 ignored."""
        mask = (self.labels == number).to(torch.uint8)
        return mask.masked_fill_(self.labels < 0, IGNORE)


class ObjectFiles:
    """Objects that are read each time they are asked for.

    Args:
        paths: file of each sample.
        read: makes a file the labels of `Instances`.
        numbers: objects of each sample; None: each file has one, number 1.
    """

    def __init__(
        self,
        paths: Sequence[str],
        read: Callable[[str], Tensor],
        numbers: Sequence[tuple[int, ...]] | None = None,
    ) -> None:
        self.paths, self.read = paths, read
        self.numbers = [(1,)] * len(paths) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Instances:
        """The objects of one sample."""
        return Instances(self.read(self.paths[index]), self.numbers[index])


class CorrectedFiles(ObjectFiles):
    """Objects, one a file, with the masks that clicks correct.

    Args:
        paths: file of each sample.
        read: makes a file the labels of `Instances`.
        initial: file of the mask to start from of each sample, which ``read`` reads as well; None starts from nothing.
    """

    def __init__(self, paths: Sequence[str], read: Callable[[str], Tensor], initial: Sequence[str] | None) -> None:
        super().__init__(paths, read)
        self.initial = initial

    def __getitem__(self, index: int) -> Instances:
        """The object of one sample, and the mask to start from."""
        objects = super().__getitem__(index)
        return objects if self.initial is None else objects._replace(initial=self.read(self.initial[index]) > 0)


def read_trimap(path: str) -> Tensor:
    """Labels of a mask that is 0 on the background, 128 where nothing counts, and from there to 255 on the object.

    The convention of GrabCut and Berkeley as RITM reads them (K. Sofiiuk et al., ICIP 2022); 0 and 255 alone will do.

    Raises:
        InputError: the file is no image, has colours, or holds other values.
    """
    mask = decode_greys(path).int()
    strange = mask[((mask > 0) & (mask < 128)) | (mask > 255)]
    if len(strange):
        raise InputError(
            f"mask {path} has the value {int(strange[0])}: expected 0 (background), 128 (ignored) and 255 (object)"
        )
    return torch.where(mask == 128, -1, (mask > 128).int()).int()


def read_bright(path: str) -> Tensor:
    """Labels of a mask that is black on the background only (DAVIS).

    Raises:
        InputError: the file is no image, or has more than 8 bits a channel.
    """
    return (decode_colours(path).amax(0) > 0).int()


def object_numbers(labels: Tensor, min_area: int = 1, min_fill: float = 0.0) -> tuple[int, ...]:
    """The objects in labels (H, W) that are large enough, ascending.

    Args:
        labels: as of `Instances`.
        min_area: pixels.
        min_fill: share of its bounding box that an object covers.
    """
    values, areas = np.unique(labels.numpy(), return_counts=True)
    numbers = [int(number) for number, area in zip(values, areas, strict=True) if number > 0 and area >= min_area]
    return tuple(number for number in numbers if min_fill <= 0 or _fill(labels == number) >= min_fill)


def _fill(mask: Tensor) -> float:
    top, left, bottom, right = bounding_box(mask)
    return int(mask.sum()) / ((bottom - top + 1) * (right - left + 1))


def bounding_box(mask: Tensor) -> tuple[int, int, int, int]:
    """First row and column, last row and column of a mask (H, W) bool that is not empty."""
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    return int(rows[0]), int(columns[0]), int(rows[-1]), int(columns[-1])
