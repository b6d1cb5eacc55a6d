"""Who reads whom in the layers of a model, as attention maps and as pictures on the token grid.

    maps = attention_maps(model, images, layers="0-3")             # {layer: (B, H, N, N)}

    logits, (last,) = observe(model, images)                       # the input of the last layer
    pictures = attention_pictures(last, query="3,5", heads="each")  # {"head 0": (B, height, width), ...}

`side_by_side` draws them for several models; ``python -m attention_zoo maps IMAGE --mixers VarsD Performer`` does so
from the shell. The pictures are those of the tech report EECS-2024-49: attention of the average token (Fig. 1.3, A.5),
after each step of the recurrence (Fig. 1.5, A.1), atoms of the dictionary (Fig. A.2-A.4).
"""

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from attention_zoo.analysis.hosted import Handed, handed, with_projections
from attention_zoo.errors import InputError
from attention_zoo.hosts.base import HostLayer
from attention_zoo.hosts.table import swappable
from attention_zoo.mixers.base import SelfMixer, TopDownOptions
from attention_zoo.mixers.protocols import Assignments, Atoms, Steps
from attention_zoo.mixers.swapping import layer_indices, swap_mixers

Heads = Literal["mean", "each"]
Pictures = dict[str, Tensor]
"""Pictures by title, each (B, height, width) on the token grid; integers are labels."""

SIGNAL = ("top_down", *TopDownOptions.__annotations__)
"""The keyword arguments of a mixer by which it hears a top-down signal."""


@dataclass(frozen=True)
class LayerInput:
    """The tokens that come into a layer, and where on the image they are.

    Attributes:
        layer: the layer's place among the layers of the model, from 0.
        mixer: the layer; timm's attention becomes a `DotProduct` of the same weights. Of a layer of another host it is
            the mixer inside, with the projections of that layer, see `with_projections`.
        tokens: (B, N, dim), the input of the layer; where that is a map, as in some other hosts, the layer's values.
        grid: height and width of the token grid.
        num_prefix_tokens: number of class and register tokens before the grid.
        has_class_token: whether the first token is a class token.
        signal: what the layer hears from above, as keyword arguments of the mixer; empty without a top-down pass.
    """

    layer: int
    mixer: SelfMixer
    tokens: Tensor
    grid: tuple[int, int]
    num_prefix_tokens: int
    has_class_token: bool
    signal: Mapping[str, Any] = field(default_factory=dict)

    def on_grid(self, values: Tensor) -> Tensor:
        """Return values (..., N) of all tokens on the grid (..., height, width), without those of the prefix."""
        return values[..., self.num_prefix_tokens :].unflatten(-1, self.grid)


class Observation(NamedTuple):
    """The output of a model for some images, and the inputs of the layers that were asked for."""

    output: Any
    layers: list[LayerInput]


@torch.no_grad()
def attention_maps(model: nn.Module, images: Tensor, layers: str = "last") -> dict[int, Tensor]:
    """Return who reads whom in layers of ``model``: `SelfMixer.attention_map` (B, H, N, N) by the layer's place.

    Args:
        model: a model of self-mixers or of any attention of timm that can have one.
        images: (B, 3, H, W), normalised as the model wants them.
        layers: ``"3"``, ``"0-3"`` (both ends included), ``"last"`` or ``"last-4"``, counted in the model's order.

    Raises:
        InputError: the layers do not exist, or the model has no attention.
    """
    layers_seen = observe(model, images, layers).layers
    return {seen.layer: seen.mixer.attention_map(seen.tokens, **seen.signal) for seen in layers_seen}


