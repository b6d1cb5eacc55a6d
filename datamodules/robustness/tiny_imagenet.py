"""The benchmarks that classifiers of Tiny-ImageNet are tested on."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from attention_zoo.errors import InputError
from datamodules.images import ImageFiles, contents
from datamodules.robustness.base import Clean, Part, RobustnessDataModule
from datamodules.robustness.folders import class_folders, read_corruptions
from datamodules.robustness.images import Labelled
from datamodules.tiny_imagenet import TinyImageNet, read_validation, validation_classes


class TinyImageNetRobustness(RobustnessDataModule):
    """Tiny-ImageNet's validation images, and Tiny-ImageNet-C (D. Hendrycks, T. Dietterich): those that are given.

    Args:
        val: ``images/*`` and ``val_annotations.txt``, or ``<synset>/*``.
        c: ``<corruption>/<severity>/<synset>/*``, perhaps below the groups of the corruptions. Tiny-ImageNet-C was made
            from larger images; those that are made here are made from the 64 x 64 pixels of ``val``.
        kwargs: the arguments of RobustnessDataModule and ImageDataModule.

    Raises:
        InputError: an argument is out of range, or there is no benchmark among them.
    """

    IMAGE_SIZE = TinyImageNet.IMAGE_SIZE
    MEAN = TinyImageNet.MEAN
    STD = TinyImageNet.STD
    SCALE = "tiny"
    C = ("tiny_imagenet_c", "Tiny-ImageNet-C")

    def __init__(self, val: str | None = None, c: str | None = None, **kwargs: Any) -> None:
        super().__init__(val, c, **kwargs)

    @cached_property
    def class_names(self) -> list[str]:
        """The synsets, sorted: of the validation images, or without them of the corrupted ones.

        Raises:
            InputError: neither is there.
        """
        roots = [root for root in (self.clean_root, self.c_root) if root is not None]
        if self.clean_root is not None and self.clean_root.is_dir():
            names = validation_classes(self.clean_root)
        elif self.c_root is not None and self.c_root.is_dir():
            names = class_folders(self.c_root)
        else:
            where = roots[0] if roots else None
            raise InputError(f"no Tiny-ImageNet at {where}: TinyImageNetRobustness needs val or c to know the classes")
        if not names:
            root = roots[0]
            expected = "images/* and val_annotations.txt, or <synset>/*"
            raise InputError(f"no classes in {root}: expected {expected}; found: {contents(root)}")
        return names

    def parts(self) -> Iterator[Part]:
        """Yield all cells, as `RobustnessDataModule` says: clean and -C."""
        clean = None
        root = self.there(self.clean_root, "Tiny-ImageNet validation images")
        if root is not None:
            names, labels = read_validation(root, self.class_names)
            clean = Clean.of(ImageFiles(names), labels, names.below())
        yield from self.clean_and_corrupted(clean)

    def read_corrupted(self, root: Path) -> Iterator[tuple[str, int, Labelled]]:
        """Yield the cells of the corrupted images, as `RobustnessDataModule` says."""
        for corruption, severity, names, labels in read_corruptions(
            root, self.corruptions, self.severities, self.class_names, "synset of Tiny-ImageNet"
        ):
            yield corruption, severity, Labelled(ImageFiles(names), labels)
