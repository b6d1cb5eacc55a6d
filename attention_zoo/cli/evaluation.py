"""What an evaluation on the command line leaves behind: files, printed tables, and words on where it is."""

import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.utilities import rank_zero_only
from rich.markup import escape

from attention_zoo.cli.console import print_table
from attention_zoo.evaluation import Evaluated, Evaluation, Narrating
from attention_zoo.registry import MIXERS, mixer_options
from attention_zoo.runs.checkpoint import Checkpoint
from attention_zoo.runs.folders import new_folder

REPORT_SECONDS = 1.0
"""Between two words in the progress bar on what takes long within a batch."""


class ResultWriter(Callback):
    """Writes the result of an evaluation, whatever it is of, to a folder of its own, and prints its tables.

    Args:
        folder: new, or of a run, in which the evaluation then gets a folder named after data and time.
        config: of model and data, as plain values.
        checkpoint: what is evaluated.
    """

    def __init__(self, folder: Path, config: dict[str, Any], checkpoint: Checkpoint | None) -> None:
        self.folder, self.config, self.checkpoint = folder, config, checkpoint

    @rank_zero_only
    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make the folder: what cannot be written is to be known before the hours of an evaluation."""
        if isinstance(pl_module, Evaluation):
            data: Any = trainer
            self.folder = fresh(self.folder, type(data.datamodule).__name__)

    @rank_zero_only
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave no empty folder."""
        if trainer.testing and self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write and print."""
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
    """Says in the progress bar, where there is one, what an evaluation is at."""

    def on_test_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Let a task whose batches may take minutes say what it does, about once a second."""
        if not isinstance(pl_module, Narrating):
            return
        last = time.monotonic()

        def report(words: str) -> None:
            nonlocal last
            if time.monotonic() - last > REPORT_SECONDS:
                last = time.monotonic()
                describe(trainer, words)

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
        """Say where the batch was; the bar is there from the first one on."""
        if isinstance(pl_module, Narrating):
            describe(trainer, pl_module.place(batch))


def describe(trainer: L.Trainer, words: str) -> None:
    """Put words into the progress bar, where there is one."""
    bar = trainer.progress_bar_callback
    if isinstance(bar, RichProgressBar) and bar.progress is not None and bar.test_progress_bar_id is not None:
        bar.progress.update(bar.test_progress_bar_id, description=escape(words))


def described(mixer: dict[str, Any] | None) -> str | None:
    """Name of a mixer of a config, and those of its options that are not as by default."""
    if not mixer:
        return None
    name = mixer["class_path"].rpartition(".")[2]
    defaults = {option.name: option.default for option in mixer_options(MIXERS[name])} if name in MIXERS else {}
    given = mixer.get("init_args") or {}
    said = [f"{key}={value}" for key, value in given.items() if key not in defaults or defaults[key] != value]
    return " ".join([name, *([", ".join(said)] if said else [])])


def fresh(folder: Path, data: str) -> Path:
    """Make ``folder``, or in one that holds something already a new one that is named after data and time."""
    if folder.is_dir() and any(folder.iterdir()):
        return new_folder(folder / f"{data}-{time.strftime('%Y%m%d-%H%M%S')}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
