"""``fit``, ``validate``, ``test`` and ``predict``: LightningCLI with this project's folders, checkpoints and errors."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import torch
import yaml
from jsonargparse import Namespace
from jsonargparse.typing import register_type
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

import datamodules  # noqa: F401  so that its classes can be named
import tasks
from attention_zoo.attacks import OnPixels, Source, Transferring
from attention_zoo.cli.arguments import FROM_DATA
from attention_zoo.cli.compat import (
    Hooks,
    end_further_processes,
    further_processes,
    launch_further_processes_with,
    nesting_mappings,
    quieten,
    starting_afresh,
)
from attention_zoo.cli.errors import debugging, fail, failed_elsewhere, leave, rank
from attention_zoo.cli.overview import PROGRAM
from attention_zoo.cli.parser import ZooParser, parse_taken
from attention_zoo.errors import InputError
from attention_zoo.models.top_down import Mode
from attention_zoo.runs.account import Account
from attention_zoo.runs.checkpoint import (
    Checkpoint,
    check_classes,
    check_fit,
    check_kinds,
    check_optimizer,
    check_schedules,
    of_a_run,
    read_checkpoint,
)
from attention_zoo.runs.checkpoint_io import WholeCheckpoints, check_remembered
from attention_zoo.runs.cost_log import CostLog
from attention_zoo.runs.folders import find_checkpoint, fresh_folder, guard_run, put_away, run_name
from attention_zoo.runs.lock import held
from attention_zoo.runs.loggers import check_installed, placed
from attention_zoo.runs.records import MetricsLog, SaveConfig
from attention_zoo.runs.result_writer import Narrator, ResultCheck, ResultWriter, described
from attention_zoo.runs.trainer import KeepEpoch, Trainer, last_checkpoint
from attention_zoo.runs.unfinished import UNFINISHED, Unfinished, identity
from attention_zoo.sayings import bad_argument, bad_input, other_model, root_cause
from datamodules.base import ImageDataModule
from datamodules.predictions import PredictionWriter
from tasks.guards import check_weights

TaskKind = TypeVar("TaskKind", bound=L.LightningModule)
DataKind = TypeVar("DataKind", bound=L.LightningDataModule)

WORDS = {Mode: "mode"}
"""The keys that words stand for, of options that take a word or a mapping: ``--model.top_down qkv``."""


class TrainingParser(ZooParser, LightningArgumentParser):
    """The parser of the commands that run a Lightning trainer. It knows devices by their names."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        register_type(torch.device, deserializer_exceptions=(RuntimeError, TypeError))
        super().__init__(*args, **kwargs)


