"""What all semantic segmentation data have in common: pipeline, seeding of augmentation, batches of equal sizes."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from attention_zoo.errors import InputError
from attention_zoo.seeding import run_seed, seeded
from datamodules.augmenting import Augment
from datamodules.checks import two_sides
from datamodules.images import SizedImages, Split, name_of
from datamodules.loading import AUGMENTATION, Batch, DataModule
from datamodules.sampling import GroupedSampler, SampleKey
from datamodules.segmentation.masks import IGNORE, LabelMap, Palette, absent_classes, default_palette
from datamodules.segmentation.transforms import PhotometricDistortion, RandomClassCrop, RandomRatioResize, fit

NAMED = 6
"""Most classes that a warning names."""


class SegmentationDataset(Dataset[Any]):
    """Samples of a split, addressed by the keys of a sampler, or by a list of them.

    Args:
        split: the images; in training and evaluation with a column ``mask`` of `LabelMap`.
        box: longer and shorter side that an image is resized to fit in evaluation.
        antialias: whether an image is smoothed before it is made smaller.
        augment: of image and mask together; None in evaluation, where masks keep their size.
        size: in training, the height and width that samples must not exceed.
    """

    def __init__(
        self,
        split: Split,
        box: tuple[int, int],
        antialias: bool,
        augment: Sequence[nn.Module] | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        self.split, self.box, self.antialias, self.size = split, box, antialias, size
        self.augment = None if augment is None else Augment(augment)
        self.seed = run_seed()

    def __len__(self) -> int:
        return len(self.split.images)

    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of every image in its file."""
        return [cast(SizedImages, self.split.images).size(index) for index in range(len(self))]

    def __getitem__(self, key: SampleKey | int | list[SampleKey]) -> Any:
        """Samples: ``image`` (3, H, W), not yet normalised, ``index`` (-1: not counted), labels, other columns."""
        if isinstance(key, list):
            return [self[one] for one in key]
        epoch, index, counted, repeat = key if isinstance(key, SampleKey) else SampleKey(0, key, True)
        image = tv_tensors.Image(self.split.images[index])
        sample = {name: values[index] for name, values in self.split.columns.items()}
        sample |= {"index": index if counted else -1, "size": torch.tensor(image.shape[-2:])}
        label = sample.pop("mask", None)
        if label is None:
            return {**sample, "image": self._resized(image)}
        if label.mask.shape != image.shape[-2:]:
            raise InputError(self._unequal(index, image, label))
        maps = tv_tensors.Mask(torch.stack([part for part in label[:2] if part is not None]))
        if self.augment is None:
            image = self._resized(image)
        else:
            with seeded(self.seed, epoch, index, AUGMENTATION + repeat):
                image, maps = self.augment(image, maps, name=f"image {name_of(self.split.images, index)}")
            image, maps = self._bounded(image, maps)
        return {**sample, "image": image, **_targets(maps, label)}

    def _resized(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        size = fit((height, width), self.box)
        return functional.resize(image, list(size), antialias=self.antialias) if size != (height, width) else image

    def _bounded(self, image: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Both made smaller where they exceed ``self.size``."""
        height, width = image.shape[-2:]
        factor = 1.0 if self.size is None else min(self.size[0] / height, self.size[1] / width)
        if factor >= 1:
            return image, maps
        smaller = [max(1, int(height * factor)), max(1, int(width * factor))]
        return functional.resize(image, smaller, antialias=self.antialias), functional.resize(maps, smaller)

    def _unequal(self, index: int, image: Tensor, label: LabelMap) -> str:
        height, width = label.mask.shape
        return (
            f"image {name_of(self.split.images, index)} has {image.shape[-1]} x {image.shape[-2]} pixels, "
            f"its mask {name_of(self.split.columns['mask'], index)} has {width} x {height}: they must be equal"
        )


def _targets(maps: Tensor, label: LabelMap) -> Batch:
    """Label a sample whose maps (1 or 2, H, W) were transformed; segments that are gone are left out."""
    maps = maps.as_subclass(Tensor)
    targets: Batch = {"mask": maps[0].long()}
    if label.segments is not None:
        present = [number for number in maps[1].unique().tolist() if number != IGNORE]
        numbers = torch.tensor(present, dtype=torch.uint8)
        chosen = numbers.long()
        facts = {"labels": label.labels, "is_thing": label.is_thing, "crowd": label.crowd}
        targets["segments"] = {
            "masks": maps[1] == numbers[:, None, None],
            **{name: values[chosen] for name, values in facts.items() if values is not None},
        }
    return targets


class SegmentationCollate:
    """Samples to a batch with float32 normalised images, padded with 0 and `IGNORE` to a size.

    Args:
        mean: of each channel, for images in 0..1.
        std: of each channel, for images in 0..1.
        size: height and width to pad to; None where all images of a batch have one size.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], size: tuple[int, int] | None = None) -> None:
        self.normalise = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
        self.size = size

    def __call__(self, samples: list[Batch]) -> Batch:
        """The batch: ``image`` (B, 3, H, W), ``mask`` (B, h, w) int64, ``segments`` as a list, numbers (B,)."""
        images = [self._padded(self.normalise(sample.pop("image").as_subclass(Tensor)), 0.0) for sample in samples]
        batch: Batch = {"image": torch.stack(images)}
        if "mask" in samples[0]:
            batch["mask"] = torch.stack([self._padded(sample.pop("mask"), IGNORE) for sample in samples])
        if "segments" in samples[0]:
            segments = [sample.pop("segments") for sample in samples]
            batch["segments"] = [{**one, "masks": self._padded(one["masks"], False)} for one in segments]
        return batch | default_collate(samples)

    def _padded(self, maps: Tensor, value: float) -> Tensor:
        if self.size is None or maps.shape[-2:] == self.size:
            return maps
        bottom, right = self.size[0] - maps.shape[-2], self.size[1] - maps.shape[-1]
        return nn.functional.pad(maps, (0, right, 0, bottom), value=value)


