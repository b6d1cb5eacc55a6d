"""ImageNet-1k (O. Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015)."""

from collections.abc import Collection
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from attention_zoo.errors import InputError
from datamodules.base import ImageDataModule
from datamodules.image_folder import centre_crop, random_crop
from datamodules.images import ImageFiles, Split, contents, read_files

SYNSET = "synset of ImageNet-1k"
"""What errors call a class."""


@cache
def synsets(subset: Literal["", "a", "r"] = "") -> tuple[str, ...]:
    """WordNet's names of the 1000 classes in the order of their labels, or of the 200 of ImageNet-A or -R.

    The lists are those that timm carries.
    """
    name = f"imagenet_{subset}_synsets.txt" if subset else "imagenet_synsets.txt"
    return tuple((files("timm.data") / "_info" / name).read_text(encoding="utf-8").split())


@cache
def outputs_of(subset: Literal["a", "r"]) -> tuple[int, ...]:
    """The labels, among the 1000, of the classes of ImageNet-A or -R, ascending."""
    places = {name: label for label, name in enumerate(synsets())}
    return tuple(sorted(places[name] for name in synsets(subset)))


class ImageNet(ImageDataModule):
    """ImageNet-1k in ``train/<synset>/*`` and ``val/<synset>/*``, checked against the 1000 synsets.

    The labels of the official test images are not public: ``test`` is on the validation images, as in all papers.

    Args:
        root: the folder.
        kwargs: the arguments of ImageDataModule.

    Raises:
        InputError: an argument is out of range.
    """

    IMAGE_SIZE = 224
    MEAN, STD = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    def __init__(self, root: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = Path(root)

    @property
    def class_names(self) -> list[str]:
        """The 1000 synsets of ImageNet-1k, sorted."""
        return list(synsets())

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
        folder = self.root / ("train" if part == "train" else "val")
        if not folder.is_dir():
            raise InputError(
                f"no folder {folder}: expected train/ and val/ with <synset>/*; found: {contents(self.root)}"
            )
        names, labels = read_files(folder, synsets(), complete=part == "train", kind=SYNSET)
        return Split(ImageFiles(names), {"label": labels})
