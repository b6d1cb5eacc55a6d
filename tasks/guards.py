"""Checks that stop a run whose numbers would mean nothing: weights or losses not finite, a norm of one value.

One warns only: that of a test of a part of the data.
"""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils.hooks import RemovableHandle

from attention_zoo.errors import InputError
from attention_zoo.runs.parts import part_of_batches
from tasks.sync_norm import ProcessBatchNorm


class FiniteWeights(Callback):
    """Refuses to evaluate a model with a weight that is not finite.

    What a model predicts is checked where it is scored (`attention_zoo.functional.checks.check_finite`); a weight can
    be NaN and leave no trace there, behind a hard assignment or in a layer that the evaluation does not reach.
    """

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the weights before a test.

        Raises:
            InputError: a weight is not finite.
        """
        check_weights(pl_module)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the weights before a prediction.

        Raises:
            InputError: a weight is not finite.
        """
        check_weights(pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the weights before a validation; within a fit check the training loss instead.

        Raises:
            InputError: a weight, or within a fit the training loss, is not finite.
        """
        if trainer.state.fn == "fit":
            check_training_loss(trainer)
        else:
            check_weights(pl_module)


class WholeTest(Callback):
    """Warns of a test of a part of the data, whose numbers are not those of the data."""

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say how many batches were left out, if any were."""
        part = part_of_batches(trainer, "test")
        if part is not None:
            rank_zero_warn(f"{part} were tested, as trainer.limit_test_batches says: no test of the whole data")


class BatchNormGuard(Callback):
    """Stops a run in one line that names a normalisation which has a single value a channel, and so no variance."""

    def __init__(self) -> None:
        self._hooks: list[RemovableHandle] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Put a hook before every batch and instance normalisation of the task."""
        self.teardown(trainer, pl_module, stage)
        for name, layer in pl_module.named_modules():
            if isinstance(layer, _BatchNorm | _InstanceNorm):
                self._hooks.append(layer.register_forward_pre_hook(_NeedsTwo(name)))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Remove the hooks from the layers."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Remove the hooks when the run ends in an exception."""
        self.teardown(trainer, pl_module, "")


class _NeedsTwo:
    """A hook before a normalisation, which refuses an input of one value a channel.

    Args:
        name: name of the layer, for the message.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Check the input of the layer.

        Raises:
            InputError: the layer would take the variance of one value a channel.
        """
        (x,) = inputs
        of_batch = layer.training or layer.running_mean is None
        together = isinstance(layer, nn.SyncBatchNorm | ProcessBatchNorm) and torch.distributed.is_initialized()
        if not of_batch or together:
            return
        channels = 1 if isinstance(layer, _InstanceNorm) else x.shape[0]
        if channels * x.shape[2:].numel() == 1 and x.dim() > 1:
            raise InputError(one_value(self.name, x))


def one_value(name: str, x: Tensor) -> str:
    """Return the message for a normalisation ``name`` of ``x`` (B, C, ...) with one value a channel."""
    return (
        f"{name} normalises each channel over the batch and has one value there, of {tuple(x.shape)}: in training give "
        "it two images or more a batch (in the last batch of an epoch too), larger images, or a model with another norm"
    )


@torch.no_grad()
def check_weights(module: nn.Module) -> None:
    """Refuse a module with a weight that is not finite; buffers may be infinite, but not NaN.

    Raises:
        InputError: there is such a weight or buffer; the message names the first.
    """
    # A finite sum has finite terms only, and is one pass without a copy; others may have overflown.
    for name, weight in module.named_parameters():
        if not weight.sum().isfinite():
            _refuse(name, weight, ~weight.isfinite())
    for name, buffer in module.named_buffers():
        if buffer.sum().isnan():
            _refuse(name, buffer, buffer.isnan())


def _refuse(name: str, weight: Tensor, bad: Tensor) -> None:
    if bad.any():
        entries = f"{weight[bad][0].item()}, {int(bad.sum())} of {bad.numel()} entries"
        raise InputError(f"the weight {name} is not finite ({entries}): what such a model predicts means nothing")


def check_training_loss(trainer: L.Trainer) -> None:
    """Refuse a training loss that is not finite: the mean of an epoch, or the last one within an epoch.

    Raises:
        InputError: the loss is NaN or infinite.
    """
    loss = trainer.callback_metrics.get("train/loss")
    if loss is not None and not torch.isfinite(loss):
        raise InputError(
            f"the training loss is {loss.item()} in epoch {trainer.current_epoch + 1}: "
            "a lower learning rate, a longer warm-up or trainer.gradient_clip_val may help"
        )
