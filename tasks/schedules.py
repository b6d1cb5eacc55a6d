"""Learning-rate schedules that change the rate at every step of the optimizer."""

import math
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from attention_zoo.domains import Fraction, PositiveFloat, PositiveInt, checked, require
from attention_zoo.errors import InputError


def warmup_cosine(optimizer: Optimizer, *, warmup_steps: int, total_steps: int, floor: float) -> LambdaLR:
    """Return a linear warm-up to the optimizer's learning rate, then half a cosine down to ``floor`` times it.

    Args:
        optimizer: the optimizer whose groups are scheduled.
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


@checked
@dataclass
class Poly:
    """Polynomial decay under a linear warm-up, ``(1 - step / total)^power``, as segmentation models are trained.

    Args:
        power: power of the decay; 1 is a straight line.
        epochs: epochs of the decay, after which the rate stays where it is; None is the whole run.
        warmup_steps: steps of the warm-up, in which the rate of the decay is multiplied by a factor that grows to 1.
        warmup_ratio: the factor at the first step.

    Raises:
        InputError: a value does not fit.
    """

    power: float = 1.0
    epochs: int | None = None
    warmup_steps: int = 0
    warmup_ratio: Fraction = 1e-6

    def __post_init__(self) -> None:
        try:
            require("power", self.power, PositiveFloat)
            require("epochs", self.epochs, PositiveInt | None)
        except InputError as error:
            takes = "power above 0, epochs 1 or more, warmup_steps 0 or more, warmup_ratio 0 to 1"
            raise InputError(f"poly: {error}; it takes {takes}") from error

    def schedule(self, optimizer: Optimizer, *, total_steps: int, floor: float) -> LambdaLR:
        """Return the schedule of the learning rate, which steps with the optimizer.

        Args:
            optimizer: the optimizer whose groups are scheduled.
            total_steps: steps of the decay; beyond it the rate stays at the floor.
            floor: the last rate as a fraction of the highest.
        """

        def factor(step: int) -> float:
            left = 1 - min(step / max(total_steps, 1), 1.0)
            decayed = floor + (1 - floor) * left**self.power
            missing = max(1 - step / self.warmup_steps, 0.0) if self.warmup_steps else 0.0
            return decayed * (1 - missing * (1 - self.warmup_ratio))

        return LambdaLR(optimizer, factor)
