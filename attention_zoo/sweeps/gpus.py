"""Shares out the GPUs of a machine among the runs that a sweep trains on it at a time."""

import os
from collections.abc import Sequence
from typing import Any

from attention_zoo.errors import InputError
from attention_zoo.runs.configs import with_bases
from attention_zoo.runs.files import parse_yaml, read_text
from attention_zoo.runs.shipped import is_text
from attention_zoo.sweeps.axes import flat
from attention_zoo.sweeps.plan import Run

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Environment variable that names the GPUs a process sees: by index, or by UUIDs, those of MIG devices too."""

GPUS = ("gpu", "cuda", "mps")
"""The accelerators that need a GPU."""


def visible_gpus() -> list[str]:
    """Return the names of the GPUs that this process sees, as `VISIBLE` has them; no GPU is initialised."""
    import torch

    named = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    count = torch.cuda.device_count()  # asks the driver, and counts names up to the first that is of no GPU
    return named[:count] or [str(index) for index in range(count)]


def shares(gpus: list[str], workers: int) -> list[str | None]:
    """Return what each worker gets of the GPUs, as a value of `VISIBLE`; None where there are none.

    All get the same number, so that no run has more processes than another: several each, some left over where they
    do not divide, or of fewer GPUs than workers one each, in turn.
    """
    if not gpus:
        return [None] * workers
    each = len(gpus) // workers
    if not each:
        return [gpus[worker % len(gpus)] for worker in range(workers)]
    return [",".join(gpus[worker * each : (worker + 1) * each]) for worker in range(workers)]


def check_accelerators(recipe: Sequence[str], runs: Sequence[Run]) -> None:
    """Check that no run asks for a GPU where there is none.

    Args:
        recipe: the words of the command line that all runs share.
        runs: the runs that are to be trained.

    Raises:
        InputError: one asks for a GPU.
    """
    import torch

    if torch.cuda.device_count() or torch.backends.mps.is_available():
        return
    shared = accelerator(recipe)
    for run in runs:
        wanted = accelerator(run.arguments) or shared
        if wanted in GPUS:
            raise InputError(f"{run.name}: trainer.accelerator {wanted}: there is no GPU here; choose cpu or auto")


def accelerator(words: Sequence[str]) -> str | None:
    """Return the accelerator that words of a command line choose, each option with its value; None if they do not."""
    chosen = None
    words = with_bases(words)
    for name, value in zip(words[::2], words[1::2], strict=False):
        settings = flat(_content(value) if name == "--config" else {name.removeprefix("--"): _parsed(value)})
        chosen = settings.get("trainer.accelerator", chosen)
    return chosen


def _content(config: str) -> Any:
    """Return what a config holds; nothing of one that cannot be read, which the training refuses better."""
    try:
        return parse_yaml(config if is_text(config) else read_text(config), config)
    except InputError:
        return {}


def _parsed(value: str) -> Any:
    try:
        return parse_yaml(value, "an option")
    except InputError:
        return value
