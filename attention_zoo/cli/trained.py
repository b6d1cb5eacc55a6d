"""The task and the data of a checkpoint, from the checkpoint alone."""

from pathlib import Path

import lightning as L
import torch

import datamodules  # noqa: F401  its classes can be named
import tasks
from attention_zoo.cli.failure import bad_argument, other_model, root_cause
from attention_zoo.cli.lightning import parser_of_parts
from attention_zoo.cli.parser import Refusal
from attention_zoo.cli.trust import parse_strangers
from attention_zoo.errors import InputError
from attention_zoo.runs.checkpoint import Checkpoint, check_kinds, read_checkpoint
from datamodules.base import ImageDataModule
from tasks.guards import check_weights


def load_classification(path: Path, *, trust: bool = False) -> tuple[Checkpoint, tasks.Classification, ImageDataModule]:
    """What the checkpoint says of itself, its task with the weights loaded, and its data, of which nothing is read.

    Args:
        path: of the checkpoint.
        trust: whether its config may name any class; see `attention_zoo.runs.trust`.

    Raises:
        InputError: no checkpoint, without its config, of another task, of another model than its config says, or with
            weights that are not finite.
    """
    checkpoint = read_checkpoint(path, trust=trust)
    if checkpoint.config is None:
        raise InputError(f"{path} carries no config, so that nothing says what model it is of")
    task, data = _build(checkpoint)
    if not (isinstance(task, tasks.Classification) and isinstance(data, ImageDataModule)):
        raise InputError(f"{path} is of {type(task).__name__} on {type(data).__name__}, not of image classification")
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


def _build(checkpoint: Checkpoint) -> tuple[L.LightningModule, L.LightningDataModule]:
    """The objects of a checkpoint's config, as a test of it would build them."""
    parser, taken = parser_of_parts(), checkpoint.taken("maps")
    if checkpoint.trusted:
        try:
            config = parser.parse_object(taken)
        except Refusal as error:
            raise InputError(f"checkpoint {checkpoint.path}: {error}") from error
    else:
        config = parse_strangers(parser, taken, checkpoint.path)
    try:
        built = parser.instantiate(config)
    except Exception as error:
        message = bad_argument(root_cause(error))
        if message is None:
            raise
        raise InputError(f"{checkpoint.path}: {message}") from error
    return built["model"], built["data"]
