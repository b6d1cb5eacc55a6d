"""A callback that logs the images per second of each stage."""

import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor


class Throughput(Callback):
    """Logs ``<stage>/images_per_second`` of every epoch, all processes together, data loading included.

    An epoch's clock runs from its start to the end of its last batch, so that validation within a training epoch
    does not count. On the first epoch it includes what the first batch sets up.

    Of a compiled model the first batch of each stage, and each later one whose tensors have other sizes than all before
    it there, counts neither with its images nor with its time: a graph may be compiled for it. Of an epoch of such
    batches alone nothing is logged.

    Args:
        compiled: whether the model is compiled as it is called.
    """

    def __init__(self, compiled: bool = False) -> None:
        self.compiled = compiled
        self._ended: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self._images: dict[str, int | Tensor] = {}
        self._sizes: dict[str, set[tuple[torch.Size, ...]]] = {}

    def start(self, stage: str) -> None:
        """Start the clock of ``stage`` and count its images from zero."""
        self._ended[stage] = time.perf_counter()
        self._seconds[stage] = 0.0
        self._images[stage] = 0

    def count(self, stage: str, batch: dict[str, Any]) -> None:
        """Add the images of one batch and its time; images that only pad a process do not count."""
        if stage not in self._ended:  # a run that is resumed within an epoch begins no epoch
            self.start(stage)
        before, self._ended[stage] = self._ended[stage], time.perf_counter()
        if self.compiled and self._are_new(stage, batch):
            return
        self._seconds[stage] += self._ended[stage] - before
        self._images[stage] += (batch["index"] >= 0).sum()  # stays on its device: no step waits for it

    def _are_new(self, stage: str, batch: dict[str, Any]) -> bool:
        """Return whether no batch of ``stage`` had tensors of these sizes before, and remember them."""
        sizes = tuple(value.shape for value in batch.values() if isinstance(value, Tensor))
        known = self._sizes.setdefault(stage, set())
        new = sizes not in known
        known.add(sizes)
        return new

    def finish(self, stage: str, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Log the images per second of the epoch that ends, summed over processes; none if no batch counted."""
        if stage not in self._ended:
            return
        rate = int(self._images[stage]) / max(self._seconds[stage], 1e-9)
        if self.compiled and not self._any_counted(rate, trainer, module):
            return
        module.log(f"{stage}/images_per_second", rate, sync_dist=True, reduce_fx="sum")

    def _any_counted(self, rate: float, trainer: L.Trainer, module: L.LightningModule) -> bool:
        """Return whether a batch of any process counted: they log alike, or they would wait for each other."""
        own = torch.tensor(rate, dtype=torch.float32, device=module.device)
        return bool(trainer.strategy.reduce(own, reduce_op="sum") > 0)

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
        self.finish("train", trainer, pl_module)

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
        self.finish("val", trainer, pl_module)

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
        self.finish("test", trainer, pl_module)
