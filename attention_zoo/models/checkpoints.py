"""Weights from a file into one of our models: all of them or none, and never by running code from the file.

``timm.create_model(..., checkpoint_path=)`` comes here for our models, see `install`.
"""

import argparse
import functools
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.models import _factory, clean_state_dict
from torch import Tensor, nn

from attention_zoo.errors import InputError

KEYS = ("model", "state_dict", "model_ema", "state_dict_ema")
"""Under which of a file's keys the weights are, by preference: those that were trained go before their average."""


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Load a file of weights, bare or under a key of `KEYS`, of the authors' layout or our own.

    Raises:
        InputError: no such file, none of weights, one that could run code, or weights of another model. The model is
            left as it was.
    """
    name = (getattr(model, "default_cfg", None) or {}).get("architecture") or type(model).__name__
    weights = read_weights(Path(path), name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    try:
        found = model.load_state_dict(weights, strict=False)
        wrong = _difference(found.missing_keys, found.unexpected_keys)
    except RuntimeError as error:
        wrong = _mismatch(str(error))
    except InputError as error:
        wrong = str(error)
    if wrong:
        model.load_state_dict(before)
        raise InputError(f"{path} holds no weights of this {name}: {wrong}")


def read_weights(path: Path, name: str) -> dict[str, Tensor]:
    """The tensors of a file by name; ``name`` is that of the model they are for.

    Raises:
        InputError: no such file, none of weights, or one that could run code.
    """
    if not path.is_file():
        reason = "is a folder" if path.exists() else "does not exist"
        raise InputError(f"{path}, which should hold weights of {name}, {reason}")
    content = _read(path, name)
    if isinstance(content, dict):
        content = next((content[key] for key in KEYS if isinstance(content.get(key), dict)), content)
    if not isinstance(content, Mapping) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        raise InputError(f"{path} holds no weights of {name}: nothing but named tensors, bare or under 'model', is")
    return clean_state_dict(content)


def _read(path: Path, name: str) -> Any:
    """What is in the file; training scripts put their arguments beside the weights, in a plain Namespace."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not (zipfile.is_zipfile(path) or "GLOBAL" in str(error)):  # not torch's own format, and no name to import
            raise InputError(f"{path} is no file of weights of {name}, or was cut short") from error
        reason = "it holds more than tensors and plain values, so loading it could run code"
        raise InputError(f"{path} refused as weights of {name}: {reason}") from error
    except Exception as error:  # whatever a foreign file makes of the readers
        raise InputError(f"{path} is no file of weights of {name}, or was cut short") from error


def _difference(missing: list[str], unexpected: list[str]) -> str:
    """What is not there and what does not belong, in words; empty if there is neither."""
    words = []
    if missing:
        words.append(f"{len(missing)} are missing, such as {missing[0]}")
    if unexpected:
        words.append(f"{len(unexpected)} belong elsewhere, such as {unexpected[0]}")
    return "; ".join(words)


def _mismatch(message: str) -> str:
    """The first of torch's complaints about shapes, in one line."""
    shapes = re.findall(r"size mismatch for (\S+): .*?torch\.Size\((.*?)\).*?torch\.Size\((.*?)\)", message)
    if not shapes:
        return " ".join(message.split())
    (key, there, here), more = shapes[0], len(shapes) - 1
    return f"{key} is {there} there and {here} here" + (f", and {more} more differ" if more else "")


def install() -> None:
    """Have ``timm.create_model`` load files into our models by `load_checkpoint`, and into all others as before.

    timm's own loader takes the averaged weights where a file has both, and copies what fits before it complains.
    """
    timms = _factory.load_checkpoint

    @functools.wraps(timms)
    def load(model: nn.Module, checkpoint_path: str | Path, *args: Any, **options: Any) -> Any:
        if type(model).__module__.partition(".")[0] == __name__.partition(".")[0]:
            return load_checkpoint(model, checkpoint_path)
        return timms(model, checkpoint_path, *args, **options)

    _factory.load_checkpoint = load
