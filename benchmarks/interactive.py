"""Measure what the evaluation of interactive segmentation costs beside the model: 100 objects x 20 clicks.

    python benchmarks/interactive.py [--objects 100] [--clicks 20] [--size 256]

Clicks, masks and IoUs are computed by OpenCV and on whole batches, without a Python loop over pixels. So the simulated
annotator should cost little beside even a small model. Both are timed in one run, interleaved.
"""

import argparse

import numpy as np
import torch
from timing import Case, compare
from torch import nn

from attention_zoo.clicks import Clicks
from attention_zoo.models.interactive import Fusion, InteractiveModel
from tasks.clicks import next_click
from tasks.clicks.protocols import PROTOCOLS, asking, protocol_of
from tasks.clicks.session import click_seeds, simulate
from tasks.clicks.views import WholeImages


class SmallBackbone(nn.Module):
    """A small backbone of three strided convolutions."""

    channels, strides = (16, 32, 48), (4, 8, 16)

    def __init__(self) -> None:
        super().__init__()
        widths = (3, *self.channels)
        self.stages = nn.ModuleList(
            nn.Conv2d(before, after, 4 if before == 3 else 3, 4 if before == 3 else 2, 0 if before == 3 else 1)
            for before, after in zip(widths, self.channels, strict=False)
        )

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps of an image (B, 3, H, W), finest first: (B, channels, H / stride, W / stride)."""
        maps = []
        for stage in self.stages:
            image = stage(image).relu()
            maps.append(image)
        return maps


def objects(count: int, size: int) -> torch.Tensor:
    """Return masks of random ellipses, (count, size, size) uint8."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    centre, radii = generator.uniform(0.3, 0.7, (2, count, 1, 1)), generator.uniform(0.1, 0.3, (2, count, 1, 1))
    inside = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1
    return torch.from_numpy(inside.astype(np.uint8))


def main() -> None:
    """Time the whole evaluation against the model alone, and against clicks found pixel by pixel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("objects", 100), ("clicks", 20), ("size", 256), ("batch_size", 10), ("pairs", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    model = InteractiveModel(SmallBackbone(), decoder=lambda c, s: Fusion(c, s, width=16)).eval()
    masks = objects(args.objects, args.size)
    images = torch.randn(args.objects, 3, args.size, args.size, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[0.0, 0.0, args.size - 1, args.size - 1]]).expand(args.objects, -1)
    starts = range(0, args.objects, args.batch_size)

    def evaluation(name: str) -> None:
        protocol = protocol_of(name, args.clicks, 0)
        with torch.inference_mode():
            for start in starts:
                part = slice(start, start + args.batch_size)
                box = boxes[part] if protocol.box else None
                seeds = click_seeds(0, range(args.objects)[part])
                simulate(asking(model, images[part], box, protocol, {}), masks[part], protocol, seeds)

    def model_alone(name: str) -> None:
        flip = PROTOCOLS[name].flip
        with torch.inference_mode():
            for start in starts:
                image = images[start : start + args.batch_size]
                ask = WholeImages(model, image, None, flip=flip, adaptation={})
                clicks, previous = Clicks.empty(len(image)), torch.zeros_like(image[:, :1])
                for _ in range(args.clicks):
                    clicks = clicks.append(torch.full((len(image), 2), 9.0), torch.ones(len(image)))
                    previous = ask(clicks, previous)

    target = masks[0].numpy() > 0
    nothing = np.zeros_like(target)
    many = [
        Case(f"{name}: evaluation / model alone", lambda n=name: evaluation(n), lambda n=name: model_alone(n), "<= 1.5")
        for name in PROTOCOLS
    ]
    pixels = Case(
        "next click / a Python loop that counts the errors",
        lambda: next_click(nothing, target),
        lambda: sum(bool(target[i, j] and not nothing[i, j]) for i in range(args.size) for j in range(args.size)),
        "<= 0.1",
    )
    compare([*many, pixels], args.pairs)


if __name__ == "__main__":
    main()
