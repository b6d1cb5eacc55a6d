"""What cameras, editors and files do to images."""

import io
from functools import lru_cache

import cv2
import numpy as np
from numpy.random import Generator
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.color import hsv2rgb, rgb2hsv

from datamodules.corruptions.pixels import Pixels, to_pixels


def brightness(image: Pixels, rng: Generator, added: float) -> Pixels:
    """Adds to the value of HSV."""
    hsv = rgb2hsv(image / 255.0)
    hsv[..., 2] = np.clip(hsv[..., 2] + added, 0, 1)
    return to_pixels(hsv2rgb(hsv))


def saturate(image: Pixels, rng: Generator, factor: float, added: float) -> Pixels:
    """Scales the saturation of HSV, and adds to it."""
    hsv = rgb2hsv(image / 255.0)
    hsv[..., 1] = np.clip(hsv[..., 1] * factor + added, 0, 1)
    return to_pixels(hsv2rgb(hsv))


def contrast(image: Pixels, rng: Generator, factor: float) -> Pixels:
    """Scales the differences from the image's mean colour."""
    x = image / 255.0
    mean = x.mean((0, 1), keepdims=True)
    return to_pixels((x - mean) * factor + mean)


def pixelate(image: Pixels, rng: Generator, factor: float) -> Pixels:
    """Makes the image smaller by ``factor``, and large again."""
    height, width = image.shape[:2]
    small = Image.fromarray(image).resize((max(1, int(width * factor)), max(1, int(height * factor))), Image.BOX)
    return np.array(small.resize((width, height), Image.BOX))


def jpeg_compression(image: Pixels, rng: Generator, quality: int) -> Pixels:
    """Writes a JPEG file of ``quality`` 1 to 95, and reads it."""
    return through_jpeg(image, quality)


def through_jpeg(image: Pixels, quality: int) -> Pixels:
    """What is left of an image in a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


def elastic_transform(image: Pixels, rng: Generator, strength: float, smoothness: float, jitter: float) -> Pixels:
    """Moves three points of the image by up to ``jitter`` pixels, and then every pixel by a smooth field.

    The field is uniform noise in ±``strength`` pixels, blurred by a Gaussian of ``smoothness`` pixels. On images that
    are not square this is another image than the authors': their script takes height for width where it finds the
    centre, the affine map and the pixels' positions, which leaves a part of such an image out.
    """
    x = image.astype(np.float32) / 255
    height, width = image.shape[:2]
    centre, reach = np.float32([width, height]) // 2, max(1, min(height, width) // 3)
    anchors = np.float32([centre + reach, [centre[0] + reach, centre[1] - reach], centre - reach])
    moved = anchors + rng.uniform(-jitter, jitter, size=anchors.shape).astype(np.float32)
    affine = cv2.getAffineTransform(anchors, moved)
    x = cv2.warpAffine(x, affine, (width, height), borderMode=cv2.BORDER_REFLECT_101)
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
    """The image ``x`` (H, W, C), reflected at its edges, at real positions (H, W) by linear interpolation."""
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    below, beside = (rows - top)[..., None], (columns - left)[..., None]
    height, width, channels = x.shape
    flat = x.reshape(-1, channels)
    tops, bottoms = (_reflected(top + step, height) * width for step in (0, 1))
    lefts, rights = (_reflected(left + step, width) for step in (0, 1))
    upper = flat[tops + lefts] * (1 - beside) + flat[tops + rights] * beside
    lower = flat[bottoms + lefts] * (1 - beside) + flat[bottoms + rights] * beside
    return (upper * (1 - below) + lower * below).astype(x.dtype)


def _reflected(index: np.ndarray, side: int) -> np.ndarray:
    """Where an index outside falls in an image that goes on as its mirror image, the edge twice."""
    index = index % (2 * side)
    return np.minimum(index, 2 * side - 1 - index)
