"""Noise: every value of the image on its own."""

from numpy.random import Generator
from skimage.util import random_noise

from datamodules.corruptions.pixels import Pixels, to_pixels


def gaussian_noise(image: Pixels, rng: Generator, sigma: float) -> Pixels:
    """Adds normal noise of standard deviation ``sigma``."""
    return to_pixels(image / 255.0 + rng.normal(scale=sigma, size=image.shape))


def shot_noise(image: Pixels, rng: Generator, photons: float) -> Pixels:
    """Counts photons, on average ``photons`` where the image is white."""
    return to_pixels(rng.poisson(image / 255.0 * photons) / photons)


def impulse_noise(image: Pixels, rng: Generator, amount: float) -> Pixels:
    """Sets the share ``amount`` of all values to black or white (salt and pepper)."""
    return to_pixels(random_noise(image / 255.0, mode="s&p", rng=rng, amount=amount))


def speckle_noise(image: Pixels, rng: Generator, sigma: float) -> Pixels:
    """Adds normal noise whose standard deviation is ``sigma`` times the value."""
    x = image / 255.0
    return to_pixels(x + x * rng.normal(scale=sigma, size=x.shape))
