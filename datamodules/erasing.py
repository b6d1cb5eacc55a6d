"""Random erasing with noise, as the recipes of DeiT, RVT and AbSViT have it."""

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torchvision.transforms import RandomErasing
from torchvision.transforms.v2.functional import to_dtype


class PixelErasing(nn.Module):
    """Put noise in place of a random rectangle, unit Gaussian for each pixel and channel after the normalisation.

    timm's ``mode="pixel"``; torchvision's own erases with one value. Z. Zhong et al., Random Erasing Data
    Augmentation, AAAI 2020.

    Args:
        p: probability that an image is erased from.
        scale: share of the image's area that goes.
        ratio: height over width of the rectangle.
        mean: of each channel, that images are normalised with later.
        std: of each channel, that images are normalised with later.

    Attributes:
        span: least and largest value that it gives; see `datamodules.augmenting.Augment`.
    """

    def __init__(
        self,
        p: float = 0.25,
        scale: tuple[float, float] = (0.02, 1 / 3),
        ratio: tuple[float, float] = (0.3, 10 / 3),
        mean: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN,
        std: tuple[float, float, float] = IMAGENET_DEFAULT_STD,
    ) -> None:
        super().__init__()
        self.p, self.scale, self.ratio = p, list(scale), list(ratio)
        self.mean, self.std = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
        reach = 6 * self.std  # torch draws nothing further from 0 in float32
        self.span = min(0.0, (self.mean - reach).min().item()), max(1.0, (self.mean + reach).max().item())

    def forward(self, image: Tensor) -> Tensor:
        """Image (3, H, W), uint8 or float in 0..1 -> float32."""
        image = to_dtype(image, torch.float32, scale=True)
        if torch.rand(()) >= self.p:
            return image
        top, left, height, width, _ = RandomErasing.get_params(image, self.scale, self.ratio)
        if (height, width) == tuple(image.shape[1:]):  # no rectangle was found
            return image
        erased = image.clone()
        noise = torch.randn(3, height, width) * self.std + self.mean
        erased[:, top : top + height, left : left + width] = noise
        return erased
