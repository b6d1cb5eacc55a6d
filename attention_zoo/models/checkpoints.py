"""Loads weights from a file into a model: all of them or none, and never by running code from the file.

``timm.create_model(..., checkpoint_path=)`` comes here for our models, see `loads_requested`.
"""

import argparse
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.models import clean_state_dict, get_pretrained_cfg
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from attention_zoo.compat import loaded_by, shape_mismatches
from attention_zoo.errors import InputError
from attention_zoo.models.top_down import TopDown

KEYS = ("model", "state_dict", "model_ema", "state_dict_ema")
"""The keys of a file that may hold the weights, by preference: trained weights go before their average."""


LIGHTNING = "pytorch-lightning_version"
"""The key that tells a checkpoint of a training run, which Lightning wrote, from a file of weights."""

TASK = "model."
"""The prefix of the names of the model's weights in a checkpoint of a training run."""


def load_checkpoint(model: nn.Module, path: str | Path, *, fresh_classifier: bool = False) -> None:
    """Load a file of weights, bare or under a key of `KEYS`, of the authors' layout or our own.

    Args:
        model: the model to load the weights into.
        path: a file of weights, or a checkpoint of a training run.
        fresh_classifier: whether another task starts from the weights: a classifier of another size, or none, keeps the
            model's own weights, and position embeddings of a `VisionTransformer`, also under `TopDown`, are resized to
            its grid. A `TopDown` keeps its feedback path where the weights are of a model without.

    Raises:
        InputError: the file does not exist, holds no weights, could run code, or is for another model. The model is
            left as it was.
    """
    name = (getattr(model, "default_cfg", None) or {}).get("architecture") or type(model).__name__
    weights = read_weights(Path(path), name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    kept: set[str] = set()
    try:
        if fresh_classifier:
            weights, kept = _without_other_classifier(model, weights)
        found = model.load_state_dict(weights, strict=False)
        wrong = _difference([key for key in found.missing_keys if key not in kept], found.unexpected_keys)
    except RuntimeError as error:
        wrong = _mismatch(str(error))
    except InputError as error:
        wrong = str(error)
    if wrong:
        model.load_state_dict(before)
        raise InputError(f"{path} holds no weights of this {name}: {wrong}")


def read_weights(path: Path, name: str) -> dict[str, Tensor]:
    """Return the tensors of a file by name; ``name`` is the name of the model they are for.

    Raises:
        InputError: the file does not exist, holds no weights, or could run code.
    """
    if not path.is_file():
        reason = "is a folder" if path.exists() else "does not exist"
        raise InputError(f"{path}, which should hold weights of {name}, {reason}")
    content = _read(path, name)
    of_a_run = isinstance(content, dict) and LIGHTNING in content
    if isinstance(content, dict):
        content = next((content[key] for key in KEYS if isinstance(content.get(key), dict)), content)
    if not isinstance(content, Mapping) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        raise InputError(f"{path} holds no weights of {name}: nothing but named tensors, bare or under 'model', is")
    if of_a_run:
        content = {key.removeprefix(TASK): tensor for key, tensor in content.items() if key.startswith(TASK)}
    return clean_state_dict(content)


def _without_other_classifier(model: nn.Module, weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], set[str]]:
    """Return the weights as ``model`` takes them, and the names of its classifier's own weights, which it keeps."""
    facts = getattr(model, "default_cfg", None) or {}
    if facts and "classifier" not in facts:  # timm leaves it out where a model was built for its features
        registered = get_pretrained_cfg(facts["architecture"])
        facts = registered.to_dict() if registered is not None else facts
    classifiers = facts.get("classifier") or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    if isinstance(model, TopDown):
        plain = {key.removeprefix(TASK): t for key, t in weights.items() if not key.startswith(TopDown.own_names)}
        own = {key: tensor for key, tensor in weights.items() if key.startswith(TopDown.own_names)}
        plain, fresh = _other_classifier(model.model, plain, tuple(name.removeprefix(TASK) for name in classifiers))
        kept = {TASK + key for key in fresh}
        if not own:  # of a model that looks once
            kept |= {key for key in model.state_dict() if key.startswith(TopDown.own_names)}
        return own | {TASK + key: t for key, t in plain.items()}, kept
    return _other_classifier(model, weights, classifiers)


def _other_classifier(
    model: nn.Module, weights: dict[str, Tensor], classifiers: tuple[str, ...]
) -> tuple[dict[str, Tensor], set[str]]:
    """Return the same as `_without_other_classifier`, for a model whose classifiers have these names."""
    weights = resized_positions(model, weights)
    fresh: set[str] = set()
    for classifier in classifiers:
        own = {key: tensor for key, tensor in model.state_dict().items() if key.startswith(f"{classifier}.")}
        if any(key not in weights or weights[key].shape != tensor.shape for key, tensor in own.items()) or not own:
            weights = {key: tensor for key, tensor in weights.items() if not key.startswith(f"{classifier}.")}
            fresh |= own.keys()
    return weights, fresh


def resized_positions(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights whose position embeddings are resampled for the grid of ``model``.

    Args:
        model: a `VisionTransformer`, also under `TopDown`; of any other model the weights come back as they are.
        weights: the model's weights by name, for images of any size.
    """
    if isinstance(model, TopDown):
        own = {key: tensor for key, tensor in weights.items() if key.startswith(TopDown.own_names)}
        plain = {key.removeprefix(TASK): tensor for key, tensor in weights.items() if key not in own}
        return own | {TASK + key: tensor for key, tensor in resized_positions(model.model, plain).items()}
    if isinstance(model, VisionTransformer):
        antialias = not getattr(model, "plain_resampling", False)
        return checkpoint_filter_fn(weights, model, interpolation="bicubic", antialias=antialias)
    return weights


def _read(path: Path, name: str) -> Any:
    """Return the content of a file; a Namespace, in which training scripts keep their arguments, is allowed."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*TorchScript archive")  # which is refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not (zipfile.is_zipfile(path) or "GLOBAL" in str(error)):  # not torch's own format, and no name to import
            raise InputError(f"{path} is no file of weights of {name}, or was cut short") from error
        reason = "it holds more than tensors and plain values, so loading it could run code"
        raise InputError(f"{path} refused as weights of {name}: {reason}") from error
    except Exception as error:  # whatever a foreign file makes of the readers
        raise InputError(f"{path} is no file of weights of {name}, or was cut short") from error


def _difference(missing: list[str], unexpected: list[str]) -> str:
    """Return in words which weights are missing and which are unexpected; empty if there are neither."""
    words = []
    if missing:
        words.append(f"{len(missing)} are missing, such as {missing[0]}")
    if unexpected:
        words.append(f"{len(unexpected)} belong elsewhere, such as {unexpected[0]}")
    return "; ".join(words)


def _mismatch(message: str) -> str:
    """Return the first of torch's complaints about shapes in one line, and the number of others."""
    shapes = shape_mismatches(message)
    if not shapes:
        return " ".join(message.split())
    (key, there, here), more = shapes[0], len(shapes) - 1
    return f"{key} is {there} there and {here} here" + (f", and {more} more differ" if more else "")


def loads_requested(model: nn.Module) -> nn.Module:
    """Return ``model`` and make the running ``timm.create_model`` load ``checkpoint_path`` by `load_checkpoint`."""
    return loaded_by(model, load_checkpoint)
