"""Images and masks of class indices in two folders: anybody's own, and CamVid."""

from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

from attention_zoo.errors import InputError
from datamodules.checks import require_different, require_fractions, require_whole
from datamodules.images import ImageFiles, Split
from datamodules.parts import part_folders
from datamodules.segmentation.base import SegmentationDataModule
from datamodules.segmentation.masks import IGNORE, IndexMasks, Palette, pair_files
from datamodules.splits import stratified_split


class SegmentationFolder(SegmentationDataModule):
    """Images in ``images/{train,val,test}/*`` and masks of the same names in ``annotations/{train,val,test}/*``.

    A mask is a PNG of class indices; a palette gives colours to them that nobody reads. Without the folders of the
    parts, all pairs are split by the fractions. With them, a missing ``val`` is taken from ``train`` and a missing
    ``test`` is an error: no image is evaluated that chose the model. The splits are fixed. Links are followed.
    The parts may have other usual names, such as ``training`` and ``validation``: `datamodules.parts.PARTS`.

    Args:
        root: the folder.
        class_names: the classes in the order of their indices.
        images: name of the folder of images in ``root``.
        masks: name of the folder of masks in ``root``.
        ignored: labels beside 255 that count nowhere, none of them that of a class.
        val_fraction: share of the images to validate on, where there is no ``val``.
        test_fraction: share of the images to test on, where there are no parts.
        image_size: as in `SegmentationDataModule`.
        kwargs: the other arguments of `SegmentationDataModule`.

    Raises:
        InputError: an argument is out of range.
    """

    def __init__(
        self,
        root: str,
        class_names: list[str],
        images: str = "images",
        masks: str = "annotations",
        ignored: list[int] | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        image_size: int | tuple[int, int] = 512,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size, **kwargs)
        require_fractions(val_fraction=val_fraction, test_fraction=test_fraction)
        require_different("class_names", class_names, IGNORE, kind="names")
        for label in ignored or []:
            require_whole("ignored", label, len(class_names), IGNORE)
        self.root, self.images, self.masks = Path(root), Path(root) / images, Path(root) / masks
        self.given_names = class_names
        self.label_map = dict.fromkeys(ignored or [], IGNORE) | {label: label for label in range(len(class_names))}
        self.fractions = {"val": val_fraction, "test": test_fraction}

    @property
    def class_names(self) -> list[str]:
        """The names that the constructor was told."""
        return self.given_names

    @cached_property
    def part_folders(self) -> dict[str, str]:
        """Name of the folder of images of each part that there is.

        Raises:
            InputError: there are two folders of one part.
        """
        return part_folders(self.images)

    def load(self, parts: Collection[str]) -> dict[str, Split]:
        """Read the asked parts, as `DataModule` says."""
        return {part: self._split(*self._files(part)) for part in parts}

    def _split(self, images: list[str], masks: list[str]) -> Split:
        return Split(ImageFiles(images), {"mask": IndexMasks(masks, self.label_map)})

    def _files(self, part: str) -> tuple[list[str], list[str]]:
        there = self.part_folders
        if part in there and (part != "train" or "val" in there):
            return self._pairs(part)
        if there and (part == "test" or "train" not in there):
            raise InputError(f"no folder {self.images / part}: expected it beside {' and '.join(there.values())}")
        return self._from_fractions(part)

    def _pairs(self, part: str) -> tuple[list[str], list[str]]:
        """All files of a part."""
        name = self.part_folders[part]
        return pair_files(self.images / name, self.masks / name)

    def _from_fractions(self, part: str) -> tuple[list[str], list[str]]:
        """A share of the one folder that the images of several parts are in."""
        images, masks = self._pairs("train") if self.part_folders else pair_files(self.images, self.masks)
        wanted = ("val",) if self.part_folders else ("val", "test")
        sizes = {name: round(len(images) * self.fractions[name]) for name in wanted}
        sizes["train"] = len(images) - sum(sizes.values())
        if not sizes[part]:
            raise InputError(f"{self.images} has {len(images)} images, too few to split off {part} by its fraction")
        chosen = dict(zip(sizes, stratified_split([0] * len(images), *sizes.values()), strict=True))[part]
        return [images[i] for i in chosen], [masks[i] for i in chosen]


class CamVid(SegmentationFolder):
    """CamVid: 367 / 101 / 233 street scenes of 480 x 360 pixels, 11 classes.

    G. Brostow et al., Semantic object classes in video, Pattern Recognition Letters 2009, in the selection and with the
    labels of V. Badrinarayanan et al., SegNet, PAMI 2017: label 11 is unlabelled and counts nowhere.

    Args:
        root: holds ``images/{train,val,test}`` and ``annotations/{train,val,test}``.
        image_size: as in `SegmentationDataModule`; smaller ones than (360, 480) resize the images.
        kwargs: the other arguments of `SegmentationDataModule`.
    """

    CLASSES = {
        "sky": (128, 128, 128),
        "building": (128, 0, 0),
        "pole": (192, 192, 128),
        "road": (128, 64, 128),
        "pavement": (60, 40, 222),
        "tree": (128, 128, 0),
        "sign": (192, 128, 128),
        "fence": (64, 64, 128),
        "car": (64, 0, 128),
        "pedestrian": (64, 64, 0),
        "bicyclist": (0, 128, 192),
    }

    def __init__(self, root: str, image_size: int | tuple[int, int] = (360, 480), **kwargs: Any) -> None:
        super().__init__(root, list(self.CLASSES), ignored=[11], image_size=image_size, **kwargs)

    @property
    def palette(self) -> Palette:
        """The colours of SegNet."""
        return list(self.CLASSES.values())
