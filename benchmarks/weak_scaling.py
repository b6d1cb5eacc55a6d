"""Measure weak scaling of `fit` and `test` on one machine: as many images a process, over more and more processes.

    python benchmarks/weak_scaling.py [--processes "[1,2]"] [--batches 20] [--repeats 3]

Processes compute in one thread each and talk by gloo, as with configs/machines/two_processes_cpu.yaml. Efficiency is
the images per second of a process over those of one process alone, 1 where nothing is lost; cores that are shared with
other work, or fewer than the processes, show as a loss. The numbers of processes are measured in turns.
"""

import logging
import os
import socket
import statistics
import warnings
from typing import Any, NamedTuple

import lightning as L
import torch
import torch.multiprocessing as multiprocessing
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from datamodules import Digits
from tasks import Classification

SIDE = 32


class Rates(NamedTuple):
    """Images per second of all processes together, of each stage."""

    fit: float
    test: float


def main(processes: list[int] | None = None, batches: int = 20, batch_size: int = 8, repeats: int = 3) -> None:
    """Time all numbers of processes and print a table.

    Args:
        processes: numbers of processes (default 1 and 2).
        batches: the number of batches of each process in a call.
        batch_size: the number of images in a batch of each process.
        repeats: repetitions; the table has medians.
    """
    counts = processes or [1, 2]
    measured: dict[int, list[Rates]] = {count: [] for count in counts}
    for _ in range(repeats):
        for count in counts:
            measured[count].append(run(count, batches, batch_size))
    table = Table(title=f"ViT-Ti, {SIDE} px, {batches} x {batch_size} images a process, {os.cpu_count()} cores, gloo")
    for column in ("processes", "fit images/s", "fit efficiency", "test images/s", "test efficiency"):
        table.add_column(column)
    alone = Rates(*(statistics.median(rates) / counts[0] for rates in zip(*measured[counts[0]], strict=True)))
    for count, found in measured.items():
        cells = []
        for rates, one in zip(zip(*found, strict=True), alone, strict=True):
            rate = statistics.median(rates)
            cells += [f"{rate:.1f}", f"{rate / count / one:.2f}"]
        table.add_row(str(count), *cells)
    Console().print(table)


def run(count: int, batches: int, batch_size: int) -> Rates:
    """Return the rates of one training and one test in ``count`` processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    rates = context.SimpleQueue()
    arguments = (count, port, batches, batch_size, rates)
    multiprocessing.start_processes(work, arguments, nprocs=count, start_method="spawn")
    return Rates(*rates.get())


def work(rank: int, count: int, port: int, batches: int, batch_size: int, rates: Any) -> None:
    """Train and test as one of the processes; the first tells the rates."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = Classification("vit_tiny_patch16_224", 10, (SIDE, SIDE), model_args={"patch_size": 4})
    data = Digits(image_size=SIDE, batch_size=batch_size)
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=count,
        strategy="ddp" if count > 1 else "auto",
        limit_train_batches=batches,
        limit_test_batches=batches,
        limit_val_batches=0,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        **quiet,
    )
    trainer.fit(module, data)
    fitted = trainer.callback_metrics["train/images_per_second"].item()
    trainer.test(module, data, verbose=False)
    if rank == 0:
        rates.put((fitted, trainer.callback_metrics["test/images_per_second"].item()))


if __name__ == "__main__":
    auto_cli(main)
