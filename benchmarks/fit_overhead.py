"""Measure what ``fit`` and ``test`` cost beside plain loops over the same batches, and what the fused AdamW saves.

    python benchmarks/fit_overhead.py [--pairs 5] [--batches 40]

Times are CPU seconds of this process, which loads the data itself, so that other work on the machine counts little.
All calls are timed in one run and in turns. The images are digits at 32 pixels.
"""

import logging
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table
from torch.optim import AdamW

from datamodules import Digits
from tasks import Classification

SIDE = 32

Call = Callable[[], object]


def main(
    pairs: int = 5, batches: int = 40, batch_size: int = 16, model: str = "vit_tiny_patch16_224", patch_size: int = 4
) -> None:
    """Time all cases and print a table.

    Args:
        pairs: the number of interleaved repetitions.
        batches: the number of batches of one call.
        batch_size: the number of images in a batch.
        model: the name of a model of timm, which gets random weights.
        patch_size: the side of its patches in pixels.
    """
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    data = Digits(image_size=SIDE, batch_size=batch_size)
    data.setup("fit")
    data.setup("test")
    tasks = [task(model, patch_size, fused) for fused in (None, False)]
    fused_fit, unfused_fit = (partial(fit, one, data, batches) for one in tasks)
    cases: Sequence[tuple[str, Call, Call, str]] = (
        ("fit / plain loop", fused_fit, partial(plain_fit, tasks[0], data, batches), "0.9 to 1.1"),
        ("fit, fused / plain kernel of AdamW", fused_fit, unfused_fit, "<= 1"),
        ("test / plain loop", partial(test, tasks[0], data, batches), partial(plain_test, tasks[0], data, batches),
         "<= 1.03"),
    )  # fmt: skip
    table = Table(title=f"{model}, {SIDE} px, {batches} x {batch_size} images, 1 thread, median of {pairs} pairs")
    for column in ("what", "first CPU ms", "second CPU ms", "ratio", "goal"):
        table.add_column(column)
    for name, first, second, goal in cases:
        times = [(cpu_seconds(first), cpu_seconds(second)) for _ in range(pairs + 1)][1:]
        milliseconds = (f"{1e3 * median(column):.0f}" for column in zip(*times, strict=True))
        table.add_row(name, *milliseconds, f"{median(a / b for a, b in times):.3f}", goal)
    Console().print(table)


def task(model: str, patch_size: int, fused: bool | None) -> Classification:
    """Return the task that both loops train and test, its AdamW with the kernel of its own choice or the plain one."""
    torch.manual_seed(0)
    optimizer = partial(AdamW, lr=1e-4, weight_decay=0.05, fused=fused)
    return Classification(model, 10, (SIDE, SIDE), model_args={"patch_size": patch_size}, optimizer=optimizer)


def trainer(**limits: int) -> L.Trainer:
    """Return a trainer of one epoch that writes and shows nothing."""
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    return L.Trainer(
        max_epochs=1, accelerator="cpu", enable_checkpointing=False, num_sanity_val_steps=0, **quiet, **limits
    )


def fit(module: Classification, data: Digits, batches: int) -> None:
    """Train with ``fit``."""
    trainer(limit_train_batches=batches, limit_val_batches=0).fit(module, data)


def plain_fit(module: Classification, data: Digits, batches: int) -> None:
    """Train as ``fit`` does, in a loop of a dozen lines."""
    model = module.model.train()
    optimizer = AdamW(module.parameter_groups(), lr=1e-4, weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / (batches + 1))
    for _, batch in zip(range(batches), data.train_dataloader(), strict=False):
        loss = F.cross_entropy(model(batch["image"]), batch["label"], label_smoothing=module.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def test(module: Classification, data: Digits, batches: int) -> None:
    """Evaluate with ``test``."""
    trainer(limit_test_batches=batches).test(module, data, verbose=False)


@torch.inference_mode()
def plain_test(module: Classification, data: Digits, batches: int) -> float:
    """Return the mean accuracy, in a loop of a few lines."""
    model, right, seen = module.model.eval(), 0, 0
    for _, batch in zip(range(batches), data.test_dataloader(), strict=False):
        right += int((model(batch["image"]).argmax(1) == batch["label"]).sum())
        seen += len(batch["label"])
    return right / seen


def cpu_seconds(call: Call) -> float:
    """Return the CPU time that a call takes in this process."""
    start = time.process_time()
    call()
    return time.process_time() - start


if __name__ == "__main__":
    auto_cli(main)
