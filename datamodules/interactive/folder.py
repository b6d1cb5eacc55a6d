"""Images and masks in two folders: anybody's own, GrabCut, Berkeley and DAVIS."""

from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from attention_zoo.errors import InputError, unknown
from datamodules.checks import require_fractions
from datamodules.images import ImageFiles, Split, contents, list_images, one_a_name
from datamodules.interactive.base import InteractiveDataModule
from datamodules.interactive.objects import ObjectFiles, read_bright, read_trimap
from datamodules.parts import part_folders
from datamodules.splits import stratified_split


def pair_objects(images: Path, masks: Path) -> list[tuple[str, str]]:
    """Images and masks, one mask an object: ``ID.*`` with ``ID.*``, or with ``ID#1.*``, ``ID#2.*`` and so on.

    Returns:
        Path of the image and of the mask for each object, sorted by the mask.

    Raises:
        InputError: a folder is missing or empty, two images or two masks have one name, or a file has no counterpart.
    """
    by_stem = one_a_name(list_images(images), "images for the same masks", lambda path: Path(path).stem)
    masks_by_stem = one_a_name(list_images(masks), "masks of one name", lambda path: Path(path).stem)
    pairs, seen = [], set()
    for stem, mask in masks_by_stem.items():
        stem = stem if stem in by_stem else stem.rpartition("#")[0]
        if stem not in by_stem:
            raise InputError(
                f"mask {mask} has no image: expected {images / Path(mask).stem}.*; found: {contents(images)}"
            )
        seen.add(stem)
        pairs.append((by_stem[stem], mask))
    alone = sorted(by_stem.keys() - seen)
    if alone:
        raise InputError(
            f"{len(alone)} of {len(by_stem)} images have no mask, the first of them {by_stem[alone[0]]}: "
            f"expected {masks / alone[0]}.* or {masks / alone[0]}#1.*"
        )
    return pairs


def objects_of(pairs: list[tuple[str, str]], read: Callable[[str], Tensor]) -> Split:
    """The split of pairs of image and mask, one object each."""
    images, masks = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return Split(ImageFiles(images), {"objects": ObjectFiles(masks, read), "name": masks})


class MaskFolder(InteractiveDataModule):
    """Images in ``{train,val,test}/images/ID.*``, a mask for each object in ``{train,val,test}/masks``.

    A mask is ``ID.*``, or ``ID#1.*``, ``ID#2.*`` and so on for several objects of an image; it is 0 on the background,
    255 on the object and 128 where nothing counts. Without the folders of the parts (``images`` and ``masks`` are in
    ``root`` itself), all images are split by the fractions. With them, a missing ``val`` is taken from ``train`` and a
    missing ``test`` is an error. The splits are fixed and keep the objects of an image together. The parts may have
    other usual names, such as ``Training``, ``valid`` and ``Testing``: `datamodules.parts.PARTS`.

    Args:
        root: the folder.
        val_fraction: share of the images to validate on, where there is no ``val``.
        test_fraction: share of the images to test on, where there are no parts.
        kwargs: the arguments of `InteractiveDataModule`.

    Raises:
        InputError: an argument is out of range.
    """

    def __init__(self, root: str, val_fraction: float = 0.1, test_fraction: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require_fractions(val_fraction=val_fraction, test_fraction=test_fraction)
        self.root = Path(root)
        self.fractions = {"val": val_fraction, "test": test_fraction}

    def load(self, parts: Collection[str]) -> dict[str, Split]:
        """Read the asked parts, as `DataModule` says."""
        return {part: objects_of(self._pairs(part), read_trimap) for part in parts}

    @cached_property
    def part_folders(self) -> dict[str, str]:
        """Name of the folder of each part that there is.

        Raises:
            InputError: there are two folders of one part.
        """
        return part_folders(self.root, below="images")

    def _pairs(self, part: str) -> list[tuple[str, str]]:
        there = self.part_folders
        if part in there and (part != "train" or "val" in there):
            return pair_objects(self.root / there[part] / "images", self.root / there[part] / "masks")
        if there and (part == "test" or "train" not in there):
            raise InputError(
                f"no folder {self.root / part / 'images'}: expected {part}/images and {part}/masks beside "
                f"{' and '.join(there.values())}"
            )
        return self._from_fractions(part, self.root / there.get("train", ""), not there)

    def _from_fractions(self, part: str, folder: Path, test_too: bool) -> list[tuple[str, str]]:
        """A share of the one folder that the objects of several parts are in."""
        pairs = pair_objects(folder / "images", folder / "masks")
        images = sorted({image for image, _ in pairs})
        sizes = {
            name: round(len(images) * self.fractions[name]) for name in (("val", "test") if test_too else ("val",))
        }
        sizes["train"] = len(images) - sum(sizes.values())
        if not sizes[part]:
            raise InputError(f"{folder} has {len(images)} images, too few to split off {part} by its fraction")
        chosen = dict(zip(sizes, stratified_split([0] * len(images), *sizes.values()), strict=True))[part]
        kept = {images[place] for place in chosen}
        return [pair for pair in pairs if pair[0] in kept]


class ClickBenchmark(InteractiveDataModule):
    """Base of the data sets that are only evaluated on: two folders with files of the same names.

    Args:
        root: holds the two folders.
        kwargs: the arguments of `InteractiveDataModule`.
    """

    IMAGES: ClassVar[str]
    MASKS: ClassVar[str]

    def __init__(self, root: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = Path(root)

    @staticmethod
    def read(path: str) -> Tensor:
        """Labels of a mask, by the convention of the data set."""
        return read_trimap(path)

    def load(self, parts: Collection[str]) -> dict[str, Split]:
        """Read the asked parts, as `DataModule` says; there is a test split only."""
        for part in parts:
            if part != "test":
                raise unknown(f"part of {type(self).__name__}", part, ["test"])
        return {"test": objects_of(pair_objects(self.root / self.IMAGES, self.root / self.MASKS), self.read)}


class GrabCut(ClickBenchmark):
    """GrabCut: 50 images with one object each (C. Rother et al., SIGGRAPH 2004).

    Args:
        root: holds ``data_GT/*.{jpg,bmp}`` and ``boundary_GT/*.bmp``; 128 in a mask counts nowhere.
        kwargs: the arguments of `InteractiveDataModule`.
    """

    IMAGES, MASKS = "data_GT", "boundary_GT"


class Berkeley(ClickBenchmark):
    """Berkeley: 100 objects on 96 images (K. McGuinness and N. O'Connor, Pattern Recognition 2010).

    Args:
        root: holds ``images/*`` and ``masks/*``, one mask an object; 128 in a mask counts nowhere.
        kwargs: the arguments of `InteractiveDataModule`.
    """

    IMAGES, MASKS = "images", "masks"


class DAVIS(ClickBenchmark):
    """345 frames of DAVIS (F. Perazzi et al., CVPR 2016) as interactive segmentation has them.

    Args:
        root: holds ``img/*`` and ``gt/*``; what is not black in a mask is the object.
        kwargs: the arguments of `InteractiveDataModule`.
    """

    IMAGES, MASKS = "img", "gt"

    @staticmethod
    def read(path: str) -> Tensor:
        """Read the labels of a mask, as `ClickBenchmark` says."""
        return read_bright(path)
