"""One image file into a tensor: upright, of 8 bits where it is a picture, as stored where it is a mask."""

import io
import os
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError, features
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional

from attention_zoo.errors import InputError

MOST_PIXELS = 100_000_000
"""An image that declares more pixels is refused before it is decoded: a small file can stand for gigabytes."""

MOST_RATIO = 1_000
"""Of the sides of an image: where its shorter side is brought to hundreds of pixels, the other becomes gigabytes."""

RAISED = "ATTENTION_ZOO_MOST_PIXELS"
"""Environment variable that takes the place of `MOST_PIXELS`."""

FORMATS = ("JPEG", "MPO", "PNG", "PPM", "BMP", "DIB", "GIF", "TIFF", "WEBP", "AVIF", "JPEG2000")
"""What is read, by content and whatever the suffix; other formats of Pillow start programs or draw vectors."""

_CODECS = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}
"""Names in `FORMATS` that Pillow can be built without, and what it calls their libraries."""

_UNREADABLE = "cannot read image"

_MIRRORED = {2: (-1,), 3: (-2, -1), 4: (-2,), 6: (-1,), 7: (-2, -1), 8: (-2,)}
"""Axes along which transposed pixels are mirrored, by the orientation in EXIF (CIPA DC-008, tag 274)."""

_TRANSPOSED = (5, 6, 7, 8)
"""Orientations whose rows are columns of the file."""

_PHOTOMETRIC = 262
"""Tag of TIFF; 0 there says that 0 is white."""

_SAMPLE_FORMAT = 339
"""Tag of TIFF; 2 there says that samples are signed, which Pillow leaves out where they have 8 bits."""

_PILLOWS_LIMIT = threading.Lock()


