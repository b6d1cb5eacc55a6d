"""Corrupted data sets on disk, as the benchmarks are released: folders of JPEG files, or arrays as of CIFAR-10-C.

Every part of the work is an item of a Dataset, so that a DataLoader does it in parallel. What an image becomes depends
on its path below the source, not on the order or the process. A file is there when it is whole: it is written beside
its place, under a hidden name, and then moved.
"""

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional

from attention_zoo.errors import InputError
from attention_zoo.seeding import derive_seed
from datamodules.corruptions.apply import CORRUPTIONS, EXTRA_CORRUPTIONS, GROUPS, corrupt
from datamodules.corruptions.parameters import Scale
from datamodules.corruptions.pixels import Picture, Pixels
from datamodules.images import contents, decode, list_images, subfolders

JPEG_QUALITY = 85
"""Of the released files."""

SEVERITIES = (1, 2, 3, 4, 5)

_NUMBERS = {name: number for number, name in enumerate(CORRUPTIONS + EXTRA_CORRUPTIONS)}

Sample = tuple[str, str, int]
"""Path below the source, corruption, severity."""


@dataclass(frozen=True)
class Source:
    """Images in one folder per class.

    Attributes:
        root: the folder of the classes.
        classes: their names, sorted.
        files: paths below ``root``, sorted by class, with ``/``.
    """

    root: Path
    classes: tuple[str, ...]
    files: tuple[str, ...]

    @property
    def labels(self) -> list[int]:
        """The label of every file, the place of its class."""
        numbers = {name: label for label, name in enumerate(self.classes)}
        return [numbers[file.partition("/")[0]] for file in self.files]

    def summary(self) -> dict[str, int]:
        """Number of the files, and a checksum of their names."""
        return {"images": len(self.files), "names_crc32": zlib.crc32(_bytes("\n".join(self.files)))}


