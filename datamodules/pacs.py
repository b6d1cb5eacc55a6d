"""PACS: train on three domains, test on the fourth.

D. Li et al., Deeper, Broader and Artier Domain Generalization, ICCV 2017.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from attention_zoo.errors import InputError, unknown
from attention_zoo.runs.files import read_text
from datamodules.base import ImageDataModule
from datamodules.image_folder import centre_crop, random_crop
from datamodules.images import ImageFiles, Split, below, contents, read_classes
from datamodules.splits import stratified_split

CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
DOMAINS = ("art_painting", "cartoon", "photo", "sketch")

_LISTS = {"train": "train", "val": "crossval", "test": "test"}
"""What the authors' lists of images are called, ``<domain>_<name>_kfold.txt``."""


class PACS(ImageDataModule):
    """Seven classes in four domains, ``<domain>/<class>/*``: one domain is left out of training and tested.

    The report EECS-2024-49 (Table 1.3) says neither how it split nor how it chose the model. By default a fixed,
    stratified share of each source domain is held out and chooses the model, as in DomainBed ("training-domain
    validation"; its share is 20 %).

    Args:
        root: the folder with the four domains.
        target: the domain to test on: ``art_painting``, ``cartoon``, ``photo`` or ``sketch``.
        holdout: share of the images of each source domain that validates.
        lists: folder with the authors' lists, such as ``photo_train_kfold.txt``; they then say which images of the
            sources train and validate, and which of the target test, and ``holdout`` says nothing.
        kwargs: the arguments of ImageDataModule.

    Raises:
        InputError: an argument is out of range, or ``target`` is no domain.
    """

    IMAGE_SIZE = 224
    MEAN, STD = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    def __init__(self, root: str, target: str, holdout: float = 0.2, lists: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if target not in DOMAINS:
            raise unknown("domain", target, DOMAINS)
        if not 0 < holdout < 1:
            raise InputError(f"holdout={holdout} must be between 0 and 1")
        self.root, self.target, self.holdout = Path(root), target, holdout
        self.lists = Path(lists) if lists is not None else None
        self.sources = [domain for domain in DOMAINS if domain != target]

    @property
    def class_names(self) -> list[str]:
        """The seven classes that all domains share."""
        return list(CLASSES)

    def default_augment(self) -> list[nn.Module]:
        """Crops of random size and shape, and reflection."""
        return random_crop(self.image_size)

    def default_resize(self) -> nn.Module:
        """The centre of the image, as on ImageNet."""
        return centre_crop(self.image_size)

    def load(self, parts: Collection[str]) -> dict[str, Split]:
        """Read the asked parts, as `ImageDataModule` says."""
        missing = [domain for domain in DOMAINS if not (self.root / domain).is_dir()]
        if missing:
            raise InputError(
                f"no folder {self.root / missing[0]}: expected {', '.join(DOMAINS)} with <class>/* each; "
                f"found: {contents(self.root)}"
            )
        return {part: self._part(part) for part in parts}

    def _part(self, part: str) -> Split:
        domains = [self.target] if part == "test" else self.sources
        paths: list[str] = []
        labels: list[int] = []
        for domain in domains:
            own = self._split(domain, part) if self.lists is None else _listed(self.lists, self.root, domain, part)
            paths += own[0]
            labels += own[1]
        return Split(ImageFiles(paths), {"label": labels})

    def _split(self, domain: str, part: str) -> tuple[list[str], list[int]]:
        """Path and label of a domain's images: all to test on, else those held out or the others."""
        paths, labels = read_classes(self.root / domain, CLASSES, complete=True)
        if part == "test":
            return paths, labels
        held_out = round(len(paths) * self.holdout)
        validating, training = stratified_split(labels, held_out, len(paths) - held_out)
        chosen = validating if part == "val" else training
        if not chosen:
            raise InputError(
                f"{self.root / domain} has {len(paths)} images: none are left to {part} for {self.holdout=}"
            )
        return [paths[i] for i in chosen], [labels[i] for i in chosen]


def _listed(lists: Path, root: Path, domain: str, part: str) -> tuple[list[str], list[int]]:
    """Path and label of the images in the authors' list, whose labels count from 1."""
    file = lists / f"{domain}_{_LISTS[part]}_kfold.txt"
    if not file.is_file():
        raise InputError(f"no list {file}: expected {_LISTS[part]} lists of all domains in {lists}")
    paths, labels = [], []
    for number, line in enumerate(read_text(file).splitlines(), 1):
        name, _, label = line.rpartition(" ")
        wanted = name.split("/")[-2] if name.count("/") >= 1 else ""
        if wanted not in CLASSES or label != str(CLASSES.index(wanted) + 1):
            raise InputError(
                f"{file}, line {number}: expected <domain>/<class>/<image> and the class's number, got {line!r}"
            )
        path = Path(below(root, name, f"{file}, line {number}"))
        if not path.is_file():
            raise InputError(f"{file}, line {number}: no image {path}")
        paths.append(str(path))
        labels.append(int(label) - 1)
    return paths, labels
