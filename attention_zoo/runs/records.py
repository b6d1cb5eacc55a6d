"""Callbacks of every run: they keep its config and log its metrics."""

import math
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import Namespace
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from attention_zoo.errors import InputError
from attention_zoo.runs.checkpoint import CLASSES, CONFIG, FROM_ELSEWHERE, Checkpoint
from attention_zoo.runs.files import append_json_line, write_text
from attention_zoo.runs.loggers import unplaced
from attention_zoo.runs.parts import part_of_batches
from attention_zoo.runs.results import SPEED
from attention_zoo.scales import Scale


class SaveConfig(SaveConfigCallback):
    """Keeps a fit's config in its run folder and in each of its checkpoints.

    The config says what was run, not where: without the folder and the checkpoint it went on from, it starts a new
    run of the same kind. Names of the classes are filled in, so that prediction needs no training data.

    Args:
        parser: the parser of the command.
        config: the parsed config.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace) -> None:
        super().__init__(parser, config, save_to_log_dir=False)
        self.text = self.text_with_weights = ""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Turn the config into text, with the class names that the data give."""
        config = self.config.clone()
        run = config["trainer"]
        run["logger"] = unplaced(run["logger"], Path(run["default_root_dir"]))
        config["ckpt_path"] = config["trainer"]["default_root_dir"] = None
        config["weights_only"], config["trust_checkpoint"] = True, False  # each command states its own trust
        options = (config.get("data") or {}).get("init_args") or {}
        if "class_names" in options and options["class_names"] is None:
            with_data: Any = trainer
            options["class_names"] = list(with_data.datamodule.class_names)
        self.text = self.parser.dump(config, skip_unset=False)
        # a checkpoint holds the weights; loading it must not fetch or read others
        model = (config.get("model") or {}).get("init_args") or {}
        for option, without in FROM_ELSEWHERE.items():
            if model.get(option):
                model[option] = without
        self.text_with_weights = self.parser.dump(config, skip_unset=False)

    @rank_zero_only
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the config, unless this run goes on from an earlier start that did."""
        self.save_config(trainer, pl_module, "fit")

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write the config to the run folder."""
        path = Path(trainer.default_root_dir) / "config.yaml"
        if not path.exists():
            write_text(path, self.text)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the config into the checkpoint, as text: nothing of it is unpickled; and the names of the classes."""
        checkpoint[CONFIG] = self.text_with_weights
        with_data: Any = trainer
        names = getattr(with_data.datamodule, "class_names", None)
        if names is not None:
            checkpoint[CLASSES] = list(map(str, names))


class MetricsLog(Callback):
    """Appends one line of JSON to ``metrics.jsonl`` for each validation and each test.

    Args:
        folder: the run folder.
        checkpoint: the checkpoint that is evaluated; None during a fit.
    """

    def __init__(self, folder: Path, checkpoint: Checkpoint | None) -> None:
        self.path, self.checkpoint = folder / "metrics.jsonl", checkpoint

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the metrics of a validation, unless it was a sanity check."""
        if not trainer.sanity_checking:
            self.append(trainer, pl_module, "validate")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the metrics of a test."""
        self.append(trainer, pl_module, "test")

    @rank_zero_only
    def append(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Add a line to the log; metrics that are not finite become null, for JSON has no such numbers."""
        # a fit's training metrics here would be those of the epoch before
        metrics = {
            name: value.item() for name, value in trainer.callback_metrics.items() if not name.startswith("train/")
        }
        scales: Mapping[str, Scale] = getattr(pl_module, "scales", {})  # a task of this project states them
        source = self.checkpoint
        epoch, step = (source.epoch, source.step) if source else (trainer.current_epoch, trainer.global_step)
        line = {
            "stage": stage,
            "epoch": epoch,
            "step": step,
            "checkpoint": str(source.path) if source else None,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "metrics": {name: value if math.isfinite(value) else None for name, value in metrics.items()},
            "scales": {name: scale.plain() for name, scale in scales.items() if name in metrics},
        }
        part = part_of_batches(trainer, stage)
        if part is not None:
            line["part"] = part
        if not sys.stdout.isatty():  # there, the progress bar shows each epoch
            rank_zero_info(printed(epoch, step, metrics))
        try:
            append_json_line(self.path, line)
        except InputError as error:  # an evaluation is worth its result where the run can only be read
            rank_zero_warn(f"metrics not logged: {error}")


def printed(epoch: int, step: int, metrics: Mapping[str, float]) -> str:
    """Return an evaluation as a line for people: epochs count from 1, as in reports, and the speed comes last.

    Args:
        epoch: the epoch that was evaluated, from 0.
        step: the number of steps of training; 0 is a model that was not trained here.
        metrics: the numbers, by name.
    """
    names = sorted(metrics, key=lambda name: name.endswith(SPEED))
    numbers = ", ".join(f"{name} {metrics[name]:.4g}" for name in names)
    return f"epoch {epoch + 1}, step {step}: {numbers}" if step else numbers
