"""Batch normalisation over the batches of all processes, with or without GPUs."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.layer_sync import LayerSync
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

from attention_zoo.errors import InputError

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class ProcessBatchNorm(_BatchNorm):
    """Batch normalisation over all processes by sums that autograd follows; torch's ``SyncBatchNorm`` needs GPUs."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (B, C, ...), got {tuple(input.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (B, C, ...) normalised over the batches of all processes, and update the running statistics.

        In evaluation, or in a single process, it is the plain batch normalisation.

        Raises:
            InputError: there is one value a channel in all, or the layer keeps no running statistics.
        """
        if not self.training or not dist.is_initialized():
            return super().forward(x)
        dims, shape = [0, *range(2, x.dim())], (1, -1) + (1,) * (x.dim() - 2)
        wide = x.double()
        number = torch.full((x.shape[1],), x.numel() / x.shape[1], dtype=wide.dtype, device=x.device)
        total, squares, number = all_reduce(torch.stack([wide.sum(dims), wide.square().sum(dims), number]))
        if number[0] < 2:
            raise InputError(f"a normalisation over all processes has one value a channel, of {tuple(x.shape)} in each")
        mean = total / number
        variance = squares / number - mean.square()
        counted, running_mean, running_var = self.num_batches_tracked, self.running_mean, self.running_var
        if counted is None or running_mean is None or running_var is None:
            raise InputError("a normalisation over all processes keeps running statistics; this one keeps none")
        with torch.no_grad():
            counted += 1
            rate = 1 / int(counted) if self.momentum is None else self.momentum
            running_mean.lerp_(mean.to(running_mean), rate)
            running_var.lerp_((variance * number / (number - 1)).to(running_var), rate)
        scale = self.weight / (variance + self.eps).sqrt()
        return ((wide - mean.view(shape)) * scale.view(shape) + self.bias.view(shape)).to(x.dtype)


class SyncBatchNorm(LayerSync):
    """Plugin of Lightning's trainer in place of its ``sync_batchnorm``, for processes with or without GPUs.

    torch's batch normalisations with learned scale and running statistics are replaced where several processes train.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Replace the model's layers in place and return the model; the layers keep their parameters."""
        on_gpus = dist.is_initialized() and "nccl" in dist.get_backend()
        synced = nn.SyncBatchNorm if on_gpus else ProcessBatchNorm
        return _replaced(model, lambda layer: synced if type(layer) in PLAIN else None)

    def revert(self, model: nn.Module) -> nn.Module:
        """Put the plain layers back in place and return the model; the layers keep their parameters."""
        return _replaced(model, lambda layer: getattr(layer, "plain", None))


def _replaced(model: nn.Module, choose: Callable[[nn.Module], type[_BatchNorm] | None]) -> nn.Module:
    """Replace layers in place and return the model.

    Args:
        model: the model whose layers are replaced.
        choose: from a layer to the class that replaces it, or None to keep the layer.

    Returns:
        The model; a new layer that is not plain has the class it replaced as ``plain``.
    """
    for name, old in list(model.named_modules()):
        kind = choose(old)
        if kind is None or not (old.affine and old.track_running_stats):
            continue
        new: Any = kind(old.num_features, old.eps, old.momentum)
        new.weight, new.bias = old.weight, old.bias
        for buffer in ("running_mean", "running_var", "num_batches_tracked"):
            setattr(new, buffer, getattr(old, buffer))
        if kind not in PLAIN:
            new.plain = type(old)
        model.set_submodule(name, new.train(old.training))
    return model
