"""Measure whether the data of a robustness evaluation keep a model busy on the processors at hand.

    python benchmarks/robustness_data.py imagenet/val [--c imagenet-c] [--images 256]

A step waits for a batch and then runs the model's forward pass. The table shows images a second and the share of the
steps' time that the model waited, for images of ImageNet-C on the disk and for images that are generated on the way;
both are timed in the same run and in turns. The first batch, for which the workers start, is not counted. Without
``--c`` the images are first written below a temporary folder, by the command ``corrupt``.
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
    """The seconds that the steps took, the seconds of these spent waiting, and the number of images."""

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
    """Time both kinds of data and print a table.

    Args:
        val: ImageNet's validation images, or some of them.
        c: the folder of ImageNet-C on the disk; None writes one from ``val``.
        images: the number of images in a pass.
        model: the name of a model of timm, which gets random weights.
        corruption: the corruption of the images.
        severity: the severity of the corruption, 1 to 5.
        batch_size: the number of images in a step.
        num_workers: the number of processes that load.
        threads: the number of threads of the model.
        rounds: the number of passes over each kind of data.
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
    """Yield a folder with the layout of ImageNet-C: ``c``, or a temporary one that is written from ``val``."""
    if c is not None:
        yield Path(c)
        return
    with TemporaryDirectory() as folder:
        corrupt(val, folder, corruptions=[corruption], severities=[severity], limit=images)
        yield Path(folder)


def timed(data: ImageNetRobustness, network: nn.Module) -> Timed:
    """Return the times of one pass over the corrupted images, without the first batch."""
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
