"""Reads what a run has trained back into Python: `attention_zoo.load`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from attention_zoo.errors import InputError

if TYPE_CHECKING:  # the command line and what it builds take seconds to import
    from torch import Tensor, nn

    import tasks
    from attention_zoo.runs.checkpoint import Checkpoint
    from datamodules.base import ImageDataModule


class Loaded(NamedTuple):
    """What `load` returns.

    Attributes:
        model: the classifier, in evaluation mode on the CPU: images (B, 3, H, W) float32 to logits (B, classes).
        transform: from an image, of PIL or a tensor (3, H, W) uint8, to the (3, H, W) float32 that the model takes.
        class_names: the names of the classes, in the order of the logits.
    """

    model: "nn.Module"
    transform: "Callable[[Any], Tensor]"
    class_names: list[str]


def load(run: str | Path, *, trust: bool = False) -> Loaded:
    """Return the classifier that a run has trained, with what prepares its images and the names of its classes.

    Nothing of the file runs: weights are read as tensors, and its config may only name classes of this project and of
    the libraries that it is built on.

    Args:
        run: a run folder (its last checkpoint), a checkpoint, ``last`` or ``best`` of the newest run under ``runs/``,
            or a folder that ``export --format huggingface`` wrote.
        trust: whether the config may name any class, and run its code.

    Raises:
        InputError: there is no such run, it is not of image classification, or the file is broken.
    """
    _, task, data = load_task(str(run), trust=trust)
    return Loaded(task.model.eval(), transform_of(data), list(data.class_names))


def load_task(run: str, *, trust: bool = False) -> "tuple[Checkpoint, tasks.Classification, ImageDataModule]":
    """Return the checkpoint of a classifier, its task and its data; see `load`.

    Raises:
        InputError: as for `load`.
    """
    from attention_zoo.cli.commands import put_our_packages_first
    from attention_zoo.cli.parser import configure_parsing

    put_our_packages_first()
    configure_parsing()
    from attention_zoo.cli.lightning import load_classification
    from attention_zoo.exports.folders import CONFIG, WEIGHTS
    from attention_zoo.runs.folders import find_checkpoint

    if (Path(run) / WEIGHTS).is_file() and (Path(run) / CONFIG).is_file():
        return _of_folder(Path(run), trust)
    return load_classification(find_checkpoint(run, None, trust=trust).path, trust=trust)


def _of_folder(folder: Path, trust: bool) -> "tuple[Checkpoint, tasks.Classification, ImageDataModule]":
    """Return what a folder of `attention_zoo.exports.folders.write_zoo` holds."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from attention_zoo.cli.lightning import build_classification
    from attention_zoo.exports.folders import CONFIG, OURS, WEIGHTS
    from attention_zoo.runs.checkpoint import Checkpoint
    from attention_zoo.runs.files import read_json
    from attention_zoo.runs.trust import is_trusted
    from tasks.guards import check_weights

    content = read_json(folder / CONFIG)
    config = content.get(OURS) if isinstance(content, dict) else None
    if not isinstance(config, dict):
        raise InputError(f'{folder} is of timm: timm.create_model("local-dir:{folder}", pretrained=True) reads it')
    path = folder / CONFIG
    checkpoint = Checkpoint(path, config, epoch=0, step=0, best=None, trusted=is_trusted(path, trust))
    task, data = build_classification(checkpoint)
    try:
        task.model.load_state_dict(load_file(folder / WEIGHTS))
    except (RuntimeError, SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise InputError(f"{folder / WEIGHTS} does not hold the weights of the model in {CONFIG}: {reason}") from error
    check_weights(task)
    return checkpoint, task, data


def transform_of(data: "ImageDataModule") -> "Callable[[Any], Tensor]":
    """Return what brings one image to the size and the range that a model of these data takes."""
    import torch
    from torchvision.transforms import v2

    scaled = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(data.mean, data.std), v2.ToPureTensor()]
    return v2.Compose([v2.RGB(), v2.ToImage(), data.default_resize(), *scaled])
