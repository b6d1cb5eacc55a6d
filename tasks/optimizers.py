"""The kernel that AdamW steps with."""

import inspect
from typing import Any

from torch.optim import AdamW, Optimizer

FUSED_ON = ("cpu", "cuda")
"""The kinds of device that torch steps all parameters of AdamW on in one kernel."""


def fused(optimizer: Optimizer, clips_scaled: bool) -> Optimizer:
    """Return an AdamW that steps in torch's fused kernel, where torch has it and its builder left the choice open.

    Any other optimizer is returned as it is. Checkpoints are the same either way; one that was written without the
    kernel goes on without it.

    Args:
        optimizer: as it was built, before its first step.
        clips_scaled: whether gradients are clipped under mixed precision, for which Lightning takes no fused optimizer,
            since that would undo the scale of the gradients itself.
    """
    if type(optimizer) is not AdamW or clips_scaled:
        return optimizer
    open_ones = {"fused": None, "foreach": None, "differentiable": False, "capturable": False}
    if any(group[name] is not value for group in optimizer.param_groups for name, value in open_ones.items()):
        return optimizer
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    if not all(one.device.type in FUSED_ON and one.is_floating_point() for one in parameters):
        return optimizer
    names = [name for name in inspect.signature(AdamW).parameters if name != "params"]
    options: dict[str, Any] = {**{name: optimizer.defaults[name] for name in names}, "fused": True}
    return AdamW([{**group, "fused": True} for group in optimizer.param_groups], **options)
