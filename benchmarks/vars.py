"""Cost of the VARS mixers as released: the authors' formulation over ours, on the same weights.

    python benchmarks/vars.py [--pairs 30] [--batch 4]

Released settings, width and heads of RVT-Ti's first stage, 196 and 3,136 tokens. Outputs are compared first.
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
    """Time and print.

    Args:
        pairs: interleaved repetitions.
        batch: sequences of tokens a call.
        num_heads: heads; the released RVT-Ti has 6 of width 32.
        device: where to run.
    """
    compare(cases(batch, num_heads, device), pairs, device)


def cases(batch: int, num_heads: int, device: str) -> Iterator[Case]:
    """Each mixer, forward and forward + backward, at both sizes."""
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
    """Raise unless both give the same tokens."""
    with torch.inference_mode():
        assert_close(ours.eval()(x), released.eval()(x), rtol=1e-4, atol=1e-4)


if __name__ == "__main__":
    auto_cli(main)
