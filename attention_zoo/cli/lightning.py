"""``fit``, ``validate``, ``test`` and ``predict``: LightningCLI with our folders, checkpoints and errors."""

import logging
import os
import sys
import warnings
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

import jsonargparse._typehints
import lightning as L
import yaml
from jsonargparse import Namespace
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities import rank_zero_info

import datamodules  # noqa: F401  its classes can be named
import tasks
from attention_zoo.cli.arguments import FROM_DATA
from attention_zoo.cli.callbacks import FailTogether, MetricsLog, SaveConfig
from attention_zoo.cli.cost_log import CostLog
from attention_zoo.cli.evaluation import Narrator, ResultWriter
from attention_zoo.cli.failure import PROGRAM, bad_argument, debugging, rank, root_cause
from attention_zoo.cli.parser import ShortErrors
from attention_zoo.cli.predictions import PredictionWriter
from attention_zoo.cli.trust import parse_strangers
from attention_zoo.cli.unfinished import UNFINISHED, Unfinished, identity
from attention_zoo.errors import InputError
from attention_zoo.runs.checkpoint import Checkpoint, check_fit, check_kinds
from attention_zoo.runs.checkpoint_io import WholeCheckpoints
from attention_zoo.runs.folders import fresh_folder, guard_run, put_away, run_name
from attention_zoo.runs.lock import held


