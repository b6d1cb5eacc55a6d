"""Anybody's own images, in one folder per class."""

from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn
from torchvision.transforms import v2

from attention_zoo.errors import InputError
from datamodules.base import ImageDataModule
from datamodules.checks import require_different, require_fractions
from datamodules.images import ImageFiles, Split, class_folders, contents, read_classes, subfolders
from datamodules.parts import part_folders
from datamodules.splits import stratified_split


class ImageFolder(ImageDataModule):
    """Images in ``train/<class>/*``, ``val/<class>/*`` and ``test/<class>/*``, or simply in ``<class>/*``.

    Without those three folders, all images are split by the fractions. With them, a missing ``val`` is taken from
    ``train`` and a missing ``test`` is an error: no image is evaluated that chose the model. The splits are stratified
    and fixed. Links are followed, files that are no images ignored. The three may have other usual names, such as
    ``Training``, ``valid`` and ``Testing``: `datamodules.parts.PARTS`.

    Args:
        root: the folder.
        class_names: the classes in the order of their labels; None is the names of the folders, sorted. With names,
            ``root`` is not needed to predict, and a folder of another name is an error.
        val_fraction: share of the images to validate on, where there is no ``val``.
        test_fraction: share of the images to test on, where there are only class folders.
        kwargs: the arguments of ImageDataModule.

    Raises:
        InputError: an argument is out of range.
    """

    IMAGE_SIZE = 224
    MEAN, STD = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    def __init__(
        self,
        root: str,
        class_names: list[str] | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require_fractions(val_fraction=val_fraction, test_fraction=test_fraction)
        if class_names is not None:
            require_different("class_names", class_names, kind="names")
        self.root = Path(root)
        self.given_names = class_names
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction

    @cached_property
    def part_folders(self) -> dict[str, str]:
        """Name of the folder of each part that there is: none if the folders are the classes themselves.

        Raises:
            InputError: there are two folders of one part.
        """
        # A class may be called "train": then there are images in that folder, and no folders.
        return part_folders(self.root, lambda folder: bool(subfolders(folder)))

    @cached_property
    def class_names(self) -> list[str]:
        """As given, or the sorted names of the class folders.

        Raises:
            InputError: there are no class folders.
        """
        if self.given_names is not None:
            return self.given_names
        folder = self.root / next(iter(self.part_folders.values()), "")
        names = class_folders(folder)
        if not names:
            raise InputError(
                f"no class folders in {folder}: expected train/<class>/*.jpg, or <class>/*.jpg, in {self.root}; "
                f"found: {contents(folder)}"
            )
        return names

    def default_augment(self) -> list[nn.Module]:
        """Crops of random size and shape, and reflection."""
        return random_crop(self.image_size)

    def default_resize(self) -> nn.Module:
        """The centre of the image: its shorter side becomes 256/224 of the size, then the margin is cut off."""
        return centre_crop(self.image_size)

    def load(self, parts: Collection[str]) -> dict[str, Split]:
        """Read the asked parts, as `ImageDataModule` says."""
        return {part: self._part(part) for part in parts}

    def _part(self, part: str) -> Split:
        there = self.part_folders
        if part in there and (part != "train" or "val" in there):
            return _split(*read_classes(self.root / there[part], self.class_names, complete=part == "train"))
        if there and (part == "test" or "train" not in there):
            raise InputError(
                f"no folder {self.root / part} with class folders: expected {part}/<class>/*.jpg beside "
                f"{' and '.join(there.values())}"
            )
        return self._from_fractions(part)

    def _from_fractions(self, part: str) -> Split:
        """A share of the one folder that the images of several parts are in."""
        folder = self.root / self.part_folders.get("train", "")
        paths, labels = read_classes(folder, self.class_names, complete=True)
        sizes = {"val": round(len(paths) * self.val_fraction)}
        if not self.part_folders:
            sizes["test"] = round(len(paths) * self.test_fraction)
        sizes["train"] = len(paths) - sum(sizes.values())
        if not sizes[part]:
            raise InputError(f"{folder} has {len(paths)} images, too few to split off {part} by its fraction")
        chosen = dict(zip(sizes, stratified_split(labels, *sizes.values()), strict=True))[part]
        return _split([paths[i] for i in chosen], [labels[i] for i in chosen])


def random_crop(size: tuple[int, int]) -> list[nn.Module]:
    """The usual augmentation of photographs: a crop of random size and shape, and reflection."""
    return [v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()]


def resized_side(size: tuple[int, int]) -> int:
    """Pixels of the shorter side before the middle is cut out, rounded down as in the field's training codes."""
    return max(size) * 256 // 224


def centre_crop(size: tuple[int, int], interpolation: v2.InterpolationMode = v2.InterpolationMode.BICUBIC) -> nn.Module:
    """The usual evaluation of photographs: the shorter side becomes 256/224 of the size, then the margin is cut off."""
    side = resized_side(size)
    shorter = v2.Resize(side, interpolation=interpolation, antialias=True)
    return nn.Sequential(shorter, v2.CenterCrop(size))


def _split(paths: list[str], labels: list[int]) -> Split:
    return Split(ImageFiles(paths), {"label": labels})
