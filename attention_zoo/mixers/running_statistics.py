"""Keeps what gradient checkpointing computes again in the backward pass from moving running statistics twice."""

from typing import Any

from torch import nn

from attention_zoo.compat import in_backward

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
"""The layers that follow batches by a running average."""


def hold_statistics(model: nn.Module) -> None:
    """Have the batch norms of a model follow each batch once, also where checkpointing computes their layers again.

    Their outputs and gradients stay the same. Without it, a model that was trained with checkpointing has the same
    weights as one that was not, but other statistics, and so is another model in evaluation.
    """
    for norm in model.modules():
        if isinstance(norm, NORMS) and norm.track_running_stats and not hasattr(norm, "counts_once"):
            _hold(norm)


def _hold(norm: Any) -> None:
    norm.counts_once = True
    norm.register_forward_pre_hook(_stop)
    # also where checkpointing leaves the layer halfway, having all that it needs
    norm.register_forward_hook(_go_on, always_call=True)


def _stop(norm: Any, inputs: Any) -> None:
    """Have a batch count for nothing; without its statistics the layer would keep fewer tensors than the first time."""
    if in_backward():
        norm.held = norm.momentum, norm.num_batches_tracked.clone()
        norm.momentum = 0.0


def _go_on(norm: Any, inputs: Any, output: Any) -> None:
    if in_backward():
        norm.momentum, batches = norm.__dict__.pop("held")
        norm.num_batches_tracked.copy_(batches)