class ToStdout(logging.StreamHandler):
    """Writes to what stdout is at the time."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        """Where to write."""
        return sys.stdout


QUIET = (r".*isinstance\(treespec, LeafSpec\)", "Checkpoint directory .* exists and is not empty")
"""Warnings that are of no use: Lightning asks torch in an old way, and a run folder is only gone on with on purpose."""


def quieten() -> None:
    """Have Lightning tell what goes on to stdout: stderr is left to errors.

    The seed is in every config; a line about it would stand before the one line of an error. Tips about its maker's
    services are left out.
    """
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).handlers = [ToStdout()]
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
    rank_zero = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    if no_tip not in rank_zero.filters:
        rank_zero.addFilter(no_tip)
    for message in QUIET:
        warnings.filterwarnings("ignore", message=message)


def no_tip(record: logging.LogRecord) -> bool:
    """Whether a line is no recommendation."""
    return "Tip:" not in record.getMessage()


class TrainingParser(ShortErrors, LightningArgumentParser):
    """The parser of the commands that run a Lightning trainer."""


class Trainer(L.Trainer):
    """Lightning's, for which a count of batches stays a count: 1 is one batch, 1.0 is all of them.

    Lightning's own annotations leave the order of the two types to whatever was imported before, since typing takes
    ``Union[int, float]`` and ``Union[float, int]`` for the same.

    Args:
        limit_train_batches: batches of a training epoch, as a number (integer) or as a share (float).
        limit_val_batches: batches of each validation, alike.
        limit_test_batches: batches of a test, alike.
        limit_predict_batches: batches of a prediction, alike.
        overfit_batches: batches to train and validate on again and again, alike; 0.0 is off.
        val_check_interval: batches (integer), share of an epoch (float) or time between two validations.
        kwargs: the other arguments of Lightning's trainer.
    """

    def __init__(
        self,
        *,
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        limit_predict_batches: int | float | None = None,
        overfit_batches: int | float = 0.0,
        val_check_interval: int | float | str | timedelta | dict[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            limit_train_batches=limit_train_batches,
            limit_val_batches=limit_val_batches,
            limit_test_batches=limit_test_batches,
            limit_predict_batches=limit_predict_batches,
            overfit_batches=overfit_batches,
            val_check_interval=val_check_interval,
            **kwargs,
        )


class ZooCLI(LightningCLI):
    """Any task of `tasks` on any data of `datamodules`, by class name.

    Args:
        checkpoint: what ``--ckpt_path`` names; its config comes before all others, so that these win.
    """

    def __init__(self, checkpoint: Checkpoint | None) -> None:
        self.checkpoint = checkpoint
        quieten()
        start_afresh_on_another_class()
        with ExitStack() as self._held:
            super().__init__(
                tasks.Task,
                L.LightningDataModule,
                trainer_class=Trainer,
                subclass_mode_model=True,
                subclass_mode_data=True,
                save_config_callback=SaveConfig,
                seed_everything_default=0,
                parser_class=TrainingParser,
                parser_kwargs={"prog": PROGRAM, "allow_abbrev": False},
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
            )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What the data know, the task is told; it alone, for links further down break saved configs."""
        for name in FROM_DATA:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        # add_arguments_to_parser is not told for which command it is called
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.set_defaults(weights_only=True)  # loading a checkpoint runs no code from it
        text = "whether the config in the checkpoint may name any class, and run its code"
        parser.add_argument("--trust_checkpoint", type=bool, default=False, help=text)
        if subcommand == "predict":
            parser.add_lightning_class_args(PredictionWriter, "prediction")
            parser.set_defaults(return_predictions=False)  # the writer keeps what is wanted of them
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and settle the run folder, also in ``sys.argv``: Lightning starts further processes with that."""
        command, *rest = sys.argv[1:]
        text = self._config_of_the_checkpoint(command)
        self.config = parser.parse_args([command, *(["--config", text] if text else []), *rest])
        trainer = self.config[command]["trainer"]
        trainer["callbacks"] = without_repeats(trainer["callbacks"])
        if trainer["default_root_dir"] is None and self.checkpoint and self.checkpoint.run_folder:
            trainer["default_root_dir"] = os.path.relpath(self.checkpoint.run_folder)
        if command == "fit":
            if self.checkpoint:
                check_fit(self.checkpoint)
            self._claim(trainer)

    def _config_of_the_checkpoint(self, command: str) -> str | None:
        """What is taken of the checkpoint's config, once it is known to name nothing that it may not."""
        if self.checkpoint is None:
            return None
        taken = self.checkpoint.taken(command)
        if taken is not None and not self.checkpoint.trusted:
            parse_strangers(parser_of_parts(), taken, self.checkpoint.path)
        return self.checkpoint.config_for(command)

    def _claim(self, trainer: Namespace) -> None:
        """Settle the run folder and hold it to the end, but in the first process alone."""
        ours = trainer["default_root_dir"] is None
        if ours:
            trainer["default_root_dir"] = str(fresh_folder(self.config["fit"].as_dict()))
            sys.argv += ["--trainer.default_root_dir", trainer["default_root_dir"]]
        folder = Path(trainer["default_root_dir"])
        guard_run(folder, self.checkpoint)
        if rank() == 0:
            self._held.enter_context(held(folder, ours=ours))
            guard_run(folder, self.checkpoint)  # another process may have trained there until now
            away = put_away(folder)
            if away is not None:
                rank_zero_info(
                    f"{folder} held a start that never got as far as a checkpoint, and so nothing to go on from: "
                    f"its config and logs are in {away} now, and this run starts anew"
                )

    def _parse_ckpt_path(self) -> None:
        # Lightning would let hyper-parameters in a checkpoint win over the command line
        pass

    def instantiate_classes(self) -> None:
        """Build data, task and trainer; what their constructors refuse is bad input."""
        try:
            super().instantiate_classes()
            if self.checkpoint:
                check_kinds(self.checkpoint, self.model)
        except Exception as error:
            cause = root_cause(error)
            message = bad_argument(cause)
            if message is None or debugging():
                raise cause from None
            raise InputError(message) from error

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """The trainer of the config, with everything it writes in the run folder."""
        given = self._get(self.config_init, "trainer")
        folder = Path(given["default_root_dir"]) if given["default_root_dir"] else None
        fitting = self.subcommand == "fit"
        callbacks = [FailTogether(self.checkpoint)]
        if not given["barebones"]:
            if given["logger"] is True or (given["logger"] is None and fitting):
                version = "" if fitting else self.subcommand
                kwargs["logger"] = TensorBoardLogger(folder or ".", name="", version=version)
            elif given["logger"] is None:
                kwargs["logger"] = False
            if folder and not given["fast_dev_run"]:
                callbacks.append(MetricsLog(folder, None if fitting else self.checkpoint))
                callbacks += [CostLog(folder)] if fitting else []
            if self.subcommand == "test":
                callbacks += self._result_writers(folder)
            if given["enable_checkpointing"] is not False:
                callbacks.append(last_checkpoint())
        self.trainer_defaults["callbacks"] = callbacks
        if not fitting:
            self.save_config_callback = None
        plugins = given["plugins"] or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, WholeCheckpoints()]
        trainer = super().instantiate_trainer(**kwargs)
        for callback in trainer.checkpoint_callbacks:
            if folder and isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = os.path.realpath(folder / "checkpoints")
        return trainer

    def _result_writers(self, folder: Path | None) -> list[Callback]:
        """What keeps the result of an evaluation, and the counts until then, and says where it is."""
        config = self._plain_config()
        where = folder or run_name(self.config[self.subcommand].as_dict())
        unfinished = Unfinished((folder or where.parent) / UNFINISHED, identity(config, self.checkpoint))
        return [ResultWriter(where, config, self.checkpoint), unfinished, Narrator()]

    def _plain_config(self) -> dict[str, Any]:
        """Model, data and seed of the config, as plain values."""
        text = self._parser(self.subcommand).dump(self.config[self.subcommand], skip_unset=False)
        return {
            key: value for key, value in yaml.safe_load(text).items() if key in ("model", "data", "seed_everything")
        }


