"""Images of a benchmark as they are tested: prepared, or corrupted on the way, or rows of an array on the disk."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from attention_zoo.errors import InputError
from datamodules.corruptions import Picture
from datamodules.corruptions.digital import through_jpeg
from datamodules.corruptions.generate import Recipe
from datamodules.images import ImageFiles, Images

Item = TypeVar("Item")


class Labelled(NamedTuple):
    """Images of one cell.

    Attributes:
        images: N images.
        labels: of each, an output of the model: int64 (N,).
        sources: of each, the place of the clean image that it is or is made of, int64 (N,); None where it is on the
            disk itself.
    """

    images: Images
    labels: np.ndarray
    sources: np.ndarray | None = None

    def some(self, places: np.ndarray) -> "Labelled":
        """The images at some places, int64 (n,), in their order."""
        images = Subset(cast(Dataset[Tensor], self.images), places.tolist())
        return Labelled(images, self.labels[places], None if self.sources is None else self.sources[places])


class Latest(Generic[Item]):
    """Items of which each is computed once, if it is asked for several times in a row; each process keeps the last.

    Args:
        items: what is computed from.
        compute: what is made of each.
    """

    def __init__(self, items: Images, compute: Callable[[Tensor], Item]) -> None:
        self.items, self.compute = items, compute
        self._kept: tuple[int, Item] | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_kept": None}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Item:
        if self._kept is None or self._kept[0] != index:
            self._kept = index, self.compute(self.items[index])
        return self._kept[1]


class LatestImages(Latest[Tensor]):
    """Clean images as they lie there, of which each is decoded once for all cells that are made of it.

    Args:
        images: decoded or read each time they are asked for.
    """

    def __init__(self, images: Images) -> None:
        super().__init__(images, _same)

    @property
    def names(self) -> Sequence[str]:
        """Their paths, where they are files."""
        return cast(ImageFiles, self.items).names


def _same(image: Tensor) -> Tensor:
    return image


@dataclass(frozen=True)
class Prepared:
    """Images that are brought to their size.

    Attributes:
        images: as they are.
        prepare: what is done to each.
        least: shorter side in pixels that they must have; nothing may be made up around a smaller image.
    """

    images: "ImageFiles | LatestImages | Generated"
    prepare: Callable[[Tensor], Tensor]
    least: int = 1

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        image = self.images[index]
        height, width = image.shape[-2:]
        if min(height, width) < self.least:
            raise InputError(
                f"{self.images.names[index]} has {width} x {height} pixels; expected at least {self.least} on each side"
            )
        return self.prepare(image)


@dataclass(frozen=True)
class Generated:
    """Images that are corrupted when they are asked for, always in the same way.

    Attributes:
        images: the clean ones, as ``recipe`` prepares them.
        names: of the images; what an image becomes depends on its name, not on its place.
        recipe: how.
        corruption: its name.
        severity: 1 to 5.
        jpeg_quality: of the JPEG file that the result goes through, or None.
    """

    images: Latest[Picture]
    names: Sequence[str]
    recipe: Recipe
    corruption: str
    severity: int
    jpeg_quality: int | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        sample = (self.names[index], self.corruption, self.severity)
        image = self.recipe.corrupted(self.images[index], sample)
        if self.jpeg_quality is not None:
            image = through_jpeg(image, self.jpeg_quality)
        return torch.from_numpy(image).permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class ArrayRows:
    """Consecutive rows of a ``.npy`` file of images, uint8 (N, H, W, 3), which stays on the disk.

    Attributes:
        path: the file.
        first: the first row.
        count: how many.
    """

    path: Path
    first: int
    count: int

    @cached_property
    def array(self) -> np.ndarray:
        """All rows, mapped into memory by each process that reads them."""
        return open_array(self.path)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "array"}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(np.array(self.array[self.first + index])).permute(2, 0, 1).contiguous()


def open_array(path: Path) -> np.ndarray:
    """A ``.npy`` file, mapped into memory.

    Raises:
        InputError: it is missing, truncated, or something else.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("no regular file")
        return np.lib.format.open_memmap(path, mode="r")  # of `.npy` alone, and never of Python objects
    except (OSError, ValueError, EOFError, OverflowError, TypeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else " ".join(str(error).split())
        raise InputError(f"cannot read array {path}: {reason}") from error
