"""Functions that put mixers into models: as timm's ``attn_layer``, or swapped into a model that is already built."""

import copyreg
import inspect
import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Protocol, cast, runtime_checkable

import torch
from timm.layers import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from attention_zoo.compat import host_in_construction
from attention_zoo.domains import NOT_NEGATIVE, complaint
from attention_zoo.errors import InputError
from attention_zoo.grids import grid_teller, outer_mixers, tell_grids
from attention_zoo.hosts.base import HostLayer
from attention_zoo.hosts.places import Place, grid_size, place_of, prefix_of
from attention_zoo.hosts.table import GRID_HOSTS, host_layer_for, is_plain, swappable, unswappable
from attention_zoo.mixers.base import MixerFactory, SelfMixer
from attention_zoo.mixers.options import Grid
from attention_zoo.mixers.protocols import Linked, Numbered
from attention_zoo.mixers.registry import Factory, as_factory, self_mixers


def attn_layer(
    mixer: str | MixerFactory | None = None,
    /,
    *,
    grid: tuple[int, int] | None = None,
    num_prefix_tokens: int | None = None,
    **options: Any,
) -> type:
    """Return a class that timm's ``VisionTransformer`` takes as ``attn_layer`` and that builds the mixer.

    A ``VisionTransformer`` tells the mixers that are built for it the grid of every forward pass, also where images
    vary in size (``dynamic_img_size``, ``set_input_size``).

    Args:
        mixer: a name of ``list_mixers("self")``, a dotted path or a factory of self-mixers.
        grid: height and width of the token grid that the mixer is built for; None takes that of the
            ``VisionTransformer``, and none in other models.
        num_prefix_tokens: number of class and register tokens before the grid; None takes that of the
            ``VisionTransformer``, and 0 in other models.
        **options: the mixer's own arguments; they go before those of timm.

    Raises:
        InputError: the mixer or an argument is unknown.
    """
    mixer, options = _chosen(mixer, options)
    if mixer is None:
        raise InputError(f"attn_layer needs a mixer, one of: {', '.join(self_mixers())}")
    factory = as_factory(mixer, options)
    _check_host(grid, num_prefix_tokens)
    return _layer(factory.name, factory, {"grid": grid, "num_prefix_tokens": num_prefix_tokens})


def _chosen(mixer: str | MixerFactory | None, options: dict[str, Any]) -> tuple[str | MixerFactory | None, dict]:
    """Return the mixer and its arguments; ``mixer=`` is one of them where a mixer such as `Axial` comes before it."""
    if mixer is None:
        mixer = options.pop("mixer", None)
    if mixer is None and options:
        given = ", ".join(f"{name}={value!r}" for name, value in options.items())
        raise InputError(f"{given}: arguments of a mixer, but no mixer is given for all layers")
    return mixer, options


def _check_host(grid: object, num_prefix_tokens: object) -> None:
    if grid is not None and complaint(grid, Grid):
        raise InputError(f"grid={grid!r} must be (height, width)")
    if num_prefix_tokens is not None and complaint(num_prefix_tokens, int, NOT_NEGATIVE):
        raise InputError(f"num_prefix_tokens={num_prefix_tokens!r} must be a whole number from 0")


class _Layer(type):
    """The type of the classes that `attn_layer` makes: calling one builds the mixer itself, not an instance."""

    factory: Factory[SelfMixer]
    host: dict[str, Any]

    def __call__(cls, dim: int, num_heads: int = 8, **host: Any) -> SelfMixer:
        model = host_in_construction()
        given = dict(cls.host)
        if given["num_prefix_tokens"] is None:
            given["num_prefix_tokens"] = getattr(model, "num_prefix_tokens", 0)
        if not isinstance(model, VisionTransformer):
            mixer = cls.factory(dim=dim, num_heads=num_heads, **given, **host)
            if model is not None:
                _require_grid(mixer, model)
            return mixer
        given["grid"] = given["grid"] or grid_size(model)
        mixer = cls.factory(dim=dim, num_heads=num_heads, **given, **host)
        layers = grid_teller(model.patch_embed).mixers
        layers.append(mixer)
        tell_layers(layers)
        return mixer


def _layer(name: str, factory: Factory[SelfMixer], host: dict[str, Any]) -> _Layer:
    return _Layer(name, (), {"factory": factory, "host": host})


def _pickle_layer(layer: _Layer) -> tuple[Any, ...]:
    return _layer, (layer.__name__, layer.factory, layer.host)


