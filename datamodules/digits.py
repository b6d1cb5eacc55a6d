"""1,797 handwritten digits that come inside scikit-learn: the data for a machine that reaches no data."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from attention_zoo.domains import SignedInt
from datamodules.base import ImageDataModule
from datamodules.images import Split
from datamodules.splits import stratified_split


class Digits(ImageDataModule):
    """Handwritten digits, 8 x 8 pixels, 0..16 grey levels shown as RGB: 1,079 train, 359 val, 359 test.

    The split is stratified and fixed. Source: Alpaydin and Kaynak 1998, the test part of "Optical Recognition of
    Handwritten Digits" (UCI), through ``sklearn.datasets.load_digits``.

    Args:
        num_workers: as in ImageDataModule; these data load fast enough without.
        kwargs: the arguments of ImageDataModule.
    """

    IMAGE_SIZE = 8
    MEAN = (0.305, 0.305, 0.305)
    STD = (0.376, 0.376, 0.376)

    def __init__(self, num_workers: SignedInt = 0, **kwargs: Any) -> None:
        super().__init__(num_workers=num_workers, **kwargs)

    @property
    def class_names(self) -> list[str]:
        """The ten digits, ``0`` to ``9``."""
        return [str(digit) for digit in range(10)]

    def default_augment(self) -> list[nn.Module]:
        """Small rotations, shifts of up to half a pixel, and changes of scale."""
        return [
            v2.RandomAffine(5, translate=(0.06, 0.06), scale=(0.95, 1.05), interpolation=v2.InterpolationMode.BILINEAR)
        ]

    def load(self, parts: Collection[str]) -> dict[str, Split]:
        """Read the asked parts, as `ImageDataModule` says."""
        images, labels = _digits()
        held_out = round(len(labels) / 5)
        sizes = {"val": held_out, "test": held_out, "train": len(labels) - 2 * held_out}
        indices = dict(zip(sizes, stratified_split(labels, *sizes.values()), strict=True))
        return {part: Split(images[indices[part]], {"label": [labels[i] for i in indices[part]]}) for part in parts}


def _digits() -> tuple[Tensor, list[int]]:
    """All digits: uint8 (1797, 3, 8, 8) and their labels."""
    from sklearn.datasets import load_digits  # slow to import, and needed here only

    bunch = load_digits()
    grey = torch.from_numpy(bunch.images) * (255 / 16)
    return grey.round().to(torch.uint8)[:, None].repeat(1, 3, 1, 1), bunch.target.tolist()
