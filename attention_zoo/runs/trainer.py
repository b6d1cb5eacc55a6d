"""The trainer of every run, and the callbacks that keep its last state."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

from attention_zoo.terminal import printable

LAST = "last"
"""Name of the checkpoint of a run's last state, without its suffix."""

NO_METRIC = re.compile(r"could not find the monitored key|conditioned on metric `.*` which is not available")
"""Pattern of what Lightning's callbacks say at the end of an epoch about a metric that they watch and nothing logs."""


class Trainer(L.Trainer):
    """Lightning's trainer, with counts of batches that stay counts: 1 is one batch, 1.0 is all of them.

    Lightning's own annotations leave the order of the two types to whatever was imported before, since typing takes
    ``Union[int, float]`` and ``Union[float, int]`` for the same.

    Args:
        limit_train_batches: batches of a training epoch, as a number (integer) or as a share (float).
        limit_val_batches: batches of each validation, alike.
        limit_test_batches: batches of a test, alike.
        limit_predict_batches: batches of a prediction, alike.
        overfit_batches: batches to train and validate on again and again, alike; 0.0 is off.
        val_check_interval: batches (integer), share of an epoch (float) or time between two validations.
        kwargs: the other arguments of Lightning's trainer.
    """

    def __init__(
        self,
        *,
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        limit_predict_batches: int | float | None = None,
        overfit_batches: int | float = 0.0,
        val_check_interval: int | float | str | timedelta | dict[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            limit_train_batches=limit_train_batches,
            limit_val_batches=limit_val_batches,
            limit_test_batches=limit_test_batches,
            limit_predict_batches=limit_predict_batches,
            overfit_batches=overfit_batches,
            val_check_interval=val_check_interval,
            **kwargs,
        )


def last_checkpoint() -> ModelCheckpoint:
    """Return a callback that writes ``last.ckpt`` after every epoch.

    ``save_last`` of a callback with a monitor would not do: it writes only along with a best checkpoint.
    """
    return ModelCheckpoint(filename=LAST, every_n_epochs=1, save_on_train_epoch_end=True, enable_version_counter=False)


class KeepEpoch(Callback):
    """Writes ``last.ckpt`` when a callback that watches a metric which nothing logs ends the run.

    Only the first validation shows which metrics there are. The epoch before it would be lost: such callbacks act
    before the one that keeps the last state.
    """

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Keep the state, in all processes: the error is that of all."""
        kept = [each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
        place = next((each.dirpath for each in kept if each.filename == LAST), None)
        if place is None or trainer.fast_dev_run or not NO_METRIC.search(str(exception)):  # type: ignore[attr-defined]
            return
        path = Path(place) / f"{LAST}.ckpt"
        trainer.save_checkpoint(path, weights_only=False)
        rank_zero_info(f"what was trained until now is in {printable(path)}")
