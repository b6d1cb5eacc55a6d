"""Shared code of the entry points of our models: their mixer, their configuration, and how timm builds them."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, model_entrypoint, register_model
from torch import nn

from attention_zoo.errors import InputError
from attention_zoo.mixers.base import MixerFactory, SelfMixer
from attention_zoo.mixers.registry import Factory, as_factory
from attention_zoo.models.checkpoints import loads_requested
from attention_zoo.seeding import seeded

Variant = Literal["paper", "released"]
Model = TypeVar("Model", bound=nn.Module)
Entry = TypeVar("Entry", bound=Callable[..., nn.Module])


def mixer_factory(
    mixer: str | MixerFactory, mixer_args: Mapping[str, Any] | None = None, variant: Variant | None = None
) -> Factory:
    """Return the factory of a mixer that a model was given.

    Args:
        mixer: a name, a dotted path or a factory, see `attention_zoo.mixers.registry.as_factory`.
        mixer_args: the mixer's own arguments.
        variant: handed to a mixer that has such an argument and was not given one.

    Raises:
        InputError: the mixer, an argument or the variant is unknown.
    """
    if variant not in (None, "paper", "released"):
        raise InputError(f"variant={variant!r} must be 'paper' or 'released'")
    factory = as_factory(mixer, mixer_args)
    return factory.with_default("variant", variant) if variant and factory.takes("variant") else factory


def configs(names: Iterable[str], **facts: Any) -> dict[str, Any]:
    """Return timm's configurations of models without weights to download: ImageNet at 224 px, and further ``facts``.

    A fixed input size makes timm hand ``img_size`` to the model, whose mixers may need their grid.
    """
    config = {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": None,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "fixed_input_size": True,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "classifier": "head",
        **facts,
    }
    return generate_default_cfgs({f"{name}.untrained": dict(config) for name in names})


def register_host(entry: Entry) -> Entry:
    """Register an entry point with timm, as a model that is given its ``mixer`` when it is built (a decorator)."""
    vars(entry)["takes_mixer"] = True
    register_model(entry)
    return entry


def takes_mixer(name: str) -> bool:
    """Return whether the entry point of a model known to timm takes ``mixer=``."""
    return getattr(model_entrypoint(name), "takes_mixer", False)


def refuse_attn_layer(model: str, options: Mapping[str, Any]) -> None:
    """Refuse timm's argument ``attn_layer``, which ``mixer`` replaces in our models.

    Raises:
        InputError: ``attn_layer`` is given.
    """
    if "attn_layer" in options:
        raise InputError(f"{model}: give mixer= in place of attn_layer=")


def build_apart(factory: MixerFactory, *, dim: int, num_heads: int, **host: Any) -> SelfMixer:
    """Build a mixer that draws its first weights from a seed of its own.

    However many numbers a mixer draws, the modules built after it start with the same weights.
    """
    with seeded(int(torch.randint(2**31, (), device="cpu"))):
        return factory(dim=dim, num_heads=num_heads, **host)


def build(
    model_class: Callable[..., Model], name: str, pretrained: bool, options: Mapping[str, Any], **size: Any
) -> Model:
    """Build a model of ``size``, by its class or a function, as timm builds its own; ``options`` go first.

    Raises:
        InputError: released weights are asked for.
    """
    if pretrained:
        raise InputError(f"{name} has no weights to download; give checkpoint_path=")
    options = {**size, **options}
    # timm's builder has an argument of that name
    own = {key: options.pop(key) for key in ("variant",) if key in options}
    model: Any = build_model_with_cfg(partial(model_class, **own), name, pretrained=False, **options)
    loads_requested(model)
    return model