@torch.no_grad()
def observe(
    model: nn.Module, images: Tensor, layers: str = "last", run: Callable[[Any, Tensor], Any] | None = None
) -> Observation:
    """Run ``model`` in evaluation mode on ``images`` and return its output and the inputs of ``layers``.

    ``layers`` is written as for `attention_maps`. A layer that runs twice, as under `TopDown`, is seen in its last
    pass, with the top-down signal that it hears there. ``run`` returns the output of a model for images; None calls it.

    Raises:
        InputError: the layers do not exist, the model has no attention, its tokens are no grid, or a layer attends
            inside windows.
    """
    model = with_mixers(model)
    every = swappable(model)
    if not every:
        raise InputError(
            f"{type(model).__name__} has no attention to look at: no mixer, no attention that can have one"
        )
    chosen = layer_indices(layers, len(every))
    inputs: dict[int, tuple[Tensor, dict[str, Any]]] = {}

    def remember(index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs[index] = args[0], {name: kwargs[name] for name in SIGNAL if kwargs.get(name) is not None}

    handles = [
        every[index][1].register_forward_pre_hook(
            lambda _, args, kwargs, index=index: remember(index, args, kwargs), with_kwargs=True
        )
        for index in chosen
    ]
    hosted = [layer for _, layer in every if isinstance(layer, HostLayer)]
    try:
        with evaluating(model), handed(hosted) as found:
            output = model(images) if run is None else run(model, images)
    finally:
        for handle in handles:
            handle.remove()
    unused = [index for index in chosen if index not in inputs]
    if unused:
        raise InputError(f"layer {unused[0]} of {type(model).__name__} did not run on the images")
    seen = []
    for index in chosen:
        layer, (tokens, signal) = every[index][1], inputs[index]
        if isinstance(layer, HostLayer):
            values = layer.merge(found[layer].v)
            layer = _unhosted(model, index, layer, found[layer], len(images))
            tokens = tokens if tokens.dim() == 3 else values
        seen.append(_placed(model, index, layer, tokens, signal, images))
    return Observation(output, seen)


@torch.no_grad()
def attention_pictures(seen: LayerInput, query: str = "mean", heads: Heads = "mean") -> Pictures:
    """Return pictures of what a query reads from each token of the grid; some readings have negative entries.

    Args:
        seen: a layer and its input.
        query: ``"mean"``, over all tokens (the report's average token); ``"cls"``, the class token; or a token of the
            grid as ``"row,column"``, from 0.
        heads: ``"mean"``, one picture of their mean, or ``"each"``, a picture for each.

    Raises:
        InputError: there is no such query.
    """
    return _by_head(seen, _read_by(seen, seen.mixer.attention_map(seen.tokens, **seen.signal), query), heads)


@torch.no_grad()
def step_pictures(seen: LayerInput, query: str = "mean", heads: Heads = "mean") -> Pictures:
    """Return `attention_pictures` before the first step of a recurrent reading and after each step (Fig. 1.5).

    Raises:
        InputError: there is no such query, or the reading has no steps.
    """
    mixer = seen.mixer
    if not isinstance(mixer, Steps):
        raise mixer.refusal("no recurrent steps to draw; mixers such as VarsD have them")
    path = _read_by(seen, mixer.attention_path(seen.tokens, **seen.signal), query)
    return {
        ", ".join(filter(None, (f"step {step}", title))): picture
        for step, read in enumerate(path)
        for title, picture in _by_head(seen, read, heads).items()
    }


@torch.no_grad()
def atom_pictures(seen: LayerInput, count: int) -> Pictures:
    """Return pictures of the ``count`` atoms of the dictionary that the values have most energy along (Fig. A.2-A.4).

    The atoms are chosen among all heads. The energy is ``|aᵀV|²`` for an atom a and the values V of its head. Each
    image has atoms of its own, strongest
    first.

    Raises:
        InputError: ``count`` is below 1, or the reading has no dictionary.
    """
    mixer = seen.mixer
    if not isinstance(mixer, Atoms):
        raise mixer.refusal("no dictionary whose atoms could be drawn; mixers such as VarsD have one")
    mixer.check(count > 0, f"{count} atoms to draw, must be at least 1")
    atoms = mixer.dictionary(seen.tokens, **seen.signal).mT  # (B, H, A, N)
    values = mixer.project(seen.tokens, **seen.signal)[2]
    energy = (atoms @ values.to(atoms.dtype)).square().sum(-1).flatten(1)  # (B, H * A)
    best = energy.topk(min(count, energy.shape[1])).indices
    strongest = seen.on_grid(atoms.flatten(1, 2)).take_along_dim(best[..., None, None], 1)  # (B, count, height, width)
    return {f"atom {place + 1}": picture for place, picture in enumerate(strongest.unbind(1))}


@torch.no_grad()
def cluster_pictures(seen: LayerInput) -> Pictures:
    """Return pictures of the cluster that each token belongs to most, as int64 labels, one picture for each head.

    Raises:
        InputError: the reading has no clusters.
    """
    mixer = seen.mixer
    if not isinstance(mixer, Assignments):
        raise mixer.refusal("no assignments to draw; mixers such as KMeans and Cluster have them")
    labels = seen.on_grid(mixer.assignments(seen.tokens, **seen.signal).argmax(2))  # (B, H, height, width)
    return {f"head {head}": picture for head, picture in enumerate(labels.unbind(1))}


def _read_by(seen: LayerInput, weights: Tensor, query: str) -> Tensor:
    """Return the row (..., N) of maps (..., N, N) that belongs to a query: what it reads from each token."""
    return weights.mean(-2) if query == "mean" else weights[..., token_of(seen, query), :]


def token_of(seen: LayerInput, query: str) -> int:
    """Return the place of a token, prefix included: ``"cls"``, or ``"row,column"`` on the grid, from 0.

    Raises:
        InputError: there is no such token.
    """
    if query == "cls":
        seen.mixer.check(seen.has_class_token, "query 'cls': this model has no class token; use 'mean' or 'row,column'")
        return 0
    place = re.fullmatch(r"\s*(\d{1,6})\s*,\s*(\d{1,6})\s*", query, re.ASCII)
    if not place:
        raise InputError(f"query {query!r}: write 'mean', 'cls' or 'row,column'")
    row, column = place.groups()
    height, width = seen.grid
    if int(row) >= height or int(column) >= width:
        raise InputError(f"query {query!r}: the grid of layer {seen.layer} has {height} rows and {width} columns")
    return seen.num_prefix_tokens + int(row) * width + int(column)


def _by_head(seen: LayerInput, read: Tensor, heads: Heads) -> Pictures:
    """Return what is read in each head (B, H, N) as pictures: of the mean over heads, or of each head."""
    if heads == "mean":
        return {"": seen.on_grid(read.mean(1))}
    return {f"head {head}": seen.on_grid(each) for head, each in enumerate(read.unbind(1))}


def with_mixers(model: nn.Module) -> nn.Module:
    """Return ``model`` itself, or a copy with `DotProduct` in place of timm's attention if it has any."""
    foreign = [
        str(index) for index, (_, layer) in enumerate(swappable(model)) if not isinstance(layer, SelfMixer | HostLayer)
    ]
    return swap_mixers(copy.deepcopy(model), layers=dict.fromkeys(foreign, "DotProduct")) if foreign else model


def _unhosted(model: nn.Module, index: int, layer: HostLayer, seen: Handed, batch: int) -> SelfMixer:
    """Return the mixer of a host layer, with what it was handed for ``batch`` images.

    Raises:
        InputError: the layer attends inside windows.
    """
    if len(seen.q) != batch:
        raise InputError(
            f"layer {index} of {type(model).__name__} attends inside windows, {len(seen.q) // batch} of each image: "
            "no map of it spans the image; a layer of one window has one, the last of a square image say"
        )
    return with_projections(layer, seen)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode inside the context, and give every module its own mode back afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _placed(
    model: nn.Module, index: int, mixer: Any, tokens: Tensor, signal: dict[str, Any], images: Tensor
) -> LayerInput:
    """Return a layer with its input and its grid: that of the patch embedding, or else that of the mixer itself."""
    host: Any = next((part for part in model.modules() if hasattr(part, "patch_embed")), model)
    prefix, grid = getattr(host, "num_prefix_tokens", 0), None
    if hasattr(getattr(host, "patch_embed", None), "dynamic_feat_size"):  # knows images of a size of their own
        height, width = host.patch_embed.dynamic_feat_size(images.shape[-2:])
        grid = (height, width) if prefix + height * width == tokens.shape[1] else None
    if grid is None:  # a later stage of a pyramid, or no model of timm's
        grid, prefix = mixer.spatial_shape(tokens.shape[1]), mixer.num_prefix_tokens
    has_class_token = prefix > 0 and getattr(host, "cls_token", None) is not None
    return LayerInput(index, mixer, tokens, grid, prefix, has_class_token, signal)
