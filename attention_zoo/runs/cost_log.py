"""Records what a training costs: parameters, operations, time and memory."""

import platform
import resource
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.flop_counter import FlopCounterMode

from attention_zoo.errors import InputError
from attention_zoo.runs.files import write_json
from attention_zoo.runs.results import COST, read_cost

VERSIONS = ("attention_zoo", "torch", "timm", "lightning", "torchmetrics", "numpy")


class CostLog(Callback):
    """Writes ``cost.json`` to the run folder after each epoch.

    It holds ``parameters``; ``flops`` of the forward pass of one example (null where the task has none; what torch's
    counter does not know, such as Fourier transforms, is missing); ``train_images_per_second`` of the last epoch,
    without the batches for which a model may have been compiled (null where there were no others); ``train_seconds`` of
    the training with its validations, those before an interruption and all compiling too; ``peak_memory`` in bytes, of
    the device, or on a CPU of the whole process; and the machine that it ran on: ``device``, ``processes``,
    ``threads``, ``versions``.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / COST
        self.flops: int | None = None
        self.started = self.before = 0.0

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the operations of one example, and start the clock; a run that goes on adds to its time."""
        self.started = time.monotonic()
        if trainer.ckpt_path is not None:
            self.before = seconds_before(self.path.parent)
        self.flops = count_flops(pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the file; what other callbacks log for this epoch may not be there yet."""
        self.write(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the file once more at the end of the training."""
        self.write(trainer, pl_module)

    def write(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the costs so far to ``cost.json``, in the first process only."""
        rate = trainer.callback_metrics.get("train/images_per_second")  # in all processes: reading it sums over them
        if not trainer.is_global_zero:
            return
        content = {
            "parameters": count_parameters(pl_module),
            "flops": self.flops,
            "train_images_per_second": rate.item() if rate is not None else None,
            "train_seconds": round(self.before + time.monotonic() - self.started, 1),
            "peak_memory": _peak_memory(pl_module.device),
            **_machine(trainer, pl_module.device),
        }
        write_json(self.path, content, indent=1)


def seconds_before(folder: Path) -> float:
    """Return the seconds that the training in a run folder has taken so far; 0 if they are not known."""
    try:
        return read_cost(folder).get("train_seconds") or 0.0
    except InputError:
        return 0.0


def count_parameters(task: L.LightningModule) -> int:
    """Return the number of parameters of the task's model, without those that the task has beside it."""
    return sum(parameter.numel() for parameter in getattr(task, "model", task).parameters())


def count_flops(task: L.LightningModule) -> int | None:
    """Return the operations of the forward pass of the task's first example; None if it has no example."""
    example = task.example_input_array
    if not isinstance(example, torch.Tensor):
        return None
    training = task.training
    weights = (weight.dtype for weight in task.parameters() if weight.is_floating_point())
    dtype = next(weights, example.dtype)  # another one than the example's under trainer.precision 16-true and its like
    with FlopCounterMode(display=False) as counter, torch.no_grad(), torch.random.fork_rng():
        task.eval()(example[:1].to(task.device, dtype))
    task.train(training)
    return counter.get_total_flops()


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _machine(trainer: L.Trainer, device: torch.device) -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU",
        "processes": trainer.world_size,
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in VERSIONS},
    }
