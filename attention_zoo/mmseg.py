"""The way to mmsegmentation: imported only when a config names a part of it, with or without compiled operations."""

import importlib
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from torch import nn

from attention_zoo.errors import InputError, unknown

_COMPILED = "mmcv._ext"


class _MissingOperations(ModuleType):
    """Stands in for mmcv's compiled module: any operation can be named, none can be called."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*args: Any, **kwargs: Any) -> NoReturn:
            raise InputError(f"{name} needs the compiled mmcv (mmcv>=2.0,<2.2), in place of mmcv-lite")

        return refuse


@cache
def import_mmseg() -> ModuleType:
    """Import mmsegmentation with its data sets, transforms, models and metrics in its registries."""
    if find_spec(_COMPILED) is None:
        sys.modules[_COMPILED] = _MissingOperations(_COMPILED)
    for name in ("datasets", "models", "evaluation"):
        importlib.import_module(f"mmseg.{name}")
    from mmengine.logging import MMLogger

    MMLogger.get_current_instance().setLevel("WARNING")  # heads tell of the start of every weight
    importlib.import_module("mmseg.registry").MODELS.register_module("ZooBackbone", module=zoo_backbone)
    return importlib.import_module("mmseg")


def registered(registry: str, kind: str, config: dict[str, Any]) -> type:
    """The class of a part by its name in one of mmsegmentation's registries.

    Args:
        registry: name of the registry, such as ``DATASETS`` or ``TRANSFORMS``.
        kind: what to call it in an error.
        config: ``type`` and the arguments.

    Raises:
        InputError: the registry does not know the type.
    """
    import_mmseg()
    level = getattr(importlib.import_module("mmseg.registry"), registry)
    name = str(config.get("type"))
    found = level.get(name)
    if found is not None:
        return found
    names: set[str] = set()
    while level is not None:  # a registry also finds what those above it have
        names |= set(level.module_dict)
        level = level.parent
    raise unknown(kind, name, names)


def build_part(registry: str, kind: str, config: dict[str, Any]) -> Any:
    """Build a part by its name in one of mmsegmentation's registries.

    Args:
        registry: as of `registered`.
        kind: as of `registered`.
        config: ``type`` and the arguments.

    Raises:
        InputError: the registry does not know the type, or the type refuses its arguments.
    """
    registered(registry, kind, config)
    known = getattr(importlib.import_module("mmseg.registry"), registry)
    try:
        return known.build(dict(config))
    except (TypeError, AssertionError, ValueError) as error:
        raise InputError(f"{kind} {config['type']}: {error or 'refused by an assertion'}") from error


def stock_config(folder: str, name: str) -> Any:
    """One of the configs that mmsegmentation ships, as a ``mmengine.Config``.

    Args:
        folder: below its ``configs``, such as ``_base_/datasets``.
        name: of the file, without its suffix.

    Raises:
        InputError: there is none of this name.
    """
    from mmengine import Config

    files = Path(find_spec("mmseg").origin).parent / ".mim" / "configs" / folder
    choices = {path.stem: path for path in files.glob("*.py")}
    if name not in choices:
        raise unknown(f"config in {folder} of mmsegmentation", name, choices, f"all are in {files}")
    return Config.fromfile(choices[name])


def zoo_backbone(model: str, mixer: str | dict[str, Any] | None = None, **options: Any) -> nn.Module:
    """A backbone of ours under the name ``ZooBackbone`` in mmsegmentation's registry of models.

    Args:
        model: see `attention_zoo.models.build_backbone`, as all others.
        mixer: a name, or ``type`` and the mixer's own arguments.
        options: further arguments of `attention_zoo.models.build_backbone`.
    """
    from attention_zoo.models import build_backbone
    from attention_zoo.models.registration import mixer_factory

    if isinstance(mixer, dict):
        given = dict(mixer)
        name = given.pop("type", None)
        mixer = mixer_factory(str(name), given)
    return build_backbone(model, mixer=mixer, **options)
