"""Backbones made of any timm model with any mixer: they give maps of several layers, for images of any size."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from attention_zoo.errors import InputError
from attention_zoo.mixers.base import MixerFactory
from attention_zoo.models.build import look_twice, timm_model
from attention_zoo.models.checkpoints import load_checkpoint
from attention_zoo.models.token_hosts import TokenModel, token_model

NUM_MAPS = 4
"""The number of layers of a model of tokens that give a map by default; of twelve these are 2, 5, 8 and 11."""


class Backbone(nn.Module, ABC):
    """Turns images (B, in_chans, H, W) into maps (B, channels[i], H / strides[i], W / strides[i]), finest first.

    Images whose sides are no multiples of the strides are padded with zeros below and to the right.

    Args:
        model: the model that gives the maps.
        channels: number of channels of each map.
        strides: pixels between neighbouring places of each map.
    """

    def __init__(self, model: nn.Module, channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.channels, self.strides = list(channels), list(strides)

    @abstractmethod
    def maps(self, image: Tensor) -> list[Tensor]:
        """Return the maps of images whose sides are multiples of the strides."""

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps of images (B, in_chans, H, W), finest first."""
        height, width = (-side % max(self.strides) for side in image.shape[2:])
        maps = self.maps(F.pad(image, (0, width, 0, height)) if height or width else image)
        return [x.contiguous() for x in maps]  # of tokens they are channels-last, which slows the heads' training

    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters that should have no weight decay."""
        return {f"model.{name}" for name in getattr(self.model, "no_weight_decay", set)()}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Make training keep only the inputs of blocks and compute the rest again in the backward pass."""
        model: Any = self.model
        model.set_grad_checkpointing(enable)


class TokenBackbone(Backbone):
    """A backbone of a `TokenModel` or timm's ``VisionTransformer``: its maps are layers' outputs without prefix tokens.

    The map of the last layer is what the model's head would read; the maps of `TopDown` come from its second pass.

    Args:
        model: the model, changed in place to take images of any size; parts that the maps do not need are left
            out, or not trained.
        indices: places of the layers, ascending.

    Raises:
        InputError: the model gives no map of these layers.
    """

    def __init__(self, model: nn.Module, indices: Sequence[int]) -> None:
        host = token_model(model).token_host()
        layers = [host.layers[index] for index in indices]
        super().__init__(model, [layer.dim for layer in layers], [host.stride << layer.stage for layer in layers])
        self.indices = list(indices)
        token_model(model).keep_for_maps(self.indices)

    def maps(self, image: Tensor) -> list[Tensor]:
        """Return the maps (B, dim, h, w) of images whose sides are multiples of the strides."""
        return token_model(self.model).forward_maps(image, self.indices)


class FeatureBackbone(Backbone):
    """A backbone whose maps are stages of convolutional and hierarchical models, by timm's ``features_only``.

    Args:
        model: a model of timm, built with ``features_only=True``.
    """

    def __init__(self, model: nn.Module) -> None:
        info: Any = model.feature_info
        super().__init__(model, info.channels(), info.reduction())

    def maps(self, image: Tensor) -> list[Tensor]:
        """Maps of an image whose sides are multiples of the strides.

        Raises:
            InputError: the model is bound to images of another size.
        """
        try:
            found = self.model(image)
        except AssertionError as error:
            height, width = image.shape[2:]
            raise InputError(f"the backbone cannot take images padded to {height} x {width} pixels: {error}") from error
        fits = zip(found, self.channels, strict=True)
        return [x if x.shape[1] == width else x.permute(0, 3, 1, 2) for x, width in fits]  # some models' are NHWC


