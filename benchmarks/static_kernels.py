"""The static dictionary of VARS-S and -SD on a small grid: convolutions over one matrix for all samples.

    python benchmarks/static_kernels.py [--pairs 15]

A ViT's layer of width 128 with 4 heads and a class token; the number of tokens in a batch stays alike. Outputs are
compared first. `StaticKernels.most_tabulated` is where the ratio has come down to about one.
"""

from collections.abc import Callable, Iterator

import torch
from jsonargparse import auto_cli
from timing import Case, backward, compare
from torch.testing import assert_close

import attention_zoo as az


def main(pairs: int = 15, device: str = "cpu") -> None:
    """Time and print.

    Args:
        pairs: interleaved repetitions.
        device: where to run.
    """
    compare(cases(device), pairs, device)


def cases(device: str) -> Iterator[Case]:
    """Forward + backward of each mixer on grids of growing size."""
    for name in ("VarsS", "VarsSD"):
        for side in (4, 8, 10, 12, 14, 16):
            batch = 4096 // side**2
            calls = [layer(name, side, most, batch, device) for most in (0, side**2 + 1)]
            goal = "> 1" if side**2 < az.mixers.VarsS.most_tabulated else ""
            yield Case(f"{name}, {side} x {side}, forward + backward: convolutions / matrix", *calls, goal)


def layer(name: str, side: int, most_tabulated: int, batch: int, device: str) -> Callable[[], object]:
    """A training step of a layer that uses a matrix up to ``most_tabulated`` tokens, after a look at its output."""
    torch.manual_seed(0)
    mixer, other = (az.create_mixer(name, 128, 4, grid=(side, side), num_prefix_tokens=1).to(device) for _ in range(2))
    other.load_state_dict(mixer.state_dict())
    mixer.most_tabulated, other.most_tabulated = most_tabulated, 0
    x = torch.randn(batch, side**2 + 1, 128, device=device)
    with torch.inference_mode():
        assert_close(mixer(x), other(x), rtol=1e-4, atol=1e-4)
    return backward(mixer, x)


if __name__ == "__main__":
    auto_cli(main)
