"""Patch-wise augmentation of training images: every patch of a vision transformer is augmented by itself.

X. Mao et al., Towards Robust Vision Transformer, CVPR 2022, section 3.3.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from attention_zoo.domains import Domain, Fraction, PositiveInt, checked
from attention_zoo.errors import InputError


@partial(checked, under="patch_augmentation")
@dataclass(frozen=True)
class PatchAugmentation:
    """Resized crop, Gaussian noise and reflection of patches; the defaults are those of RVT's released code.

    Args:
        size: height and width of a patch in pixels, those of the model's patches.
        prob: probability of each of the three, for each patch by itself.
        area: least share of a patch's area that a crop keeps.
        noise: standard deviation of the noise, in units of the normalised images.
    """

    size: PositiveInt = 16
    prob: Fraction = 0.1
    area: Annotated[float, Domain(above=0, most=1)] = 0.85
    noise: float = 0.01


def augment_patches(image: Tensor, options: PatchAugmentation) -> Tensor:
    """Return images (B, C, H, W) float whose patches are augmented, each with draws of its own from torch's generator.

    What noise takes out of the range of an image's channel is set to that range, where the released code takes the
    range of all possible pixels.

    Raises:
        InputError: patches of this size do not divide the images.
    """
    size, (height, width) = options.size, image.shape[2:]
    if height % size or width % size:
        raise InputError(
            f"patch_augmentation: size={size} does not divide images of {height} x {width} pixels; give one that does"
        )
    grid = image.unflatten(3, (-1, size)).unflatten(2, (-1, size)).permute(0, 2, 4, 1, 3, 5)  # (B, h, w, C, s, s)
    patches = grid.flatten(0, 2)
    crop, noise, reflection = torch.rand(3, len(patches), device=image.device) < options.prob
    patches = _cropped(patches, crop, options.area)
    patches = patches + options.noise * torch.randn_like(patches) * noise[:, None, None, None]
    patches = torch.where(reflection[:, None, None, None], patches.flip(3), patches)
    whole = patches.view(grid.shape).permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
    return whole.clamp(image.amin((2, 3), keepdim=True), image.amax((2, 3), keepdim=True))


def _cropped(patches: Tensor, chosen: Tensor, area: float) -> Tensor:
    """Return patches (n, C, s, s) of which the ``chosen`` (n,) are squares from inside them, at least of this area."""
    number = len(patches)
    side = (area + (1 - area) * torch.rand(number, device=patches.device)).sqrt()
    shift = (1 - side)[:, None] * (2 * torch.rand(number, 2, device=patches.device) - 1)
    theta = torch.cat([torch.diag_embed(side[:, None].expand(-1, 2)), shift[:, :, None]], 2).to(patches.dtype)
    places = F.affine_grid(theta, list(patches.shape), align_corners=False)
    cut = F.grid_sample(patches, places, padding_mode="border", align_corners=False)
    return torch.where(chosen[:, None, None, None], cut, patches)
