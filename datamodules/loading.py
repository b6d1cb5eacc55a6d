"""What all data have in common: how they are set up, seeded, loaded and shared among processes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, ClassVar, cast

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader, Dataset

from attention_zoo.domains import Checked, SignedInt, checked
from attention_zoo.errors import InputError
from attention_zoo.runs.place import FIRST_BATCH, FIRST_EPOCH, Place, place_of
from attention_zoo.seeding import run_seed
from attention_zoo.terminal import counted, printable
from datamodules.checks import MOST_BATCH, MOST_WORKERS, require_whole
from datamodules.images import ImageFiles, Split, list_images, noting_left_out
from datamodules.sampling import EvaluationSampler, GroupedSampler, TrainSampler

AUGMENTATION = 0xA06
"""Sets the seeds of augmentation apart from the other seeds of an epoch and index."""

_PARTS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}

Batch = dict[str, Any]


class DataModule(Checked, L.LightningDataModule, ABC):
    """Base of the data of all tasks.

    Training shows every image once an epoch, but for an incomplete last batch. What is random about a sample depends on
    the run's seed, the epoch and the sample only. Every batch has ``index`` (B,) int64, the position in the split, or
    -1 for a duplicate that pads a process in evaluation and must not be counted.

    Args:
        batch_size: images a batch, in each process.
        num_workers: processes that load data, for each process that trains; 0 loads in that process itself.
        mean: of each channel, for images in 0..1; None is the data's own.
        std: of each channel, for images in 0..1; None is the data's own.
        predict_dir: folder of images for ``predict``, searched recursively; nothing else is read for it.

    Attributes:
        prediction_format: what ``predict`` writes: ``classes``, ``masks`` or ``objects``.
        place: the place in the training with which the run begins.
        images_a_step: images a step of all processes, of the run that this one was resumed from; None if unknown.
        tested: samples that this process has behind it, where a test goes on; such a test begins after them.

    Raises:
        InputError: an argument is out of range.
    """

    prediction_format: ClassVar[str] = "classes"
    MEAN: ClassVar[tuple[float, float, float]]
    STD: ClassVar[tuple[float, float, float]]

    @checked
    def __init__(
        self,
        batch_size: int = 64,
        num_workers: SignedInt = 2,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        predict_dir: str | None = None,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.mean = self.MEAN if mean is None else mean
        self.std = self.STD if std is None else std
        self.predict_dir = predict_dir
        require_whole("batch_size", batch_size, 1, MOST_BATCH)
        require_whole("num_workers", num_workers, 0, MOST_WORKERS)
        if min(self.std) <= 0:
            raise InputError(f"std must be positive, got {self.std}")
        self.splits: dict[str, Split] = {}
        self.place = Place()
        self.images_a_step: int | None = None
        self.tested = 0

    @abstractmethod
    def load(self, parts: Collection[str]) -> dict[str, Split]:
        """Read the asked ones of ``train``, ``val`` and ``test``.

        Raises:
            InputError: the data are not there, or not as they should be.
        """

    @abstractmethod
    def dataset(self, part: str) -> Dataset[Any]:
        """Return the samples of a part that was set up, addressed as its sampler does."""

    @abstractmethod
    def collate(self, part: str) -> Callable[[list[Batch]], Batch]:
        """Return the function that makes samples of a part a batch."""

    def train_sampler(self, dataset: Any) -> TrainSampler:
        """Return the order of training."""
        return self.training_order(dataset)

    def training_order(self, dataset: Any, repeats: int = 1) -> TrainSampler:
        """Return the order of training, from the place on with which the run begins.

        Raises:
            InputError: the run was resumed within an epoch that had steps of another size, or whose order is not ours.
        """
        if self.place.batches and getattr(self.trainer, "overfit_batches", 0):
            raise InputError("overfit_batches has an order of its own, which cannot go on within an epoch")
        if self.place.batches and self.images_a_step not in (None, self._images_a_step()):
            raise InputError(
                f"the checkpoint was written within an epoch of {self.images_a_step} images a step, which cannot go on "
                f"with {self._images_a_step()}: keep batch_size and the number of processes"
            )
        start = {"first_epoch": self.place.epoch, "first": self.place.batches * self.batch_size}
        return TrainSampler(dataset, *self.processes(), seed=run_seed(), repeats=repeats, **start)

    def evaluation_sampler(self, dataset: Any) -> EvaluationSampler | GroupedSampler:
        """Return the order of evaluation and prediction."""
        return EvaluationSampler(dataset, *self.processes(), first=self.tested)

    def setup(self, stage: str) -> None:
        """Read what a stage needs and is not there yet.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            InputError: the data are not there, or not as they should be.
        """
        missing = [part for part in _PARTS[stage] if part not in self.splits]
        with noting_left_out() as left_out:
            if "predict" in missing:
                if self.predict_dir is None:
                    raise InputError("predict needs predict_dir, a folder of images")
                paths = list_images(Path(self.predict_dir))
                self.splits["predict"] = Split(ImageFiles(paths), {"path": paths})
            elif missing:
                self.splits |= self.load(missing)
        _tell(left_out)

    def state_dict(self) -> dict[str, int]:
        """Return what a checkpoint keeps: the place that a run resumed from it begins with, and the size of a step."""
        place = place_of(cast(L.Trainer, self.trainer)) or self.place
        return {FIRST_EPOCH: place.epoch, FIRST_BATCH: place.batches, "images_a_step": self._images_a_step()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Take up what `state_dict` kept."""
        told = FIRST_BATCH in state_dict
        self.place = Place(state_dict[FIRST_EPOCH], state_dict.get(FIRST_BATCH, 0), 0 if told else -1)
        self.images_a_step = state_dict.get("images_a_step")

    def _images_a_step(self) -> int:
        return self.batch_size * (self.processes()[0] or 1)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return augmented batches, in an order of their own each epoch.

        All batches have ``batch_size`` images; data smaller than that make one smaller batch.
        """
        dataset = self.dataset("train")
        return self._loader("train", dataset, self.train_sampler(dataset))

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return batches of the validation split."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return batches of the test split, or of what an interrupted test has left of it."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return batches of the images in ``predict_dir``."""
        return self._evaluation_loader("predict")

    def processes(self) -> tuple[int | None, int | None]:
        """Number of processes and which of them this is; unknown without a trainer."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (None, None)

    def _evaluation_loader(self, part: str) -> DataLoader[Batch]:
        dataset = self.dataset(part)
        return self._loader(part, dataset, self.evaluation_sampler(dataset))

    def _loader(
        self, part: str, dataset: Dataset[Any], sampler: TrainSampler | EvaluationSampler | GroupedSampler
    ) -> DataLoader[Batch]:
        return DataLoader(
            dataset,
            batch_size=None if isinstance(sampler, GroupedSampler) else self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=self.collate(part),
            drop_last=isinstance(sampler, TrainSampler) and len(sampler) >= self.batch_size,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # Its own generator: an iterator over the data draws nothing from the generator of the run.
            generator=torch.Generator().manual_seed(run_seed()),
        )


def _tell(left_out: set[str]) -> None:
    """Warn of images that are of kinds not read."""
    if left_out:
        kinds = ", ".join(sorted({Path(path).suffix.lower() for path in left_out}))
        number = counted(len(left_out), "file is", "files are")
        first = printable(min(left_out))
        rank_zero_warn(
            f"{number} left out, the first of them {first}: images ending in {kinds} are not read; "
            "save them as PNG or JPEG"
        )
