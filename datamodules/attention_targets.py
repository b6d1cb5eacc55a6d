"""What attention is held against: the objects of PASCAL VOC, and where people looked in MIT1003."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from attention_zoo.domains import Domain
from attention_zoo.errors import InputError
from attention_zoo.runs.files import read_text
from datamodules.base import Collate, EvaluationDataModule
from datamodules.decoding import image_size
from datamodules.image_folder import centre_crop
from datamodules.images import ImageFiles, Split, below, contents, decode, decode_labels, is_image, one_a_name

VOID = 255
"""Of VOC's masks: the rims of objects, which count nowhere."""

SEEN = 127
"""Fixated pixels are brighter; the maps are JPEGs, so that no other pixel is quite black."""


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
    MEAN = (0.485, 0.456, 0.406)
    STD = (0.229, 0.224, 0.225)

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
        _require_size(self.paths[index], labels, self.images[index])
        foreground = torch.where(labels == VOID, VOID, labels > 0).to(torch.uint8)
        return self.prepare(foreground[None])[0]


class MIT1003(TargetDataModule):
    """Eye fixations of 15 people on 1,003 images (T. Judd et al., Learning to Predict Where Humans Look, ICCV 2009).

    ``ALLSTIMULI/<id>.jpeg`` and ``ALLFIXATIONMAPS/<id>_fixPts.jpg``. Batches have ``fixations``, a list of B tensors
    (h, w) bool of the stimuli's own sizes. The report EECS-2024-49 (Table 1.5) does not say how images are prepared:
    here they are squeezed to ``image_size``, so that the whole image is seen.

    Args:
        root: the folder.
        kwargs: the arguments of TargetDataModule.

    Raises:
        InputError: an argument is out of range.
    """

    def __init__(self, root: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = Path(root)

    def load_test(self) -> Split:
        """Read the test split, as `EvaluationDataModule` says."""
        folder = self.root / "ALLSTIMULI"
        if not folder.is_dir():
            raise InputError(
                f"no folder {folder}: expected ALLSTIMULI and ALLFIXATIONMAPS; found: {contents(self.root)}"
            )
        images = sorted(path for path in folder.iterdir() if is_image(path.name))
        if not images:
            raise InputError(f"no images in {folder}: expected <id>.jpeg; found: {contents(folder)}")
        one_a_name([str(path) for path in images], "stimuli of the same fixations", lambda path: Path(path).stem)
        fixations = [self.root / "ALLFIXATIONMAPS" / f"{path.stem}_fixPts.jpg" for path in images]
        missing = [path for path in fixations if not path.is_file()]
        if missing:
            raise InputError(f"no fixations of {images[fixations.index(missing[0])]}: expected {missing[0]}")
        names = [str(path) for path in images]
        return Split(ImageFiles(names), {"fixations": FixationMaps(images, fixations), "path": names})

    def collate(self, part: str) -> Collate:
        """Fixations stay a list, since the stimuli have sizes of their own."""
        return Collate(self.mean, self.std, ragged=("fixations",))


class FixationMaps:
    """Maps of fixated pixels, read each time they are asked for: (h, w) bool.

    Args:
        images: the files of the stimuli.
        paths: the files of the maps.
    """

    def __init__(self, images: Sequence[Path], paths: Sequence[Path]) -> None:
        self.images, self.paths = images, paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        seen = decode(str(self.paths[index]))[0] > SEEN
        _require_size(self.paths[index], seen, self.images[index])
        if not seen.any():
            raise InputError(f"{self.paths[index]}: no fixated pixel in it (brighter than {SEEN})")
        return seen


def _require_size(path: Path, target: Tensor, image: Path) -> None:
    """Raise an InputError unless what was read from ``path``, (H, W), is as large as the upright image."""
    (height, width), (rows, columns) = target.shape, image_size(str(image))
    if (height, width) != (rows, columns):
        raise InputError(f"{path} has {width} x {height} pixels, its image {image} has {columns} x {rows}, upright")