def parser_of_parts() -> TrainingParser:
    """A parser of what is taken of a checkpoint's config, nothing of it required, that raises its errors."""
    parser = TrainingParser(exit_on_error=False)
    parser.add_argument("--seed_everything", type=bool | int, default=0)
    parser.add_lightning_class_args(tasks.Task, "model", subclass_mode=True, required=False)
    parser.add_lightning_class_args(L.LightningDataModule, "data", subclass_mode=True, required=False)
    parser.add_lightning_class_args(Trainer, "trainer")
    for name in FROM_DATA:
        parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
    return parser


def last_checkpoint() -> ModelCheckpoint:
    """Writes ``last.ckpt`` after every epoch; ``save_last`` of one with a monitor only follows its best ones."""
    return ModelCheckpoint(
        filename="last", every_n_epochs=1, save_on_train_epoch_end=True, enable_version_counter=False
    )


def without_repeats(callbacks: list[Namespace] | Namespace | None) -> list[Namespace] | Namespace | None:
    """Each of ``callbacks`` once: a resumed run has those of its checkpoint and those that its command adds again."""
    if not isinstance(callbacks, list):
        return callbacks
    return [callback for place, callback in enumerate(callbacks) if callback not in callbacks[:place]]


def start_afresh_on_another_class() -> None:
    """Make a change of class drop the arguments of the class before it, except for task and data.

    jsonargparse keeps those that the new class accepts too, so that ``num_features`` of one mixer in a saved config
    would silently become that of the next. It has no setting for this, hence the hold on a private function; a
    test on the command line guards it.
    """
    module = jsonargparse._typehints
    stock = module.discard_init_args_on_class_path_change
    if getattr(stock, "afresh", False):
        return

    def discard(parser_or_action: Any, prev_val: Any, value: Any) -> None:
        changed = prev_val and "init_args" in prev_val and prev_val["class_path"] != value["class_path"]
        if changed and not _keeps_arguments(prev_val["class_path"]):
            prev_val["init_args"] = Namespace()
        stock(parser_or_action, prev_val, value)

    discard.afresh = True
    module.discard_init_args_on_class_path_change = discard


def _keeps_arguments(class_path: str) -> bool:
    cls = jsonargparse._typehints.import_object(class_path)
    return isinstance(cls, type) and issubclass(cls, (L.LightningModule, L.LightningDataModule))
