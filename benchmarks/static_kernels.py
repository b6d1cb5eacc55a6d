"""Time the static dictionary of VARS-S and -SD on a small grid: convolutions, all at once, over one matrix for all.

    python benchmarks/static_kernels.py [--pairs 15]

The layer is that of a ViT of width 128 with 4 heads and a class token; the number of tokens in a batch stays alike.
Outputs are compared first. `SparseReconstruction.fewest_unrolled` is where the ratio has come down to about one.
"""

import copy
from collections.abc import Iterator

import torch
from jsonargparse import auto_cli
from timing import Case, backward, compare
from torch.testing import assert_close

import attention_zoo as az


def main(pairs: int = 15, device: str = "cpu") -> None:
    """Time all cases and print a table.

    Args:
        pairs: the number of interleaved repetitions.
        device: the device to run on.
    """
    compare(cases(device), pairs, device)


def cases(device: str) -> Iterator[Case]:
    """Yield the cases of each mixer, forward + backward, on grids of growing size."""
    for name in ("VarsS", "VarsSD"):
        for side in (4, 8, 10, 12, 14, 16):
            number = side**2 + 1
            torch.manual_seed(0)
            convolutions = az.create_mixer(name, 128, 4, grid=(side, side), num_prefix_tokens=1).to(device)
            matrix = copy.deepcopy(convolutions)
            goal = "> 1" if number < matrix.fewest_unrolled else "< 1"
            convolutions.fewest_unrolled, matrix.fewest_unrolled, matrix.most_tabulated = 0, number + 1, number
            x = torch.randn(4096 // side**2, number, 128, device=device)
            with torch.inference_mode():
                assert_close(matrix(x), convolutions(x), rtol=1e-4, atol=1e-4)
            title = f"{name}, {side} x {side}, forward + backward: convolutions / matrix"
            yield Case(title, backward(convolutions, x), backward(matrix, x), goal)


if __name__ == "__main__":
    auto_cli(main)
