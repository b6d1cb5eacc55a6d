"""Tiny-ImageNet: 200 classes of ImageNet at 64 x 64 pixels (Stanford CS231N)."""

from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from torchvision.transforms import v2

from attention_zoo.errors import InputError, unknown
from attention_zoo.runs.files import read_text
from datamodules.base import ImageDataModule
from datamodules.images import FileNames, ImageFiles, Split, class_folders, contents, read_files, subfolders

ANNOTATIONS = "val_annotations.txt"
"""Name, class and box of each validation image, in the layout of the release."""


class TinyImageNet(ImageDataModule):
    """Tiny-ImageNet with ``train/<synset>/images/*`` and ``val/images/*``, or class folders in both.

    Labels follow the sorted synsets. The labels of the official test images are not public: ``test`` is on the
    validation images.

    Args:
        root: the folder.
        kwargs: the arguments of ImageDataModule.

    Raises:
        InputError: an argument is out of range.
    """

    IMAGE_SIZE = 64
    MEAN = (0.4802, 0.4481, 0.3975)
    STD = (0.2770, 0.2691, 0.2821)

    def __init__(self, root: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = Path(root)

    @cached_property
    def class_names(self) -> list[str]:
        """The synsets, sorted.

        Raises:
            InputError: there are no class folders to train on.
        """
        names = class_folders(self.root / "train")
        if not names:
            folder = self.root / "train"
            raise InputError(f"no class folders in {folder}: expected <synset>/images/*; found: {contents(folder)}")
        return names

    def default_augment(self) -> list[nn.Module]:
        """Shifts of up to an eighth of the image, and reflection."""
        return [v2.RandomCrop(64, padding=8), v2.RandomHorizontalFlip()]

    def load(self, parts: Collection[str]) -> dict[str, Split]:
        """See ImageDataModule."""
        return {part: self._part(part) for part in parts}

    def _part(self, part: str) -> Split:
        if part == "train":
            names, labels = read_files(self.root / "train", self.class_names, complete=True)
        else:
            names, labels = read_validation(self.root / "val", self.class_names)
        return Split(ImageFiles(names), {"label": labels})


def validation_classes(folder: Path) -> list[str]:
    """Synsets of the validation images, sorted; none if there are no such images."""
    if (folder / ANNOTATIONS).is_file():
        return sorted({synset for _, synset in _annotations(folder / ANNOTATIONS)})
    return subfolders(folder)


def read_validation(folder: Path, class_names: list[str]) -> tuple[FileNames, np.ndarray]:
    """Names and labels of the validation images, as released or in one folder per class.

    Raises:
        InputError: the folder is something else.
    """
    path = folder / ANNOTATIONS
    if not path.is_file():
        if (folder / "images").is_dir():
            raise InputError(f"no {ANNOTATIONS} in {folder}: expected it beside images/, or <synset>/* alone")
        return read_files(folder, class_names)
    labels = {name: label for label, name in enumerate(class_names)}
    rows = _annotations(path)
    there = {entry.name for entry in (folder / "images").iterdir()} if (folder / "images").is_dir() else set()
    for file, synset in rows:
        if synset not in labels:
            raise InputError(f"{path}: {unknown('class', synset, labels)}")
        if file not in there:
            raise InputError(f"{path}: no image {folder / 'images' / file}")
    rows.sort(key=lambda row: (labels[row[1]], row[0]))
    files = FileNames(str(folder / "images"), np.array([file.encode() for file, _ in rows]))
    return files, np.array([labels[synset] for _, synset in rows], dtype=np.int64)


def _annotations(path: Path) -> list[tuple[str, str]]:
    """File and synset of each line."""
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        fields = line.split("\t")
        if len(fields) < 2:
            raise InputError(f"{path}, line {number}: expected file, synset and box with tabs between, got {line!r}")
        rows.append((fields[0], fields[1]))
    if not rows:
        raise InputError(f"{path} is empty: expected a line for each image")
    return rows
