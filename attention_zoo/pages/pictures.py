"""The pictures of a page: those of a folder, and those that were dropped into a tab."""

import io
import os
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from attention_zoo.errors import InputError
from attention_zoo.terminal import printable

MOST_UPLOADS = 32
"""The most pictures from tabs that are kept, as the bytes that came; the oldest go first."""

MOST_DECODED = 4
"""The most pictures that are kept decoded."""

LOSSLESS = 1 << 20
"""Pixels up to which a picture is shown by PNG, and by JPEG from there on."""

LONGEST_NAME = 120
"""The most characters of the name of a picture from a tab."""

Decode = Callable[[str, bytes | None], Tensor]
"""A function from a path, or a name and the bytes, to a picture (3, H, W) uint8; it raises an `InputError`."""


class Picture(NamedTuple):
    """A picture that can be asked for.

    Attributes:
        id: what addresses it, in this server alone.
        name: its path relative to the folder, or the name that its tab gave.
        source: its path, or the bytes of its file.
    """

    id: str
    name: str
    source: Path | bytes

    @property
    def shown(self) -> dict[str, str]:
        """The values that a tab is told."""
        return {"id": self.id, "name": printable(self.name)}


class Pictures:
    """Pictures by id. Nothing that comes from a tab is a path, and nothing is written.

    Args:
        folder: the folder; None is no folder.
        paths: the pictures below it.
        decode: reads a picture.
    """

    def __init__(self, folder: Path | None, paths: Sequence[str], decode: Decode) -> None:
        self.decode = decode
        self._uploads: OrderedDict[str, Picture] = OrderedDict()
        self._decoded: OrderedDict[str, Tensor] = OrderedDict()
        names = [os.path.relpath(path, folder) for path in paths]
        pairs = enumerate(zip(names, paths, strict=True))
        self._files = {str(place): Picture(str(place), name, Path(path)) for place, (name, path) in pairs}

    def listed(self) -> list[Picture]:
        """Return the pictures of the folder."""
        return list(self._files.values())

    def find(self, id: object) -> Picture:
        """Return the picture of an id.

        Raises:
            InputError: there is none, or it has gone to make room for others.
        """
        found = (self._files.get(id) or self._uploads.get(id)) if isinstance(id, str) else None
        if found is None:
            raise InputError("this picture is no longer here; open it again")
        return found

    def add(self, name: str, content: bytes) -> Picture:
        """Return a picture that came from a tab; its id cannot be guessed, so that tabs do not mix.

        Args:
            name: what the tab calls the file; of a path the last part is taken.
            content: its bytes.

        Raises:
            InputError: it is none.
        """
        picture = Picture(secrets.token_urlsafe(16), _base(name), content)
        self.pixels(picture)
        self._uploads[picture.id] = picture
        while len(self._uploads) > MOST_UPLOADS:
            self._decoded.pop(self._uploads.popitem(last=False)[0], None)
        return picture

    def pixels(self, picture: Picture) -> Tensor:
        """Return the pixels (3, H, W) uint8 of a picture.

        Raises:
            InputError: it cannot be read; the message names it as its tab does.
        """
        if picture.id not in self._decoded:
            self._decoded[picture.id] = self._read(picture)
        self._decoded.move_to_end(picture.id)
        while len(self._decoded) > MOST_DECODED:
            self._decoded.popitem(last=False)
        return self._decoded[picture.id]

    def _read(self, picture: Picture) -> Tensor:
        if isinstance(picture.source, bytes):
            return self.decode(picture.name, picture.source)
        return read_file(self.decode, str(picture.source), picture.name)


def read_file(decode: Decode, path: str, name: str) -> Tensor:
    """Return the pixels (3, H, W) uint8 of a file of this machine; where it is, is no tab's business.

    Raises:
        InputError: it cannot be read; the message has its name in the place of its path.
    """
    try:
        return decode(path, None)
    except InputError as error:
        words = str(error)
        for written in (path, printable(path)):
            words = words.replace(written, printable(name))
        raise InputError(words) from error


def as_file(pixels: Tensor) -> tuple[bytes, str]:
    """Return a picture (3, H, W) uint8 as a file that browsers show, and its media type.

    It is made anew from the pixels: upright, whatever the format was, and without anything else that the file held.
    """
    image, file = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()), io.BytesIO()
    if image.width * image.height <= LOSSLESS:
        image.save(file, "PNG", compress_level=1)
        return file.getvalue(), "image/png"
    image.save(file, "JPEG", quality=92, subsampling=0)
    return file.getvalue(), "image/jpeg"


def mask_file(mask: Tensor) -> bytes:
    """Return a mask (H, W) bool as PNG: 255 on the object, 0 elsewhere."""
    file = io.BytesIO()
    Image.fromarray(255 * mask.to(torch.uint8).numpy()).save(file, "PNG")
    return file.getvalue()


def inside(folder: Path, paths: Sequence[str]) -> list[str]:
    """Return those of the paths of images below a folder that do not lead out of it by links.

    Raises:
        InputError: there is none.
    """
    root = os.path.realpath(folder)
    found = [path for path in paths if os.path.realpath(path).startswith(os.path.join(root, ""))]
    if not found:
        raise InputError(f"all images in {folder} are links to elsewhere; name the folder that they are in")
    return found


def _base(name: str) -> str:
    """Return the last part of a file's name, without characters that are no text."""
    base = re.sub(r"[\x00-\x1f\x7f\ud800-\udfff]", "", re.split(r"[/\\]", name)[-1]).strip(" .")
    return base[-LONGEST_NAME:] or "picture"