copyreg.pickle(_Layer, _pickle_layer)  # timm keeps the class among a model's arguments, and models are pickled whole


def swap_mixers(
    model: nn.Module,
    mixer: str | MixerFactory | None = None,
    /,
    *,
    layers: Mapping[str, str | MixerFactory] | None = None,
    **options: Any,
) -> nn.Module:
    """Change the mixers of ``model`` in place, carrying weights over where the reading has them.

    A layer is timm's `Attention` or a `SelfMixer`. Query, key, value and output projections and norms are kept; a
    reading whose queries are its keys takes the rows of the queries. What a reading has beside them starts fresh. A
    ``VisionTransformer``, also inside ``model``, tells its mixers the grid of every forward pass from then on.

    Other attention layers of timm (rotary positions, windows, relative positions; `attention_zoo.hosts`) stay as they
    are around their softmax, under their names, and hand queries, keys and values to the mixer. Attention that is
    not of this kind, of a class token alone say, stays timm's.

    Args:
        model: any timm model with attention, pretrained or not; ``python -m attention_zoo hosts`` lists them.
        mixer: for every layer that ``layers`` does not name: a name, a dotted path or a factory; None leaves those as
            they are.
        layers: mixers for some layers: keys are ``"3"``, ``"0-3"`` (both ends included), ``"last"`` or ``"last-4"``
            (the last four), counted in the model's order.
        **options: arguments of ``mixer``; they go before those of the model.

    Returns:
        The same model.

    Raises:
        InputError: the mixer, an argument or a layer is unknown; the model has no layers to swap, or blocks that are
            built around another mixer; or the reading looks at the grid and the model does not tell it. The model is
            left as it was.
    """
    mixer, options = _chosen(mixer, options)
    if not isinstance(model, nn.Module):
        raise InputError(f"swap_mixers changes a model, not {model!r}")
    if not isinstance(layers, (Mapping, type(None))):
        raise InputError(f"layers={layers!r} must name a mixer for each key, such as {{'last': 'VarsD'}}")
    found = swappable(model)
    if not found:
        raise InputError(_nothing_to_swap(model))
    choices: list[Factory[SelfMixer] | None] = [None if mixer is None else as_factory(mixer, options)] * len(found)
    for key, choice in (layers or {}).items():
        for index in layer_indices(key, len(found)):
            choices[index] = as_factory(choice)
    chosen = [(name, old, choice) for (name, old), choice in zip(found, choices, strict=True) if choice]
    fresh = [_rebuild(model, name, old, choice) for name, old, choice in chosen]
    for (name, _, _), new in zip(chosen, fresh, strict=True):
        model.set_submodule(name, new)
    for host in model.modules():
        if isinstance(host, GRID_HOSTS) and outer_mixers(host):
            tell_grids(host)
    tell_layers(layer for _, layer in swappable(model))
    return model


def _nothing_to_swap(model: nn.Module) -> str:
    """Return the message that a model has no layer to swap, with the reason for each kind of attention that it has."""
    reasons = "; ".join(f"{name} {reason}" for name, reason in unswappable(model).items())
    hosts = "hosts have timm's Attention (any VisionTransformer) or another layer that `hosts` lists"
    return f"{type(model).__name__} has no attention to swap: {reasons or hosts}"


def tell_layers(layers: Iterable[nn.Module]) -> None:
    """Tell the mixers of a model which layer they are in, and which of their kind is before them.

    Args:
        layers: the layers with mixers, in the order in which the model runs them. A mixer follows the last of its kind
            before it, over others between; mixers inside another, as in `Axial`, one at the same place inside.
    """
    last: dict[tuple[type, str], nn.Module] = {}
    for index, layer in enumerate(layers):
        for name, part in layer.named_modules():
            if isinstance(part, SelfMixer) and isinstance(part, Numbered):
                part.set_layer(index)
            if isinstance(part, SelfMixer) and isinstance(part, Linked):
                part.follow(last.get((type(part), name)))
                last[type(part), name] = part


def layer_indices(key: str, depth: int) -> range:
    """Return the indices of the layers that ``"3"``, ``"0-3"``, ``"last"`` or ``"last-4"`` names, of ``depth`` layers.

    Raises:
        InputError: the key has another form, or the layers do not exist.
    """
    match = re.fullmatch(r"(?:last(?:-([1-9]\d{0,5}))?|(\d{1,6})(?:-(\d{1,6}))?)", str(key), re.ASCII)
    if not match:
        raise InputError(f"layers {key!r}: write '3', '0-3', 'last' or 'last-4'")
    many, first, second = match.groups()
    start, stop = (depth - int(many or 1), depth) if first is None else (int(first), int(second or first) + 1)
    indices = range(start, stop)
    if not indices or indices[0] < 0 or indices[-1] >= depth:
        raise InputError(f"layers {key!r}: the model has layers 0-{depth - 1}")
    return indices


