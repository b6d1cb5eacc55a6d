"""What all image classification data have in common: pipeline, seeding, loaders and prediction on a folder."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms import v2

from attention_zoo.errors import InputError
from attention_zoo.seeding import run_seed, seeded
from datamodules.images import ImageFiles, Split, list_images
from datamodules.sampling import EvaluationSampler, SampleKey, TrainSampler

_AUGMENTATION = 0xA06
"""Sets the seeds of augmentation apart from the other seeds of an epoch and index."""

_PARTS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}

Batch = dict[str, Any]


def require_at_least(name: str, value: int, least: int) -> None:
    """Check an argument.

    Raises:
        InputError: ``value`` is less than ``least``.
    """
    if value < least:
        raise InputError(f"{name} must be at least {least}, got {value}")


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
        self.augment = nn.Sequential(*augment)
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
        with seeded(self.seed, epoch, index, _AUGMENTATION + repeat):
            image = self.augment(image)
        return image if image.shape[-2:] == self.size else self.resize(image)


class Collate:
    """Samples to a batch whose images are float32 and normalised, which is cheaper done once for all of them.

    Args:
        mean: of each channel, for images in 0..1.
        std: of each channel, for images in 0..1.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.normalise = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])

    def __call__(self, samples: list[Batch]) -> Batch:
        """The batch: ``image`` (B, 3, H, W), numbers as int64 (B,), paths as a list."""
        batch = default_collate(samples)
        return {**batch, "image": self.normalise(batch["image"])}


class ImageDataModule(L.LightningDataModule, ABC):
    """Base of the image classification data.

    Batches are dictionaries: ``image`` (B, 3, H, W) float32, normalised; ``index`` (B,) int64, the position in the
    split, or -1 for a duplicate that pads a process in evaluation and must not be counted; ``label`` (B,) int64, in
    prediction ``path`` (B strings) instead. Training shows every image once an epoch, but for an incomplete last
    batch. The augmentation of an image depends on the run's seed, the epoch, the image and its repetition only.

    Args:
        batch_size: images a batch, in each process.
        num_workers: processes that load data, for each process that trains; 0 loads in that process itself.
        image_size: side, or height and width, of the images in pixels; None is the data's own.
        augment: transforms of a uint8 image (3, H, W) in training, such as those of torchvision.transforms.v2; None
            is the data's own augmentation, an empty list is none. What they leave at another size is resized.
        mean: of each channel, for images in 0..1; None is the data's own.
        std: of each channel, for images in 0..1; None is the data's own.
        predict_dir: folder of images for ``predict``, searched recursively; nothing else is read for it.
        repeated_augmentation: times that an image of a training epoch is seen, differently augmented; the epoch
            stays as long and so has fewer images (3 in the recipe of DeiT, RVT and AbSViT).

    Raises:
        InputError: an argument is out of range.
    """

    IMAGE_SIZE: ClassVar[int]
    MEAN: ClassVar[tuple[float, float, float]]
    STD: ClassVar[tuple[float, float, float]]

    def __init__(
        self,
        batch_size: int = 64,
        num_workers: int = 2,
        image_size: int | tuple[int, int] | None = None,
        augment: list[nn.Module] | None = None,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        predict_dir: str | None = None,
        repeated_augmentation: int = 1,
    ) -> None:
        super().__init__()
        size = self.IMAGE_SIZE if image_size is None else image_size
        self.image_size = (size, size) if isinstance(size, int) else size
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.mean = self.MEAN if mean is None else mean
        self.std = self.STD if std is None else std
        self.predict_dir = predict_dir
        self.repeated_augmentation = repeated_augmentation
        require_at_least("repeated_augmentation", repeated_augmentation, 1)
        require_at_least("batch_size", batch_size, 1)
        require_at_least("num_workers", num_workers, 0)
        require_at_least("image_size", min(self.image_size), 1)
        if min(self.std) <= 0:
            raise InputError(f"std must be positive, got {self.std}")
        self.augment = self.default_augment() if augment is None else augment
        self.splits: dict[str, Split] = {}
        self.first_epoch = 0

    @property
    @abstractmethod
    def class_names(self) -> list[str]:
        """Names of the classes in the order of their labels; known before ``setup``."""

    @property
    def num_classes(self) -> int:
        """Number of classes; known before ``setup``."""
        return len(self.class_names)

    @abstractmethod
    def load(self, parts: Collection[str]) -> dict[str, Split]:
        """Read the asked ones of ``train``, ``val`` and ``test``, each with a column ``label``.

        Raises:
            InputError: the data are not there, or not as they should be.
        """

    @abstractmethod
    def default_augment(self) -> list[nn.Module]:
        """The data's own augmentation."""

    def default_resize(self) -> nn.Module:
        """What brings an image to ``self.image_size`` in evaluation."""
        return v2.Resize(self.image_size, antialias=True)

    def setup(self, stage: str) -> None:
        """Read what a stage needs and is not there yet.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            InputError: the data are not there, or not as they should be.
        """
        missing = [part for part in _PARTS[stage] if part not in self.splits]
        if "predict" in missing:
            if self.predict_dir is None:
                raise InputError("predict needs predict_dir, a folder of images")
            paths = list_images(Path(self.predict_dir))
            self.splits["predict"] = Split(ImageFiles(paths), {"path": paths})
        elif missing:
            self.splits |= self.load(missing)

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint keeps: the epoch that a run resumed from it starts with."""
        return {"first_epoch": self.trainer.fit_loop.epoch_progress.current.processed}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Take up what `state_dict` kept."""
        self.first_epoch = state_dict["first_epoch"]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Augmented batches in an order of their own each epoch.

        All batches have ``batch_size`` images; data smaller than that make one smaller batch.
        """
        dataset = ImageDataset(self.splits["train"], self.image_size, self.default_resize(), self.augment)
        order = {"seed": run_seed(), "first_epoch": self.first_epoch, "repeats": self.repeated_augmentation}
        sampler = TrainSampler(dataset, *self._processes(), **order)
        return self._loader(dataset, sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Batches of the validation split."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Batches of the test split."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Batches of the images in ``predict_dir``, sorted by path."""
        return self._evaluation_loader("predict")

    def _evaluation_loader(self, part: str) -> DataLoader[Batch]:
        dataset = ImageDataset(self.splits[part], self.image_size, self.default_resize())
        return self._loader(dataset, EvaluationSampler(dataset, *self._processes()))

    def _loader(self, dataset: ImageDataset, sampler: TrainSampler | EvaluationSampler) -> DataLoader[Batch]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=Collate(self.mean, self.std),
            drop_last=isinstance(sampler, TrainSampler) and len(sampler) >= self.batch_size,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # Its own generator: an iterator over the data draws nothing from the generator of the run.
            generator=torch.Generator().manual_seed(run_seed()),
        )

    def _processes(self) -> tuple[int | None, int | None]:
        """Number of processes and which of them this is; unknown without a trainer."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (None, None)
