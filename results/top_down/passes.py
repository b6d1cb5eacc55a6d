"""Measure what the second pass of a trained model does to single images, for its learned query, as it was trained.

    python results/top_down/passes.py results/top_down runs/sweeps/cifar10_top_down [--root data/cifar10]

A row for each model, over test images:

* first, second: accuracy of the first pass and of the second.
* changed: share of the images that the second pass answers differently from the first.
* query: similarity of output tokens to the learned query, mean over tokens; it is what the gate lets through. A query
  that is drawn at random in D channels has 0.4 / sqrt(D).
* prototype: the same for the prototype of the first pass's answer.
* signal: length of what a layer's values are given from above, over that of the layer's input; mean over layers.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from jsonargparse import auto_cli
from torch import Tensor
from torch.utils.data import DataLoader
from why import Row, heard, length, looking_twice, means, write

from attention_zoo.domains import PositiveInt
from attention_zoo.models.top_down import DECODED, TopDown
from datamodules import CIFAR10

MEASURES = ("first", "second", "changed", "query", "prototype", "signal")


def main(out: Path, sweep: Path, root: str = "data/cifar10", every: PositiveInt = 5) -> None:
    """Measure the models of a sweep that look twice, and write ``passes.csv``.

    Args:
        out: folder to write to.
        sweep: folder of the sweep.
        root: the images.
        every: take each test image of that many; a folder may hold them class by class.
    """
    data = CIFAR10(root, batch_size=100 * every, num_workers=0)
    data.prepare_data()
    data.setup("test")
    loader: DataLoader[dict[str, Tensor]] = data.test_dataloader()
    rows: list[Row] = []
    for run, model in looking_twice(sweep):
        found: dict[str, list[Tensor]] = {}
        for batch in loader:
            for name, values in measures(model, batch["image"][::every], batch["label"][::every]):
                found.setdefault(name, []).append(values.double())
        rows.append({"run": run, "mode": model.mode, **means(found)})
    write(out / "passes.csv", ["run", "mode", *MEASURES], rows)


@torch.no_grad()
def measures(model: TopDown, images: Tensor, labels: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield each measure of images (B, 3, H, W) with labels (B,), as one number an image or more."""
    first = model.first_pass(images, keep=range(len(model.host.layers)))
    second = model.second_pass(first)
    before, after = (first.host.classify(each.output).argmax(1) for each in (first, second))
    yield "first", before == labels
    yield "second", after == labels
    yield "changed", before != after
    yield "query", second.similarity.mean((1, 2))
    yield "prototype", model.similarity(first.output, model.class_prior(before)).mean((1, 2))
    if model.mode in DECODED:
        for signal, (seen, _) in zip(heard(model, second), first.states, strict=True):
            yield "signal", length(signal) / length(seen)


if __name__ == "__main__":
    auto_cli(main)