def _rebuild(model: nn.Module, name: str, old: nn.Module, factory: Factory[SelfMixer]) -> nn.Module:
    """Return what replaces ``old``, the layer ``name``, with its weights, device, type and training mode."""
    kind = host_layer_for(old)
    if kind is not None and not is_plain(old):
        place = place_of(model, name) or Place(None, prefix_of(model))
        return kind.around(old, factory, model, place.grid, place.prefix)
    if isinstance(old, Staying) and old.stays_for(factory):
        return old
    return _mixer_for(model, name, cast(Attention | SelfMixer, old), factory)


def _mixer_for(model: nn.Module, name: str, old: Attention | SelfMixer, factory: Factory[SelfMixer]) -> SelfMixer:
    """Return a mixer to replace ``old``, whose place it takes as a whole."""
    told = place_of(model, name)
    left = Place(getattr(old, "grid", None), prefix_of(old if isinstance(old, SelfMixer) else model))
    place = told or left
    dim = old.dim if isinstance(old, SelfMixer) else old.qkv.in_features
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
        grid=place.grid,
        num_prefix_tokens=place.prefix,
        device=weight.device,
        dtype=weight.dtype,
    )
    block = model.get_submodule(name.rpartition(".")[0])
    if isinstance(block, _BuiltAround):
        block.check_mixer(new)
    if told is None and not isinstance(old, SelfMixer):
        _require_grid(new, model)
    _carry(old, new)
    return new.train(old.training)


@runtime_checkable
class _BuiltAround(Protocol):
    """A block that is built around its mixer, and so does not take every other mixer."""

    def check_mixer(self, mixer: SelfMixer) -> None:
        """Raise an InputError for a mixer that the block would have been built around in another way."""


@runtime_checkable
class Staying(Protocol):
    """A layer of a host's own, which some mixer is a part of."""

    def stays_for(self, factory: Factory[SelfMixer]) -> bool:
        """Return whether it is what the model has for this mixer; raise an InputError for one it cannot give way to."""


def _require_grid(mixer: SelfMixer, model: nn.Module) -> None:
    """Refuse a reading that looks at the grid in a model that does not tell it.

    Raises:
        InputError: the reading needs the grid; the error names the model, the mixer and the readings that fit.
    """
    if mixer.tokens == "grid":
        sets = [name for name, kind in self_mixers().items() if kind.tokens == "set"]
        raise InputError(
            f"{type(model).__name__} does not tell its layers the grid of their tokens, which {type(mixer).__name__} "
            f"needs; give a mixer of sets of tokens ({', '.join(sets)}), or a VisionTransformer of timm"
        )


def mixer_layers(model: nn.Module) -> list[tuple[str, Attention | SelfMixer]]:
    """Return the layers of tokens, timm's `Attention` or a mixer in its place, with their names.

    A mixer inside another mixer, or inside a layer of a host that projects for it, is not listed by itself.
    """
    return [
        (name, layer)
        for name, layer in swappable(model)
        if isinstance(layer, Attention | SelfMixer) and not isinstance(layer, HostLayer)
    ]


def _carry(old: Attention | SelfMixer, new: SelfMixer) -> None:
    """Copy the weights that both have: projections by row blocks, the rest by name and shape.

    Each mixer inside a wrapper such as `Axial` takes them as well.
    """
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
            if "q" in rows:
                rows.setdefault("k", rows["q"])
            for name, row in zip(new.projections, target.chunk(len(new.projections)), strict=True):
                row.copy_(rows.get(name, row))  # rows that the old reading lacks start fresh
        kept = new.state_dict()
        for name, tensor in old.state_dict().items():
            same = name in kept and kept[name].squeeze().shape == tensor.squeeze().shape
            if same and name.partition(".")[0] != "qkv":
                kept[name].copy_(tensor.view_as(kept[name]))  # a linear layer may be a convolution of one pixel


def _like(norm: nn.Module, dim: int, **made: Any) -> nn.Module:
    """Return a new norm of ``norm``'s class and epsilon for width ``dim``."""
    takes = inspect.signature(type(norm)).parameters
    given = {"eps": norm.eps} if "eps" in takes and hasattr(norm, "eps") else {}
    return type(norm)(dim, **given, **made)
