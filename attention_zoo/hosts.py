"""Mixers in models: as timm's ``attn_layer``, and swapped into a model that exists."""

import copyreg
import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from timm.layers import Attention
from torch import nn

from attention_zoo.errors import InputError
from attention_zoo.interface import MixerFactory, SelfMixer
from attention_zoo.registry import check_options, self_mixer_class


def attn_layer(
    mixer: str | MixerFactory, *, grid: tuple[int, int] | None = None, num_prefix_tokens: int = 0, **options: Any
) -> type:
    """A class that timm's ``VisionTransformer`` takes as ``attn_layer`` and that builds the mixer.

    Args:
        mixer: a name of ``list_mixers("self")`` or a factory of self-mixers.
        grid: height and width of the token grid; timm does not tell its attention layers.
        num_prefix_tokens: class and register tokens before the grid.
        **options: the mixer's own arguments.

    Raises:
        InputError: unknown mixer or argument.
    """
    host = {"grid": grid, "num_prefix_tokens": num_prefix_tokens}
    return _layer(getattr(mixer, "__name__", str(mixer)), _factory(mixer, options), host)


class _Layer(type):
    """Type of the classes that `attn_layer` makes: calling such a class builds the mixer itself, not an instance."""

    def __call__(cls, dim: int, num_heads: int = 8, **host: Any) -> SelfMixer:
        return cls.factory(dim=dim, num_heads=num_heads, **cls.host, **host)


def _layer(name: str, factory: MixerFactory, host: dict[str, Any]) -> _Layer:
    return _Layer(name, (), {"factory": staticmethod(factory), "host": host})


def _pickle_layer(layer: _Layer) -> tuple[Any, ...]:
    return _layer, (layer.__name__, layer.factory, layer.host)


copyreg.pickle(_Layer, _pickle_layer)  # timm keeps the class among a model's arguments, and models are pickled whole


def swap_mixers(
    model: nn.Module,
    mixer: str | MixerFactory | None = None,
    *,
    layers: Mapping[str, str | MixerFactory] | None = None,
    **options: Any,
) -> nn.Module:
    """Change the mixers of ``model`` in place, carrying weights over where the reading has them.

    A layer is timm's `Attention` or a `SelfMixer`. Query, key, value and output projections and norms are kept; a
    reading whose queries are its keys takes the rows of the queries. What a reading has beside them starts fresh.

    Args:
        model: e.g. any timm ``VisionTransformer``, pretrained or not.
        mixer: for every layer that ``layers`` does not name; None leaves those as they are.
        layers: mixers for some layers: keys are ``"3"``, ``"0-3"`` (both ends included), ``"last"`` or ``"last-4"``
            (the last four), counted in the model's order.
        **options: arguments of ``mixer``.

    Returns:
        The same model.

    Raises:
        InputError: unknown mixer, argument or layer, or a model without layers to swap.
    """
    found = mixer_layers(model)
    if not found:
        raise InputError(
            f"{type(model).__name__} has no attention to swap: hosts have timm's Attention (any VisionTransformer)"
        )
    choices: list[MixerFactory | None] = [None if mixer is None else _factory(mixer, options)] * len(found)
    for key, choice in (layers or {}).items():
        for index in layer_indices(key, len(found)):
            choices[index] = _factory(choice, {})
    fresh = [_rebuild(old, choice, model) for (_, old), choice in zip(found, choices, strict=True) if choice]
    swapped = [name for (name, _), choice in zip(found, choices, strict=True) if choice]
    for name, new in zip(swapped, fresh, strict=True):
        model.set_submodule(name, new)
    return model


def layer_indices(key: str, depth: int) -> range:
    """The layers that ``"3"``, ``"0-3"``, ``"last"`` or ``"last-4"`` names among ``depth`` of them.

    Raises:
        InputError: another form, or layers that do not exist.
    """
    first, _, second = str(key).partition("-")
    numbers_fit = all(part.isdigit() for part in (first.replace("last", "0"), second or "0"))
    if not numbers_fit or (first == "last" and second == "0"):
        raise InputError(f"layers {key!r}: write '3', '0-3', 'last' or 'last-4'")
    start, stop = (depth - int(second or 1), depth) if first == "last" else (int(first), int(second or first) + 1)
    indices = range(start, stop)
    if not indices or indices[0] < 0 or indices[-1] >= depth:
        raise InputError(f"layers {key!r}: the model has layers 0-{depth - 1}")
    return indices


