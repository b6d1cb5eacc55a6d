"""What cameras, editors and files do to images."""

import io
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from PIL import Image
from scipy.ndimage import gaussian_filter

from datamodules.corruptions.pixels import Picture, Pixels, bands, merged, to_pixels


def brightness(picture: Picture, rng: Generator, added: float) -> Pixels:
    """Adds to the value of HSV."""
    hues = picture.shared(_hues)
    return hues.image(hues.saturation, np.clip(hues.value + added, 0, 1))


def saturate(picture: Picture, rng: Generator, factor: float, added: float) -> Pixels:
    """Scales the saturation of HSV, and adds to it."""
    hues = picture.shared(_hues)
    return hues.image(np.clip(hues.saturation * factor + added, 0, 1), hues.value)


class _Hues(NamedTuple):
    """An image as HSV, each plane (H, W): scikit-image's formulas, in fewer passes.

    Attributes:
        rest: how far the hue is from the neighbouring one at which a single channel is the lowest, 0 to 1.
        highest: where each channel is the value itself, bool (H, 3, W).
        lowest: where each channel is the lowest.
        saturation: in 0..1.
        value: in 0..1.
    """

    rest: np.ndarray
    highest: np.ndarray
    lowest: np.ndarray
    saturation: np.ndarray
    value: np.ndarray

    def image(self, saturation: np.ndarray, value: np.ndarray) -> Pixels:
        """The image of these hues with another saturation or value."""
        high, low = to_pixels(value), to_pixels(value * (1 - saturation))
        middle = to_pixels(value * (1 - self.rest * saturation))
        places = ((self.highest[:, channel], self.lowest[:, channel]) for channel in range(3))
        return merged(*(np.where(highest, high, np.where(lowest, low, middle)) for highest, lowest in places))


_HIGHEST = np.array([[1, 0, 0, 0, 0, 1], [0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0]], bool)
"""In which sixth of the circle of hues red, green and blue are the highest; they are the lowest three sixths on."""


def _hues(picture: Picture) -> _Hues:
    parts = [_hues_of(*(plane[rows] for plane in picture.planes)) for rows in bands(*picture.pixels.shape[:2])]
    return _Hues(*map(np.concatenate, zip(*parts, strict=True)))


def _hues_of(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> _Hues:
    value = np.maximum(np.maximum(red, green), blue)
    range_ = value - np.minimum(np.minimum(red, green), blue)
    gray = range_ == 0
    divisor = np.where(gray, 1, range_)
    hue = np.where(green == value, 2 + (blue - red) / divisor, (green - blue) / divisor)
    hue = np.where(blue == value, 4 + (red - green) / divisor, hue) / 6
    hue[hue < 0] += 1
    hue[gray] = 0
    sixths = hue * 6
    whole = np.floor(sixths)
    sixth = whole.astype(np.intp) % 6
    after = sixths - whole
    rest = np.where(sixth % 2 == 1, after, 1 - after)
    highest, lowest = (np.stack([row.take(sixth) for row in table], 1) for table in (_HIGHEST, np.roll(_HIGHEST, 3, 1)))
    return _Hues(rest, highest, lowest, range_ / np.where(value == 0, 1, value), value)


def contrast(picture: Picture, rng: Generator, factor: float) -> Pixels:
    """Scales the differences from the image's mean colour."""
    mean = picture.shared(_mean_colour)
    levels = np.arange(256)[:, None] / 255.0
    return np.asarray(cv2.LUT(picture.pixels, to_pixels((levels - mean) * factor + mean)[None]))


def _mean_colour(picture: Picture) -> np.ndarray:
    return picture.unit.mean((0, 1))


def pixelate(picture: Picture, rng: Generator, factor: float) -> Pixels:
    """Makes the image smaller by ``factor``, and large again."""
    height, width = picture.pixels.shape[:2]
    small = Image.fromarray(picture.pixels).resize(
        (max(1, int(width * factor)), max(1, int(height * factor))), Image.Resampling.BOX
    )
    return np.array(small.resize((width, height), Image.Resampling.BOX))


def jpeg_compression(picture: Picture, rng: Generator, quality: int) -> Pixels:
    """Writes a JPEG file of ``quality`` 1 to 95, and reads it."""
    return through_jpeg(picture.pixels, quality)


def through_jpeg(image: Pixels, quality: int) -> Pixels:
    """Write an image to a JPEG file in memory and return what is read from it, uint8 (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


def elastic_transform(picture: Picture, rng: Generator, strength: float, smoothness: float, jitter: float) -> Pixels:
    """Moves three points of the image by up to ``jitter`` pixels, and then every pixel by a smooth field.

    The field is uniform noise in ±``strength`` pixels, blurred by a Gaussian of ``smoothness`` pixels. On images that
    are not square this is another image than the authors': their script takes height for width where it finds the
    centre, the affine map and the pixels' positions, which leaves a part of such an image out.
    """
    x = picture.single
    height, width = x.shape[:2]
    centre, reach = np.array([width, height], np.float32) // 2, max(1, min(height, width) // 3)
    anchors = np.array([centre + reach, [centre[0] + reach, centre[1] - reach], centre - reach], np.float32)
    moved = anchors + rng.uniform(-jitter, jitter, size=anchors.shape).astype(np.float32)
    affine = cv2.getAffineTransform(anchors, moved)
    x = np.asarray(cv2.warpAffine(x, affine, (width, height), borderMode=cv2.BORDER_REFLECT_101))
    vertical, horizontal = _blurring(height, smoothness), _blurring(width, smoothness)
    right, down = (
        np.float32(vertical @ rng.uniform(-1, 1, (height, width)) @ horizontal.T * strength) for _ in range(2)
    )
    return to_pixels(_sample(x, np.arange(height)[:, None] + down, np.arange(width) + right))


@lru_cache(maxsize=64)
def _blurring(side: int, sigma: float) -> np.ndarray:
    """The matrix (side, side) of a Gaussian filter that reflects at the ends: far cheaper than a long filter."""
    return gaussian_filter(np.eye(side), (sigma, 0), mode="reflect", truncate=3)


def _sample(x: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The image ``x`` (H, W, 3), reflected at its edges, at real positions (H, W) by linear interpolation."""
    planes = [np.asarray(plane) for plane in cv2.split(x)]
    sampled = np.empty_like(x)
    for band in bands(*x.shape[:2]):
        sampled[band] = merged(*_sample_planes(planes, rows[band], columns[band]))
    return sampled


def _sample_planes(planes: Sequence[np.ndarray], rows: np.ndarray, columns: np.ndarray) -> Iterator[np.ndarray]:
    top, left = np.floor(rows), np.floor(columns)
    below, beside = rows - top, columns - left
    above, before = 1 - below, 1 - beside
    height, width = planes[0].shape
    tops, bottoms = (index * width for index in _reflected(top.astype(int), height))
    lefts, rights = _reflected(left.astype(int), width)
    corners = tops + lefts, tops + rights, bottoms + lefts, bottoms + rights
    for plane in planes:
        upper_left, upper_right, lower_left, lower_right = (plane.take(corner) for corner in corners)
        upper = upper_left * before + upper_right * beside
        lower = lower_left * before + lower_right * beside
        yield (upper * above + lower * below).astype(plane.dtype)


def _reflected(index: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Where indices and those after them fall in an image that goes on as its mirror image, the edge twice."""
    first = index.min()
    inside = np.arange(first, index.max() + 2) % (2 * side)
    inside = np.minimum(inside, 2 * side - 1 - inside)
    index = index - first
    return inside.take(index), inside[1:].take(index)