class UnreadableImageError(InputError):
    """A file that is no image, or a broken one.

    From a worker of a loader the message arrives behind the worker's traceback; only the line itself is kept.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message[max(message.rfind(_UNREADABLE), 0) :].strip())


class Stored(NamedTuple):
    """How the samples of one channel lie in a file.

    Attributes:
        bits: of a sample.
        inverted: whether 0 is white.
        most: the largest value; None where it is that of ``bits``.
        signed: whether samples can be negative.
    """

    bits: int
    inverted: bool = False
    most: int | None = None
    signed: bool = False


def decode(name: str, content: bytes | None = None) -> Tensor:
    """One picture as upright RGB of 8 bits; transparency is left out.

    Samples of more than 8 bits are scaled by their range (their 8 highest bits are kept). Floats and integers of more
    than 16 bits have no range that a file would say, and are refused.

    Args:
        name: path of the file, or what to call the image in an error.
        content: the bytes of the file, where they are in memory already.

    Returns:
        uint8 tensor (3, H, W).

    Raises:
        UnreadableImageError: the file is missing, truncated, no image, larger than `most_pixels`, or of samples without
            a range.
    """
    return _read(name, _to_rgb, content)


def decode_labels(name: str) -> Tensor:
    """One mask of indices, upright: its samples as stored, of 1, 2, 4, 8 or 16 bits, never scaled or clipped.

    A palette only says how the indices are shown.

    Args:
        name: path of the file.

    Returns:
        tensor (H, W): uint8 of up to 8 bits, else int32.

    Raises:
        UnreadableImageError: the file is missing, truncated, no image, larger than `most_pixels`, or not of one channel
            of whole numbers.
    """
    return _read(name, _to_labels)


def decode_greys(name: str, content: bytes | None = None) -> Tensor:
    """One mask whose grey levels are a code, such as 0, 128 and 255, upright; never scaled or clipped.

    Black and white of one bit are 0 and 255, and black is 0 also where the file says that 0 is white. A grey palette
    stands for its greys, one of colours for its indices. Of several channels, all must be equal.

    Args:
        name: path of the file, or what to call the mask in an error.
        content: the bytes of the file, where they are in memory already.

    Returns:
        tensor (H, W): uint8 of up to 8 bits, else int32.

    Raises:
        UnreadableImageError: as `decode_labels`, or the file has colours.
    """
    return _read(name, _to_greys, content)


def decode_colours(name: str) -> Tensor:
    """One mask whose colours are a code, upright, as stored; a palette as its colours.

    Args:
        name: path of the file.

    Returns:
        tensor (3, H, W): uint8, or int32 where one channel of 16 bits stands for all three.

    Raises:
        UnreadableImageError: as `decode`, or one of three channels has more than 8 bits, which would not be kept.
    """

    def exact(image: Image.Image) -> Tensor:
        if image.mode.startswith("I"):
            return _to_labels(image).expand(3, -1, -1)
        if _stored(image).bits > 8:
            raise InputError("a mask of colours has 8 bits a channel, not more")
        return _to_rgb(image)

    return _read(name, exact)


def image_size(name: str, content: bytes | None = None) -> tuple[int, int]:
    """Height and width of the upright image, from the beginning of its file.

    Raises:
        UnreadableImageError: as `decode`, as far as that can be told without the pixels.
    """
    with _reported(name), _opened(name, content) as (image, turned):
        return (image.width, image.height) if turned in _TRANSPOSED else (image.height, image.width)


def most_pixels() -> int:
    """Pixels that an image may declare: `MOST_PIXELS`, or what the environment variable `RAISED` says.

    Raises:
        InputError: the variable is no positive number.
    """
    value = os.environ.get(RAISED)
    if value is None:
        return MOST_PIXELS
    if not value.isascii() or not value.isdigit() or len(value) > 18 or int(value) < 1:
        raise InputError(f"{RAISED} must be a positive whole number, got {value!r}")
    return int(value)


def _read(name: str, convert: Callable[[Image.Image], Tensor], content: bytes | None = None) -> Tensor:
    """Decode an image file by ``convert`` and turn it upright: (..., H, W)."""
    with _reported(name), _opened(name, content) as (image, turned):
        pixels = convert(image)
        pixels = pixels.mT if turned in _TRANSPOSED else pixels
        return pixels.flip(_MIRRORED.get(turned, ())).contiguous()


@contextmanager
def _reported(name: str) -> Iterator[None]:
    """Raise whatever goes wrong as one line that names the image."""
    try:
        yield
        return
    except UnidentifiedImageError:
        reason = "not an image of a known format"
    except MemoryError:
        reason = "it does not fit into memory"
    except Exception as error:  # on broken bytes the decoders raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
    raise UnreadableImageError(f"{_UNREADABLE} {name}: {reason}")


@contextmanager
def _opened(name: str, content: bytes | None) -> Iterator[tuple[Image.Image, int]]:
    """An image whose pixels are not decoded yet, and its orientation in EXIF (1: upright)."""
    if content is None and not stat.S_ISREG(os.stat(name).st_mode):
        raise InputError("it is a folder" if os.path.isdir(name) else "it is no regular file")
    with open(name, "rb") if content is None else io.BytesIO(content) as file:
        with _PILLOWS_LIMIT:  # whose refusal cannot say how to raise it
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(file, formats=_formats())
            finally:
                Image.MAX_IMAGE_PIXELS = limit
        with image:
            if image.width * image.height > most_pixels():
                raise InputError(
                    f"it has {image.width} x {image.height} pixels, more than {most_pixels():,}; "
                    f"the environment variable {RAISED} raises that limit"
                )
            if max(image.size) > MOST_RATIO * min(image.size):
                raise InputError(
                    f"it has {image.width} x {image.height} pixels, one side over {MOST_RATIO:,} times the other"
                )
            yield image, _orientation(image, file)


@cache
def _formats() -> tuple[str, ...]:
    """The names in `FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def suffixes() -> tuple[str, ...]:
    """The suffixes of files that are read, in lower case with their dots, the commonest first."""
    readable = {name for name in _formats() if name not in _CODECS or features.check(_CODECS[name])}
    registered = [suffix for suffix, name in Image.registered_extensions().items() if name in readable]
    floats = ".pfm"  # of which no range is known
    return tuple(dict.fromkeys([*IMG_EXTENSIONS, *(suffix for suffix in registered if suffix != floats)]))


def _orientation(image: Image.Image, file: BinaryIO) -> int:
    """Tag 274 of EXIF, from the header of the file; Pillow itself turns TIFFs."""
    if image.format == "TIFF":
        return 1
    try:
        # PNG's own method decodes the pixels, since EXIF may come after them
        turned = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
        if turned is None and image.format == "PNG":
            turned = _late_exif(file).get(ExifTags.Base.Orientation)
    except Exception:  # broken EXIF, of which the parser raises nearly anything, says nothing
        return 1
    return turned if isinstance(turned, int) else 1


def _late_exif(file: BinaryIO) -> Image.Exif:
    """EXIF of a PNG wherever its chunk is; empty where there is none."""
    exif, place = Image.Exif(), file.tell()
    file.seek(8)
    while len(header := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        if kind == b"eXIf":
            exif.load(b"Exif\0\0" + file.read(length))
            break
        file.seek(length + 4, io.SEEK_CUR)
    file.seek(place)
    return exif


def _stored(image: Image.Image) -> Stored:
    """How the samples of an image lie in its file, which Pillow has not decoded yet."""
    tiles: Any = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else image.mode
    arguments = arguments if isinstance(arguments, tuple) else (arguments,)
    kind = str(arguments[0] if arguments else image.mode).partition(";")[2]
    digits = "".join(filter(str.isdigit, kind))
    bits = int(digits) if digits else {"1": 1, "I": 32, "F": 32}.get(image.mode, 8)
    bits = 16 if image.mode.startswith("I;16") and not digits else bits
    inverted = image.mode in ("1", "L") and "I" in kind
    tags: Any = getattr(image, "tag_v2") if image.format == "TIFF" else {}  # noqa: B009  # of Pillow's TIFFs alone
    if image.format == "TIFF" and image.mode.startswith("I"):
        inverted = tags.get(_PHOTOMETRIC) == 0
    if image.format == "PPM" and image.mode in ("L", "I", "RGB"):
        most = arguments[1] if len(arguments) == 2 else 65535 if bits == 16 else 255
        return Stored(8 if most < 256 else 16, most=most)
    signed = "S" in kind or 2 in tags.get(_SAMPLE_FORMAT, ())
    return Stored(bits, inverted, signed=signed)


def _to_rgb(image: Image.Image) -> Tensor:
    stored = _stored(image)
    if not image.mode.startswith(("I", "F")) and not stored.signed:
        image.info.pop("transparency", None)  # of a palette, Pillow would warn that it is left out
        return functional.pil_to_tensor(image.convert("RGB"))
    if image.mode == "F" or stored.bits > 16 or stored.signed:
        kind = "floats" if image.mode == "F" else f"{'signed ' * stored.signed}integers of {stored.bits} bits"
        raise InputError(f"its samples are {kind}, of which no range is known; save it with 8 or 16 unsigned bits")
    samples = np.asarray(image).astype(np.int32)
    bits = 16 if stored.most else stored.bits  # Pillow has scaled those of a PGM to 16 bits
    samples = (2**bits - 1 - samples if stored.inverted else samples) >> (bits - 8)
    return torch.from_numpy(samples.astype(np.uint8)).expand(3, -1, -1).contiguous()


def _to_labels(image: Image.Image) -> Tensor:
    if image.mode not in ("1", "L", "P", "I") and not image.mode.startswith("I;16"):
        raise InputError(f"a mask of indices has one channel of numbers (L or P), not {image.mode}")
    stored = _stored(image)
    if stored.bits > 16 or stored.signed:
        raise InputError(f"a mask of indices has whole numbers of 1 to 16 bits, not {_signed(stored)}")
    samples = np.asarray(image).astype(np.int32)
    if image.mode in ("1", "L", "I"):
        samples = _unscaled(samples, image.mode, stored)
    return torch.from_numpy(samples.astype(np.int32 if stored.bits > 8 else np.uint8))


def _unscaled(samples: np.ndarray, mode: str, stored: Stored) -> np.ndarray:
    """Samples as they are in the file: Pillow stretches those of few bits to 8, and those of a PGM to its range."""
    if mode == "1":
        return samples != stored.inverted
    if stored.most is not None:
        full = 65535 if mode == "I" else 255
        return (samples * stored.most + full // 2) // full if stored.most != full else samples
    samples = 255 - samples if stored.inverted else samples
    return samples // (255 // (2**stored.bits - 1)) if stored.bits < 8 else samples


def _signed(stored: Stored) -> str:
    return f"{stored.bits} {'signed ' * stored.signed}bits"


def _to_greys(image: Image.Image) -> Tensor:
    if image.mode == "1":
        return 255 * functional.pil_to_tensor(image)[0].bool().to(torch.uint8)
    if image.mode == "P" and image.palette is not None:
        image.info.pop("transparency", None)
        colours = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        if (colours == colours[:, :1]).all():
            return functional.pil_to_tensor(image.convert("RGB"))[0]
    stored = _stored(image)
    if image.mode in ("L", "P", "I") or image.mode.startswith("I;16"):
        labels = _to_labels(image)
        return (2**stored.bits - 1 - labels.int()).to(labels.dtype) if stored.inverted else labels
    if image.mode not in ("LA", "RGB", "RGBA", "RGBX") or stored.bits > 8:
        raise InputError(f"a mask of grey levels has one channel of numbers, or equal ones of 8 bits, not {image.mode}")
    channels = functional.pil_to_tensor(image.convert("RGB"))
    if (channels != channels[:1]).any():
        raise InputError("a mask of grey levels has no colours")
    return channels[0]
