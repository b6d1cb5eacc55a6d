"""What attention is held against: the objects of PASCAL VOC. Where people looked is in `datamodules.gaze`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torchvision.transforms import v2

from attention_zoo.domains import Domain
from attention_zoo.errors import InputError
from attention_zoo.runs.files import read_text
from datamodules.base import EvaluationDataModule
from datamodules.decoding import image_size
from datamodules.image_folder import centre_crop
from datamodules.images import ImageFiles, Split, below, contents, decode_labels

VOID = 255
"""Of VOC's masks: the rims of objects, which count nowhere."""

MOST_CLASSES = 1_000_000
"""Outputs of a model."""


class TargetDataModule(EvaluationDataModule):
    """Base of data that only test the attention of a trained model.

    Args:
        num_classes: outputs of the model, which the measurement does not look at.
        kwargs: the arguments of ImageDataModule.

    Raises:
        InputError: an argument is out of range.
    """

    IMAGE_SIZE = 224
    MEAN, STD = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    def __init__(self, num_classes: Annotated[int, Domain(least=1, most=MOST_CLASSES)] = 1000, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._num_classes = num_classes

    @property
    def class_names(self) -> list[str]:
        """Numbers, since the classes of the model are not those of the data."""
        return [str(number) for number in range(self._num_classes)]


class VOCForeground(TargetDataModule):
    """Objects against background on PASCAL VOC 2012 (report EECS-2024-49, Table 1.4).

    Batches have a ``mask`` (B, H, W) uint8: 1 where any object is, 0 elsewhere, 255 where nothing counts.

    The report does not say how images are prepared. Its numbers imply that 39 % of the pixels are objects, which speaks
    for centre crops, the default here.

    Args:
        root: ``VOCdevkit/VOC2012`` with JPEGImages, SegmentationClass and ImageSets/Segmentation.
        split: list of images in ImageSets/Segmentation.
        preparation: ``centre_crop`` as in ImageNet's evaluation, or ``resize``, which squeezes the whole image.
        kwargs: the arguments of TargetDataModule.

    Raises:
        InputError: an argument is out of range.
    """

    def __init__(
        self,
        root: str,
        split: str = "val",
        preparation: Literal["centre_crop", "resize"] = "centre_crop",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root, self.split_name, self.preparation = Path(root), split, preparation

    def default_resize(self) -> nn.Module:
        """Return what brings an image to its size, as ``preparation`` says."""
        return centre_crop(self.image_size) if self.preparation == "centre_crop" else v2.Resize(self.image_size)

    def load_test(self) -> Split:
        """Read the test split, as `EvaluationDataModule` says."""
        lists = self.root / "ImageSets" / "Segmentation"
        file = lists / f"{self.split_name}.txt"
        if not file.is_file():
            raise InputError(f"no list {file}: expected the split's images in it; {lists} has: {contents(lists)}")
        names = read_text(file).split()
        for name in names:
            below(self.root, name, str(file))
        images = [self.root / "JPEGImages" / f"{name}.jpg" for name in names]
        masks = [self.root / "SegmentationClass" / f"{name}.png" for name in names]
        missing = [path for path in (*images, *masks) if not path.is_file()]
        if missing or not names:
            what = f"there is no {missing[0]}" if missing else "it names no image"
            raise InputError(f"{file}: {what}")
        targets = ForegroundMasks(images, masks, self._prepare_mask)
        return Split(ImageFiles([str(path) for path in images]), {"mask": targets})

    def _prepare_mask(self, mask: Tensor) -> Tensor:
        nearest = v2.InterpolationMode.NEAREST
        if self.preparation == "resize":
            return v2.functional.resize(mask, list(self.image_size), nearest)
        return centre_crop(self.image_size, nearest)(mask)


class ForegroundMasks:
    """Masks of VOC, read each time they are asked for: (H, W) uint8, see `VOCForeground`.

    Args:
        images: the files of the images.
        paths: the files of the masks.
        prepare: what is done to the images, here without new values.
    """

    def __init__(self, images: Sequence[Path], paths: Sequence[Path], prepare: Callable[[Tensor], Tensor]) -> None:
        self.images, self.paths, self.prepare = images, paths, prepare

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        labels = decode_labels(str(self.paths[index]))
        require_size(self.paths[index], labels, self.images[index])
        foreground = torch.where(labels == VOID, VOID, labels > 0).to(torch.uint8)
        return self.prepare(foreground[None])[0]


def require_size(path: Path, target: Tensor, image: Path) -> None:
    """Raise an InputError unless what was read from ``path``, (H, W), is as large as the upright image."""
    (height, width), (rows, columns) = target.shape, image_size(str(image))
    if (height, width) != (rows, columns):
        raise InputError(f"{path} has {width} x {height} pixels, its image {image} has {columns} x {rows}, upright")
