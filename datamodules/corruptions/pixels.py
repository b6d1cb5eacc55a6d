"""What several corruptions do with images: from and to uint8, zoom into the centre, motion blur."""

from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""An image, uint8 (H, W, 3)."""

Shared = TypeVar("Shared")


class Picture:
    """An image to be corrupted several times, and what its corruptions share, such as its hues.

    Args:
        pixels: uint8 (H, W, 3); it may not change any more.
    """

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels
        self._shared: dict[Hashable, Any] = {}

    def shared(self, compute: Callable[..., Shared], *arguments: Hashable) -> Shared:
        """What a function makes of this picture and further arguments, computed when it is first asked for."""
        key = compute, *arguments
        if key not in self._shared:
            self._shared[key] = compute(self, *arguments)
        return self._shared[key]

    @property
    def unit(self) -> np.ndarray:
        """The pixels in 0..1, float64 (H, W, 3); not to be written to, like all that is shared."""
        return self.shared(_unit)

    @property
    def single(self) -> np.ndarray:
        """The pixels in 0..1, float32 (H, W, 3)."""
        return self.shared(_single)

    @property
    def planes(self) -> tuple[np.ndarray, ...]:
        """Red, green and blue in 0..1, each float64 (H, W)."""
        return self.shared(_planes)


def _unit(picture: Picture) -> np.ndarray:
    return picture.pixels / 255.0


def _single(picture: Picture) -> np.ndarray:
    return picture.pixels.astype(np.float32) / 255


def _planes(picture: Picture) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(plane) / 255.0 for plane in cv2.split(picture.pixels))


def to_pixels(x: np.ndarray) -> np.ndarray:
    """From values in 0..1, cut off to whole levels as the authors do, not rounded."""
    return levels(x.copy())


def levels(x: np.ndarray) -> np.ndarray:
    """What `to_pixels` makes of ``x``, which is written over."""
    np.clip(x, 0, 1, out=x)
    x *= 255
    return x.astype(np.uint8)


def merged(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """Three planes (H, W) as one image (H, W, 3)."""
    return np.asarray(cv2.merge([red, green, blue]))


def bands(height: int, width: int) -> Iterator[slice]:
    """The rows of an image in parts that stay in the processor's cache, with what is computed of them on the way."""
    rows = max(1, 2**13 // max(width, 1))
    return (slice(start, start + rows) for start in range(0, height, rows))


def zoom_into_centre(x: np.ndarray, factor: float) -> np.ndarray:
    """The centre of ``x`` (H, W, ...) enlarged to (H, W, ...) by linear interpolation, corners on corners."""
    height, width = x.shape[:2]
    above, below, down = _neighbours(height, factor, x.dtype)
    left, right, along = _neighbours(width, factor, x.dtype)
    # Flat rows: numpy is slow where it spreads weights over a last axis as short as that of channels.
    along = np.repeat(along, x[0, 0].size)
    enlarged = np.empty_like(x)
    for rows in bands(height, width):
        tall = _between(x[above[rows]], x[below[rows]], down[rows, None])
        enlarged[rows] = _between(tall.take(left, 1), tall.take(right, 1), along)
    return enlarged


def _neighbours(side: int, factor: float, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Along one axis, for each place of the result: the places before and after it, and how far it is between them.

    A centre that comes out larger is trimmed, half of it at the start.
    """
    centre = int(np.ceil(side / factor))
    enlarged = round(centre * factor)
    positions = np.arange(side) + (enlarged - side) // 2
    positions = np.minimum(positions * ((centre - 1) / max(enlarged - 1, 1)), centre - 1)
    low = np.minimum(positions.astype(int), max(centre - 2, 0))
    start = (side - centre) // 2
    return start + low, start + np.minimum(low + 1, centre - 1), (positions - low).astype(dtype)


def _between(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """``first`` + (``second`` - ``first``) * ``weight``, which spreads over flat rows; written over ``second``."""
    start, result = first.reshape(len(first), -1), second.reshape(len(second), -1)
    result -= start
    result *= weight
    result += start
    return second


def motion_blur_pixels(x: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """As ImageMagick's MotionBlur: half a Gaussian along a direction, over the edge replicated.

    Args:
        x: uint8 (H, W) or (H, W, 3).
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
    margins = [(max(-int(offsets.min()), 0), max(int(offsets.max()), 0)) for offsets in (down, right)]
    padded = cv2.copyMakeBorder(x, *margins[0], *margins[1], cv2.BORDER_REPLICATE).astype(np.float32)
    height, width = x.shape[:2]
    blurred = np.zeros(x.shape, np.float32)
    term = np.empty_like(blurred)
    for weight, row, column in zip(weights, down + margins[0][0], right + margins[1][0], strict=True):
        np.multiply(padded[row : row + height, column : column + width], np.float32(weight), out=term)
        blurred += term
    blurred += np.float32(0.5 / 257)
    return np.minimum(blurred, 255, out=blurred).astype(np.uint8)
