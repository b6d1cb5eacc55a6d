"""Blur: pixels mixed with, or replaced by, those around them."""

from functools import lru_cache

import cv2
import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from datamodules.corruptions.pixels import (
    Picture,
    Pixels,
    bands,
    levels,
    merged,
    motion_blur_pixels,
    to_pixels,
    zoom_into_centre,
)


def gaussian_blur(picture: Picture, rng: Generator, sigma: float) -> Pixels:
    """Blurs by a Gaussian of ``sigma`` pixels, its edge replicated."""
    quick = _quickly_blurred(picture.pixels, sigma)
    if quick is not None:
        return quick
    return merged(*(levels(gaussian_filter(plane, sigma, mode="nearest")) for plane in picture.planes))


def _quickly_blurred(pixels: Pixels, sigma: float) -> Pixels | None:
    """The blurred image by a filter in single precision, or None where that saves nothing.

    Levels are cut off, not rounded, so that the last bit of a value next to a whole level counts. Values that single
    precision leaves in doubt are computed anew as scipy does, sum by sum; in flat or strongly blurred images these are
    too many.
    """
    weights = _gaussian_weights(sigma)
    radius = len(weights) // 2
    if radius > 6:
        return None
    single = weights.astype(np.float32)
    rough: np.ndarray = cv2.sepFilter2D(pixels, cv2.CV_32F, single, single, borderType=cv2.BORDER_REPLICATE)
    # Twice the bound of what two sums of positive terms can be wrong by
    doubt = np.float32(255 * 2 * (len(weights) + 2) * np.finfo(np.float32).eps)
    most = (rough + doubt).astype(np.uint8)
    rough -= doubt
    blurred = rough.astype(np.uint8)
    row, column, channel = np.unravel_index(np.flatnonzero(blurred != most), pixels.shape)
    if 8 * len(weights) * len(row) > pixels.size:
        return None
    steps = np.arange(-radius, radius + 1)[:, None]
    rows, columns = (np.clip(at + steps, 0, side - 1) for at, side in zip((row, column), pixels.shape[:2], strict=True))
    around = pixels[rows[:, None], columns, channel] / 255.0
    blurred[row, column, channel] = levels(_weighted_sum(_weighted_sum(around, weights), weights))
    return blurred


@lru_cache(maxsize=64)
def _gaussian_weights(sigma: float) -> np.ndarray:
    """The weights of scipy's Gaussian filter, which sees four ``sigma`` on each side, float64 (2 * radius + 1,)."""
    radius = int(4 * sigma + 0.5)
    return gaussian_filter1d(np.eye(1, 2 * radius + 1, radius)[0], sigma, mode="constant")


def _weighted_sum(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The sum over the first axis as scipy adds up symmetric weights: the middle, then pairs from outside inwards."""
    radius = len(weights) // 2
    total = x[radius] * weights[radius]
    for place in range(radius):
        total += (x[place] + x[-1 - place]) * weights[place]
    return total


def defocus_blur(picture: Picture, rng: Generator, radius: float, alias: float) -> Pixels:
    """Blurs by a disk of ``radius`` pixels, itself blurred by a small Gaussian of ``alias`` pixels."""
    reach, kernel = (8, (3, 3)) if radius <= 8 else (radius, (5, 5))
    steps = np.arange(-reach, reach + 1)
    disk = (steps[:, None] ** 2 + steps**2 <= radius**2).astype(np.float32)
    return to_pixels(cv2.filter2D(picture.unit, -1, cv2.GaussianBlur(disk / disk.sum(), kernel, sigmaX=alias)))


def glass_blur(picture: Picture, rng: Generator, sigma: float, reach: int, passes: int) -> Pixels:
    """Blurs, shuffles pixels with neighbours up to ``reach`` away, ``passes`` times over, and blurs again."""
    blurred = gaussian_blur(picture, rng, sigma)
    return gaussian_blur(Picture(shuffle(blurred, rng, reach, passes)), rng, sigma)


def shuffle(image: Pixels, rng: Generator, reach: int, passes: int) -> Pixels:
    """Pixel after pixel, from the last row and column to the first, is overwritten by a random neighbour.

    The authors meant to swap the two, but assign views of the same array, so that the neighbour stays. Which pixel of
    the image a pixel shows in the end is found for all at once: it is the neighbour's, as it was before the pass, or,
    where the neighbour came earlier in the pass, what that one shows after it, which is followed to its end by
    doubling the way at every step.
    """
    height, width = image.shape[:2]
    inner = tuple(slice(side - reach, reach, -1) for side in (height, width))
    places = np.arange(height * width)
    here = places.reshape(height, width)[inner]
    overwritten = np.zeros((height, width), bool)
    overwritten[inner] = True
    shown, source = places, np.empty_like(places)
    inside = source.reshape(height, width)[inner]
    for _ in range(passes):
        source[:] = places  # of each pixel: one before the pass, or, as a negative number, one after it
        chained = [np.empty(0, int)]
        for rows in bands(*here.shape):
            right, down = np.moveaxis(rng.integers(-reach, reach, size=(*here[rows].shape, 2)), -1, 0)
            step = down * width
            step += right
            there = here[rows] + step
            later = overwritten.take(there)
            later &= step > 0
            np.invert(there, out=there, where=later)
            inside[rows] = there
            chained.append(here[rows].reshape(-1).compress(later.reshape(-1)))
        followed = np.concatenate(chained)
        while len(followed):
            further = source.take(~source.take(followed))
            source[followed] = further
            followed = followed.compress(further < 0)
        shown = shown.take(source)
    return image.reshape(height * width, -1).take(shown, 0).reshape(image.shape)


def motion_blur(picture: Picture, rng: Generator, radius: int, sigma: float) -> Pixels:
    """Blurs to one side, in a direction within 45 degrees of the horizontal."""
    return motion_blur_pixels(picture.pixels, radius, sigma, rng.uniform(-45, 45))


def zoom_blur(picture: Picture, rng: Generator, end: float, step: float) -> Pixels:
    """The mean of the image and of its enlargements by 1, 1 + ``step``, ... below ``end``."""
    factors = np.arange(1, end, step)
    zoomed = picture.shared(_Enlargements, step).sum(factors)
    return to_pixels((picture.single + zoomed) / (len(factors) + 1))


class _Enlargements:
    """Enlargements of a picture by 1, 1 + ``step``, ..., added up; what is added for one end is there for a later one.

    The channels are four, the last one empty: numpy moves sixteen bytes faster than twelve.
    """

    def __init__(self, picture: Picture, step: float) -> None:
        self.image = np.pad(picture.single, ((0, 0), (0, 0), (0, 1)))
        self.count, self.total = 0, np.zeros_like(self.image)

    def sum(self, factors: np.ndarray) -> np.ndarray:
        """The sum over these factors, float32 (H, W, 3)."""
        if len(factors) < self.count:
            self.count, self.total = 0, np.zeros_like(self.image)
        for factor in factors[self.count :]:
            self.total += self.image if factor == 1 else zoom_into_centre(self.image, factor)
        self.count = len(factors)
        return self.total[..., :3]
