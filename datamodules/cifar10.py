"""CIFAR-10 (Krizhevsky 2009), in whichever of its usual forms it lies on the disk."""

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor, nn
from torchvision import datasets
from torchvision.transforms import v2

from attention_zoo.errors import InputError, unknown
from datamodules.base import ImageDataModule
from datamodules.checks import require_whole
from datamodules.images import ImageFiles, Images, Split, contents, is_hidden, is_image, read_classes
from datamodules.splits import stratified_split

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""In the official order of the labels."""


MOST_BYTES = 1 << 20
"""Of an image in an archive."""

OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ": lzma.open, b"BZh": bz2.open}
"""What opens a compressed archive, by its first bytes."""


class CIFAR10(ImageDataModule):
    """CIFAR-10: 32 x 32 photographs of ten classes, held in memory.

    The validation images are taken from the training images. The split is stratified and fixed: the same validation
    images whatever ``num_train``, and smaller training sets are part of larger ones.

    Args:
        root: a folder with ``cifar-10-batches-py/`` (the files of torchvision), a folder with ``train/<class>/*`` and
            ``test/<class>/*`` (or with these inside ``cifar10/``), or a .tar, .tar.gz or .tar.xz archive of those.
        download: whether to fetch torchvision's files into ``root`` if there are no data.
        num_train: train on so many images only, the same share of each class; None is all but the validation images.
        val_size: number of validation images.
        kwargs: the arguments of ImageDataModule.

    Raises:
        InputError: an argument is out of range.
    """

    IMAGE_SIZE = 32
    MEAN = (0.4914, 0.4822, 0.4465)
    STD = (0.2470, 0.2435, 0.2616)

    def __init__(
        self, root: str, download: bool = False, num_train: int | None = None, val_size: int = 5000, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        require_whole("val_size", val_size, 1)
        require_whole("num_train", 1 if num_train is None else num_train, 1)
        self.root = Path(root)
        self.download = download
        self.num_train = num_train
        self.val_size = val_size

    @property
    def class_names(self) -> list[str]:
        """The ten classes in the official order."""
        return list(CLASSES)

    def default_augment(self) -> list[nn.Module]:
        """Shifts of up to four pixels of the 32, and reflection."""
        return [v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()]

    def prepare_data(self) -> None:
        """Download, if asked to and there are no data.

        Raises:
            InputError: the download failed.
        """
        if not self.download or self.root.is_file() or _folder(self.root, "train"):
            return
        try:
            datasets.CIFAR10(self.root, download=True)
        except (OSError, RuntimeError) as error:
            raise InputError(f"cannot download CIFAR-10 to {self.root}: {error}") from error

    def load(self, parts: Collection[str]) -> dict[str, Split]:
        """Read the asked parts, as `ImageDataModule` says."""
        splits = {}
        if "test" in parts:
            images, labels = self._read("test")
            splits["test"] = _in_memory(images, labels, range(len(labels)))
        if {"train", "val"} & set(parts):
            images, labels = self._read("train")
            indices = self._indices(labels)
            splits |= {part: _in_memory(images, labels, indices[part]) for part in indices if part in parts}
        return splits

    def _indices(self, labels: list[int]) -> dict[str, list[int]]:
        """Positions of the validation and training images among the images of the training part."""
        num_train = max(len(labels) - self.val_size, 1) if self.num_train is None else self.num_train
        if num_train + self.val_size > len(labels):
            raise InputError(
                f"{self.root} has {len(labels)} training images, too few for num_train {num_train} and "
                f"val_size {self.val_size} together"
            )
        val, train = stratified_split(labels, self.val_size, num_train)
        return {"val": val, "train": train}

    def _read(self, part: str) -> tuple[Images, list[int]]:
        """All images and labels of ``train`` or ``test``, from any of the layouts."""
        if self.root.is_file():
            return _read_archive(self.root, part)
        if (self.root / datasets.CIFAR10.base_folder).is_dir():
            return _read_torchvision(self.root, part)
        folder = _folder(self.root, part)
        if folder is None:
            raise InputError(
                f"no CIFAR-10 in {self.root}: expected {datasets.CIFAR10.base_folder}/, or train/<class>/*.jpg and "
                "test/<class>/*.jpg (or these inside cifar10/), or a .tar, .tar.gz or .tar.xz archive of them; found: "
                f"{contents(self.root)}; download=true fetches it"
            )
        paths, labels = read_classes(folder, CLASSES, complete=True)
        return ImageFiles(paths), labels


def _folder(root: Path, part: str) -> Path | None:
    """Where the class folders of a part are."""
    return next((base / part for base in (root, root / "cifar10") if (base / part).is_dir()), None)


class _Stream(io.RawIOBase):
    """What a file holds, read once from front to back, since an .xz file cannot jump back."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self.file = file
        self.tail = b""

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most ``size`` of them."""
        chunk = self.file.read(size)
        self.tail = (self.tail + chunk)[-tarfile.BLOCKSIZE :]
        return chunk

    def require_end(self) -> None:
        """Raise EOFError unless the file ends in a block of zeros, as a whole archive does.

        `tarfile` takes an archive that was cut between two members for a whole one.
        """
        while self.read(1 << 20):
            pass
        if self.tail.strip(b"\0") or not self.tail:
            raise EOFError("its end is missing")


@contextmanager
def _opened(archive: Path) -> Iterator[_Stream]:
    """Open an archive for reading, decompressed."""
    with archive.open("rb") as file:
        start = file.read(max(map(len, OPENERS)))
    opener = next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), open)
    with opener(archive, "rb") as file:
        yield _Stream(file)


def _read_archive(archive: Path, part: str) -> tuple[ImageFiles, list[int]]:
    """The images in ``<part>/<class>/`` of an archive, in the order in which a folder is read; nothing is unpacked."""
    members: list[tuple[str, str, bytes]] = []
    try:
        with _opened(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                folder, _, file = member.name.rpartition("/")
                name = folder.rpartition("/")[2]
                if folder.split("/")[-2:-1] == [part] and member.isfile() and is_image(file) and not is_hidden(name):
                    if member.size > MOST_BYTES:
                        raise InputError(f"{member.name} in {archive} has {member.size:,} bytes, too many for 32 x 32")
                    content = cast(IO[bytes], tar.extractfile(member))  # of a file it is never None
                    members.append((name, member.name, content.read()))
            stream.require_end()
    except (tarfile.TarError, lzma.LZMAError, zlib.error, OSError, EOFError) as error:
        raise InputError(f"cannot read archive {archive}: {error}") from error
    names = {name for name, _, _ in members}
    for name in sorted(names - set(CLASSES)):
        raise InputError(f"{part}/{name} in {archive}: {unknown('class', name, CLASSES)}")
    for name in sorted(set(CLASSES) - names):
        raise InputError(f"no images in {part}/{name} of {archive}: expected {part}/<class>/*.jpg for each class")
    members.sort(key=lambda image: image[:2])
    files = ImageFiles([f"{archive}:{path}" for _, path, _ in members], [content for _, _, content in members])
    return files, [CLASSES.index(name) for name, _, _ in members]


def _read_torchvision(root: Path, part: str) -> tuple[Tensor, list[int]]:
    """The files of torchvision, whose checksums it verifies."""
    try:
        data = datasets.CIFAR10(root, train=part == "train")
    except RuntimeError as error:
        raise InputError(f"{root / datasets.CIFAR10.base_folder} is incomplete or corrupt: {error}") from error
    return torch.from_numpy(data.data).permute(0, 3, 1, 2), data.targets


def _in_memory(images: Images, labels: list[int], indices: Sequence[int]) -> Split:
    """The chosen images, decoded once: they are small, and decoding takes longer than augmenting."""
    stack = torch.empty(len(indices), 3, 32, 32, dtype=torch.uint8)
    for row, index in zip(stack, indices, strict=True):
        image = images[index]
        if image.shape != row.shape:
            name = images.names[index] if isinstance(images, ImageFiles) else f"image {index}"
            raise InputError(f"{name} has {image.shape[2]} x {image.shape[1]} pixels, CIFAR-10 has 32 x 32")
        row.copy_(image)
    return Split(stack, {"label": [labels[index] for index in indices]})
