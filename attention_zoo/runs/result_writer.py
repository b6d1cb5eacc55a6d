"""Callbacks of an evaluation on the command line: they write and print its result, and show where it is."""

import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from rich.markup import escape

from attention_zoo.errors import InputError
from attention_zoo.evaluation import Evaluated, Evaluation, Narrating, Result
from attention_zoo.mixers.registry import MIXERS, mixer_options
from attention_zoo.runs.checkpoint import Checkpoint
from attention_zoo.runs.folders import new_folder
from attention_zoo.terminal import print_table

REPORT_SECONDS = 1.0
"""Seconds between two messages in the progress bar on steps that take long within a batch."""


LOG_SECONDS = 60.0
"""Seconds between two such messages where there is no progress bar, and they are lines of the output."""


class ResultCheck(Callback):
    """Refuses an evaluation without a result; it stands before the callbacks that keep metrics and results."""

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that an evaluation has left a `Result`.

        Raises:
            InputError: ``result`` is None still, or of another class.
        """
        if not isinstance(pl_module, Evaluation):
            return
        task, result = type(pl_module).__name__, pl_module.result
        if result is None:
            raise InputError(f"{task} is an evaluation without a result: set self.result in on_test_epoch_end")
        if not isinstance(result, Result):
            raise InputError(
                f"the result of {task} must be a Result, such as Scores, got one of {type(result).__name__}"
            )


class ResultWriter(Callback):
    """Writes the result of an evaluation of any kind to a folder of its own, and prints its tables.

    Args:
        folder: a new folder, or that of a run, in which the evaluation then gets one named after data and time.
        config: the config of model and data, as plain values.
        checkpoint: the checkpoint that is evaluated; None without one.
    """

    def __init__(self, folder: Path, config: dict[str, Any], checkpoint: Checkpoint | None) -> None:
        self.folder, self.config, self.checkpoint = folder, config, checkpoint

    @rank_zero_only
    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make the folder, so that one that cannot be written is known before the hours of an evaluation."""
        if isinstance(pl_module, Evaluation):
            data: Any = trainer
            self.folder = fresh(self.folder, type(data.datamodule).__name__)

    @rank_zero_only
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Remove the folder if the test failed before anything was written to it."""
        if trainer.testing and self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the result to the folder, and print its tables."""
        if not isinstance(pl_module, Evaluation) or pl_module.result is None:
            return
        result = pl_module.result.of(self._evaluated(pl_module))
        result.write(self.folder)
        *others, (heading, table) = result.tables()
        for title, other in others:
            print_table(other, title)
        print_table(table, f"{heading}; written to {self.folder}")
        if result.shows_metrics:
            trainer.test_loop.verbose = False  # Lightning would list them from here on

    def _evaluated(self, task: L.LightningModule) -> Evaluated:
        options = self.config["model"].get("init_args") or {}
        weights = "random"
        if self.checkpoint:
            weights = str(self.checkpoint.path)
        elif options.get("weights"):
            weights = options["weights"]
        elif options.get("pretrained"):
            released = getattr(task.model, "pretrained_cfg", {})
            weights = f"released with timm ({released.get('tag') or 'default'})"
        return Evaluated(
            model=options.get("model"),
            mixer=described(options.get("mixer")),
            weights=weights,
            epoch=self.checkpoint.epoch if self.checkpoint else None,
            config=self.config,
        )


class Narrator(Callback):
    """Shows in the progress bar what an evaluation is doing; without one it prints a line about once a minute."""

    def on_test_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Let a task whose batches may take minutes report what it does, about once a second in a progress bar."""
        if not isinstance(pl_module, Narrating):
            return
        last = time.monotonic()
        bar = trainer.progress_bar_callback is not None
        seconds, show = (REPORT_SECONDS, describe) if bar else (LOG_SECONDS, print_line)

        def report(words: str) -> None:
            nonlocal last
            if time.monotonic() - last > seconds:
                last = time.monotonic()
                show(trainer, words)

        pl_module.report = report

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Show where the batch was; the bar exists from the first batch on."""
        if isinstance(pl_module, Narrating):
            describe(trainer, pl_module.place(batch))


def describe(trainer: L.Trainer, words: str) -> None:
    """Show ``words`` in the progress bar of the test, if there is one."""
    bar = trainer.progress_bar_callback
    if isinstance(bar, RichProgressBar) and bar.progress is not None and bar.test_progress_bar_id is not None:
        bar.progress.update(bar.test_progress_bar_id, description=escape(words))


def print_line(trainer: L.Trainer, words: str) -> None:
    """Print ``words`` as a line on the batch of the test that the trainer is at."""
    batch = trainer.test_loop.batch_progress.current.ready
    rank_zero_info(f"batch {batch} of {trainer.num_test_batches[0]}: {words}")


def described(mixer: dict[str, Any] | None) -> str | None:
    """Return the name of a mixer in a config and its options that differ from their defaults; None without one."""
    if not mixer:
        return None
    name = mixer["class_path"].rpartition(".")[2]
    defaults = {option.name: option.default for option in mixer_options(MIXERS[name])} if name in MIXERS else {}
    options = mixer.get("init_args") or {}
    changed = [f"{key}={value}" for key, value in options.items() if key not in defaults or defaults[key] != value]
    return " ".join([name, *([", ".join(changed)] if changed else [])])


def fresh(folder: Path, data: str) -> Path:
    """Make and return ``folder``, or if it holds something, a new one inside that is named after data and time."""
    if folder.is_dir() and any(folder.iterdir()):
        return new_folder(folder / f"{data}-{time.strftime('%Y%m%d-%H%M%S')}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
