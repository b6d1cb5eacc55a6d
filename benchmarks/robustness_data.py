"""Whether the data of a robustness evaluation keep a model busy, on the processors at hand.

    python benchmarks/robustness_data.py imagenet/val [--c imagenet-c] [--images 256]

A step is: wait for a batch, then the model's forward pass. Reported for images of ImageNet-C on the disk and for those
that are generated on the way, in the same run and in turns: images a second, and the share of the steps' time that the
model waited. The first batch, for which the workers start, is not counted. Without ``--c`` the images are first written
below a temporary folder, by the command ``corrupt``.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import timm
import torch
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table
from torch import nn

from attention_zoo.cli.corrupt import corrupt
from datamodules import ImageNetRobustness


class Timed(NamedTuple):
    """Seconds spent in steps, of which waiting, and how many images they had."""

    steps: float
    waiting: float
    images: int


def main(
    val: str,
    c: str | None = None,
    images: int = 256,
    model: str = "vit_tiny_patch16_224",
    corruption: str = "fog",
    severity: int = 3,
    batch_size: int = 32,
    num_workers: int = 1,
    threads: int = 1,
    rounds: int = 3,
    generated: bool = True,
) -> None:
    """Time and print.

    Args:
        val: ImageNet's validation images, or some of them.
        c: ImageNet-C on the disk; None writes it from ``val``.
        images: how many a pass.
        model: of timm, with random weights.
        corruption: which.
        severity: which.
        batch_size: images a step.
        num_workers: processes that load.
        threads: of the model.
        rounds: passes over each.
        generated: whether to time generated images too.
    """
    torch.set_num_threads(threads)
    network = timm.create_model(model).eval()
    chosen = {"corruptions": [corruption], "severities": [severity], "images_per_cell": images}
    with on_disk(c, val, corruption, severity, images) as root:
        loading = {"batch_size": batch_size, "num_workers": num_workers}
        data = {"on the disk": ImageNetRobustness(c=str(root), **chosen, **loading)}
        if generated:
            data["generated"] = ImageNetRobustness(val=val, c_generated=True, **chosen, **loading)
        times = {name: [] for name in data}
        for _ in range(rounds):
            for name, module in data.items():
                times[name].append(timed(module, network))
    table = Table(title=f"{model}, {corruption} {severity}, {threads} threads, {num_workers} workers, {rounds} passes")
    for column in ("images", "images a second", "waiting, % of the step", "goal"):
        table.add_column(column)
    for name, passes in times.items():
        speed = median(one.images / one.steps for one in passes)
        share = median(100 * one.waiting / one.steps for one in passes)
        table.add_row(name, f"{speed:.1f}", f"{share:.1f}", "< 10" if name == "on the disk" else "")
    Console().print(table)


@contextmanager
def on_disk(c: str | None, val: str, corruption: str, severity: int, images: int) -> Iterator[Path]:
    """A folder with the layout of ImageNet-C."""
    if c is not None:
        yield Path(c)
        return
    with TemporaryDirectory() as folder:
        corrupt(val, folder, corruptions=[corruption], severities=[severity], limit=images)
        yield Path(folder)


def timed(data: ImageNetRobustness, network: nn.Module) -> Timed:
    """One pass over the corrupted images."""
    data.setup("test")
    place = next(number for number, cell in enumerate(data.cells) if cell.corruption)
    batches = iter(data.test_dataloader())
    next(batches)
    steps = waiting = 0.0
    images = 0
    with torch.inference_mode():
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return Timed(steps, waiting, images)
            got = time.perf_counter()
            network(batch["image"])
            if (batch["cell"] == place).all():
                waiting += got - start
                steps += time.perf_counter() - start
                images += len(batch["image"])


if __name__ == "__main__":
    auto_cli(main)
