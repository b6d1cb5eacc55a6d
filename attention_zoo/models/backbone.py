"""Any timm model with any mixer as a backbone: maps of several layers, for images of any size."""

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
from attention_zoo.models.build import timm_model
from attention_zoo.models.checkpoints import load_checkpoint
from attention_zoo.models.token_hosts import TokenModel, token_model
from attention_zoo.models.top_down import TopDown

NUM_MAPS = 4
"""How many layers of a model of tokens give a map by default; 2, 5, 8 and 11 of twelve."""


class Backbone(nn.Module, ABC):
    """Images (B, in_chans, H, W) to maps (B, channels[i], H / strides[i], W / strides[i]), finest first.

    Images whose sides are no multiples of the strides are padded with zeros below and to the right.

    Args:
        model: what gives the maps.
        channels: of the maps.
        strides: pixels between neighbouring places of the maps.
    """

    def __init__(self, model: nn.Module, channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.channels, self.strides = list(channels), list(strides)

    @abstractmethod
    def maps(self, image: Tensor) -> list[Tensor]:
        """Maps of an image whose sides are multiples of the strides."""

    def forward(self, image: Tensor) -> list[Tensor]:
        """Images (B, in_chans, H, W) to maps, finest first."""
        height, width = (-side % max(self.strides) for side in image.shape[2:])
        maps = self.maps(F.pad(image, (0, width, 0, height)) if height or width else image)
        return [x.contiguous() for x in maps]  # of tokens they are channels-last, which slows the heads' training

    def no_weight_decay(self) -> set[str]:
        """Parameters that decay does not suit."""
        return {f"model.{name}" for name in getattr(self.model, "no_weight_decay", set)()}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only the inputs of blocks in training, and compute the rest again."""
        model: Any = self.model
        model.set_grad_checkpointing(enable)


class TokenBackbone(Backbone):
    """Outputs of layers of a `TokenModel`, or of timm's ``VisionTransformer``, without prefix tokens.

    Those of the last layer are what the head reads; of `TopDown` they are outputs of its second pass.

    Args:
        model: changed in place, to take images of any size; what the maps do not need is left out, or not trained.
        indices: of the layers, ascending.

    Raises:
        InputError: a model that gives no map of these layers.
    """

    def __init__(self, model: nn.Module, indices: Sequence[int]) -> None:
        host = token_model(model).token_host()
        layers = [host.layers[index] for index in indices]
        super().__init__(model, [layer.dim for layer in layers], [host.stride << layer.stage for layer in layers])
        self.indices = list(indices)
        token_model(model).keep_for_maps(self.indices)

    def maps(self, image: Tensor) -> list[Tensor]:
        """Maps (B, dim, h, w) of an image whose sides are multiples of the strides."""
        return token_model(self.model).forward_maps(image, self.indices)


class FeatureBackbone(Backbone):
    """What timm gives with ``features_only``: stages of convolutional and hierarchical models.

    Args:
        model: of timm, built with ``features_only=True``.
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
            layers, any other those of timm's ``features_only``.
        mixer: for all layers; None keeps the model's own.
        layer_mixers: for some layers, see `swap_mixers`.
        out_indices: layers (or stages, of ``features_only``) that give a map, ascending; None is four, evenly spread
            and ending with the last, of layers and the four last of stages.
        image_size: height and width that position embeddings are kept for, and mixers built; None is the model's own.
            Images may be of any size.
        in_chans: channels of the images.
        pretrained: start from timm's released weights.
        weights: file to start from, e.g. a checkpoint of the model trained to classify.
        top_down: look twice, by `TopDown`: a mode, or its arguments. Attention of timm becomes `DotProduct`.
        model_args: further arguments of the timm model.

    Raises:
        InputError: unknown model, mixer or argument, layers that do not exist, weights that cannot be had, or a model
            that cannot look twice.
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
        net = TopDown(net, **({"mode": top_down} if isinstance(top_down, str) else top_down))
    return TokenBackbone(net, _indices(out_indices, net, model))


def _with_weights(net: nn.Module, weights: str | None) -> nn.Module:
    """The model, started from a file if there is one."""
    if weights is not None:
        load_checkpoint(net, weights, fresh_classifier=True)
    return net


def _kind(name: str, args: Mapping[str, Any]) -> type[nn.Module]:
    """The class of what timm builds under that name, seen on one without weights; random numbers stay as they were.

    Raises:
        InputError: unknown model or argument.
    """

    def build(device: str) -> type[nn.Module]:
        with torch.device(device), torch.random.fork_rng(devices=[]):
            return type(timm_model(name, num_classes=0, model_args=args))

    try:
        return build("meta")
    except InputError:  # some models look at their first weights
        return build("cpu")


def _indices(out_indices: Sequence[int] | None, net: nn.Module, name: str) -> list[int]:
    """Those given, counted from the front, or some evenly spread."""
    depth = len(token_model(net).token_host().layers)
    if out_indices is None:
        number = min(NUM_MAPS, depth)
        return [round((place + 1) * depth / number) - 1 for place in range(number)]
    indices = [index + depth if index < 0 else index for index in out_indices]
    if not indices or indices != sorted(set(indices)) or indices[0] < 0 or indices[-1] >= depth:
        raise InputError(f"out_indices={list(out_indices)}: ascending, of the layers 0 to {depth - 1} that {name} has")
    return indices
