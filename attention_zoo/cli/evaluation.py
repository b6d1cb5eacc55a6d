"""What a robustness evaluation on the command line leaves behind: files, tables, and which benchmark it is at."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.utilities import rank_zero_only
from rich.markup import escape

from attention_zoo.cli.console import print_table
from attention_zoo.registry import MIXERS, mixer_options
from attention_zoo.reports import grids_of, write_result
from attention_zoo.reports.clicks import noc_table
from attention_zoo.runs.checkpoint import Checkpoint
from attention_zoo.runs.folders import new_folder
from tasks import InteractiveSegmentation, Robustness

REPORT_SECONDS = 1.0
"""Between two words of a running attack in the progress bar."""


class RobustnessWriter(Callback):
    """Writes the result of a `tasks.Robustness` to a folder of its own, and prints its tables.

    Args:
        folder: new, or of a run, in which the evaluation then gets a folder named after data and time.
        config: of model and data, as plain values.
        checkpoint: what is evaluated.
    """

    def __init__(self, folder: Path, config: dict[str, Any], checkpoint: Checkpoint | None) -> None:
        self.folder, self.config, self.checkpoint = folder, config, checkpoint

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leave the printing of numbers to this callback."""
        if isinstance(pl_module, Robustness):
            trainer.test_loop.verbose = False

    @rank_zero_only
    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make the folder: what cannot be written is to be known before the hours of an evaluation."""
        if isinstance(pl_module, Robustness):
            self.folder = fresh(self.folder, type(trainer.datamodule).__name__)

    @rank_zero_only
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave no empty folder."""
        if trainer.testing and self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: None, batch: Any, *which: int
    ) -> None:
        """Say in the progress bar, which is there from the first batch on, where the evaluation is."""
        if not isinstance(pl_module, Robustness):
            return
        cell = trainer.datamodule.cells[int(batch["cell"][0])]
        said = [cell.benchmark.title, cell.corruption and cell.corruption.replace("_", " "), cell.severity]
        _describe(trainer, " ".join(str(part) for part in said if part))

    def on_test_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *which: Any) -> None:
        """Let attacks, a batch of which may take minutes, say in the bar what they do, about once a second."""
        if not isinstance(pl_module, Robustness):
            return
        last = time.monotonic()

        def report(said: str) -> None:
            nonlocal last
            if time.monotonic() - last > REPORT_SECONDS:
                last = time.monotonic()
                _describe(trainer, said)

        pl_module.report = report

    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write and print."""
        if not isinstance(pl_module, Robustness):
            return
        result = replace(pl_module.result, facts={**pl_module.result.facts, **self._facts(pl_module)})
        table = write_result(self.folder, result)
        for heading, part in grids_of(result):
            print_table(part, heading)
        print_table(table, f"weights: {result.facts['weights']}; written to {self.folder}")

    def _facts(self, task: Robustness) -> dict[str, Any]:
        options = self.config["model"].get("init_args") or {}
        weights = "random"
        if self.checkpoint:
            weights = str(self.checkpoint.path)
        elif options.get("weights"):
            weights = options["weights"]
        elif options.get("pretrained"):
            weights = f"released with timm ({task.model.pretrained_cfg['tag'] or 'default'})"
        return {
            "model": options.get("model"),
            "mixer": described(options.get("mixer")),
            "weights": weights,
            "epoch": self.checkpoint.epoch if self.checkpoint else None,
            "config": self.config,
        }


class ClickWriter(Callback):
    """Writes the curves of a `tasks.InteractiveSegmentation` to a folder of their own, and prints their table.

    Args:
        folder: new, or of a run, in which the evaluation then gets a folder named after data and time.
        config: of model and data, as plain values.
    """

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder, self.config = folder, config

    @rank_zero_only
    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make the folder: what cannot be written is to be known before the hours of an evaluation."""
        if isinstance(pl_module, InteractiveSegmentation):
            self.folder = fresh(self.folder, type(trainer.datamodule).__name__)

    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write and print."""
        if not isinstance(pl_module, InteractiveSegmentation):
            return
        options = self.config["model"].get("init_args") or {}
        title = " ".join(filter(None, (options.get("model"), described(options.get("mixer")))))
        result = replace(pl_module.result, title=title)
        result.write(self.folder, pl_module.ious, pl_module.names)
        print_table(noc_table({title: result}), f"{title}; written to {self.folder}")


def _describe(trainer: L.Trainer, said: str) -> None:
    """Say in the progress bar, where there is one, what the evaluation is at."""
    bar = trainer.progress_bar_callback
    if isinstance(bar, RichProgressBar) and bar.progress is not None and bar.test_progress_bar_id is not None:
        bar.progress.update(bar.test_progress_bar_id, description=escape(said))


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
