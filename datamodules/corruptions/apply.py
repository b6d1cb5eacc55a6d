"""Corruptions by name and severity."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from attention_zoo.corruption_error import CATEGORIES
from attention_zoo.domains import shown
from attention_zoo.errors import InputError, unknown
from datamodules.corruptions import blur, digital, noise, weather
from datamodules.corruptions.parameters import PARAMETERS, SCALES, Scale, scale_for
from datamodules.corruptions.pixels import Picture, Pixels

_FUNCTIONS: dict[str, Callable[..., Pixels]] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": digital.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
    "speckle_noise": noise.speckle_noise,
    "gaussian_blur": blur.gaussian_blur,
    "spatter": weather.spatter,
    "saturate": digital.saturate,
}

CORRUPTIONS = tuple(_FUNCTIONS)[:15]
"""The corruptions of the benchmark, in its order: noise, blur, weather, digital."""

EXTRA_CORRUPTIONS = tuple(_FUNCTIONS)[15:]
"""Those that the authors made to choose models by."""

GROUPS = {name: CATEGORIES.get(name, "extra") for name in _FUNCTIONS}
"""The group of each corruption, which is a folder in the released archives."""


def corrupt(
    image: np.ndarray | Picture, name: str, severity: int, *, seed: int | None = None, scale: Scale = "imagenet"
) -> np.ndarray:
    """An image under a corruption of ImageNet-C.

    Args:
        image: uint8 (H, W, 3), of any size; lengths such as blur radii are pixels, whatever the size. A `Picture` of
            it, to be corrupted in several ways, which computes once what these share.
        name: one of `CORRUPTIONS` or `EXTRA_CORRUPTIONS`.
        severity: 1 to 5.
        seed: of all that is random, at least 0; the same gives the same image. None draws anew each time.
        scale: whose parameters: imagenet (made for images of 224 pixels), tiny (64) or cifar (32).

    Returns:
        uint8 (H, W, 3), a new array.

    Raises:
        InputError: unknown name or scale, severity or seed out of range, or no such image.
    """
    _require(name, severity, scale)
    picture = image if isinstance(image, Picture) else None
    image = image if picture is None else picture.pixels
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"image must be a uint8 array (H, W, 3), got {_kind(image)}")
    if not image.size:
        raise InputError(f"image has no pixels: {_kind(image)}")
    if seed is not None and seed < 0:
        raise InputError(f"seed={shown(seed)} must be at least 0")
    picture = picture or Picture(image)
    corrupted = _FUNCTIONS[name](picture, np.random.default_rng(seed), *PARAMETERS[scale][name][severity - 1])
    return corrupted.copy() if np.shares_memory(corrupted, image) else corrupted


@dataclass(frozen=True)
class Corruption:
    """A corruption of image tensors, as data modules apply it; can be pickled.

    Attributes:
        name: one of `CORRUPTIONS` or `EXTRA_CORRUPTIONS`.
        severity: 1 to 5.
        scale: whose parameters, see `corrupt`.
        jpeg_quality: also write and read the result as JPEG, as the released images of ImageNet-C were with 85.

    Raises:
        InputError: as `corrupt`, or the quality is not 1 to 100.
    """

    name: str
    severity: int
    scale: Scale = "imagenet"
    jpeg_quality: int | None = None

    def __post_init__(self) -> None:
        _require(self.name, self.severity, self.scale)
        if self.jpeg_quality is not None and not 1 <= self.jpeg_quality <= 100:
            raise InputError(f"jpeg_quality={self.jpeg_quality} must be 1 to 100")

    def __call__(self, image: Tensor, seed: int | None = None) -> Tensor:
        """Corrupt an image.

        Args:
            image: uint8 (3, H, W).
            seed: see `corrupt`.

        Returns:
            The corrupted image, uint8 (3, H, W).
        """
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        corrupted = corrupt(pixels, self.name, self.severity, seed=seed, scale=self.scale)
        if self.jpeg_quality is not None:
            corrupted = digital.through_jpeg(corrupted, self.jpeg_quality)
        return torch.from_numpy(corrupted).permute(2, 0, 1).contiguous()


def require_corruption(name: str) -> None:
    """Raise InputError unless ``name`` is one of `CORRUPTIONS` or `EXTRA_CORRUPTIONS`."""
    if name not in _FUNCTIONS:
        raise unknown("corruption", name, _FUNCTIONS)


def require_severity(severity: int) -> None:
    """Raise InputError unless ``severity`` is 1 to 5."""
    if isinstance(severity, bool) or not isinstance(severity, Integral) or severity not in range(1, 6):
        raise InputError(f"severity={severity if isinstance(severity, str) else shown(severity)} must be 1 to 5")


def _require(name: str, severity: int, scale: str) -> None:
    require_corruption(name)
    require_severity(severity)
    if scale not in SCALES:
        raise unknown("scale", scale, SCALES)


def _kind(image: object) -> str:
    if not isinstance(image, np.ndarray):
        return type(image).__name__
    return f"{image.dtype} {tuple(image.shape)}"


def corruptions_at(names: Sequence[str], severity: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return functions that corrupt an image of any size, always alike, by the name of corruption and severity.

    Args:
        names: names of corruptions.
        severity: 1 to 5.

    Raises:
        InputError: there is no such corruption or severity.
    """

    def corrupted(image: Tensor, name: str) -> Tensor:
        return Corruption(name, severity, scale_for(min(image.shape[-2:])))(image, seed=0)

    for name in names:
        require_corruption(name)
    require_severity(severity)
    return {f"{name} {severity}": partial(corrupted, name=name) for name in names}