class FailTogether(Callback):
    """On bad input, ends all processes that Lightning launched on this machine, with one message.

    Args:
        checkpoint: the checkpoint that the run starts from; None without one.
    """

    def __init__(self, checkpoint: Checkpoint | None) -> None:
        self.checkpoint = checkpoint
        self.path = checkpoint.path if checkpoint else None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check what the callbacks took up from the checkpoint, before any of them acts on it, and its schedules."""
        if self.checkpoint is None:
            return
        averaging = any(isinstance(each, StochasticWeightAveraging) for each in trainer.callbacks)  # type: ignore[attr-defined]
        if trainer.lr_scheduler_configs or not averaging:  # which has put its schedule away until it averages
            check_schedules(self.checkpoint, len(trainer.lr_scheduler_configs))
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint):
                check_remembered(callback, self.checkpoint.path)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """End all processes of the run if bad input stopped it, here or in a process that this one launched."""
        processes = further_processes(trainer)
        message = other_model(exception, self.path) or bad_input(exception)
        if not processes or debugging():
            return
        for logger in trainer.loggers:  # leaving may skip what closes them otherwise
            logger.finalize("failed")
        if message is not None:
            end_further_processes(trainer)
            fail(message)
        if failed_elsewhere(processes):
            leave()


class ZooCLI(Hooks, LightningCLI):
    """Runs any task of `tasks` on any data of `datamodules`, both named by their classes.

    Args:
        argv: the command and its arguments.
        checkpoint: the checkpoint that ``--ckpt_path`` names; its config comes before all others, so that these win.

    Raises:
        InputError: the arguments do not fit, or name something that cannot be run.
    """

    def __init__(self, argv: Sequence[str], checkpoint: Checkpoint | None) -> None:
        self.argv, self.checkpoint = argv, checkpoint
        quieten()
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

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # which takes no self
        """Return the one command that is run, with the arguments to leave out; parsers of the others take time."""
        command = self.argv[0]
        return {command: super().subcommands()[command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link the arguments `FROM_DATA` of the task to the data; links further down would break saved configs."""
        for name in FROM_DATA:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def add_arguments_of(self, subcommand: str, parser: LightningArgumentParser) -> None:
        """Add the option that trusts the checkpoint, and to ``predict`` the options of its writer."""
        parser.set_defaults(weights_only=True)  # loading a checkpoint runs no code from it
        text = "whether the config in the checkpoint may name any class, and run its code"
        parser.add_argument("--trust_checkpoint", type=bool, default=False, help=text)
        if subcommand == "predict":
            parser.add_lightning_class_args(PredictionWriter, "prediction")
            parser.set_defaults(return_predictions=False)  # the writer keeps what is wanted of them

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the arguments, and choose the run folder, also for further processes of the run."""
        command, *rest = self.argv
        text = self._config_of_the_checkpoint(command)
        with starting_afresh(keeping=(L.LightningModule, L.LightningDataModule)), nesting_mappings(WORDS):
            self.config = parser.parse_args([command, *(["--config", text] if text else []), *rest])
        trainer = self.config[command]["trainer"]
        check_installed(trainer["logger"])
        trainer["callbacks"] = without_repeats(trainer["callbacks"])
        if trainer["default_root_dir"] is None and self.checkpoint and self.checkpoint.run_folder:
            trainer["default_root_dir"] = os.path.relpath(self.checkpoint.run_folder)
        if command == "fit":
            if self.checkpoint:
                check_fit(self.checkpoint)
                check_optimizer(self.checkpoint, self.config[command].as_dict())
            self.claim(trainer)
        trainer["logger"] = placed(trainer["logger"], Path(trainer["default_root_dir"] or "."))

    def _config_of_the_checkpoint(self, command: str) -> str | None:
        """Return the config that is taken from the checkpoint, after checking that it names only what it may."""
        if self.checkpoint is None:
            return None
        taken = self.checkpoint.taken(command)
        if taken is not None and not self.checkpoint.trusted:
            parse_taken(parser_of_parts(), self.checkpoint, taken)
        return self.checkpoint.config_for(command)

    def claim(self, trainer: Namespace) -> None:
        """Choose the run folder; the first process also locks it until the end of the command."""
        ours = trainer["default_root_dir"] is None
        if ours:
            trainer["default_root_dir"] = str(fresh_folder(self.config["fit"].as_dict()))
            launch_further_processes_with([*self.argv, "--trainer.default_root_dir", trainer["default_root_dir"]])
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

    def instantiate_classes(self) -> None:
        """Build data, task and trainer.

        Raises:
            InputError: one of their constructors refuses what the user gave.
        """
        try:
            super().instantiate_classes()
            if self.checkpoint:
                check_kinds(self.checkpoint, self.model)
                check_classes(self.checkpoint, getattr(self.datamodule, "class_names", ()))
            else:
                self._check_weights()
            if isinstance(self.model, Transferring) and self.subcommand == "test":
                load_sources(self.model)
        except Exception as error:
            cause = root_cause(error)
            message = bad_argument(cause)
            if message is None or debugging():
                raise cause from None
            raise InputError(message) from error

    def _check_weights(self) -> None:
        """Compare the classes of the run that ``model.weights`` are of with those of the data.

        A training may go on from them all the same, and is told.

        Raises:
            InputError: an evaluation would take its labels for others.
        """
        path = (self.config[self.subcommand]["model"].get("init_args") or {}).get("weights")
        run = of_a_run(Path(path)) if path else None
        if run is None:
            return
        try:
            check_classes(run, getattr(self.datamodule, "class_names", ()))
        except InputError as error:
            if self.subcommand != "fit":
                raise
            rank_zero_warn(f"model.weights: {error}")

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Return the trainer of the config, set up to write everything to the run folder."""
        options = self.config_init[self.subcommand]["trainer"]
        folder = Path(options["default_root_dir"]) if options["default_root_dir"] else None
        fitting = self.subcommand == "fit"
        callbacks: list[Callback] = [KeepEpoch(), FailTogether(self.checkpoint), ResultCheck()]
        if not options["barebones"]:
            if options["logger"] is True or (options["logger"] is None and fitting):
                version = "" if fitting else self.subcommand
                kwargs["logger"] = TensorBoardLogger(folder or ".", name="", version=version)
            elif options["logger"] is None:
                kwargs["logger"] = False
            if folder and not options["fast_dev_run"]:
                callbacks.append(MetricsLog(folder, None if fitting else self.checkpoint))
                callbacks += [CostLog(folder), Account(folder, PROGRAM)] if fitting else []
            if self.subcommand == "test":
                callbacks += self._result_writers(folder)
            if options["enable_checkpointing"] is not False:
                callbacks.append(last_checkpoint())
        self.trainer_defaults["callbacks"] = callbacks
        if not fitting:
            self.save_config_callback = None
        plugins = options["plugins"] or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, WholeCheckpoints()]
        trainer = super().instantiate_trainer(**kwargs)
        for callback in trainer.checkpoint_callbacks:
            if folder and isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = os.path.realpath(folder / "checkpoints")
        return trainer

    def _result_writers(self, folder: Path | None) -> list[Callback]:
        """Return the callbacks that keep an evaluation's result, keep its counts until then and show where it is."""
        config = self._plain_config()
        where = folder or run_name(self.config[self.subcommand].as_dict())
        unfinished = Unfinished((folder or where.parent) / UNFINISHED, identity(config, self.checkpoint))
        return [ResultWriter(where, config, self.checkpoint), unfinished, Narrator()]

    def _plain_config(self) -> dict[str, Any]:
        """Return model, data and seed of the config, as plain values."""
        command = str(self.subcommand)
        text = self.parser_of(command).dump(self.config[command], skip_unset=False)
        return {
            key: value for key, value in yaml.safe_load(text).items() if key in ("model", "data", "seed_everything")
        }


