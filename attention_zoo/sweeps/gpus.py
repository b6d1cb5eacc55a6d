"""Shares out the GPUs of a machine among the runs that a sweep trains on it at a time."""

import os

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Environment variable that names the GPUs a process sees: by index, or by UUIDs, those of MIG devices too."""


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
