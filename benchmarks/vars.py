"""Measure the cost of the VARS mixers as released: the authors' formulation over ours, on the same weights.

    python benchmarks/vars.py [--pairs 30] [--batch 4]

Settings are the released ones, with width and heads of RVT-Ti's first stage, at 196 and 3,136 tokens. Outputs are
compared first.
"""

from collections.abc import Iterator

import torch
from jsonargparse import auto_cli
from released_vars import ReleasedVarsD, ReleasedVarsS, ReleasedVarsSD
from timing import Case, backward, compare, forward
from torch import Tensor, nn
from torch.testing import assert_close

import attention_zoo as az

RESTATED = {"VarsD": (ReleasedVarsD, 1.2), "VarsSD": (ReleasedVarsSD, 1.2), "VarsS": (ReleasedVarsS, 1.5)}


def main(pairs: int = 30, batch: int = 4, num_heads: int = 6, device: str = "cpu") -> None:
    """Time all cases and print a table.

    Args:
        pairs: the number of interleaved repetitions.
        batch: the number of sequences of tokens in a call.
        num_heads: the number of heads; the released RVT-Ti has 6 of width 32.
        device: the device to run on.
    """
    compare(cases(batch, num_heads, device), pairs, device)


def cases(batch: int, num_heads: int, device: str) -> Iterator[Case]:
    """Yield the cases of each mixer, forward and forward + backward, at both numbers of tokens."""
    for name, (restated, goal) in RESTATED.items():
        for side in (14, 56):
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
