"""What stops a run whose numbers would mean nothing: weights and losses that are not finite, batches of one value."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils.hooks import RemovableHandle

from attention_zoo.errors import InputError
from tasks.sync_norm import ProcessBatchNorm


class FiniteWeights(Callback):
    """Refuses to evaluate a model with a weight that is not finite.

    What a model predicts is checked where it is scored (`attention_zoo.functional.checks.check_finite`); a weight can
    be NaN and leave no trace there, behind a hard assignment or in a layer that the evaluation does not reach.
    """

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """See the class."""
        check_weights(pl_module)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """See the class."""
        check_weights(pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """See the class; within a fit it is the training loss that tells."""
        if trainer.state.fn == "fit":
            check_training_loss(trainer)
        else:
            check_weights(pl_module)


class BatchNormGuard(Callback):
    """Says in one line which normalisation has a single value a channel, of which it can take no variance."""

    def __init__(self) -> None:
        self._hooks: list[RemovableHandle] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Watch the layers."""
        self.teardown(trainer, pl_module, stage)
        for name, layer in pl_module.named_modules():
            if isinstance(layer, _BatchNorm | _InstanceNorm):
                self._hooks.append(layer.register_forward_pre_hook(_NeedsTwo(name)))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leave the layers alone."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave the layers alone."""
        self.teardown(trainer, pl_module, "")


class _NeedsTwo:
    """A hook before a normalisation.

    Args:
        name: of the layer.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Raise an InputError where there is one value."""
        (x,) = inputs
        of_batch = layer.training or layer.running_mean is None
        together = isinstance(layer, nn.SyncBatchNorm | ProcessBatchNorm) and torch.distributed.is_initialized()
        if not of_batch or together:
            return
        channels = 1 if isinstance(layer, _InstanceNorm) else x.shape[0]
        if channels * x.shape[2:].numel() == 1 and x.dim() > 1:
            raise InputError(one_value(self.name, x))


def one_value(name: str, x: Tensor) -> str:
    """What is to be said of a normalisation of ``x`` (B, C, ...) with one value a channel."""
    return (
        f"{name} normalises each channel over the batch and has one value there, of {tuple(x.shape)}: in training give "
        "it two images or more a batch (in the last batch of an epoch too), larger images, or a model with another norm"
    )


def check_weights(module: nn.Module) -> None:
    """Raise an InputError that names the first of a module's weights that is not finite; buffers may be infinite."""
    for name, weight in module.named_parameters():
        _refuse(name, weight, ~weight.isfinite())
    for name, buffer in module.named_buffers():
        _refuse(name, buffer, buffer.isnan())


def _refuse(name: str, weight: Tensor, bad: Tensor) -> None:
    if bad.any():
        entries = f"{weight[bad][0].item()}, {int(bad.sum())} of {bad.numel()} entries"
        raise InputError(f"the weight {name} is not finite ({entries}): what such a model predicts means nothing")


def check_training_loss(trainer: L.Trainer) -> None:
    """Raise an InputError if the training loss, the mean of an epoch or the last within one, is not finite."""
    loss = trainer.callback_metrics.get("train/loss")
    if loss is not None and not torch.isfinite(loss):
        raise InputError(
            f"the training loss is {loss.item()} after epoch {trainer.current_epoch}: "
            "a lower learning rate, a longer warm-up or trainer.gradient_clip_val may help"
        )
