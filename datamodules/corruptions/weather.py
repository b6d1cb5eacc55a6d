"""Weather, and drops on the lens."""

import cv2
import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

from datamodules.corruptions.pixels import (
    Picture,
    Pixels,
    levels,
    merged,
    motion_blur_pixels,
    to_pixels,
    zoom_into_centre,
)
from datamodules.corruptions.textures import TEXTURES, texture

WATER = np.array([175, 238, 238], np.float32) / 255
"""Pale turquoise."""
MUD = np.array([63, 42, 20], np.float32) / 255
"""Brown."""

_EMBOSS = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])


def fog(picture: Picture, rng: Generator, amount: float, decay: float) -> Pixels:
    """Adds clouds, `plasma` times ``amount``, and scales down to the image's own maximum."""
    height, width = picture.pixels.shape[:2]
    clouds = plasma(max(2, 1 << (max(height, width) - 1).bit_length()), rng, decay)[:height, :width]
    clouds *= amount
    brightest = picture.pixels.max() / 255.0
    light, foggy = np.empty_like(clouds), []
    for plane in picture.planes:
        np.add(plane, clouds, out=light)
        light *= brightest
        light /= brightest + amount
        foggy.append(levels(light))
    return merged(*foggy)


def plasma(side: int, rng: Generator, decay: float) -> np.ndarray:
    """A fractal height map by the diamond-square algorithm, periodic.

    Args:
        side: a power of two, at least 2.
        rng: draws the noise.
        decay: what the noise is divided by, each time the grid gets finer; small is rough.

    Returns:
        float64 (side, side), from 0 to 1.
    """
    heights, spread = np.zeros((1, 1)), 100.0
    while len(heights) < side:
        right, down = (_plus_neighbour(heights, axis) for axis in (1, 0))
        centres = _noisy(_plus_neighbour(down, 1), spread, rng)
        finer = np.empty((len(heights), 2, len(heights), 2))
        finer[:, 0, :, 0], finer[:, 1, :, 1] = heights, centres
        for half, axis, between in ((finer[:, 0, :, 1], 0, right), (finer[:, 1, :, 0], 1, down)):
            around = _plus_neighbour(centres, axis, before=True)
            around += between
            half[...] = _noisy(around, spread, rng)
        heights = finer.reshape(2 * len(heights), -1)
        spread /= decay
    heights -= heights.min()
    heights /= heights.max()
    return heights


def _plus_neighbour(x: np.ndarray, axis: int, before: bool = False) -> np.ndarray:
    """A grid plus its neighbour after it along an axis, or before it, the last one beside the first."""
    total = np.empty_like(x)
    along, sums = (grid.swapaxes(0, axis) for grid in (x, total))
    np.add(along[:-1], along[1:], out=sums[1:] if before else sums[:-1])
    np.add(along[-1], along[0], out=sums[0 if before else -1])
    return total


def _noisy(total: np.ndarray, spread: float, rng: Generator) -> np.ndarray:
    """The mean of four heights of which ``total`` is the sum, and noise."""
    # The authors scale the noise by its own half-width: it falls with the square of the decay.
    noise = rng.uniform(-spread, spread, total.shape)
    noise *= spread
    total /= 4
    noise += total
    return noise


def frost(picture: Picture, rng: Generator, image_weight: float, frost_weight: float, scale: float) -> Pixels:
    """Adds a random part of one of the authors' pictures of frost, resized by ``scale``."""
    height, width = picture.pixels.shape[:2]
    ice = texture(TEXTURES[rng.integers(len(TEXTURES))], scale)
    if ice.shape[0] < height or ice.shape[1] < width:  # larger than any image of the authors
        cover = max(height / ice.shape[0], width / ice.shape[1])
        ice = cv2.resize(ice, (max(width, round(ice.shape[1] * cover)), max(height, round(ice.shape[0] * cover))))
    # As the authors draw it, the last row and column are never seen.
    top, left = (rng.integers(max(1, larger - side)) for larger, side in zip(ice.shape, (height, width), strict=False))
    part = ice[top : top + height, left : left + width]
    return np.clip(image_weight * picture.pixels + frost_weight * part, 0, 255).astype(np.uint8)


def snow(
    picture: Picture,
    rng: Generator,
    mean: float,
    std: float,
    zoom: float,
    threshold: float,
    radius: int,
    sigma: float,
    mix: float,
) -> Pixels:
    """Adds flakes, and the same turned around, to an image that is whitened by 1 - ``mix``.

    The flakes are normal noise of ``mean`` and ``std``, enlarged by ``zoom``, where it is above ``threshold``, blurred
    downwards by ``radius`` and ``sigma``.
    """
    flakes = zoom_into_centre(rng.normal(mean, std, picture.pixels.shape[:2]), zoom)
    flakes[flakes < threshold] = 0
    flakes = motion_blur_pixels(levels(flakes), radius, sigma, rng.uniform(-135, -45)) / 255.0
    turned = flakes[::-1, ::-1]
    planes, white = picture.shared(_whitened)
    light, whitened, rest, snowy = np.empty_like(flakes), np.empty_like(white[0]), np.empty_like(white[0]), []
    for plane, whiter in zip(planes, white, strict=True):
        np.multiply(plane, np.float32(mix), out=whitened)
        whitened += np.multiply(whiter, np.float32(1 - mix), out=rest)
        np.add(whitened, flakes, out=light)
        light += turned
        snowy.append(levels(light))
    return merged(*snowy)


def _whitened(picture: Picture) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The planes of an image, and the same as they are in snow, float32 (H, W)."""
    planes = [np.asarray(plane) for plane in cv2.split(picture.single)]
    light = cv2.cvtColor(picture.single, cv2.COLOR_RGB2GRAY) * 1.5 + 0.5
    return planes, [np.maximum(plane, light) for plane in planes]


def spatter(
    picture: Picture, rng: Generator, mean: float, std: float, sigma: float, threshold: float, amount: float, mud: bool
) -> Pixels:
    """Spatters water or mud: normal noise of ``mean`` and ``std``, blurred by ``sigma``, where above ``threshold``.

    ``amount`` is how bright the brightest drop of water is, and the blur of mud in pixels.
    """
    x = picture.single
    liquid = gaussian_filter(rng.normal(mean, std, x.shape[:2]), sigma, mode="nearest")
    liquid[liquid < threshold] = 0
    if mud:
        cover = gaussian_filter((liquid > threshold).astype(np.float32), amount, mode="nearest")[..., None]
        cover[cover < 0.8] = 0
        return to_pixels(x * (1 - cover) + MUD * cover)
    drops = _drops(liquid)
    brightest = drops.max()
    if brightest == 0:  # an image so small that no drop hit it
        return picture.pixels
    return to_pixels(x + (drops / brightest * amount)[..., None] * WATER)


def _drops(liquid: np.ndarray) -> np.ndarray:
    """How much light drops of the thickness ``liquid`` (H, W) add, float32, lit from one corner."""
    thickness = (liquid * 255).astype(np.int64).astype(np.uint8)  # thicker than 1 wraps around, as the authors' does
    distance = cv2.distanceTransform(255 - cv2.Canny(thickness, 50, 150), cv2.DIST_L2, 5)
    distance = cv2.equalizeHist(cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8))
    return thickness * cv2.blur(cv2.filter2D(distance, cv2.CV_8U, _EMBOSS), (3, 3)).astype(np.float32)
