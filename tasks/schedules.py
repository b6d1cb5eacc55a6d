"""Learning-rate schedules that count optimisation steps."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine(optimizer: Optimizer, *, warmup_steps: int, total_steps: int, floor: float) -> LambdaLR:
    """Linear warm-up to the optimizer's learning rate, then half a cosine down to a fraction ``floor`` of it.

    Args:
        optimizer: whose groups are scheduled.
        warmup_steps: steps of the warm-up; the first step runs at 1 / warmup_steps of the rate.
        total_steps: steps of the whole run; beyond it the rate stays at the floor.
        floor: the last rate as a fraction of the highest.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        done = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
        return floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2

    return LambdaLR(optimizer, factor)
