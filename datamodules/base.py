"""What all image classification data have in common: pipeline and seeding of augmentation."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate
from torchvision.transforms import v2

from attention_zoo.domains import PositiveInt
from attention_zoo.errors import InputError
from attention_zoo.seeding import run_seed, seeded
from datamodules.augmenting import Augment
from datamodules.checks import two_sides
from datamodules.images import Split, name_of
from datamodules.loading import AUGMENTATION, Batch, DataModule
from datamodules.sampling import SampleKey, TrainSampler


class ImageDataset(Dataset[Batch]):
    """Samples of a split, addressed by the keys of the samplers (or by a plain index, taken as epoch 0).

    Args:
        split: the images and what comes with them.
        size: height and width of the images it gives, in pixels.
        resize: deterministic, brings an image to ``size``.
        augment: random; an image it leaves at another size is resized. Empty: only ``resize``.
    """

    def __init__(
        self, split: Split, size: tuple[int, int], resize: Callable[[Tensor], Tensor], augment: Sequence[nn.Module] = ()
    ) -> None:
        self.split = split
        self.size = size
        self.resize = resize
        self.augment = Augment(augment)
        self.seed = run_seed()

    def __len__(self) -> int:
        return len(self.split.images)

    def __getitem__(self, key: SampleKey | int) -> Batch:
        """One sample: ``image`` (3, H, W), not yet normalised, ``index`` (-1: not counted) and the split's columns."""
        epoch, index, counted, repeat = key if isinstance(key, SampleKey) else SampleKey(0, key, True)
        image = self.split.images[index]
        image = self._augmented(image, epoch, index, repeat) if len(self.augment) else self.resize(image)
        columns = {name: values[index] for name, values in self.split.columns.items()}
        return {"image": image, "index": index if counted else -1, **columns}

    def _augmented(self, image: Tensor, epoch: int, index: int, repeat: int) -> Tensor:
        with seeded(self.seed, epoch, index, AUGMENTATION + repeat):
            (image,) = self.augment(image, name=f"image {name_of(self.split.images, index)}")
        return image if image.shape[-2:] == self.size else self.resize(image)


class Collate:
    """Samples to a batch whose images are float32 and normalised, which is cheaper done once for all of them.

    Args:
        mean: of each channel, for images in 0..1.
        std: of each channel, for images in 0..1.
        ragged: columns whose values have sizes of their own and stay a list.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], ragged: Sequence[str] = ()) -> None:
        self.normalise = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
        self.ragged = ragged

    def __call__(self, samples: list[Batch]) -> Batch:
        """The batch: ``image`` (B, 3, H, W), numbers as int64 (B,), paths as a list."""
        lists = {name: [sample.pop(name) for sample in samples] for name in self.ragged}
        batch = default_collate(samples)
        return {**batch, "image": self.normalise(batch["image"]), **lists}


class ImageDataModule(DataModule):
    """Base of the image classification data.

    Batches are dictionaries: ``image`` (B, 3, H, W) float32, normalised; ``index`` (B,) int64 as `DataModule` has it;
    ``label`` (B,) int64, in prediction ``path`` (B strings) instead. A split that `load` gives has a column ``label``.

    Args:
        image_size: side, or height and width, of the images in pixels; None is the data's own.
        augment: transforms of a uint8 image (3, H, W) in training, such as those of torchvision.transforms.v2; None
            is the data's own augmentation, an empty list is none. They give uint8, or floats in 0..1, which are
            normalised afterwards; what they leave at another size is resized.
        repeated_augmentation: times that an image of a training epoch is seen, differently augmented; the epoch
            stays as long and so has fewer images (3 in the recipe of DeiT, RVT and AbSViT).
        loading: the arguments of `DataModule`.

    Raises:
        InputError: an argument is out of range.
    """

    IMAGE_SIZE: ClassVar[int]

    def __init__(
        self,
        image_size: int | tuple[int, int] | None = None,
        augment: list[nn.Module] | None = None,
        repeated_augmentation: PositiveInt = 1,
        **loading: Any,
    ) -> None:
        super().__init__(**loading)
        size = self.IMAGE_SIZE if image_size is None else image_size
        self.image_size = two_sides("image_size", size)
        self.repeated_augmentation = repeated_augmentation
        self.augment = self.default_augment() if augment is None else augment

    @property
    @abstractmethod
    def class_names(self) -> list[str]:
        """Names of the classes in the order of their labels; known before ``setup``."""

    @property
    def num_classes(self) -> int:
        """Number of classes; known before ``setup``."""
        return len(self.class_names)

    @abstractmethod
    def default_augment(self) -> list[nn.Module]:
        """Return the data's own augmentation, transforms of a uint8 image (3, H, W)."""

    def default_resize(self) -> nn.Module:
        """Return the transform that brings an image to ``self.image_size`` in evaluation."""
        return v2.Resize(self.image_size, antialias=True)

    def dataset(self, part: str) -> ImageDataset:
        """Return the samples of a part, as `DataModule` says; augmented in training."""
        augment = self.augment if part == "train" else ()
        return ImageDataset(self.splits[part], self.image_size, self.default_resize(), augment)

    def collate(self, part: str) -> Collate:
        """Return what makes samples a batch, as `DataModule` says."""
        return Collate(self.mean, self.std)

    def train_sampler(self, dataset: ImageDataset) -> TrainSampler:
        """Return the order of training, as `DataModule` says; each image as often as ``repeated_augmentation`` says."""
        return self.training_order(dataset, repeats=self.repeated_augmentation)


class EvaluationDataModule(ImageDataModule):
    """Base of data that only test a trained model.

    Args:
        kwargs: the arguments of ImageDataModule.
    """

    def default_augment(self) -> list[nn.Module]:
        """None: nothing is trained on these data."""
        return []

    def load(self, parts: Collection[str]) -> dict[str, Split]:
        """Read the asked parts, as `ImageDataModule` says; there is a test split only."""
        other = [part for part in parts if part != "test"]
        if other:
            raise InputError(f"{type(self).__name__} has no {other[0]} split; it is there for test")
        return {"test": self.load_test()}

    @abstractmethod
    def load_test(self) -> Split:
        """Read the images to test on, and what comes with them.

        Raises:
            InputError: the data are not there, or not as they should be.
        """
