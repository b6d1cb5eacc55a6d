"""Measure why a model follows a prior or not, when it is shown two images and asked for one.

    python results/top_down/why.py results/top_down runs/sweeps/cifar10_top_down [--root data/cifar10]

A row for each model and alpha, over pictures of two test images, both asked for in turn:

* mask: share of the similarity of output tokens to the prototype that lies on the half that is asked for; 0.5 is none.
* strength: length of what a layer's values are given from above, over that of the layer's input; mean over layers.
* apart: length of the difference between what is sent for one prototype and for the other, over the mean of the two.
* query: the strength of what is sent for the learned query, which the second pass was trained with.
* prototype, oracle, turned, half: how often the answer among the two classes is the one that is asked for: by its
  prototype; by an oracle, whose similarity is 1 on the half that is asked for and 0 elsewhere; by the same oracle with
  the sign of what is sent back turned; and when the head reads the output tokens of that half alone. The last is what a
  choice of tokens can give at most, without a second pass.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch
from jsonargparse import auto_cli
from pictures import fit_to
from torch import Tensor
from torch.utils.data import DataLoader

from attention_zoo.cli.lightning import load_classification
from attention_zoo.domains import PositiveInt
from attention_zoo.models.passes import FirstPass, SecondPass
from attention_zoo.models.top_down import DECODED, TopDown
from datamodules import CIFAR10, TwoObjects

MEASURES = ("mask", "strength", "apart", "query", "prototype", "oracle", "turned", "half")
Row = dict[str, str | float]


def main(out: Path, sweep: Path, root: str = "data/cifar10", pairs: PositiveInt = 500) -> None:
    """Measure the models of a sweep that look twice, and write ``why.csv``.

    Args:
        out: folder to write to.
        sweep: folder of the sweep.
        root: the images.
        pairs: number of pictures.
    """
    pictures = TwoObjects(images=CIFAR10(root), pairs=pairs, batch_size=100, num_workers=0)
    pictures.prepare_data()
    pictures.setup("test")
    rows: list[Row] = []
    for run, model in looking_twice(sweep):
        fit_to(model, pictures.image_size)
        alphas = (1.0, 10.0, 30.0) if model.mode in DECODED else (1.0,)
        for alpha in alphas:
            rows.append({"run": run, "mode": model.mode, "alpha": alpha, **measure(model, pictures, alpha)})
            write(out / "why.csv", ["run", "mode", "alpha", *MEASURES], rows)


def looking_twice(sweep: Path) -> Iterator[tuple[str, TopDown]]:
    """Yield the name of each run of a sweep whose model looks twice, and the model, in evaluation mode."""
    for checkpoint in sorted(sweep.glob("runs/*/checkpoints/last.ckpt")):
        _, task, _ = load_classification(checkpoint)
        if isinstance(task.model, TopDown):
            yield checkpoint.parents[1].name, task.model.eval()


def write(path: Path, columns: list[str], rows: list[Row]) -> None:
    """Write rows as a table; a measure that a model does not have is empty."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


@torch.no_grad()
def measure(model: TopDown, pictures: TwoObjects, alpha: float) -> Row:
    """Return the means of all measures over all pictures and both halves."""
    found: dict[str, list[Tensor]] = {}
    loader: DataLoader[dict[str, Tensor]] = pictures.test_dataloader()
    for batch in loader:
        batch = {name: values[batch["index"] >= 0] for name, values in batch.items()}
        first = model.first_pass(batch["image"], keep=range(len(model.host.layers)))
        for name, values in measures(model, first, batch["labels"], batch["masks"], alpha):
            found.setdefault(name, []).append(values.double())
    return means(found)


def means(found: dict[str, list[Tensor]]) -> Row:
    """Return the mean of each measure over all batches, to four digits."""
    return {name: f"{float(torch.cat(values).mean()):.4f}" for name, values in found.items()}


def measures(
    model: TopDown, first: FirstPass, labels: Tensor, masks: Tensor, alpha: float
) -> Iterator[tuple[str, Tensor]]:
    """Yield each measure of pictures with labels (B, 2) and masks (B, 2, H, W) of their halves."""
    grid = first.host.maps(first.output, first.host.layers[-1]).shape[-2:]
    halves = torch.nn.functional.interpolate(masks.float(), grid, mode="area").flatten(2)[..., None]  # (B, 2, N, 1)
    sent = []
    for place in (0, 1):
        prior, half, own = model.class_prior(labels[:, place]), halves[:, place], labels[:, place, None]
        other = labels[:, 1 - place, None]
        similarity = model.similarity(first.output, prior)
        yield "mask", (similarity * half).sum((1, 2)) / similarity.sum((1, 2)).clamp(min=1e-9)
        second = model.second_pass(first, prior, alpha=alpha)
        yield "prototype", follows(first.host.classify(second.output), own, other)
        for name, told in {"oracle": half, **({"turned": -half} if model.mode in DECODED else {})}.items():
            with mock.patch.object(model, "similarity", lambda *_, told=told: told):
                asked = model.second_pass(first, prior, alpha=alpha)
            yield name, follows(first.host.classify(asked.output), own, other)
        yield "half", follows(first.host.classify(first.output * half), own, other)
        if model.mode in DECODED:
            sent.append(heard(model, second))
    if model.mode in DECODED:
        sent.append(heard(model, model.second_pass(first, alpha=alpha, last=0)))
    for (before, _), *signals in zip(first.states, *sent, strict=True) if sent else ():
        *pair, query = (length(each) for each in signals)
        yield "strength", sum(pair) / 2 / length(before)
        yield "apart", length(signals[0] - signals[1]) / (sum(pair) / 2)
        yield "query", query / length(before)


def heard(model: TopDown, second: SecondPass) -> list[Tensor]:
    """Return what each layer's values are given from above, (B, N, dim)."""
    return [decoder.linear2(signal) for decoder, signal in zip(model.decoders, second.signals, strict=True)]


def length(tokens: Tensor) -> Tensor:
    """Return the mean length of tokens (B, N, dim): (B,)."""
    return tokens.norm(dim=-1).mean(1)


def follows(logits: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """Return where the class that is asked for is likelier than the other one."""
    return (logits.gather(1, own) > logits.gather(1, other))[:, 0]


if __name__ == "__main__":
    auto_cli(main)
