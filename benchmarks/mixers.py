"""Measure the cost of the self-mixers.

    python benchmarks/mixers.py [--pairs 30] [--batch 4]

1. A ViT-Ti at 224 px with `DotProduct` against timm's own, forward and forward + backward.
2. The time of each mixer at 3,136 tokens over that at 196 (16 times as many), a square grid both times.
"""

from collections.abc import Iterator

import timm
import torch
from jsonargparse import auto_cli
from timing import Case, backward, compare, forward

import attention_zoo as az


def main(pairs: int = 30, batch: int = 4, device: str = "cpu") -> None:
    """Time all cases and print a table.

    Args:
        pairs: the number of interleaved repetitions.
        batch: the number of images, or sequences of tokens, in a call.
        device: the device to run on.
    """
    compare([*dot_product_cases(batch, device), *growth_cases(batch, device)], pairs, device)


def dot_product_cases(batch: int, device: str) -> Iterator[Case]:
    """Yield the cases of ViT-Ti with `DotProduct` over ViT-Ti of timm."""
    torch.manual_seed(0)
    own = timm.create_model("vit_tiny_patch16_224").to(device)
    ours = az.swap_mixers(timm.create_model("vit_tiny_patch16_224").to(device), "DotProduct")
    x = torch.randn(batch, 3, 224, 224, device=device)
    yield Case("ViT-Ti/16 224 px: DotProduct / timm, forward", forward(ours, x), forward(own, x), "< 1.03")
    yield Case("the same, forward + backward", backward(ours, x), backward(own, x), "< 1.03")


def growth_cases(batch: int, device: str) -> Iterator[Case]:
    """Yield the cases of each mixer at 3,136 tokens over itself at 196, with the width and heads of ViT-Ti."""
    for name in az.list_mixers("self"):
        goal = "< 19.2" if az.mixer_info(name).complexity == "N" else ""
        small, large = (az.create_mixer(name, 192, 3, grid=(side, side)).to(device) for side in (14, 56))
        few, many = (torch.randn(batch, n, 192, device=device) for n in (196, 3136))
        yield Case(f"{name}: 3,136 / 196 tokens, forward", forward(large, many), forward(small, few), goal)
        yield Case("the same, forward + backward", backward(large, many), backward(small, few), goal)


if __name__ == "__main__":
    auto_cli(main)
