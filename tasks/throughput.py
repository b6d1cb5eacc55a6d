"""A callback that logs the images per second of each stage."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor


class Throughput(Callback):
    """Logs ``<stage>/images_per_second`` of every epoch, all processes together, data loading included.

    An epoch's clock runs from its start to the end of its last batch, so that validation within a training epoch
    does not count. On the first epoch it includes what the first batch sets up.
    """

    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._images: dict[str, int | Tensor] = {}

    def start(self, stage: str) -> None:
        """Start the clock of ``stage`` and count its images from zero."""
        self._started[stage] = self._ended[stage] = time.perf_counter()
        self._images[stage] = 0

    def count(self, stage: str, batch: dict[str, Any]) -> None:
        """Add the images of one batch; those that only pad a process do not count."""
        if stage not in self._started:  # a run that is resumed within an epoch begins no epoch
            self.start(stage)
        self._images[stage] += (batch["index"] >= 0).sum()  # stays on its device: no step waits for it
        self._ended[stage] = time.perf_counter()

    def finish(self, stage: str, module: L.LightningModule) -> None:
        """Log the images per second of the epoch that ends, summed over processes; none if no batch was left of it."""
        if stage not in self._started:
            return
        seconds = max(self._ended[stage] - self._started[stage], 1e-9)
        rate = int(self._images[stage]) / seconds
        module.log(f"{stage}/images_per_second", rate, sync_dist=True, reduce_fx="sum")

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of the training epoch."""
        self.start("train")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Count the images of a training batch."""
        self.count("train", batch)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the rate of the training epoch."""
        self.finish("train", pl_module)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of the validation epoch."""
        self.start("val")

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Count the images of a validation batch."""
        self.count("val", batch)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the rate of the validation epoch."""
        self.finish("val", pl_module)

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of the test epoch."""
        self.start("test")

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Count the images of a test batch."""
        self.count("test", batch)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the rate of the test epoch."""
        self.finish("test", pl_module)
