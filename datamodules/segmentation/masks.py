"""Labels of pixels: files of class indices, their checks, and the files that belong together."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from attention_zoo.errors import InputError
from datamodules.images import Column, contents, decode_labels, list_images, one_a_name

IGNORE = 255
"""Label of pixels that count nowhere: not in the loss, not in a metric."""

LOOKED_AT = 64
"""Most masks that `absent_classes` reads."""

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
        label_map: for every label that may be in a file its class, or `IGNORE`; without it `IGNORE` stands for itself.
    """

    def __init__(self, paths: Sequence[str], label_map: Mapping[int, int]) -> None:
        self.paths = paths
        self.label_map = {IGNORE: IGNORE, **label_map}
        self.table = np.full(256, -1, dtype=np.int16)
        self.table[list(self.label_map)] = list(self.label_map.values())

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> LabelMap:
        """The classes of one image.

        Raises:
            InputError: the file is no image of indices, or holds a label that is no class.
        """
        path = self.paths[index]
        stored = decode_labels(path).numpy()
        mask = np.where(stored < len(self.table), self.table[stored.clip(max=len(self.table) - 1)], -1)
        if (mask < 0).any():
            labels = np.unique(stored[mask < 0]).tolist()
            some = ", ".join(map(str, labels[:5])) + (", ..." if len(labels) > 5 else "")
            ignored = self._labels(ignored=True)
            raise InputError(
                f"mask {path} has the label{'s' if len(labels) > 1 else ''} {some}; "
                f"choose from: {self._labels(ignored=False)} (classes)" + (f", {ignored} (ignored)" if ignored else "")
            )
        return LabelMap(torch.from_numpy(mask.astype(np.uint8)))

    def _labels(self, ignored: bool) -> str:
        """The labels that are classes, or those that are not, with runs of them as ``0..10``."""
        labels = sorted(label for label, known in self.label_map.items() if (known == IGNORE) == ignored)
        starts = [label for label in labels if label - 1 not in labels]
        ends = [label for label in labels if label + 1 not in labels]
        return ", ".join(f"{a}" if a == b else f"{a}..{b}" for a, b in zip(starts, ends, strict=True))


class Absent(NamedTuple):
    """What a look at masks did not find.

    Attributes:
        classes: those that no mask has a pixel of.
        masks: how many were looked at.
        ignored: whether there are pixels of `IGNORE`.
    """

    classes: list[int]
    masks: int
    ignored: bool


def absent_classes(masks: Column, num_classes: int) -> Absent:
    """Find classes that masks have no pixel of, from as few of them as tell.

    Of more than `LOOKED_AT` masks so many are looked at, evenly spread, and a class is absent only where they have one
    class at most: others may be rare. Masks that cannot be read are passed over.
    """
    number = min(len(masks), LOOKED_AT)
    enough = num_classes if number == len(masks) else min(2, num_classes)
    found: set[int] = set()
    for place in range(number):
        try:
            found |= set(masks[place * len(masks) // number].mask.unique().tolist())
        except InputError:  # whoever needs the mask is told
            continue
        if len(found - {IGNORE}) >= enough:
            return Absent([], place + 1, IGNORE in found)
    return Absent(sorted(set(range(num_classes)) - found), number, IGNORE in found)


def pair_files(images: Path, masks: Path) -> tuple[list[str], list[str]]:
    """Images and masks of the same name, but for the suffix, at the same place below two folders; sorted.

    Raises:
        InputError: a folder is missing or empty, two of its files differ in the suffix only, or a file has no
            counterpart.
    """

    def names(folder: Path, kind: str) -> dict[Path, str]:
        return one_a_name(list_images(folder), kind, lambda path: Path(path).relative_to(folder).with_suffix(""))

    by_name = [names(images, "images of one name"), names(masks, "masks of one name")]
    for here, there, kind, folder in zip(by_name, by_name[::-1], ("mask", "image"), (masks, images), strict=True):
        alone = sorted(here.keys() - there.keys())
        if alone:
            raise InputError(
                f"{len(alone)} of {len(here)} files have no {kind}, the first of them {here[alone[0]]}: "
                f"expected {folder / alone[0]}.*; found in {folder}: {contents(folder)}"
            )
    paired = sorted(by_name[0])
    return [by_name[0][name] for name in paired], [by_name[1][name] for name in paired]


def default_palette(num_classes: int) -> Palette:
    """Colours of classes that have none of their own: those of PASCAL VOC without the black of its background."""
    return [_voc_colour(label) for label in range(1, num_classes + 1)]


def _voc_colour(label: int) -> tuple[int, int, int]:
    """The bits of ``label``, dealt out to red, green and blue, the highest bit of a colour first."""
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= (label >> bit & 1) << (7 - bit // 3)
    return channels[0], channels[1], channels[2]


def require_files(paths: Sequence[str]) -> None:
    """Check that files exist, by a look into each folder.

    Raises:
        InputError: one is missing.
    """
    there: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in there:
            there[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if name not in there[folder]:
            missing.append(path)
    if missing:
        beside = Path(missing[0]).parent
        raise InputError(
            f"{len(missing)} of {len(paths)} files are missing, the first of them {missing[0]}; "
            f"found in {beside}: {contents(beside)}"
        )