def read_source(root: Path, per_class: int | None = None, limit: int | None = None) -> Source:
    """All images of ``<class>/*`` below a folder, or some.

    Args:
        root: the folder.
        per_class: only so many, the first of each class.
        limit: then only so many, evenly spread.

    Raises:
        InputError: there are no class folders, or one of them has no images.
    """
    classes = subfolders(root)
    if not classes:
        raise InputError(f"no class folders in {root}: expected <class>/*.JPEG; found: {contents(root)}")
    files = [
        Path(path).relative_to(root).as_posix()
        for name in classes
        for path in sorted(list_images(root / name))[:per_class]
    ]
    if limit is not None and limit < len(files):
        files = [files[number * len(files) // limit] for number in range(limit)]
    return Source(root, tuple(classes), tuple(files))


def _shorter(size: int) -> int:
    """Shorter side of an image whose middle of ``size`` pixels is cut out."""
    return round(size * 8 / 7)


@dataclass(frozen=True)
class Recipe:
    """How images are corrupted.

    Attributes:
        scale: whose parameters, and how images are brought to ``size``: as the authors did, the shorter side to 8/7 of
            it and the middle cut out (imagenet), or squeezed into the square (tiny, cifar), bilinear.
        size: in pixels, or None to leave images as they are.
        seed: of all that is random.
    """

    scale: Scale
    size: int | None
    seed: int

    @property
    def preparation(self) -> str:
        """Say in words what is done to an image before it is corrupted."""
        if self.size is None:
            return "none"
        if self.scale != "imagenet":
            return f"Resize({self.size}, {self.size}, bilinear)"
        return f"Resize({_shorter(self.size)}, bilinear), CenterCrop({self.size}, {self.size})"

    def prepared(self, image: Tensor) -> Pixels:
        """Prepare an image, uint8 (3, h, w), to be corrupted: uint8 (H, W, 3)."""
        image = functional.to_pil_image(image)
        if self.size is None:
            return np.array(image)
        if self.scale != "imagenet":
            return np.array(functional.resize(image, [self.size, self.size]))
        return np.array(functional.center_crop(functional.resize(image, [_shorter(self.size)]), [self.size] * 2))

    def corrupted(self, image: Pixels | Picture, sample: Sample) -> Pixels:
        """Corrupt a prepared image: uint8 (H, W, 3), or a `Picture` of it, to uint8 (H, W, 3)."""
        file, name, severity = sample
        seed = derive_seed(self.seed, zlib.crc32(_bytes(file)), _NUMBERS[name], severity)
        return corrupt(image, name, severity, seed=seed, scale=self.scale)


class FolderWriter(Dataset[int]):
    """Writes ``<corruption>/<severity>/<class>/*.JPEG``; an item is all that is made of one image.

    Files that are there are kept. An item's value is how many were written.

    Args:
        source: the images.
        recipe: how to corrupt them.
        folder: where to write.
        corruptions: which.
        severities: which.
        grouped: whether ``noise``, ``blur``, ``weather``, ``digital`` and ``extra`` come first in the path.

    Raises:
        InputError: two images would be written to the same file.
    """

    def __init__(
        self,
        source: Source,
        recipe: Recipe,
        folder: Path,
        corruptions: Sequence[str],
        severities: Sequence[int],
        grouped: bool = False,
    ) -> None:
        self.source, self.recipe = source, recipe
        self.parts = {
            (name, severity): folder / (GROUPS[name] if grouped else ".") / name / str(severity)
            for name, severity in product(corruptions, severities)
        }
        names: dict[str, str] = {}
        for file in source.files:
            other = names.setdefault(_jpeg(file), file)
            if other != file:
                raise InputError(f"{source.root}: {other} and {file} would both become {_jpeg(file)}")

    def __len__(self) -> int:
        return len(self.source.files)

    def __getitem__(self, index: int) -> int:
        file = self.source.files[index]
        places = {cell: folder / _jpeg(file) for cell, folder in self.parts.items()}
        missing = {cell: path for cell, path in places.items() if not path.exists()}
        if missing:
            image = Picture(self.recipe.prepared(decode(str(self.source.root / file))))
        for cell, path in missing.items():
            buffer = io.BytesIO()
            pixels = self.recipe.corrupted(image, (file, *cell))
            Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
            write_whole(path, buffer.getbuffer())
        return len(missing)


class ArrayParts(Dataset[np.ndarray]):
    """One corruption of all images, as rows of one array: all of severity 1, then all of severity 2, and so on.

    An item is what is made of some images, uint8 (severities, n, size, size, 3); each is read once.

    Args:
        source: the images.
        recipe: how to corrupt them; has a size.
        corruption: which.
    """

    IMAGES = 20
    """Images of an item; the last may have fewer."""

    def __init__(self, source: Source, recipe: Recipe, corruption: str) -> None:
        self.source, self.recipe, self.corruption = source, recipe, corruption

    def __len__(self) -> int:
        return -(-len(self.source.files) // self.IMAGES)

    def __getitem__(self, index: int) -> np.ndarray:
        files = self.source.files[index * self.IMAGES : (index + 1) * self.IMAGES]
        return np.stack([self._levels(file) for file in files], axis=1)

    def _levels(self, file: str) -> np.ndarray:
        """Return an image at every severity, uint8 (severities, size, size, 3)."""
        image = Picture(self.recipe.prepared(decode(str(self.source.root / file))))
        return np.stack([self.recipe.corrupted(image, (file, self.corruption, level)) for level in SEVERITIES])

    def labels(self) -> np.ndarray:
        """The label of every row; uint8 as the released ones, unless there are more than 256 classes."""
        kind = np.uint8 if len(self.source.classes) <= 256 else np.int64
        return np.tile(np.array(self.source.labels, kind), len(SEVERITIES))


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_whole(path, buffer.getbuffer())


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file that is never seen half-written; folders are made.

    Unlike those of `attention_zoo.runs.files`, the hidden name is the same each time: of the thousands of files of a
    command that was killed, the next start overwrites the one that was half-written.

    Raises:
        InputError: the file cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)  # a link there would be followed
        with part.open("xb") as file:
            file.write(content)
        part.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


def _bytes(name: str) -> bytes:
    """A path as it is on the disk, which need not be UTF-8."""
    return name.encode("utf-8", "surrogateescape")


def _jpeg(file: str) -> str:
    return Path(file).with_suffix(".JPEG").as_posix()
