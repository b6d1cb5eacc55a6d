"""The losses that mixers have of their own, such as the balance of a router's loads."""

import torch
from torch import Tensor, nn

from attention_zoo.mixers.base import AuxiliaryLoss, SelfMixer
from attention_zoo.outputs import Outputs


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
