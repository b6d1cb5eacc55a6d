"""Labels of pixels: files of class indices, their checks, and the files that belong together."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from attention_zoo.errors import InputError
from datamodules.images import contents, decode_labels, list_images

IGNORE = 255
"""Label of pixels that count nowhere: not in the loss, not in a metric."""

Palette = list[tuple[int, int, int]]


class LabelMap(NamedTuple):
    """The labels of one image.

    Attributes:
        mask: (H, W) uint8, the class of every pixel, or `IGNORE`.
        segments: (H, W) uint8, the place of every pixel's segment in the next three, or `IGNORE` for none; None where
            the data have classes only, as have the next three.
        labels: (n,) int64, class of each segment.
        is_thing: (n,) bool, whether the segment is one countable object.
        crowd: (n,) bool, whether the segment is a group of objects that nobody told apart.
    """

    mask: Tensor
    segments: Tensor | None = None
    labels: Tensor | None = None
    is_thing: Tensor | None = None
    crowd: Tensor | None = None


class IndexMasks:
    """Files of class indices, read and checked each time they are asked for.

    Args:
        paths: the files.
        num_classes: the classes are 0 .. num_classes - 1; all else must be 255 or in ``ignored``.
        ignored: further labels that count nowhere.
        reduce_zero_label: 0 counts nowhere and the classes are 1 .. num_classes in the files (ADE20K).
    """

    def __init__(
        self, paths: Sequence[str], num_classes: int, ignored: Collection[int] = (), reduce_zero_label: bool = False
    ) -> None:
        self.paths = paths
        first = int(reduce_zero_label)
        self.range = f"{first}..{num_classes - 1 + first}"
        self.table = np.full(256, -1, dtype=np.int16)
        self.table[first : first + num_classes] = np.arange(num_classes)
        skipped = sorted({*ignored, *range(first), IGNORE})
        self.table[skipped] = IGNORE
        self.skipped = ", ".join(map(str, skipped))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> LabelMap:
        """The classes of one image.

        Raises:
            InputError: the file is no image of indices, or holds a label that is no class.
        """
        path = self.paths[index]
        found = decode_labels(path).numpy()
        mask = self.table[found]
        if (mask < 0).any():
            labels = np.unique(found[mask < 0]).tolist()
            some = ", ".join(map(str, labels[:5])) + (", ..." if len(labels) > 5 else "")
            raise InputError(
                f"mask {path} has the label{'s' if len(labels) > 1 else ''} {some}; "
                f"choose from: {self.range} (classes), {self.skipped} (ignored)"
            )
        return LabelMap(torch.from_numpy(mask.astype(np.uint8)))


def pair_files(images: Path, masks: Path) -> tuple[list[str], list[str]]:
    """Images and masks of the same name, but for the suffix, at the same place below two folders; sorted.

    Raises:
        InputError: a folder is missing or empty, or a file has no counterpart.
    """
    by_name = [
        {Path(path).relative_to(folder).with_suffix(""): path for path in list_images(folder)}
        for folder in (images, masks)
    ]
    for here, there, kind, folder in zip(by_name, by_name[::-1], ("mask", "image"), (masks, images), strict=True):
        alone = sorted(here.keys() - there.keys())
        if alone:
            raise InputError(
                f"{len(alone)} of {len(here)} files have no {kind}, the first of them {here[alone[0]]}: "
                f"expected {folder / alone[0]}.*; found in {folder}: {contents(folder)}"
            )
    names = sorted(by_name[0])
    return [by_name[0][name] for name in names], [by_name[1][name] for name in names]


def default_palette(num_classes: int) -> Palette:
    """Colours of classes that have none of their own: those of PASCAL VOC without the black of its background."""
    return [_voc_colour(label) for label in range(1, num_classes + 1)]


def _voc_colour(label: int) -> tuple[int, int, int]:
    """The bits of ``label``, dealt out to red, green and blue, the highest bit of a colour first."""
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= (label >> bit & 1) << (7 - bit // 3)
    return channels[0], channels[1], channels[2]
