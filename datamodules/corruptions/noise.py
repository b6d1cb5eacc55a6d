"""Noise: every value of the image on its own."""

import numpy as np
from numpy.random import Generator

from datamodules.corruptions.pixels import Picture, Pixels, bands, levels, to_pixels


def gaussian_noise(picture: Picture, rng: Generator, sigma: float) -> Pixels:
    """Adds normal noise of standard deviation ``sigma``."""
    noisy = rng.normal(scale=sigma, size=picture.unit.shape)
    noisy += picture.unit
    return levels(noisy)


def shot_noise(picture: Picture, rng: Generator, photons: float) -> Pixels:
    """Counts photons, on average ``photons`` where the image is white."""
    return levels(rng.poisson(picture.unit * photons) / photons)


def impulse_noise(picture: Picture, rng: Generator, amount: float) -> Pixels:
    """Sets the share ``amount`` of all values to black or white (salt and pepper)."""
    noisy = picture.shared(_levels).copy()
    values = noisy.reshape(-1)
    flipped = [rng.random(values[part].shape) <= amount for part in bands(len(values), 1)]
    for part, here in zip(bands(len(values), 1), flipped, strict=True):
        white = (rng.random(here.shape) <= 0.5).view(np.uint8)
        white *= 255
        np.copyto(values[part], white, where=here)
    return noisy


def _levels(picture: Picture) -> Pixels:
    """The image to 0..1 and back, where some levels lose one."""
    return to_pixels(picture.unit)


def speckle_noise(picture: Picture, rng: Generator, sigma: float) -> Pixels:
    """Adds normal noise whose standard deviation is ``sigma`` times the value."""
    noisy = rng.normal(scale=sigma, size=picture.unit.shape)
    noisy *= picture.unit
    noisy += picture.unit
    return levels(noisy)