def load_sources(task: Transferring) -> None:
    """Load the models that attacks of a task are transferred from; a checkpoint must be trusted by its folder.

    Raises:
        InputError: one is no checkpoint of image classification; see `load_classification`.
    """
    for transfer in task.transfers.values():
        path = find_checkpoint(transfer.checkpoint, None).path
        checkpoint, other, data = load_classification(path)
        options = (checkpoint.config or {})["model"].get("init_args") or {}
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:8]
        words = [options.get("model"), described(options.get("mixer")), f"({digest})"]
        pixels = OnPixels(other.model, data.mean, data.std)
        transfer.take(Source(pixels, " ".join(filter(None, words)), data.class_names, data.image_size))


def parser_of_parts() -> TrainingParser:
    """Return a parser of the config taken from a checkpoint; it requires no key, and raises its errors."""
    parser = TrainingParser(exit_on_error=False)
    parser.add_argument("--seed_everything", type=bool | int, default=0)
    parser.add_lightning_class_args(tasks.Task, "model", subclass_mode=True, required=False)
    parser.add_lightning_class_args(L.LightningDataModule, "data", subclass_mode=True, required=False)
    parser.add_lightning_class_args(Trainer, "trainer")
    for name in FROM_DATA:
        parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
    return parser


IMAGE_CLASSIFICATION = "image classification"
IMAGE_DATA: Any = ImageDataModule  # abstract, which mypy takes for a mistake


def load_run(
    path: Path, task_class: type[TaskKind], data_class: type[DataKind], named: str, *, trust: bool = False
) -> tuple[Checkpoint, TaskKind, DataKind]:
    """Return a checkpoint, its task with the weights loaded, and its data, of which nothing is read yet.

    Args:
        path: path of the checkpoint.
        task_class: the class that the task must be of.
        data_class: the class that the data must be of.
        named: what these two are together, for an error.
        trust: whether its config may name any class; see `attention_zoo.runs.trust`.

    Raises:
        InputError: the file is no checkpoint, has no config, is of another task or of another model than its config
            says, or has weights that are not finite.
    """
    checkpoint = read_checkpoint(path, trust=trust)
    task, data = build_run(checkpoint, task_class, data_class, named)
    check_kinds(checkpoint, task)
    weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
    try:
        task.load_state_dict(weights)
    except RuntimeError as error:
        message = other_model(error, path)
        if message is None:
            raise
        raise InputError(message) from error
    check_weights(task)
    return checkpoint, task, data


def build_run(
    checkpoint: Checkpoint, task_class: type[TaskKind], data_class: type[DataKind], named: str
) -> tuple[TaskKind, DataKind]:
    """Return the task of a checkpoint, without its weights, and the data, of which nothing is read yet.

    Raises:
        InputError: there is no config, or it is not of these classes, which are ``named`` so.
    """
    taken = checkpoint.taken("maps")
    if taken is None:
        raise InputError(f"{checkpoint.path} carries no config, so that nothing says what model it is of")
    task, data = _build(checkpoint, taken)
    if not (isinstance(task, task_class) and isinstance(data, data_class)):
        raise InputError(f"{checkpoint.path} is of {type(task).__name__} on {type(data).__name__}, not of {named}")
    return task, data


def build_classification(checkpoint: Checkpoint) -> tuple[tasks.Classification, ImageDataModule]:
    """Return the task of image classification of a checkpoint and its data, as `build_run` does."""
    return build_run(checkpoint, tasks.Classification, IMAGE_DATA, IMAGE_CLASSIFICATION)


def load_classification(path: Path, *, trust: bool = False) -> tuple[Checkpoint, tasks.Classification, ImageDataModule]:
    """Return a checkpoint of image classification, its task and its data, as `load_run` does."""
    return load_run(path, tasks.Classification, IMAGE_DATA, IMAGE_CLASSIFICATION, trust=trust)


def _build(checkpoint: Checkpoint, taken: dict[str, Any]) -> tuple[L.LightningModule, L.LightningDataModule]:
    """Return the task and the data of the config taken from a checkpoint, as a test of it would build them."""
    parser = parser_of_parts()
    config = parse_taken(parser, checkpoint, taken)
    try:
        built = parser.instantiate(config)
    except Exception as error:
        message = bad_argument(root_cause(error))
        if message is None:
            raise
        raise InputError(f"{checkpoint.path}: {message}") from error
    return built["model"], built["data"]


def without_repeats(callbacks: list[Namespace] | Namespace | None) -> list[Namespace] | Namespace | None:
    """Return ``callbacks`` without repeats: a resumed run has those of its checkpoint and of its command again."""
    if not isinstance(callbacks, list):
        return callbacks
    return [callback for place, callback in enumerate(callbacks) if callback not in callbacks[:place]]
