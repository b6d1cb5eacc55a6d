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
        labels: the label of each class in the files, such as ``[0, 255]`` for masks of black and white; None is 0, 1, 2
            and so on. 255 counts nowhere where it is not among them.
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
        labels: list[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size, **kwargs)
        require_fractions(val_fraction=val_fraction, test_fraction=test_fraction)
        require_different("class_names", class_names, IGNORE, kind="names")
        labels = _labels(class_names, labels, ignored or [])
        self.root, self.images, self.masks = Path(root), Path(root) / images, Path(root) / masks
        self.given_names = class_names
        self.label_map = dict.fromkeys(ignored or [], IGNORE) | {label: place for place, label in enumerate(labels)}
        self.fractions = {"val": val_fraction, "test": test_fraction}

    @property
    def class_names(self) -> list[str]:
        """The names that the constructor was told."""
        return self.given_names

    @property
    def labelling(self) -> str:
        """What a warning of absent classes says of the labels in the files, as `SegmentationDataModule` says."""
        said = "data.labels says which label is which class"
        if self.label_map.get(IGNORE, IGNORE) != IGNORE:
            return said
        return f"{super().labelling}: {said}, such as [0, 255]"

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


def _labels(class_names: list[str], labels: list[int] | None, ignored: list[int]) -> list[int]:
    """The label of each class in the files.

    Raises:
        InputError: they are not one for each class, or one of them is ignored, or none that a file of 8 bits can have.
    """
    if labels is None:
        for label in ignored:
            require_whole("ignored", label, len(class_names), IGNORE)
        return list(range(len(class_names)))
    require_different("labels", labels)
    if len(labels) != len(class_names):
        raise InputError(f"labels must be one for each of the {len(class_names)} class_names, got {len(labels)}")
    for name, given in (("labels", labels), ("ignored", ignored)):
        for label in given:
            require_whole(name, label, 0, IGNORE)
    for label in ignored:
        if label in labels:
            raise InputError(f"ignored: {label} is the label of a class")
    return labels


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
