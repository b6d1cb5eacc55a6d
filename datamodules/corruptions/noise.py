"""Noise: every value of the image on its own."""

import numpy as np
from numpy.random import Generator

from datamodules.corruptions.pixels import Picture, Pixels, to_pixels


def gaussian_noise(picture: Picture, rng: Generator, sigma: float) -> Pixels:
    """Adds normal noise of standard deviation ``sigma``."""
    return to_pixels(picture.unit + rng.normal(scale=sigma, size=picture.unit.shape))


def shot_noise(picture: Picture, rng: Generator, photons: float) -> Pixels:
    """Counts photons, on average ``photons`` where the image is white."""
    return to_pixels(rng.poisson(picture.unit * photons) / photons)


def impulse_noise(picture: Picture, rng: Generator, amount: float) -> Pixels:
    """Sets the share ``amount`` of all values to black or white (salt and pepper)."""
    flipped = rng.random(picture.unit.shape) <= amount
    white = rng.random(picture.unit.shape) <= 0.5
    noisy = picture.shared(_levels).copy()
    np.copyto(noisy, np.where(white, np.uint8(255), np.uint8(0)), where=flipped)
    return noisy


def _levels(picture: Picture) -> Pixels:
    """The image to 0..1 and back, where some levels lose one."""
    return to_pixels(picture.unit)


def speckle_noise(picture: Picture, rng: Generator, sigma: float) -> Pixels:
    """Adds normal noise whose standard deviation is ``sigma`` times the value."""
    x = picture.unit
    return to_pixels(x + x * rng.normal(scale=sigma, size=x.shape))
