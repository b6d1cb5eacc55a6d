"""Learning-rate schedules, step by step."""

import math
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from attention_zoo.domains import Fraction, checked
from attention_zoo.errors import InputError
from attention_zoo.functional.checks import check_integer, check_number


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


@checked
@dataclass
class Poly:
    """Polynomial decay under a linear warm-up, ``(1 - step / total)^power``, as segmentation models are trained.

    Args:
        power: of the decay; 1 is a straight line.
        epochs: of the decay, after which the rate stays where it is; None is the whole run.
        warmup_steps: steps of the warm-up, during which the rate of the decay is multiplied by what grows to 1.
        warmup_ratio: where that starts.

    Raises:
        InputError: a value that does not fit.
    """

    power: float = 1.0
    epochs: int | None = None
    warmup_steps: int = 0
    warmup_ratio: Fraction = 1e-6

    def __post_init__(self) -> None:
        try:
            check_number("power", self.power, above=0)
            if self.epochs is not None:
                check_integer("epochs", self.epochs, 1)
            check_integer("warmup_steps", self.warmup_steps, 0)
            check_number("warmup_ratio", self.warmup_ratio, least=0, most=1)
        except InputError as error:
            takes = "power above 0, epochs 1 or more, warmup_steps 0 or more, warmup_ratio 0 to 1"
            raise InputError(f"poly: {error}; it takes {takes}") from error

    def schedule(self, optimizer: Optimizer, *, total_steps: int, floor: float) -> LambdaLR:
        """The schedule.

        Args:
            optimizer: whose groups are scheduled.
            total_steps: steps of the decay; beyond it the rate stays at the floor.
            floor: the last rate as a fraction of the highest.
        """

        def factor(step: int) -> float:
            left = 1 - min(step / max(total_steps, 1), 1.0)
            decayed = floor + (1 - floor) * left**self.power
            missing = max(1 - step / self.warmup_steps, 0.0) if self.warmup_steps else 0.0
            return decayed * (1 - missing * (1 - self.warmup_ratio))

        return LambdaLR(optimizer, factor)
