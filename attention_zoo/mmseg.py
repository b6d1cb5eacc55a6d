"""Access to mmsegmentation, imported only when a config names a part of it, with or without compiled operations."""

import importlib
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from attention_zoo.compat import registered_names_only, stand_in_for_operations
from attention_zoo.errors import InputError, unknown

REGISTRIES = ("MODELS", "TRANSFORMS", "DATASETS", "TASK_UTILS", "WEIGHT_INITIALIZERS")
"""The registries of mmsegmentation whose names a config may use, at any depth."""

OUR_BACKBONE = "ZooBackbone"
"""The name of this package's backbones in mmsegmentation's registry of models, see `zoo_backbone`."""

OF_OUR_BACKBONE = ("mixer", "layer_mixers")
"""The arguments of `OUR_BACKBONE` whose ``type`` is looked up among the mixers."""

REFUSALS = (TypeError, AssertionError, ValueError, LookupError, AttributeError, RuntimeError, ImportError)
"""The errors that constructors of mmsegmentation raise when they are given wrong arguments."""


@cache
def import_mmseg() -> ModuleType:
    """Import mmsegmentation and fill its registries with its data sets, transforms, models and metrics."""
    stand_in_for_operations()
    for name in ("datasets", "models", "evaluation"):
        importlib.import_module(f"mmseg.{name}")
    from mmengine.logging import MMLogger

    MMLogger.get_current_instance().setLevel("WARNING")  # heads tell of the start of every weight
    importlib.import_module("mmseg.registry").MODELS.register_module(OUR_BACKBONE, module=zoo_backbone)
    return importlib.import_module("mmseg")


def registered(registry: str, kind: str, config: Mapping[str, Any]) -> type:
    """Return the class of a part by its name in one of mmsegmentation's registries.

    Args:
        registry: name of the registry, such as ``DATASETS`` or ``TRANSFORMS``.
        kind: what to call the part in an error.
        config: ``type`` and the arguments; in Python, ``type`` may be the class itself.

    Raises:
        InputError: the registry does not know the type.
    """
    import_mmseg()
    part = config.get("type")
    if isinstance(part, type):
        return part
    known = _names(registry)
    if not isinstance(part, str) or part not in known:
        raise unknown(kind, str(part), known)
    return known[part]


def build_part(registry: str, kind: str, config: Mapping[str, Any]) -> Any:
    """Build and return a part by its name in one of mmsegmentation's registries.

    Args:
        registry: name of the registry, as for `registered`.
        kind: what to call the part in an error.
        config: ``type`` and the arguments.

    Raises:
        InputError: the registry does not know the type, the arguments name something that no registry knows or a
            file of weights (see `check_part`), or the type refuses them.
    """
    registered(registry, kind, config)
    check_part(kind, config)
    known = getattr(importlib.import_module("mmseg.registry"), registry)
    try:
        with registered_names_only():
            return known.build(dict(config))
    except REFUSALS as error:
        raise InputError(f"{kind} {config['type']}: {error or 'refused by an assertion'}") from error


def check_part(kind: str, config: Any) -> None:
    """Refuse a config that could do more than build parts of mmsegmentation.

    mmengine takes a ``type`` that no registry knows for the path of any function, imports it and calls it, switches
    registries at a prefix or a ``_scope_``, and unpickles the files that ``init_cfg`` and ``pretrained`` name. Files
    that a part reads under other names, such as the ``class_weight`` of a loss, `registered_names_only` refuses.

    Args:
        kind: what to call the part in an error.
        config: the config of the part, nested to any depth; a ``type`` may be a class.

    Raises:
        InputError: some ``type`` is no name of `REGISTRIES`, or weights are to be read from a file.
    """
    import_mmseg()
    names = {name for registry in REGISTRIES for name in _names(registry)}
    waiting: list[tuple[str, Any]] = [("", config)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, Mapping):
            _check_keys(f"{kind} {config.get('type')}", place, value, names)
            own = OF_OUR_BACKBONE if value.get("type") == OUR_BACKBONE else ()
            waiting += [(f"{place}.{key}".lstrip("."), child) for key, child in value.items() if key not in own]
        elif isinstance(value, (list, tuple)):
            waiting += [(place, child) for child in value]


def _check_keys(part: str, place: str, config: Mapping[str, Any], names: set[str]) -> None:
    """Refuse one mapping in the config of ``part`` if it could do more than build one of the parts in ``names``."""
    at = f"{part}, {place}" if place else part
    if "type" in config and not isinstance(config["type"], type):
        named = config["type"]
        if not isinstance(named, str) or named not in names:
            raise InputError(f"{at}: type {named!r} is no name in mmsegmentation's registries")
        if named.startswith("Pretrained"):
            raise InputError(f"{at}: {named} would unpickle a file; start from weights with model.weights")
    if "_scope_" in config:
        raise InputError(f"{at}: _scope_ would leave mmsegmentation's registries")
    if config.get("decode_backend") == "pickle":
        raise InputError(f"{at}: decode_backend='pickle' would unpickle the images")
    for key in ("pretrained", "checkpoint"):
        if isinstance(config.get(key), str):
            raise InputError(
                f"{at}: {key}={config[key]!r} would unpickle a file; start from weights with model.weights"
            )


def _names(registry: str) -> dict[str, type]:
    """Return the classes that a registry, or one above it, knows by name."""
    level = getattr(importlib.import_module("mmseg.registry"), registry)
    classes: dict[str, type] = {}
    while level is not None:
        level.import_from_location()
        classes = {**level.module_dict, **classes}
        level = level.parent
    return classes


def stock_config(folder: str, name: str) -> Any:
    """Return one of the configs that mmsegmentation ships, as a ``mmengine.Config``.

    Args:
        folder: a folder below its ``configs``, such as ``_base_/datasets``.
        name: name of the file, without its suffix.

    Raises:
        InputError: there is no config of this name.
    """
    from mmengine import Config

    package = find_spec("mmseg")
    if package is None or package.origin is None:
        raise InputError("mmsegmentation is not installed")
    files = Path(package.origin).parent / ".mim" / "configs" / folder
    choices = {path.stem: path for path in files.glob("*.py")}
    if name not in choices:
        raise unknown(f"config in {folder} of mmsegmentation", name, choices, f"all are in {files}")
    return Config.fromfile(choices[name])


def zoo_backbone(model: str, mixer: str | dict[str, Any] | None = None, **options: Any) -> nn.Module:
    """Return a backbone of this package; mmsegmentation's registry of models knows it as ``ZooBackbone``.

    Args:
        model: name of the timm model, see `attention_zoo.models.build_backbone`.
        mixer: name of the mixer, or ``type`` and the mixer's own arguments.
        options: further arguments of `attention_zoo.models.build_backbone`.
    """
    from attention_zoo.models import build_backbone
    from attention_zoo.models.registration import mixer_factory

    if not isinstance(mixer, dict):
        return build_backbone(model, mixer=mixer, **options)
    arguments = {key: value for key, value in mixer.items() if key != "type"}
    factory: Any = mixer_factory(str(mixer.get("type")), arguments)
    return build_backbone(model, mixer=factory, **options)
