"""Random transforms of an image and its mask together, beside those of torchvision.transforms.v2.

All take images as uint8 ``tv_tensors.Image`` (3, H, W) and labels as uint8 ``tv_tensors.Mask`` (k, H, W), the first
of whose k maps is of the classes.
"""

from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from attention_zoo.errors import InputError
from datamodules.segmentation.masks import IGNORE


def fit(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """The largest size of the same ratio whose longer and shorter side are within those of a box.

    Args:
        size: height and width.
        box: two lengths, in any order; which way round the box lies is that of the image.
    """
    factor = min(max(box) / max(size), min(box) / min(size))
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))


class RandomRatioResize(v2.Transform):
    """Resize to fit a box that is scaled by a random ratio; the image keeps the ratio of its sides.

    Args:
        box: lengths of the longer and the shorter side at ratio 1, in pixels.
        ratio: least and largest ratio.
        antialias: whether an image is smoothed before it is made smaller.
    """

    def __init__(self, box: tuple[int, int], ratio: tuple[float, float] = (0.5, 2.0), antialias: bool = True) -> None:
        super().__init__()
        if not 0 < ratio[0] <= ratio[1]:
            raise InputError(f"ratio must be two positive numbers, the least first; got {tuple(ratio)}")
        self.box, self.ratio, self.antialias = box, ratio, antialias

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the ratio by which the image is resized."""
        ratio = torch.empty(()).uniform_(*self.ratio).item()
        box = max(1, int(self.box[0] * ratio)), max(1, int(self.box[1] * ratio))
        return {"size": fit(v2.query_size(flat_inputs), box)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resize, masks to the nearest label."""
        return self._call_kernel(functional.resize, inpt, list(params["size"]), antialias=self.antialias)


class RandomClassCrop(v2.Transform):
    """Crop at a place where no class covers nearly everything; a side shorter than the crop stays as it is.

    Ten places are tried after the first, and the last is taken if none will do (mmsegmentation's ``cat_max_ratio``).

    Args:
        size: height and width in pixels.
        max_share: the largest class must cover less than this share of the labelled pixels.
    """

    ATTEMPTS = 10

    def __init__(self, size: tuple[int, int], max_share: float = 0.75) -> None:
        super().__init__()
        self.size, self.max_share = size, max_share

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the place of the crop."""
        height, width = v2.query_size(flat_inputs)
        inner = min(self.size[0], height), min(self.size[1], width)
        mask = next((part for part in flat_inputs if isinstance(part, tv_tensors.Mask)), None)
        for attempt in range(self.ATTEMPTS + 1):
            top = int(torch.randint(height - inner[0] + 1, ()))
            left = int(torch.randint(width - inner[1] + 1, ()))
            if mask is None or attempt == self.ATTEMPTS:
                break
            if self._mixed(mask[0, top : top + inner[0], left : left + inner[1]]):
                break
        return {"top": top, "left": left, "height": inner[0], "width": inner[1]}

    def _mixed(self, classes: Tensor) -> bool:
        counts = classes.as_subclass(Tensor).flatten().bincount(minlength=IGNORE + 1)[:IGNORE]
        return int((counts > 0).sum()) > 1 and int(counts.max()) < self.max_share * int(counts.sum())

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Cut the drawn place out of image and mask."""
        return self._call_kernel(functional.crop, inpt, **params)


class PhotometricDistortion(v2.Transform):
    """Random brightness, contrast, saturation and hue, each with probability one half; contrast second or last.

    W. Liu et al., SSD, ECCV 2016, as mmsegmentation has it. Torchvision's RandomPhotometricDistort swaps channels too.

    Args:
        brightness: largest change, in grey levels of 0..255.
        contrast: least and largest factor.
        saturation: least and largest factor.
        hue: largest change, in degrees.
    """

    def __init__(
        self,
        brightness: float = 32.0,
        contrast: tuple[float, float] = (0.5, 1.5),
        saturation: tuple[float, float] = (0.5, 1.5),
        hue: float = 36.0,
    ) -> None:
        super().__init__()
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw what is changed, and by how much; an identity is None."""

        def draw(low: float, high: float) -> float | None:
            chosen, value = torch.rand(2).tolist()
            return low + (high - low) * value if chosen < 0.5 else None

        return {
            "brightness": draw(-self.brightness, self.brightness),
            "contrast": draw(*self.contrast),
            "contrast_last": bool(torch.rand(()) < 0.5),
            "saturation": draw(*self.saturation),
            "hue": draw(-self.hue, self.hue),
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Distort images; masks stay."""
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        image = np.ascontiguousarray(inpt.permute(1, 2, 0).numpy())
        image = _affine(image, 1.0, params["brightness"])
        if not params["contrast_last"]:
            image = _affine(image, params["contrast"])
        image = _in_hsv(image, params["saturation"], params["hue"])
        if params["contrast_last"]:
            image = _affine(image, params["contrast"])
        return tv_tensors.wrap(torch.from_numpy(image).permute(2, 0, 1).contiguous(), like=inpt)


def _affine(image: np.ndarray, factor: float | None, shift: float | None = 0.0) -> np.ndarray:
    """A uint8 image (H, W, 3) times ``factor`` plus ``shift``, clipped; None is no change."""
    if factor is None or shift is None:
        return image
    return cv2.LUT(image, (np.arange(256) * factor + shift).clip(0, 255).astype(np.uint8))


def _in_hsv(image: np.ndarray, saturation: float | None, hue: float | None) -> np.ndarray:
    """A uint8 image (H, W, 3) with its saturation times a factor and its hue turned by degrees; None is no change."""
    if saturation is None and hue is None:
        return image
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)  # hue in units of two degrees
    if saturation is not None:
        hsv[..., 1] = _affine(hsv[..., 1], saturation)
    if hue is not None:
        hsv[..., 0] = cv2.LUT(hsv[..., 0], ((np.arange(256) + round(hue / 2)) % 180).astype(np.uint8))
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
