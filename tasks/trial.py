"""A trial of a config's optimizer and schedule before anything is read or written."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from attention_zoo.errors import InputError

REFUSED = (ValueError, TypeError, ArithmeticError, AssertionError, LookupError)
"""The errors that optimizers and schedules raise at arguments they do not take, at once or in their first step."""


def try_out(optimizer: Callable[..., Any], scheduler: Callable[..., Any] | None) -> None:
    """Build optimizer and schedule on a single weight, and let the schedule make a step.

    Args:
        optimizer: from parameter groups to an optimizer.
        scheduler: from an optimizer to a schedule; None where the config has none.

    Raises:
        InputError: one of them takes no such arguments, or the learning rate becomes negative or no number.
    """
    part = "optimizer"
    try:
        built = optimizer([{"params": [nn.Parameter(torch.zeros(1))]}])
        part = "optimizer" if scheduler is None else "scheduler"
        schedule = scheduler(built) if scheduler is not None else None
        if schedule is not None and not isinstance(schedule, ReduceLROnPlateau):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the optimizer has made no step, and need not
                schedule.step()
    except REFUSED as error:
        said = str(error.args[0] if error.args else error).strip().partition("\n")[0]
        raise InputError(f"{part}: {said}") from error
    for group in built.param_groups:
        if not 0 <= float(group["lr"]) < math.inf:
            raise InputError(f"{part}: the learning rate becomes {float(group['lr'])}")
