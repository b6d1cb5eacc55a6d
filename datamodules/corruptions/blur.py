"""Blur: pixels mixed with, or replaced by, those around them."""

import cv2
import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

from datamodules.corruptions.pixels import Pixels, motion_blur_pixels, to_pixels, zoom_into_centre


def gaussian_blur(image: Pixels, rng: Generator, sigma: float) -> Pixels:
    """Blurs by a Gaussian of ``sigma`` pixels, its edge replicated."""
    return to_pixels(gaussian_filter(image / 255.0, (sigma, sigma, 0), mode="nearest"))


def defocus_blur(image: Pixels, rng: Generator, radius: float, alias: float) -> Pixels:
    """Blurs by a disk of ``radius`` pixels, itself blurred by a small Gaussian of ``alias`` pixels."""
    reach, kernel = (8, (3, 3)) if radius <= 8 else (radius, (5, 5))
    steps = np.arange(-reach, reach + 1)
    disk = (steps[:, None] ** 2 + steps**2 <= radius**2).astype(np.float32)
    return to_pixels(cv2.filter2D(image / 255.0, -1, cv2.GaussianBlur(disk / disk.sum(), kernel, sigmaX=alias)))


def glass_blur(image: Pixels, rng: Generator, sigma: float, reach: int, passes: int) -> Pixels:
    """Blurs, shuffles pixels with neighbours up to ``reach`` away, ``passes`` times over, and blurs again."""
    shuffled = shuffle(gaussian_blur(image, rng, sigma), rng, reach, passes)
    return gaussian_blur(shuffled, rng, sigma)


def shuffle(image: Pixels, rng: Generator, reach: int, passes: int) -> Pixels:
    """Pixel after pixel, from the last row and column to the first, is overwritten by a random neighbour.

    The authors meant to swap the two, but assign views of the same array, so that the neighbour stays. Which pixel of
    the image a pixel shows in the end is found for all at once: it is the neighbour's, as it was before the pass, or,
    where the neighbour came earlier in the pass, what that one shows after it, which is followed to its end by
    doubling the way at every step.
    """
    height, width = image.shape[:2]
    rows, columns = (np.arange(side - reach, reach, -1) for side in (height, width))
    here = rows[:, None] * width + columns
    count = height * width
    overwritten = np.zeros(count, bool)
    overwritten[here] = True
    shown = np.arange(count)
    for _ in range(passes):
        right, down = np.moveaxis(rng.integers(-reach, reach, size=(*here.shape, 2)), -1, 0)
        there = here + down * width + right
        source = np.concatenate([np.arange(count)] * 2)  # of a pixel before the pass, then after it
        source[count + here] = np.where((there > here) & overwritten[there], count + there, there)
        while (source >= count).any():
            source = source[source]
        shown = shown[source[count:]]
    return image.reshape(count, -1)[shown].reshape(image.shape)


def motion_blur(image: Pixels, rng: Generator, radius: int, sigma: float) -> Pixels:
    """Blurs to one side, in a direction within 45 degrees of the horizontal."""
    return motion_blur_pixels(image, radius, sigma, rng.uniform(-45, 45))


def zoom_blur(image: Pixels, rng: Generator, end: float, step: float) -> Pixels:
    """The mean of the image and of its enlargements by 1, 1 + ``step``, ... below ``end``."""
    x = (image / 255.0).astype(np.float32)
    factors = np.arange(1, end, step)
    zoomed = np.zeros_like(x)
    for factor in factors:
        zoomed += zoom_into_centre(x, factor)
    return to_pixels((x + zoomed) / (len(factors) + 1))