def build_backbone(
    model: str,
    *,
    mixer: str | MixerFactory | None = None,
    layer_mixers: Mapping[str, str | MixerFactory] | None = None,
    out_indices: Sequence[int] | None = None,
    image_size: tuple[int, int] | None = None,
    in_chans: int = 3,
    pretrained: bool = False,
    weights: str | None = None,
    top_down: str | Mapping[str, Any] | None = None,
    model_args: Mapping[str, Any] | None = None,
) -> Backbone:
    """Build a timm model whose attention layers are mixers of the zoo as a backbone of dense predictors.

    Args:
        model: a name of ``timm.list_models()``: a ``VisionTransformer`` or one of our models gives maps of its
            layers, any other model gives the maps of timm's ``features_only``.
        mixer: the mixer of all layers; None keeps the model's own.
        layer_mixers: mixers of some layers, see `swap_mixers`.
        out_indices: layers (or stages, of ``features_only``) that give a map, ascending; None takes four layers, evenly
            spread and ending with the last, or the last four stages.
        image_size: height and width that position embeddings and mixers are built for; None is the model's own.
            Images may be of any size.
        in_chans: channels of the images.
        pretrained: whether to start from timm's released weights.
        weights: file to start from, e.g. a checkpoint of the model trained to classify.
        top_down: a mode of `TopDown`, or its arguments, to look twice; attention of timm is made `DotProduct`. None
            looks once.
        model_args: further arguments of the timm model.

    Raises:
        InputError: the model, the mixer or an argument is unknown, layers do not exist, weights cannot be had, or the
            model cannot look twice.
    """
    args = {**(model_args or {}), **({"in_chans": in_chans} if in_chans != 3 else {})}
    kind = _kind(model, args)
    tokens = issubclass(kind, VisionTransformer | TokenModel)
    if top_down and not tokens:
        raise InputError(f"top_down={top_down!r}: {model} gives maps of stages and cannot be looked through twice")
    if top_down and mixer is None and issubclass(kind, VisionTransformer):
        mixer = "DotProduct"
    options: dict[str, Any] = {"num_classes": 0, "mixer": mixer, "layer_mixers": layer_mixers, "pretrained": pretrained}
    if not tokens:
        stages = {"features_only": True, "out_indices": tuple(out_indices) if out_indices else (-4, -3, -2, -1)}
        build = partial(timm_model, model, **options, model_args={**args, **stages})
        stages_net: Any = build(image_size=image_size)
        stride = max(stages_net.feature_info.reduction())
        padded = image_size and (-(-image_size[0] // stride) * stride, -(-image_size[1] // stride) * stride)
        if padded != image_size:  # as the images will be
            stages_net = build(image_size=padded)
        return FeatureBackbone(_with_weights(stages_net, weights))
    net: Any = timm_model(model, **options, image_size=image_size, model_args=args)
    grid = getattr(getattr(net, "patch_embed", None), "grid_size", None)
    if grid is not None and min(grid) < 1:
        raise InputError(f"image_size={tuple(image_size or ())}: {model} has patches of {net.patch_embed.patch_size}")
    net = _with_weights(net, weights)
    if top_down:
        net = look_twice(net, top_down)
    return TokenBackbone(net, _indices(out_indices, net, model))


def _with_weights(net: nn.Module, weights: str | None) -> nn.Module:
    """Return the model, with the weights of a file if one is given."""
    if weights is not None:
        load_checkpoint(net, weights, fresh_classifier=True)
    return net


def _kind(name: str, args: Mapping[str, Any]) -> type[nn.Module]:
    """Return the class of the model that timm builds under a name, without a change to the state of random numbers.

    Raises:
        InputError: the model or an argument is unknown.
    """

    def build(device: str) -> type[nn.Module]:
        with torch.device(device), torch.random.fork_rng(devices=[]):
            return type(timm_model(name, num_classes=0, model_args=args))

    try:
        return build("meta")
    except InputError:  # some models look at their first weights
        return build("cpu")


def _indices(out_indices: Sequence[int] | None, net: nn.Module, name: str) -> list[int]:
    """Return the places of the layers that give a map, ascending and from the front; by default evenly spread.

    Raises:
        InputError: the layers do not exist or are not ascending.
    """
    depth = len(token_model(net).token_host().layers)
    if out_indices is None:
        number = min(NUM_MAPS, depth)
        return [round((place + 1) * depth / number) - 1 for place in range(number)]
    indices = [index + depth if index < 0 else index for index in out_indices]
    if not indices or indices != sorted(set(indices)) or indices[0] < 0 or indices[-1] >= depth:
        raise InputError(f"out_indices={list(out_indices)}: ascending, of the layers 0 to {depth - 1} that {name} has")
    return indices
