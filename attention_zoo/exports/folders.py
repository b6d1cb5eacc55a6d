"""Writes a classifier as a folder in the layout of the Hugging Face Hub: weights, config, and a card with numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import nn

from attention_zoo.errors import InputError
from attention_zoo.exports.preparation import in_words_of_timm
from attention_zoo.exports.programs import largest_error
from attention_zoo.mixers.registry import mixer_info
from attention_zoo.models.build import timm_model
from attention_zoo.runs.files import write_json, write_text
from attention_zoo.runs.results import SPEED, Measurement

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
"""Names of the files in the folder, as timm and the Hub look for them."""

OURS = "attention_zoo"
"""The key of `CONFIG` under which a folder keeps the model and the data of its run, for `attention_zoo.load`."""


LOAD = """
import attention_zoo as az

model, transform, classes = az.load("FOLDER")
"""
LOAD_TIMM = """
import timm

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))  # of images of PIL, in RGB
"""
"""How cards say that a folder is loaded."""

COSTS = {"parameters": "parameters", "flops": "FLOPs of an image"}
"""What cards say of the content of ``cost.json``, in words."""


@dataclass(frozen=True)
class Exported:
    """A classifier that is to be written.

    Attributes:
        model: the classifier, in evaluation mode.
        config: the config of its model and data, as plain values.
        size: height and width of its images.
        classes: the names of its classes.
        mean: of each channel, for images in 0..1.
        std: of each channel, for images in 0..1.
        resize: brings an image of any size to that size.
        mixers: the names of the mixers of its layers.
        measured: what the run says of this checkpoint.
        cost: the content of the run's ``cost.json``.
    """

    model: nn.Module
    config: Mapping[str, Any]
    size: tuple[int, int]
    classes: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]
    resize: nn.Module
    mixers: Sequence[str]
    measured: Sequence[Measurement] = ()
    cost: Mapping[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> Mapping[str, Any]:
        """Return the arguments of the task."""
        return self.config["model"].get("init_args") or {}

    def facts(self) -> dict[str, Any]:
        """Return what a user of the exported model must know, as plain values."""
        sizes = {"image_size": list(self.size), "mean": list(self.mean), "std": list(self.std)}
        sizes |= {"resize": in_words_of_timm(self.resize, self.size)}
        return {"model": self.options.get("model"), "mixers": list(self.mixers), "classes": [*self.classes], **sizes}


def as_timm(exported: Exported) -> nn.Module:
    """Return timm's own model with the weights of a classifier.

    Raises:
        InputError: timm has no model that computes the same.
    """
    options = exported.options
    refused = f"--format timm cannot express the model: timm has no {' and '.join(exported.mixers) or 'model like it'}"
    if options.get("top_down"):
        raise InputError(f"{refused}, looking twice")
    plain = timm_model(
        options["model"],
        num_classes=len(exported.classes),
        image_size=exported.size,
        model_args=options.get("model_args"),
    ).eval()
    if not type(plain).__module__.startswith("timm."):
        raise InputError(f"--format timm cannot express the model: {options['model']} is not timm's own")
    try:
        plain.load_state_dict(exported.model.state_dict())
        largest_error(exported.model, plain, exported.size)
    except (RuntimeError, InputError) as error:
        raise InputError(f"{refused}; --format huggingface writes it for attention_zoo.load") from error
    return plain


def write_timm(folder: Path, exported: Exported) -> float:
    """Write a classifier as a folder for ``timm.create_model("local-dir:FOLDER", pretrained=True)``.

    `attention_zoo.load` reads it too: its config has what `write_zoo` keeps beside that of timm.

    Returns:
        The `largest_error` of the model that timm reads from there.

    Raises:
        InputError: timm has no model that computes the same.
    """
    plain = as_timm(exported)
    channels, (height, width) = 3, exported.size
    config = {
        "num_classes": len(exported.classes),
        "label_names": list(exported.classes),
        "pretrained_cfg": {"input_size": (channels, height, width), "mean": exported.mean, "std": exported.std},
        OURS: dict(exported.config),
    }
    preprocessing = {"mean": tuple(exported.mean), "std": tuple(exported.std), "input_size": (channels, height, width)}
    preprocessing |= in_words_of_timm(exported.resize, exported.size) or {}
    args = dict(exported.options.get("model_args") or {})
    save_for_hf(
        plain, str(folder), model_config=config, model_args=args, safe_serialization=True, data_config=preprocessing
    )
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    return largest_error(exported.model, loaded, exported.size)


def write_zoo(folder: Path, exported: Exported) -> None:
    """Write weights and config of a classifier for `attention_zoo.load`."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().clone().contiguous() for name, tensor in exported.model.state_dict().items()}
    save_file(weights, str(folder / WEIGHTS))
    write_json(folder / CONFIG, {**exported.facts(), OURS: dict(exported.config)})


def write_card(folder: Path, exported: Exported, *, by_timm: bool) -> None:
    """Write the card: what the model is, how it is loaded, and the numbers that its run has of it."""
    library = "timm" if by_timm else OURS
    load = LOAD_TIMM if by_timm and in_words_of_timm(exported.resize, exported.size) else LOAD
    front = f"---\nlibrary_name: {library}\npipeline_tag: image-classification\ntags: [attention_zoo]\n---\n"
    height, width = exported.size
    model = exported.options.get("model")
    what = (
        f"`{model}` for images of {height} x {width} pixels and {len(exported.classes)} classes, trained on "
        f"`{exported.config['data'].get('class_path', 'data')}` by attention_zoo."
    )
    parts = [front, f"# {model}, {', '.join(exported.mixers) or 'own attention'}\n", what, "", *_readings(exported)]
    parts += [f"```python{load}```\n", "## Numbers of its own run\n", _numbers(exported), ""]
    write_text(folder / CARD, "\n".join(parts))


def _readings(exported: Exported) -> list[str]:
    infos = [mixer_info(name) for name in exported.mixers]
    lines = [f"* `{info.name}`: {info.reading}, {info.equation} ({info.paper})" for info in infos]
    return ["Its layers mix tokens by\n", *lines, ""] if lines else []


def _numbers(exported: Exported) -> str:
    """Return the metrics of the checkpoint as a markdown table, without those that are the machine's."""
    rows = [
        f"| {line.stage} | {name} | {'not finite' if value is None else f'{value:.4g}'} |"
        for line in exported.measured
        for name, value in sorted(line.metrics.items())
        if not name.endswith(SPEED)
    ]
    table = ["| stage | metric | value |", "| --- | --- | ---: |", *rows] if rows else ["The run has none of it."]
    known = [(words, exported.cost[key]) for key, words in COSTS.items() if exported.cost.get(key)]
    return "\n".join([*table, "", *(f"* {words}: {value:,}" for words, value in known)])
