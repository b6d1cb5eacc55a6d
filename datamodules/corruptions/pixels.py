"""What several corruptions do with images: from and to uint8, zoom into the centre, motion blur."""

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""An image, uint8 (H, W, 3)."""


def to_pixels(x: np.ndarray) -> np.ndarray:
    """From values in 0..1, cut off to whole levels as the authors do, not rounded."""
    return (np.clip(x, 0, 1) * 255).astype(np.uint8)


def zoom_into_centre(x: np.ndarray, factor: float) -> np.ndarray:
    """The centre of ``x`` (H, W, ...) enlarged to (H, W, ...) by linear interpolation, corners on corners."""
    return _enlarge(_enlarge(x, factor, 0), factor, 1)


def _enlarge(x: np.ndarray, factor: float, axis: int) -> np.ndarray:
    """Along one axis; a centre that comes out larger is trimmed, half of it at the start."""
    side = x.shape[axis]
    centre = int(np.ceil(side / factor))
    enlarged = round(centre * factor)
    positions = np.arange(side) + (enlarged - side) // 2
    positions = np.minimum(positions * ((centre - 1) / max(enlarged - 1, 1)), centre - 1)
    low = np.minimum(positions.astype(int), max(centre - 2, 0))
    weight = (positions - low).astype(x.dtype)
    start = (side - centre) // 2
    before, after = x.take(start + low, axis), x.take(start + np.minimum(low + 1, centre - 1), axis)
    return before + (after - before) * weight.reshape(-1, *[1] * (x.ndim - axis - 1))


def motion_blur_pixels(x: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """As ImageMagick's MotionBlur: half a Gaussian along a direction, over the edge replicated.

    Args:
        x: uint8 (H, W, ...).
        radius: ``2 * radius + 1`` pixels along the direction are seen.
        sigma: of the Gaussian, in pixels.
        angle: of the direction, in degrees.

    Returns:
        uint8, exactly ImageMagick's: it rounds to 16 bits first, and then cuts off to 8.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    down, right = (np.ceil(steps * f(np.deg2rad(angle)) - 0.5).astype(int) for f in (np.sin, np.cos))
    margins = [(max(-offsets.min(), 0), max(offsets.max(), 0)) for offsets in (down, right)]
    padded = np.pad(x, margins + [(0, 0)] * (x.ndim - 2), mode="edge").astype(np.float32)
    height, width = x.shape[:2]
    blurred = np.zeros(x.shape, np.float32)
    term = np.empty_like(blurred)
    for weight, row, column in zip(weights, down + margins[0][0], right + margins[1][0], strict=True):
        np.multiply(padded[row : row + height, column : column + width], np.float32(weight), out=term)
        blurred += term
    return np.minimum(blurred + np.float32(0.5 / 257), 255).astype(np.uint8)
