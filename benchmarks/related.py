"""Measure the mixers of related work against timm's layers on the same work, and others against dot-product attention.

    python benchmarks/related.py [--pairs 10] [--batch 4] [--tokens 196 784 3136] [--only Window Linear]

1. The mixers for which timm has a layer, with the same weights, over that layer: forward, and forward + backward.
2. The others over `DotProduct`. Those of windows, neighbourhoods and routed regions shall be faster from 784 tokens on.
3. The linear ones: the largest number of tokens over the smallest, beside the ratio of the numbers.

On a CPU times are CPU seconds of this process, so that other work on the machine counts little.
"""

import math
from collections.abc import Callable, Iterator

import torch
from jsonargparse import auto_cli
from timing import Case, backward, compare, forward
from timm.layers import DiffAttention
from timm.models.davit import ChannelAttention
from timm.models.focalnet import FocalModulation
from timm.models.mambaout import GatedConvBlock
from timm.models.swin_transformer import WindowAttention, window_partition, window_reverse
from timm.models.xcit import XCA
from torch import Tensor, nn

import attention_zoo as az

DIM, HEADS, WINDOW = 192, 3, 7
LINEAR = ("Linear", "ChannelAttention", "CrossCovariance", "FocalModulation", "GatedConv", "Window", "Neighborhood")
BESIDE_ATTENTION = (
    "Linear",
    "SigmoidAttention",
    "Neighborhood",
    "Agent",
    "BiLevelRouting",
    "Window",
    "VariedSizeWindow",
    "Routing",
    "Reversed",
    "Sparsifier",
)
FASTER = ("Window", "Neighborhood", "BiLevelRouting")
"""Those that shall be faster than `DotProduct` from 784 tokens on."""


class OnGrid(nn.Module):
    """A layer of timm that takes images, channels last or first, on tokens (B, N, dim) of a square grid."""

    def __init__(self, layer: nn.Module, channels_first: bool = False) -> None:
        super().__init__()
        self.layer, self.channels_first = layer, channels_first

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens (B, N, dim) after the layer."""
        side = math.isqrt(x.shape[1])
        if self.channels_first:
            return self.layer(x.mT.unflatten(2, (side, side))).flatten(2).mT
        return self.layer(x.unflatten(1, (side, side))).flatten(1, 2)


class Windows(nn.Module):
    """Swin's attention in windows with the partition around it, of images (B, height, width, dim)."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = WindowAttention(DIM, HEADS, window_size=(WINDOW, WINDOW))

    def forward(self, x: Tensor) -> Tensor:
        """Return the images (B, height, width, dim) mixed inside their windows."""
        windows = window_partition(x, (WINDOW, WINDOW)).flatten(1, 2)
        mixed = self.attn(windows).unflatten(1, (WINDOW, WINDOW))
        return window_reverse(mixed, (WINDOW, WINDOW), x.shape[1], x.shape[2])


def gated_conv() -> nn.Module:
    """Return timm's block without its norm, which stands before the mixer; its residual is one addition."""
    block = GatedConvBlock(DIM)
    block.norm = nn.Identity()
    return block


TWINS: dict[str, Callable[[], nn.Module]] = {
    "CrossCovariance": lambda: XCA(DIM, HEADS, qkv_bias=True),
    "ChannelAttention": lambda: ChannelAttention(DIM, HEADS, qkv_bias=True),
    "Differential": lambda: DiffAttention(DIM, HEADS, qkv_bias=True),
    "FocalModulation": lambda: OnGrid(FocalModulation(DIM, 3, 2), channels_first=True),
    "GatedConv": lambda: OnGrid(gated_conv()),
    "Window": lambda: OnGrid(Windows()),
}
"""The layers of timm by the mixers that do their work."""


def main(
    pairs: int = 10,
    batch: int = 4,
    tokens: list[int] | None = None,
    only: list[str] | None = None,
    threads: int = 1,
    device: str = "cpu",
) -> None:
    """Time all cases and print a table.

    Args:
        pairs: the number of interleaved repetitions.
        batch: the number of sequences in a call.
        tokens: numbers of tokens, squares of multiples of 7 (default 196, 784 and 3136).
        only: names of mixers; None is all.
        threads: threads of torch.
        device: the device to run on.
    """
    torch.set_num_threads(threads)
    counts = tokens or [196, 784, 3136]
    chosen = [*TWINS, *BESIDE_ATTENTION, *LINEAR] if only is None else only
    compare(list(cases(chosen, counts, batch, device)), pairs, device, cpu_time=device == "cpu")


def cases(chosen: list[str], counts: list[int], batch: int, device: str) -> Iterator[Case]:
    """Yield the cases of the chosen mixers at every number of tokens."""
    for number in counts:
        x = torch.randn(batch, number, DIM, device=device)
        for name, twin in TWINS.items():
            if name in chosen:
                yield from pair(
                    name, mixer(name, number, device, qkv_bias=True), "timm", twin().to(device), x, "< 1.05"
                )
        plain = mixer("DotProduct", number, device)
        for name in BESIDE_ATTENTION:
            if name in chosen:
                goal = "< 1" if name in FASTER and number >= 784 else ""
                yield from pair(name, mixer(name, number, device), "DotProduct", plain, x, goal)
    few, many = min(counts), max(counts)
    for name in LINEAR if few < many else ():
        if name in chosen:
            small, large = (mixer(name, number, device) for number in (few, many))
            x, y = (torch.randn(batch, number, DIM, device=device) for number in (few, many))
            goal = f"< {1.2 * many / few:.1f}"
            yield Case(f"{name}: {many} / {few} tokens, forward", forward(large, y), forward(small, x), goal)


def mixer(name: str, number: int, device: str, **options: bool) -> nn.Module:
    """Return a mixer of ``number`` tokens in a square; windows are as large as those of timm's layer."""
    side = math.isqrt(number)
    own = {"window": WINDOW} if name in ("Window", "VariedSizeWindow") else {}
    return az.create_mixer(name, DIM, HEADS, grid=(side, side), **own, **options).to(device)


def pair(name: str, ours: nn.Module, whose: str, other: nn.Module, x: Tensor, goal: str) -> Iterator[Case]:
    """Yield the two cases of a mixer over another layer on the same tokens (B, N, dim)."""
    title = f"{name} / {whose}, {x.shape[1]} tokens"
    yield Case(f"{title}, forward", forward(ours, x), forward(other, x), goal)
    yield Case(f"{title}, with backward", backward(ours, x), backward(other, x), goal)


if __name__ == "__main__":
    auto_cli(main)
