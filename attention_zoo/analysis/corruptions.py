"""A few corruptions of ImageNet-C, with its severities, to look at attention under them.

D. Hendrycks, T. Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, ICLR 2019.
The parameters are those of the authors' scripts for images of 224, 64 and 32 pixels. Any other function of an image
serves `side_by_side` alike.
"""

import io
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from attention_zoo.errors import InputError, unknown

Array = np.ndarray


def _gaussian_noise(x: Array, sigma: float) -> Array:
    return x + np.random.default_rng(0).normal(size=x.shape, scale=sigma)


def _gaussian_blur(x: Array, sigma: float) -> Array:
    return gaussian_filter(x, (sigma, sigma, 0), mode="nearest")


def _defocus_blur(x: Array, disk: tuple[float, float]) -> Array:
    radius, alias = disk
    reach, kernel = (8, (3, 3)) if radius <= 8 else (radius, (5, 5))
    steps = np.arange(-reach, reach + 1)
    inside = (steps[:, None] ** 2 + steps**2 <= radius**2).astype(np.float32)
    return cv2.filter2D(x, -1, cv2.GaussianBlur(inside / inside.sum(), kernel, sigmaX=alias))


def _brightness(x: Array, added: float) -> Array:
    value = x.max(-1, keepdims=True)  # V of HSV; hue and saturation held, colours grow with it
    brighter = (value + added).clip(0, 1)
    return np.where(value > 0, x * brighter / np.where(value > 0, value, 1), brighter)


def _contrast(x: Array, factor: float) -> Array:
    mean = x.mean((0, 1))
    return (x - mean) * factor + mean


def _jpeg_compression(x: Array, quality: int) -> Array:
    buffer = io.BytesIO()
    Image.fromarray(np.uint8(np.rint(x * 255))).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer)) / 255


_SHARED = {
    "brightness": (_brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (_contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
}
SEVERITIES: dict[int, dict[str, tuple[Callable[..., Array], tuple]]] = {
    224: _SHARED
    | {
        "gaussian_noise": (_gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
        "gaussian_blur": (_gaussian_blur, (1, 2, 3, 4, 6)),
        "defocus_blur": (_defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
        "jpeg_compression": (_jpeg_compression, (25, 18, 15, 10, 7)),
    },
    64: _SHARED
    | {
        "gaussian_noise": (_gaussian_noise, (0.04, 0.08, 0.12, 0.15, 0.18)),
        "gaussian_blur": (_gaussian_blur, (0.5, 0.75, 1, 1.25, 1.5)),
        "defocus_blur": (_defocus_blur, ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1))),
        "jpeg_compression": (_jpeg_compression, (65, 58, 50, 40, 25)),
    },
    32: {
        "gaussian_noise": (_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
        "gaussian_blur": (_gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1)),
        "defocus_blur": (_defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
        "brightness": (_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
        "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
        "jpeg_compression": (_jpeg_compression, (80, 65, 58, 50, 40)),
    },
}
"""By the side of the images: of each corruption the function and its parameter at severity 1 to 5."""


def corruption(name: str, severity: int) -> Callable[[Tensor], Tensor]:
    """A function of a uint8 image (3, H, W), the same noise every time; its shorter side chooses the parameters.

    Raises:
        InputError: unknown name, or a severity that is not 1 to 5.
    """
    if name not in SEVERITIES[224]:
        raise unknown("corruption", name, SEVERITIES[224])
    if not 1 <= severity <= 5:
        raise InputError(f"severity={severity} must be 1 to 5")
    return partial(_corrupt, name=name, severity=severity)


def _corrupt(image: Tensor, name: str, severity: int) -> Tensor:
    side = min(image.shape[-2:])
    function, parameters = SEVERITIES[32 if side <= 32 else 64 if side <= 64 else 224][name]
    x = np.ascontiguousarray(image.permute(1, 2, 0).numpy() / np.float32(255))
    pixels = function(x, parameters[severity - 1]).clip(0, 1) * 255
    # cut off like the authors do, but not a level for the rounding of k / 255 * 255
    return torch.from_numpy(np.uint8(pixels + 1e-3)).permute(2, 0, 1).contiguous()
