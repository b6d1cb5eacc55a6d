"""Image files and their folders, read into uint8 tensors."""

import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from torch import Tensor

from attention_zoo.errors import InputError, unknown
from datamodules.decoding import UnreadableImageError, decode, decode_labels, image_size, suffixes

__all__ = [
    "Column",
    "FileNames",
    "ImageFiles",
    "Images",
    "SizedImages",
    "Split",
    "UnreadableImageError",
    "below",
    "class_folders",
    "contents",
    "decode",
    "decode_labels",
    "is_hidden",
    "is_image",
    "list_images",
    "matches",
    "name_of",
    "noting_left_out",
    "one_a_name",
    "read_classes",
    "read_files",
    "subfolders",
]

Name = TypeVar("Name", bound=Hashable)

UNREAD = (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd", ".xcf", ".ico", ".tga", ".pcx", ".dds"),
    *(".exr", ".pfm", ".eps", ".dcm", ".dng", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2"),
)
"""Suffixes of images that are not read, or not by every Pillow."""

_LEFT_OUT: ContextVar[set[str] | None] = ContextVar("left out", default=None)


def is_image(name: str) -> bool:
    """Whether a file name has the suffix of an image and is not hidden."""
    return name.lower().endswith(suffixes()) and not is_hidden(os.path.basename(name))


def is_hidden(path: str) -> bool:
    """Whether a path has a file or folder whose name begins with a dot, such as Jupyter's copies of images."""
    return any(part.startswith(".") and part not in (os.curdir, os.pardir) for part in path.split(os.sep))


def matches(folder: Path, pattern: str) -> list[Path]:
    """Paths below a folder that fit a pattern of ``Path.glob``, without hidden ones, sorted."""
    return sorted(path for path in folder.glob(pattern) if not is_hidden(str(path.relative_to(folder))))


class Images(Protocol):
    """A sequence of uint8 images (3, H, W); a tensor (N, 3, H, W) is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


class SizedImages(Images, Protocol):
    """Images of many sizes, which are known before they are decoded."""

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of an image."""


class Column(Protocol):
    """What a batch holds beside its images: one value for each image, such as a label, a mask or a path."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


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
        """Height and width of an upright image, from the beginning of its file.

        Raises:
            UnreadableImageError: as `decode`.
        """
        return image_size(self.names[index], self.contents[index] if self.contents else None)


def name_of(files: Any, index: int) -> str:
    """What an error calls one of many images or masks: the path of its file, or its number where there is none."""
    names = getattr(files, "names", None) or getattr(files, "paths", None)
    return str(names[index]) if names else f"number {index}"


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

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # nobody asks for a slice of it
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
    columns: Mapping[str, Column]


def contents(folder: Path, limit: int = 5) -> str:
    """The first names in a folder, for an error that says what was found instead."""
    if not folder.is_dir():
        return "a file" if folder.exists() else "no such folder"
    names = sorted(os.listdir(folder))
    return ", ".join(names[:limit] + ["..."] * (len(names) > limit)) or "nothing"


def below(folder: Path | str, name: str, where: str) -> str:
    """The path of a file that another file names, if it is below the folder that a person named.

    Args:
        folder: the folder.
        name: path relative to it, or absolute.
        where: what names it, for an error.

    Returns:
        A path that begins with ``folder`` and has no ``..`` after that.

    Raises:
        InputError: the path leads out of the folder, or is no path.
    """
    if not isinstance(name, str) or "\0" in name:
        raise InputError(f"{where}: {name!r} is no file name")
    base = os.path.abspath(folder)
    relative = os.path.relpath(os.path.join(base, name), base)
    if relative == os.curdir or relative.split(os.sep)[0] == os.pardir:
        raise InputError(f"{where}: {name!r} is not in the folder {folder}")
    return os.path.join(folder, relative)


def list_images(folder: Path) -> list[str]:
    """Paths of all images below a folder, links followed, without those in hidden folders, sorted.

    Raises:
        InputError: there is no such folder, or no image in it, or one below it cannot be read or leads back above.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: expected a folder of images")
    paths = []
    for base, folders, files in os.walk(folder, followlinks=True, onerror=_unreadable):
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in folders:
            _refuse_circle(base, name)
        paths += [os.path.join(base, file) for file in files if is_image(file)]
        if (noted := _LEFT_OUT.get()) is not None:
            noted.update(os.path.join(base, file) for file in files if _is_unread(file))
    paths.sort()
    if not paths:
        raise InputError(f"no images in {folder}: expected files ending in {', '.join(suffixes())}")
    return paths


@contextmanager
def noting_left_out() -> Iterator[set[str]]:
    """Collect the paths of images that `list_images` leaves out in this context, for they are of kinds not read."""
    noted: set[str] = set()
    token = _LEFT_OUT.set(noted)
    try:
        yield noted
    finally:
        _LEFT_OUT.reset(token)


def _is_unread(name: str) -> bool:
    """Whether a file is an image by its suffix, of a kind that is not read."""
    return name.lower().endswith(UNREAD) and not is_image(name) and not is_hidden(name)


def _unreadable(error: OSError) -> None:
    raise InputError(f"cannot read folder {error.filename}: {error.strerror}") from error


def _refuse_circle(base: str, name: str) -> None:
    """Refuse a link to a folder that it lies in, whose images would be found dozens of times."""
    link = os.path.join(base, name)
    if os.path.islink(link) and Path(os.path.realpath(link)) in (here := Path(os.path.realpath(base)), *here.parents):
        raise InputError(f"{link} is a link to a folder that it lies in")


def one_a_name(paths: Sequence[str], kind: str, name: Callable[[str], Name]) -> dict[Name, str]:
    """Key files by name.

    Raises:
        InputError: two files have one name, so that nothing says which belongs to a file of another folder.
    """
    first: dict[Name, str] = {}
    for path in paths:
        other = first.setdefault(name(path), path)
        if other != path:
            raise InputError(f"two {kind}: {other} and {path}; keep one of them")
    return first


def subfolders(folder: Path) -> list[str]:
    """Names of the folders directly in a folder, sorted, without hidden ones; none if it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not is_hidden(entry.name))


def class_folders(folder: Path) -> list[str]:
    """List the folders of a folder, whose names become those of classes and are kept as text.

    Raises:
        InputError: a name is not UTF-8.
    """
    names = subfolders(folder)
    for name in names:
        if not name.isprintable() and any("\ud800" <= character <= "\udfff" for character in name):
            raise InputError(f"the class folder {name!r} in {folder} has a name that is not UTF-8; rename it")
    return names


def read_classes(
    folder: Path, class_names: Sequence[str], complete: bool = False, kind: str = "class"
) -> tuple[list[str], list[int]]:
    """List the images in one folder per class.

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
    folders = subfolders(folder)
    if not folders:
        raise InputError(f"no class folders in {folder}: expected <class>/*.jpg; found: {contents(folder)}")
    foreign = sorted(set(folders) - set(class_names))
    if foreign:
        raise InputError(f"{folder / foreign[0]}: {unknown(kind, foreign[0], class_names)}")
    present = set(class_names if complete else folders)
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
    """Read class folders as `read_classes` does, for many images: labels are an int64 array (N,)."""
    paths, labels = read_classes(folder, class_names, complete, kind)
    base = str(folder)
    relative = np.array([os.fsencode(path[len(base) + 1 :]) for path in paths])
    return FileNames(base, relative), np.array(labels, dtype=np.int64)
