"""Any timm model with any mixer as a backbone: maps of several layers, for images of any size."""

import typing
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch.nn.functional as F
from timm.layers import Format
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from attention_zoo.errors import InputError, unknown
from attention_zoo.grids import tell_grids
from attention_zoo.interface import MixerFactory
from attention_zoo.models.build import timm_model
from attention_zoo.models.checkpoints import load_checkpoint
from attention_zoo.models.rvt import RVT
from attention_zoo.models.token_hosts import token_host
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
        named = self.model.no_weight_decay() if hasattr(self.model, "no_weight_decay") else ()
        return {f"model.{name}" for name in named}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only the inputs of blocks in training, and compute the rest again."""
        self.model.set_grad_checkpointing(enable)


class ViTBackbone(Backbone):
    """Outputs of blocks of timm's ``VisionTransformer``, without prefix tokens; that of the last goes through its norm.

    Position embeddings are resized bicubically, and mixers told the grid.

    Args:
        model: changed in place, to take images of any size.
        indices: of the blocks, ascending.
    """

    def __init__(self, model: VisionTransformer, indices: Sequence[int]) -> None:
        stride = model.patch_embed.feat_ratio()
        super().__init__(model, [model.embed_dim] * len(indices), [stride] * len(indices))
        self.indices = list(indices)
        self.ends = self.indices[-1] == len(model.blocks) - 1
        model.prune_intermediate_layers(self.indices, prune_norm=not self.ends, prune_head=True)
        _take_any_size(model)

    def maps(self, image: Tensor) -> list[Tensor]:
        """Maps (B, dim, h, w) of an image whose sides are multiples of the patch size."""
        grid = self.model.patch_embed.dynamic_feat_size(image.shape[2:])
        tokens = self.model.forward_intermediates(
            image, indices=self.indices, output_fmt="NLC", intermediates_only=True, stop_early=True
        )
        if self.ends:
            tokens[-1] = self.model.norm(tokens[-1])
        return [x.mT.unflatten(2, grid) for x in tokens]


class HostBackbone(Backbone):
    """Outputs of layers of `RVT`, or of `TopDown` in its second pass; the last layer's are what the classifier reads.

    Args:
        model: changed in place, to take images of any size; what the maps do not need is left out, or not trained.
        indices: of the layers, ascending.

    Raises:
        InputError: the second look is at the last layer alone (``perceiver_io``), and that gives no map.
    """

    def __init__(self, model: RVT | TopDown, indices: Sequence[int]) -> None:
        host = token_host(model.model if isinstance(model, TopDown) else model)
        layers = [host.layers[index] for index in indices]
        super().__init__(model, [layer.dim for layer in layers], [host.stride << layer.stage for layer in layers])
        self.indices = list(indices)
        inner = model.model if isinstance(model, TopDown) else model
        number = len(host.layers) if isinstance(model, TopDown) else self.indices[-1] + 1  # the first pass runs all
        if isinstance(inner, VisionTransformer):
            inner.prune_intermediate_layers(range(number), prune_head=True)
            _take_any_size(inner)
        else:
            inner.prune_layers(number)
        if isinstance(model, TopDown) and self.indices[-1] + 1 < number:
            if model.mode == "perceiver_io":
                raise InputError(f"out_indices={self.indices}: perceiver_io changes layer {number - 1} alone")
            for decoder in getattr(model, "decoders", ())[self.indices[-1] + 1 :]:
                decoder.linear2.requires_grad_(False)  # it speaks to a layer that the second pass does not reach

    def maps(self, image: Tensor) -> list[Tensor]:
        """Maps (B, dim, h, w) of an image whose sides are multiples of the strides."""
        return self.model.forward_maps(image, self.indices)


class FeatureBackbone(Backbone):
    """What timm gives with ``features_only``: stages of convolutional and hierarchical models.

    Args:
        model: of timm, built with ``features_only=True``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, model.feature_info.channels(), model.feature_info.reduction())

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
    options = {
        "num_classes": 0,
        "image_size": image_size,
        "mixer": mixer or ("DotProduct" if top_down and _gives(model, VisionTransformer) else None),
        "layer_mixers": layer_mixers,
        "pretrained": pretrained,
    }
    if not _gives(model, VisionTransformer, RVT, TopDown):
        if top_down:
            raise InputError(f"top_down={top_down!r}: {model} gives maps of stages and cannot be looked through twice")
        stages = {"features_only": True, "out_indices": tuple(out_indices) if out_indices else (-4, -3, -2, -1)}
        net = timm_model(model, **options, model_args={**args, **stages})
        stride = max(net.feature_info.reduction())
        padded = image_size and tuple(-(-side // stride) * stride for side in image_size)
        if padded != image_size:  # as the images will be
            net = timm_model(model, **{**options, "image_size": padded}, model_args={**args, **stages})
        return FeatureBackbone(_with_weights(net, weights))
    net = timm_model(model, **options, model_args=args)
    grid = getattr(getattr(net, "patch_embed", None), "grid_size", None)
    if grid is not None and min(grid) < 1:
        raise InputError(f"image_size={tuple(image_size or ())}: {model} has patches of {net.patch_embed.patch_size}")
    net = _with_weights(net, weights)
    if top_down:
        net = TopDown(net, **({"mode": top_down} if isinstance(top_down, str) else top_down))
    kind = ViTBackbone if isinstance(net, VisionTransformer) else HostBackbone
    return kind(net, _indices(out_indices, net, model))


def _with_weights(net: nn.Module, weights: str | None) -> nn.Module:
    """The model, started from a file if there is one."""
    if weights is not None:
        load_checkpoint(net, weights, fresh_classifier=True)
    return net


def _gives(name: str, *kinds: type[nn.Module]) -> bool:
    """Whether timm's entry point of that name says that it builds a model of one of these classes."""
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise unknown("timm model", name, timm.list_models(), "timm.list_models() lists what there is")
    given = typing.get_type_hints(timm.model_entrypoint(architecture)).get("return", object)
    return isinstance(given, type) and issubclass(given, kinds)


def _indices(out_indices: Sequence[int] | None, net: nn.Module, name: str) -> list[int]:
    """Those given, counted from the front, or some evenly spread."""
    inner = net.model if isinstance(net, TopDown) else net
    depth = len(inner.blocks if isinstance(inner, VisionTransformer) else token_host(inner).layers)
    if out_indices is None:
        number = min(NUM_MAPS, depth)
        return [round((place + 1) * depth / number) - 1 for place in range(number)]
    indices = [index + depth if index < 0 else index for index in out_indices]
    if not indices or indices != sorted(set(indices)) or indices[0] < 0 or indices[-1] >= depth:
        raise InputError(f"out_indices={list(out_indices)}: ascending, of the layers 0 to {depth - 1} that {name} has")
    return indices


def _take_any_size(vit: VisionTransformer) -> None:
    """What timm's ``dynamic_img_size`` does, for a model that was built without, as mixers need a grid to be built.

    Layers are left out by now, so that only the mixers that are still there are told the grid.
    """
    vit.dynamic_img_size = True
    vit.patch_embed.strict_img_size = vit.patch_embed.flatten = False
    vit.patch_embed.output_fmt = Format.NHWC
    tell_grids(vit)
