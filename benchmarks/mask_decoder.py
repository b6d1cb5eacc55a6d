"""Measure the cost of a mask decoder's layer with k-means and with clustering, against cross-attention of equal size.

    python benchmarks/mask_decoder.py [--pairs 20] [--batch 1] [--grid 64]

There are 128 queries of width 256 and a map of grid x grid pixels with 512 channels, as on stride 8 of a 512 px image
in kMaX-DeepLab. The interactions differ only in what they make of the affinity; the goal is that k-means costs no more.
"""

from collections.abc import Callable, Iterator

import torch
from jsonargparse import auto_cli
from timing import Case, compare
from torch import Tensor, nn

import attention_zoo as az
from attention_zoo.models.mask_decoder import MaskDecoderLayer
from attention_zoo.models.mask_decoder.layer import Interaction

QUERIES, DIM, CHANNELS, CLASSES = 128, 256, 512, 133
GOAL = "<= 1"


def main(pairs: int = 20, batch: int = 1, grid: int = 64, device: str = "cpu") -> None:
    """Time all cases and print a table.

    Args:
        pairs: the number of interleaved repetitions.
        batch: the number of images.
        grid: the height and width of the map, in pixels.
        device: the device to run on.
    """
    compare([*interaction_cases(batch, grid, device), *layer_cases(batch, grid, device)], pairs, device)


def interaction_cases(batch: int, grid: int, device: str) -> Iterator[Case]:
    """Yield the cases of the interaction alone: the mixer, with projections, affinity and read-out, and its norms."""
    queries = torch.randn(batch, QUERIES, DIM, device=device)
    pixels = torch.randn(batch, grid * grid, DIM, device=device)
    baseline = Interaction(az.create_mixer("CrossAttention", DIM, 1)).to(device)
    for name in ("KMeansCross", "ClusterCross"):
        ours = Interaction(az.create_mixer(name, DIM, 1)).to(device)
        yield from _cases(f"{name}, interaction", ours, baseline, queries, pixels, pixels)


def layer_cases(batch: int, grid: int, device: str) -> Iterator[Case]:
    """Yield the cases of the whole layer, with one path and with two."""
    queries = torch.randn(batch, QUERIES, DIM, device=device)
    pixels = torch.randn(batch, CHANNELS, grid, grid, device=device)
    for dual_path in (False, True):
        baseline = _layer("CrossAttention", dual_path).to(device)
        for name in ("KMeansCross", "ClusterCross"):
            kind = "dual-path layer" if dual_path else "layer"
            yield from _cases(f"{name}, {kind}", _layer(name, dual_path).to(device), baseline, queries, pixels)


def _layer(name: str, dual_path: bool) -> MaskDecoderLayer:
    return MaskDecoderLayer(CHANNELS, CLASSES, interaction=az.MIXERS[name], dim=DIM, dual_path=dual_path)


def _cases(name: str, ours: nn.Module, baseline: nn.Module, *inputs: Tensor) -> Iterator[Case]:
    yield Case(f"{name}, forward", _forward(ours, *inputs), _forward(baseline, *inputs), GOAL)
    yield Case(f"{name}, forward + backward", _backward(ours, *inputs), _backward(baseline, *inputs), GOAL)


def _forward(model: nn.Module, *inputs: Tensor) -> Callable[[], None]:
    def call() -> None:
        with torch.inference_mode():
            model.eval()(*inputs)

    return call


def _backward(model: nn.Module, *inputs: Tensor) -> Callable[[], None]:
    """Return a training step whose loss sees all that the decoder's losses see: queries, masks, classes."""

    def call() -> None:
        model.train().zero_grad()
        sum(part.square().sum() for part in _tensors(model(*inputs))).backward()

    return call


def _tensors(outputs: tuple) -> Iterator[Tensor]:
    for part in outputs:
        if isinstance(part, Tensor):
            yield part
        else:
            yield from _tensors(part)


if __name__ == "__main__":
    auto_cli(main)
