"""Image files and their folders, read into uint8 tensors."""

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional

from attention_zoo.errors import InputError, unknown

T = TypeVar("T")

_UNREADABLE = "cannot read image"


class UnreadableImageError(InputError):
    """A file that is no image, or a broken one.

    From a worker of a loader the message arrives behind the worker's traceback; only the line itself is kept.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message[max(message.rfind(_UNREADABLE), 0) :].strip())


def is_image(name: str) -> bool:
    """Whether a file name has the suffix of an image and is not hidden."""
    base = os.path.basename(name)
    return base.lower().endswith(IMG_EXTENSIONS) and not base.startswith(".")


def decode(name: str, content: bytes | None = None) -> Tensor:
    """One image as RGB.

    Args:
        name: path of the file, or what to call the image in an error.
        content: the bytes of the file, where they are in memory already.

    Returns:
        uint8 tensor (3, H, W).

    Raises:
        UnreadableImageError: the file is missing, truncated or no image.
    """
    return _read(name, lambda image: functional.pil_to_tensor(image.convert("RGB")), content)


def decode_labels(name: str, modes: Sequence[str] = ("L", "P")) -> Tensor:
    """One mask of indices, as stored: a palette only says how they are shown.

    Args:
        name: path of the file.
        modes: those of PIL that are allowed; the default is one channel of 8 bits.

    Returns:
        tensor (H, W), uint8 of 8 bits.

    Raises:
        UnreadableImageError: the file is missing, truncated, no image, or of colours.
    """

    def convert(image: Image.Image) -> Tensor:
        if image.mode not in modes:
            wanted = " or ".join(modes)
            raise InputError(f"a mask of indices has one channel of numbers ({wanted}), not {image.mode}")
        return functional.pil_to_tensor(image)[0]

    return _read(name, convert)


def _read(name: str, convert: Callable[[Image.Image], T], content: bytes | None = None) -> T:
    """What ``convert`` makes of an image file."""
    try:
        with Image.open(name if content is None else io.BytesIO(content)) as image:
            return convert(image)
    except UnidentifiedImageError:
        reason = "not an image of a known format"
    except Exception as error:  # on broken bytes the decoders raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
    raise UnreadableImageError(f"{_UNREADABLE} {name}: {reason}")


class Images(Protocol):
    """A sequence of uint8 images (3, H, W); a tensor (N, 3, H, W) is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


class ImageFiles:
    """Images that are decoded each time they are asked for.

    Args:
        names: their paths, or what to call them in an error.
        contents: the bytes of the files, where they are in memory already.
    """

    def __init__(self, names: Sequence[str], contents: Sequence[bytes] | None = None) -> None:
        self.names = names
        self.contents = contents

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        return decode(self.names[index], self.contents[index] if self.contents else None)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of an image, from the beginning of its file.

        Raises:
            UnreadableImageError: as `decode`.
        """
        content = self.contents[index] if self.contents else None
        return _read(self.names[index], lambda image: (image.height, image.width), content)


class FileNames(Sequence[str]):
    """Paths below one folder, in one array: a list of millions of strings would be copied into every worker.

    Args:
        folder: where they begin.
        relative: paths below it, as bytes.
    """

    def __init__(self, folder: str, relative: np.ndarray) -> None:
        self.folder, self.relative = folder, relative

    def __len__(self) -> int:
        return len(self.relative)

    def __getitem__(self, index: int) -> str:
        return os.path.join(self.folder, os.fsdecode(self.relative[index]))

    def below(self) -> "FileNames":
        """The paths below the folder."""
        return FileNames("", self.relative)


class Split(NamedTuple):
    """One part of a data set.

    Attributes:
        images: N images.
        columns: what else a batch holds, by name: N labels, or N paths.
    """

    images: Images
    columns: dict[str, Sequence[int] | Sequence[str]]


def contents(folder: Path, limit: int = 5) -> str:
    """The first names in a folder, for an error that says what was found instead."""
    if not folder.is_dir():
        return "a file" if folder.exists() else "no such folder"
    names = sorted(os.listdir(folder))
    return ", ".join(names[:limit] + ["..."] * (len(names) > limit)) or "nothing"


def list_images(folder: Path) -> list[str]:
    """Paths of all images below a folder, links followed, sorted.

    Raises:
        InputError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: expected a folder of images")
    walk = os.walk(folder, followlinks=True)
    paths = sorted(os.path.join(base, file) for base, _, files in walk for file in files if is_image(file))
    if not paths:
        raise InputError(f"no images in {folder}: expected files ending in {', '.join(IMG_EXTENSIONS)}")
    return paths


def subfolders(folder: Path) -> list[str]:
    """Names of the folders directly in a folder, sorted, without hidden ones; none if it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def read_classes(
    folder: Path, class_names: Sequence[str], complete: bool = False, kind: str = "class"
) -> tuple[list[str], list[int]]:
    """Images in one folder per class.

    Args:
        folder: holds ``<class>/*``.
        class_names: the classes in the order of their labels.
        complete: whether every class must be there, as in training.
        kind: what an error calls a class.

    Returns:
        Path and label of every image, in the order of the labels, then of the paths.

    Raises:
        InputError: a folder is missing, holds no images, or is not one of the classes.
    """
    found = subfolders(folder)
    if not found:
        raise InputError(f"no class folders in {folder}: expected <class>/*.jpg; found: {contents(folder)}")
    foreign = sorted(set(found) - set(class_names))
    if foreign:
        raise InputError(f"{folder / foreign[0]}: {unknown(kind, foreign[0], class_names)}")
    present = set(class_names if complete else found)
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        if name in present:
            files = list_images(folder / name)
            paths += files
            labels += [label] * len(files)
    return paths, labels


def read_files(
    folder: Path, class_names: Sequence[str], complete: bool = False, kind: str = "class"
) -> tuple[FileNames, np.ndarray]:
    """As `read_classes`, for many images: labels are an int64 array (N,)."""
    paths, labels = read_classes(folder, class_names, complete, kind)
    base = str(folder)
    relative = np.array([os.fsencode(path[len(base) + 1 :]) for path in paths])
    return FileNames(base, relative), np.array(labels, dtype=np.int64)