class SegmentationDataModule(DataModule):
    """Base of the semantic segmentation data.

    Batches are dictionaries: ``image`` (B, 3, H, W) float32, normalised; ``mask`` (B, h, w) int64, the class of every
    pixel or 255 for those that count nowhere; ``size`` (B, 2) int64, height and width of the file; ``index`` (B,) int64
    as `DataModule` has it. In prediction ``path`` (B strings) in place of the mask. Data with instances add
    ``segments``: for each image a dictionary of ``masks`` (n, h, w) bool, ``labels`` (n,) int64, ``is_thing`` and
    ``crowd`` (n,) bool.

    Training: resized to fit ``box`` times a random ratio, cropped to ``image_size`` where classes are mixed, reflected,
    distorted in colour; what is smaller is padded, images with 0 after the normalisation and masks with 255.
    Evaluation: the image is resized to fit ``box``, the mask keeps its size; a batch has images of one size, in files
    and resized, so that data of many sizes have smaller batches.

    Args:
        image_size: side, or height and width, of the crops in training, in pixels; None is the data's own.
        box: longer and shorter side in pixels that an image is resized to fit, keeping its ratio; None is what fits
            ``image_size``.
        augment: transforms of torchvision.transforms.v2 on a uint8 ``tv_tensors.Image`` (3, H, W) and ``Mask``
            (k, H, W), in training; None is the pipeline above, an empty list is none. What they leave larger than
            ``image_size`` is made smaller, what is smaller is padded.
        antialias: whether an image is smoothed before it is made smaller; mmsegmentation's are not.
        loading: the arguments of `DataModule`; ``batch_size`` is 16 by default.

    Raises:
        InputError: an argument is out of range.
    """

    prediction_format = "masks"
    MEAN, STD = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    ignore_index = IGNORE

    def __init__(
        self,
        image_size: int | tuple[int, int],
        box: tuple[int, int] | None = None,
        augment: list[nn.Module] | None = None,
        antialias: bool = True,
        batch_size: int = 16,
        **loading: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **loading)
        self.image_size = two_sides("image_size", image_size)
        self.box = self.image_size if box is None else two_sides("box", box)
        self.antialias = antialias
        self.augment = self.default_augment() if augment is None else augment

    def setup(self, stage: str) -> None:
        """Read what a stage needs, as `DataModule` says, and warn of classes that there is nothing to learn of."""
        looked_at = "train" in self.splits
        super().setup(stage)
        if "train" in self.splits and not looked_at:
            self._warn_of_absent()

    @rank_zero_only
    def _warn_of_absent(self) -> None:
        masks = self.splits["train"].columns["mask"]
        absent = absent_classes(masks, self.num_classes)
        if not absent.classes:
            return
        names = ", ".join(self.class_names[label] for label in absent.classes[:NAMED])
        names += ", ..." if len(absent.classes) > NAMED else ""
        line = f"none of the {absent.masks} masks to train on has a pixel of {names}"
        if absent.masks < len(masks):
            line = f"{absent.masks} of {len(masks)} masks to train on were looked at, and have no pixel of {names}"
        rank_zero_warn(line + (f"; {self.labelling}" if absent.ignored else ""))

    @property
    @abstractmethod
    def class_names(self) -> list[str]:
        """Names of the classes in the order of their labels; known before ``setup``."""

    @property
    def num_classes(self) -> int:
        """Number of classes; known before ``setup``."""
        return len(self.class_names)

    @property
    def labelling(self) -> str:
        """What a warning of absent classes says of the labels in the files, where some pixels count nowhere."""
        return f"{IGNORE} counts nowhere"

    @property
    def palette(self) -> Palette:
        """Red, green and blue of each class, 0..255."""
        return default_palette(self.num_classes)

    @property
    def things(self) -> list[int]:
        """Classes whose objects are told apart; none where the data have no instances."""
        return []

    def default_augment(self) -> list[nn.Module]:
        """Return the pipeline of training, transforms of image and mask together."""
        return [
            RandomRatioResize(self.box, antialias=self.antialias),
            RandomClassCrop(self.image_size),
            v2.RandomHorizontalFlip(),
            PhotometricDistortion(),
        ]

    def dataset(self, part: str) -> SegmentationDataset:
        """Return the samples of a part, as `DataModule` says; augmented in training."""
        if part == "train":
            return SegmentationDataset(self.splits[part], self.box, self.antialias, self.augment, self.image_size)
        return SegmentationDataset(self.splits[part], self.box, self.antialias)

    def collate(self, part: str) -> SegmentationCollate:
        """Return what makes samples a batch, as `DataModule` says."""
        return SegmentationCollate(self.mean, self.std, self.image_size if part == "train" else None)

    def evaluation_sampler(self, dataset: SegmentationDataset) -> GroupedSampler:
        """Batches of images of one size."""
        groups = dataset.sizes() if self.batch_size > 1 else range(len(dataset))
        return GroupedSampler(groups, self.batch_size, *self.processes())
