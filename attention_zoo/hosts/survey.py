"""Which of timm's architectures are hosts: what their attention layers are, and what each asks of a reading.

Building all architectures takes many minutes, so the package has a table of them, ``timm.json``, for one release of
timm. What the table does not have is built when it is asked for, without memory for its weights.
"""

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import Attention
from torch import nn

from attention_zoo.hosts.base import fitting_mixers
from attention_zoo.hosts.places import place_of
from attention_zoo.hosts.table import host_layer_for, is_plain, layer_name, swappable, unswappable
from attention_zoo.mixers.registry import self_mixers
from attention_zoo.mixers.swapping import Staying
from attention_zoo.runs.files import read_json, write_text

TABLE = Path(__file__).with_name("timm.json")
"""The table of surveys, one group of architectures with the same layers a line."""

Needs = tuple[str, ...]
"""What a layer asks of readings and offers them: ``whole`` (a mixer takes its whole place), ``bias``, ``grid``, or
``fixed`` (it stays what it is, a kind of dot-product attention)."""

WORDS = ("whole", "bias", "grid", "fixed")
ASKED = {"bias", "fixed"}
"""What all layers of a model ask for if one of them does; what is offered, all of them have to offer."""

Survey = Mapping[str, Needs | None]
"""The attention layers of an architecture by `layer_name`; None for those that no mixer can stand in."""


def architectures(pattern: str = "*", package: str = "timm") -> list[str]:
    """Return the names of the architectures of a package that timm knows, timm's own or ours, sorted.

    Args:
        pattern: a pattern of the shell, or several with commas between them.
        package: ``timm`` or ``attention_zoo``.
    """
    names = timm.list_models([part.strip() for part in pattern.split(",")])
    return [name for name in names if timm.model_entrypoint(name).__module__.startswith(f"{package}.")]


def surveys(names: Sequence[str], table: Path = TABLE) -> dict[str, Survey]:
    """Return the surveys of architectures, from the table where it has them."""
    known = read_surveys(table)
    return {name: known[name] if name in known else survey_architecture(name) for name in names}


def survey_architecture(name: str) -> Survey:
    """Return the survey of an architecture, which is built without memory for its weights."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return survey(timm.create_model(name))


def survey(model: nn.Module) -> Survey:
    """Return the attention layers of a model, those that mixers can stand in last."""
    seen: dict[str, Needs] = {}
    for name, layer in swappable(model):
        kind = host_layer_for(layer)
        key = layer_name(Attention if isinstance(layer, Attention) else type(layer))
        told = place_of(model, name) is not None or getattr(layer, "grid", None) is not None
        needs: Needs
        if isinstance(layer, Staying):
            needs = ("fixed",)
        elif kind is None or is_plain(layer):
            needs = ("whole", "grid") if told else ("whole",)
        else:
            asked = {"bias": kind.adds_bias(layer, model), "grid": told or kind.sees_grid}
            needs = tuple(word for word, holds in asked.items() if holds)
        seen[key] = _both(seen.get(key, needs), needs)
    return {**dict.fromkeys(unswappable(model)), **seen}


def _both(one: Needs, other: Needs) -> Needs:
    """Return what two layers need together: a bias if either has one, a grid if both tell it."""
    asked = set(one) & set(other) | ASKED & (set(one) | set(other))
    return tuple(word for word in WORDS if word in asked)


def is_host(layers: Survey) -> bool:
    """Return whether a mixer can stand in some layer."""
    return any(needs is not None for needs in layers.values())


def readings(layers: Survey) -> list[str]:
    """Return the names of the mixers that can stand in all layers of an architecture that are not timm's for good."""
    names = set(self_mixers())
    for needs in layers.values():
        if needs is not None:
            names &= set(_readings(needs))
    return sorted(names) if is_host(layers) else []


def _readings(needs: Needs) -> list[str]:
    grid = "grid" in needs
    if "fixed" in needs:
        return ["DotProduct"]
    if "whole" not in needs:
        return fitting_mixers(bias="bias" in needs, grid=grid)
    return [name for name, kind in self_mixers().items() if grid or kind.tokens == "set"]


def share(every: Iterable[Survey]) -> tuple[int, int, int]:
    """Return the numbers of hosts, of architectures with attention, and of all architectures."""
    counted = list(every)
    return sum(map(is_host, counted)), sum(map(bool, counted)), len(counted)


def read_surveys(path: Path) -> dict[str, Survey]:
    """Return the surveys by the name of the architecture."""
    table = read_json(path)
    return {
        name: {layer: None if needs is None else tuple(needs) for layer, needs in group["layers"].items()}
        for group in table["groups"]
        for name in group["models"]
    }


def write_surveys(path: Path, every: Mapping[str, Survey]) -> None:
    """Write surveys as JSON: the release of timm, then groups of architectures with the same layers, one a line."""
    groups: dict[str, dict[str, Any]] = {}
    for name, layers in every.items():
        key = json.dumps(layers)
        groups.setdefault(key, {"layers": layers, "models": []})["models"].append(name)
    lines = ",\n".join(json.dumps(group) for group in groups.values())
    write_text(path, f'{{"timm": {json.dumps(timm.__version__)}, "groups": [\n{lines}\n]}}\n')
