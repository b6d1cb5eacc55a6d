"""A callback by which a training that is resumed within an epoch goes on as if it had not been broken off."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, GradientAccumulationScheduler, StochasticWeightAveraging
from lightning.pytorch.utilities import rank_zero_warn

from attention_zoo.errors import InputError
from attention_zoo.runs.place import Placed, batches_of, place_of, settle


class Resuming(Callback):
    """Keeps the place of a training in its checkpoints, and checks that a resumed one can go on from there."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to count from the place of the data.

        Raises:
            InputError: the checkpoint was written between two steps of the optimizer.
        """
        with_data: Any = trainer
        data = with_data.datamodule
        if not isinstance(data, Placed):
            return
        total, old = batches_of(trainer), data.place.total < 0
        epoch = total // int(trainer.num_training_batches) if old else data.place.epoch
        data.place = data.place._replace(epoch=epoch, total=total)
        if data.place.total and any(each.reduce_on_plateau for each in trainer.lr_scheduler_configs):
            rank_zero_warn(
                "a schedule that watches a metric does not see that of the epoch before the checkpoint, so that its "
                "learning rates may differ from those of an unbroken run"
            )
        if not data.place.batches:
            # after the last batch of an epoch Lightning takes the next one for begun, and would not call its hooks
            with_data.fit_loop.reset_restart_stage()
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, GradientAccumulationScheduler):  # Lightning begins no epoch that has begun
                callback.on_train_epoch_start(trainer)
            elif isinstance(callback, StochasticWeightAveraging):
                callback.on_train_epoch_start(trainer, pl_module)
        if data.place.batches % trainer.accumulate_grad_batches:
            raise InputError(
                f"the checkpoint was written after {data.place.batches} batches of an epoch, between two steps of "
                f"{trainer.accumulate_grad_batches} batches, whose gradients it has not; take one that was written at "
                "a step or at the end of an epoch"
            )

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Have the checkpoint tell the place at which it is written."""
        place = place_of(trainer)
        if place is not None:
            settle(checkpoint, place)