def _factory(mixer: str | MixerFactory, options: dict[str, Any]) -> MixerFactory:
    if not isinstance(mixer, str):
        return partial(mixer, **options) if options else mixer
    cls = self_mixer_class(mixer)
    check_options(cls, options)
    return partial(cls, **options)


def _rebuild(old: Attention | SelfMixer, factory: MixerFactory, model: nn.Module) -> SelfMixer:
    """A mixer in place of ``old``, with its weights, on its device and in its training mode."""
    dim = old.dim if isinstance(old, SelfMixer) else old.qkv.in_features
    if getattr(old, "gate", None) is not None or dim != old.num_heads * old.head_dim:
        raise InputError("gated attention and heads of their own width have no place for their weights in a mixer")
    weight = next(old.parameters(), None)
    weight = next(model.parameters()) if weight is None else weight  # a reading may have none
    norms = [norm for norm in (old.q_norm, old.k_norm, old.norm) if not isinstance(norm, nn.Identity)]
    new = factory(
        dim=dim,
        num_heads=old.num_heads,
        qkv_bias=getattr(old.qkv, "bias", None) is not None,
        qk_norm=not isinstance(old.q_norm, nn.Identity),
        scale_norm=not isinstance(old.norm, nn.Identity),
        proj_bias=getattr(old.proj, "bias", True) is not None,
        attn_drop=old.attn_drop.p,
        proj_drop=old.proj_drop.p,
        norm_layer=partial(_like, norms[0]) if norms else None,
        grid=_grid(model, old),
        num_prefix_tokens=getattr(model, "num_prefix_tokens", getattr(old, "num_prefix_tokens", 0)),
        device=weight.device,
        dtype=weight.dtype,
    )
    _carry(old, new)
    return new.train(old.training)


def mixer_layers(model: nn.Module) -> list[tuple[str, Attention | SelfMixer]]:
    """The layers to swap with their names; a mixer inside a mixer belongs to it."""
    found: list[tuple[str, Attention | SelfMixer]] = []
    for name, module in model.named_modules():
        inside = found and name.startswith(found[-1][0] + ".")
        if isinstance(module, (Attention, SelfMixer)) and not inside:
            found.append((name, module))
    return found


def _carry(old: Attention | SelfMixer, new: SelfMixer) -> None:
    """Copy what both have: projections by row blocks, the rest by name and shape. A wrapper's parts each take it."""
    for part in new.children():
        if isinstance(part, SelfMixer):
            _carry(old, part)
    names = getattr(old, "projections", ("q", "k", "v"))
    with torch.no_grad():
        for kind in ("weight", "bias"):
            source, target = getattr(old.qkv, kind, None), getattr(new.qkv, kind, None)
            if source is None or target is None:
                continue
            rows = dict(zip(names, source.chunk(len(names)), strict=True))
            rows.setdefault("k", rows["q"])
            target.copy_(torch.cat([rows[name] for name in new.projections]))
        kept = new.state_dict()
        for name, tensor in old.state_dict().items():
            if name.partition(".")[0] != "qkv" and name in kept and kept[name].shape == tensor.shape:
                kept[name].copy_(tensor)


def _grid(model: nn.Module, old: Attention | SelfMixer) -> tuple[int, int] | None:
    """The token grid of a model with a fixed one."""
    embedding = getattr(model, "patch_embed", None)
    if getattr(model, "dynamic_img_size", False) or getattr(embedding, "grid_size", None) is None:
        return getattr(old, "grid", None)
    return tuple(embedding.grid_size)


def _like(norm: nn.Module, dim: int, **made: Any) -> nn.Module:
    """A norm of ``norm``'s class and epsilon for width ``dim``."""
    takes = inspect.signature(type(norm)).parameters
    given = {"eps": norm.eps} if "eps" in takes and hasattr(norm, "eps") else {}
    return type(norm)(dim, **given, **made)
