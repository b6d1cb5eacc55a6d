"""Measure the cost of the VARS mixers, in the paper's form and as released, and of doubly normalised attention.

    OMP_NUM_THREADS=1 python benchmarks/vars.py [--pairs 30] [--batch 4]

1. The paper's form and doubly normalised attention over timm's attention, in training (width 192, 3 heads).
2. The paper's static dictionary step by step under autograd over `functional.unrolled`, of the same mixer.
3. As released: the authors' formulation over ours, on the same weights. Settings are the released ones, with width and
   heads of RVT-Ti's first stage.

All at 196 and 3,136 tokens. Outputs are compared first where both sides should agree.
"""

import copy
import itertools
from collections.abc import Iterator

import torch
from jsonargparse import auto_cli
from released_vars import ReleasedVarsD, ReleasedVarsS, ReleasedVarsSD
from timing import Case, backward, compare, forward
from timm.layers import Attention
from torch import Tensor, nn
from torch.testing import assert_close

import attention_zoo as az

SIDES = (14, 56)
OVER_ATTENTION = {"VarsS": (3.0, 1.0), "VarsSD": (3.0, 1.3), "VarsD": (1.3, 1.0), "DoublyNormalized": (1.6, 1.6)}
"""How many times timm's attention training should take at most, at each number of tokens."""
RESTATED = {"VarsD": (ReleasedVarsD, 1.2), "VarsSD": (ReleasedVarsSD, 1.2), "VarsS": (ReleasedVarsS, 1.5)}


def main(pairs: int = 30, batch: int = 4, num_heads: int = 6, device: str = "cpu") -> None:
    """Time all cases and print a table.

    Args:
        pairs: the number of interleaved repetitions.
        batch: the number of sequences of tokens in a call.
        num_heads: the number of heads; the released RVT-Ti has 6 of width 32.
        device: the device to run on.
    """
    compare(attention_cases(batch, device), pairs, device)
    compare(unrolled_cases(batch, device), pairs, device)
    compare(cases(batch, num_heads, device), pairs, device)


def attention_cases(batch: int, device: str) -> Iterator[Case]:
    """Yield the cases of each mixer over timm's attention, forward + backward."""
    for side, (name, goals) in itertools.product(SIDES, OVER_ATTENTION.items()):
        torch.manual_seed(0)
        ours, attention = az.create_mixer(name, 192, 3, grid=(side, side)).to(device), Attention(192, 3).to(device)
        x = torch.randn(batch, side * side, 192, device=device)
        title = f"{name} / timm's attention, {side * side:,} tokens, forward + backward"
        yield Case(title, backward(ours, x), backward(attention, x), f"< {goals[SIDES.index(side)]}")


def unrolled_cases(batch: int, device: str) -> Iterator[Case]:
    """Yield the cases of the iteration step by step over all at once, forward + backward."""
    for side, name in itertools.product(SIDES, ("VarsS", "VarsSD")):
        torch.manual_seed(0)
        at_once = az.create_mixer(name, 192, 3, grid=(side, side)).to(device)
        step_by_step = copy.deepcopy(at_once)
        step_by_step.unrolls = lambda v: False
        x = torch.randn(batch, side * side, 192, device=device)
        check_same(at_once, step_by_step, x)
        title = f"{name}, {side * side:,} tokens, forward + backward: step by step / at once"
        yield Case(title, backward(step_by_step, x), backward(at_once, x), "> 1.5")


def cases(batch: int, num_heads: int, device: str) -> Iterator[Case]:
    """Yield the cases of each mixer, forward and forward + backward, at both numbers of tokens."""
    for name, (restated, goal) in RESTATED.items():
        for side in SIDES:
            torch.manual_seed(0)
            ours = az.create_mixer(name, 192, num_heads, variant="released", grid=(side, side)).to(device)
            released = restated(ours)
            x = torch.randn(batch, side * side, 192, device=device)
            check_same(ours, released, 3 * x)
            yield Case(
                f"{name}, {side * side:,} tokens, forward: released / ours",
                forward(released, x),
                forward(ours, x),
                f"> {goal}",
            )
            yield Case("the same, forward + backward", backward(released, x), backward(ours, x), "")


def check_same(ours: nn.Module, released: nn.Module, x: Tensor) -> None:
    """Check that both mixers give the same tokens, up to rounding.

    Raises:
        AssertionError: they do not.
    """
    with torch.inference_mode():
        assert_close(ours.eval()(x), released.eval()(x), rtol=1e-4, atol=1e-4)


if __name__ == "__main__":
    auto_cli(main)
