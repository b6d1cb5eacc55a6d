"""Data with a map of instances for each image: SBD, PASCAL VOC, and the connected components of CamVid's classes."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from scipy.io import loadmat
from torch import Tensor

from attention_zoo.domains import Fraction, PositiveInt
from attention_zoo.errors import InputError, unknown
from attention_zoo.runs.files import read_text
from datamodules.checks import require_fractions, require_whole
from datamodules.images import ImageFiles, Split, below, contents, decode_labels
from datamodules.interactive.base import InteractiveDataModule
from datamodules.interactive.objects import ObjectFiles, object_numbers
from datamodules.segmentation.folder import CamVid
from datamodules.segmentation.masks import IGNORE, pair_files
from datamodules.splits import stratified_split


def one_sample_an_object(
    images: Sequence[str],
    maps: Sequence[str],
    read: Callable[[str], Tensor],
    min_area: int = 1,
    min_fill: float = 0.0,
) -> Split:
    """The split in which every object is a sample; reads all maps to find them.

    Args:
        images: paths.
        maps: files of their instances.
        read: makes such a file the labels of `Instances`.
        min_area: pixels that an object must have.
        min_fill: share of its bounding box that an object must cover.

    Raises:
        InputError: there is no object, or a file is not as it should be.
    """
    samples = [
        (place, number) for place, path in enumerate(maps) for number in _numbers(path, read, min_area, min_fill)
    ]
    if not samples:
        raise InputError(f"no object of at least {min_area} pixels in {len(maps)} files, the first of them {maps[0]}")
    objects = ObjectFiles([maps[place] for place, _ in samples], read, [(number,) for _, number in samples])
    names = [f"{maps[place]}#{number}" for place, number in samples]
    return Split(ImageFiles([images[place] for place, _ in samples]), {"objects": objects, "name": names})


def _numbers(path: str, read: Callable[[str], Tensor], min_area: int, min_fill: float) -> tuple[int, ...]:
    return object_numbers(read(path), min_area, min_fill)


def read_list(file: Path) -> list[str]:
    """The names in a file, one a line.

    Raises:
        InputError: there is no such file, nothing in it, or a name twice, which would count twice.
    """
    if not file.is_file():
        raise InputError(f"no list {file}: expected the split's images in it; found: {contents(file.parent)}")
    names = [line.split()[0] for line in read_text(file).splitlines() if line.strip()]
    if not names:
        raise InputError(f"{file} names no image")
    for name in names:
        below(".", name, str(file))
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise InputError(f"{file} names {twice} twice")
    return names


def existing(paths: Sequence[Path]) -> list[str]:
    """The paths as strings.

    Raises:
        InputError: one of them is no file.
    """
    for path in paths:
        if not path.is_file():
            raise InputError(f"no file {path}; found in {path.parent}: {contents(path.parent)}")
    return [str(path) for path in paths]


class _Listed(InteractiveDataModule):
    """Base: lists of images for training and evaluation; the images to validate on are taken from training.

    Args:
        root: the folder of the data set.
        val_fraction: share of the training images to validate on.
        kwargs: the arguments of `InteractiveDataModule`.
    """

    def __init__(self, root: str, val_fraction: float = 0.02, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require_fractions(val_fraction=val_fraction)
        self.root, self.val_fraction = Path(root), val_fraction

    def names(self, part: str, train: Path, test: Path) -> list[str]:
        """The images of a part, from the lists of training and of evaluation."""
        if part == "test":
            return read_list(test)
        listed = read_list(train)
        held_out = max(1, round(len(listed) * self.val_fraction))
        if held_out >= len(listed):
            raise InputError(f"{train} has {len(listed)} images, too few to split off val by its fraction")
        parts = stratified_split([0] * len(listed), held_out, len(listed) - held_out)
        return [listed[place] for place in parts[0 if part == "val" else 1]]


class SBD(_Listed):
    """The Semantic Boundaries Dataset (B. Hariharan et al., ICCV 2011): 8,498 and 2,857 images with instances.

    Training leaves out objects that cover less than ``min_fill`` of their bounding box, as RITM does.

    Args:
        root: holds ``img/*.jpg``, ``inst/*.mat``, ``train.txt`` and ``val.txt``; the latter is tested on.
        val_fraction: share of the training images to validate on.
        min_fill: see above.
        kwargs: the arguments of `InteractiveDataModule`.
    """

    def __init__(self, root: str, val_fraction: float = 0.02, min_fill: Fraction = 0.08, **kwargs: Any) -> None:
        super().__init__(root, val_fraction, **kwargs)
        self.min_fill = min_fill

    def load(self, parts: Collection[str]) -> dict[str, Split]:
        """Read the asked parts, as `DataModule` says."""
        return {part: self._part(part) for part in parts}

    def _part(self, part: str) -> Split:
        names = self.names(part, self.root / "train.txt", self.root / "val.txt")
        images = existing([self.root / "img" / f"{name}.jpg" for name in names])
        maps = existing([self.root / "inst" / f"{name}.mat" for name in names])
        min_fill = 0.0 if part == "test" else self.min_fill
        return one_sample_an_object(images, maps, read_sbd, min_fill=min_fill)


def read_sbd(path: str) -> Tensor:
    """Labels of a MATLAB file of SBD.

    Raises:
        InputError: it is none.
    """
    try:
        labels = np.asarray(loadmat(path)["GTinst"][0][0][0])
        if labels.ndim != 2 or labels.dtype.kind not in "iu" or labels.min() < 0:
            raise InputError(f"its instances are {labels.dtype} {labels.shape}, expected a map of whole numbers")
    except Exception as error:  # on broken bytes the reader raises nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"cannot read instances from {path}: {reason}") from error
    return torch.from_numpy(np.ascontiguousarray(labels).astype(np.int32))


class VOCInstances(_Listed):
    """Objects of PASCAL VOC 2012 (M. Everingham et al.); its val has 1,449 images with 3,417 objects.

    Args:
        root: ``VOCdevkit/VOC2012`` with JPEGImages, SegmentationObject and ImageSets/Segmentation.
        val_fraction: share of the training images to validate on.
        kwargs: the arguments of `InteractiveDataModule`.
    """

    def load(self, parts: Collection[str]) -> dict[str, Split]:
        """Read the asked parts, as `DataModule` says; ``val`` of the data set is tested on."""
        return {part: self._part(part) for part in parts}

    def _part(self, part: str) -> Split:
        lists = self.root / "ImageSets" / "Segmentation"
        names = self.names(part, lists / "train.txt", lists / "val.txt")
        images = existing([self.root / "JPEGImages" / f"{name}.jpg" for name in names])
        maps = existing([self.root / "SegmentationObject" / f"{name}.png" for name in names])
        return one_sample_an_object(images, maps, read_voc)


def read_voc(path: str) -> Tensor:
    """Labels of a file of VOC: indices whose void is 255, or their grey values, whose void is 220.

    Raises:
        InputError: it is no image of one channel.
    """
    labels = decode_labels(path).int()
    return torch.where((labels == 255) | (labels == 220), -1, labels)


class CamVidObjects(InteractiveDataModule):
    """Connected components of some classes of CamVid as objects.

    Args:
        root: holds ``images/{train,val,test}`` and ``annotations/{train,val,test}`` (see `CamVid`).
        classes: names of the classes whose components are objects.
        min_area: pixels that a component must have.
        kwargs: the arguments of `InteractiveDataModule`.

    Raises:
        InputError: an argument is out of range.
    """

    def __init__(
        self,
        root: str,
        classes: tuple[str, ...] = ("car", "pedestrian", "bicyclist"),
        min_area: PositiveInt = 400,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        names = list(CamVid.CLASSES)
        for name in classes:
            if name not in names:
                raise unknown("class", name, names)
        require_whole("classes", len(classes), 1)
        self.root, self.min_area = Path(root), min_area
        self.labels = [names.index(name) for name in classes]

    def load(self, parts: Collection[str]) -> dict[str, Split]:
        """Read the asked parts, as `DataModule` says."""
        return {part: self._part(part) for part in parts}

    def _part(self, part: str) -> Split:
        images, maps = pair_files(self.root / "images" / part, self.root / "annotations" / part)
        return one_sample_an_object(images, maps, self.components, self.min_area)

    def components(self, path: str) -> Tensor:
        """Labels of a file of class indices: a number for each connected part (by sides) of a class that is asked for.

        Raises:
            InputError: the file is no image of indices, or holds a label that is no class.
        """
        classes = decode_labels(path).numpy()
        unlabelled = (classes == len(CamVid.CLASSES)) | (classes == IGNORE)
        strange = classes[(classes >= len(CamVid.CLASSES)) & ~unlabelled]
        if len(strange):
            raise InputError(f"mask {path} has the label {strange[0]}; choose from: 0..10 (classes), 11, 255 (ignored)")
        labels, count = np.zeros(classes.shape, dtype=np.int32), 0
        for label in self.labels:
            parts, number = ndimage.label(classes == label)
            labels = np.where(parts > 0, parts + count, labels)
            count += number
        labels[unlabelled] = -1
        return torch.from_numpy(labels.astype(np.int32))
