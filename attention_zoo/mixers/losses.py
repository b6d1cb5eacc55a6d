"""The losses that mixers have of their own, such as the balance of a router's loads.

There are two ways for one. `AuxiliaryLoss` is kept for the task, which adds it to its own. A loss that is the only
teacher of some parameters joins the backward pass by `joined` instead, so that they learn in any training loop; what is
logged leaves it out, and a gradient scaler does not scale it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from attention_zoo.mixers.base import SelfMixer
from attention_zoo.mixers.protocols import AuxiliaryLoss
from attention_zoo.outputs import Outputs


class _Joined(torch.autograd.Function):
    """Returns a tensor as it is, and has the backward pass add the gradient of a loss to that of the model's loss."""

    @staticmethod
    def forward(x: Tensor, loss: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(torch.ones_like(inputs[1]))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, ctx.saved_tensors[0]


def joined(x: Tensor, loss: Tensor) -> Tensor:
    """Return ``x``, of any shape; a backward pass through it is one through the scalar ``loss`` as well."""
    return _Joined.apply(x, loss)


def auxiliary_loss(model: nn.Module) -> Tensor | float:
    """Return the sum of the losses of the mixers in ``model``, each of its last forward pass in training.

    For an own training loop: ``loss = criterion(model(x), y) + auxiliary_loss(model)``. The tasks add it themselves.
    Each loss is handed out once. It is 0.0 where no mixer has one.
    """
    total: Tensor | float = 0.0
    for module in model.modules():
        if isinstance(module, SelfMixer) and isinstance(module, AuxiliaryLoss):
            loss, module.own_loss.value = module.own_loss.value, None
            total = total if loss is None else total + loss
    return total


def with_auxiliary_loss(model: nn.Module, outputs: Tensor | Outputs) -> Outputs:
    """Return what ``model`` gave in training as `Outputs`, with the losses of its mixers in ``aux_loss``."""
    outputs = Outputs(outputs) if isinstance(outputs, torch.Tensor) else outputs
    return outputs._replace(aux_loss=outputs.aux_loss + auxiliary_loss(model))
