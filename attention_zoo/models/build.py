"""Builds any timm model with any mixer."""

import inspect
from collections.abc import Mapping
from typing import Any

import timm
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from attention_zoo.errors import InputError, unknown
from attention_zoo.mixers.base import MixerFactory
from attention_zoo.mixers.registry import STRAY
from attention_zoo.mixers.swapping import mixer_layers, swap_mixers, tell_layers
from attention_zoo.models.checkpoints import load_checkpoint
from attention_zoo.models.registration import takes_mixer
from attention_zoo.models.sizes import check_patches, check_patches_fit, check_runs
from attention_zoo.models.top_down import TopDown
from attention_zoo.models.white_box import with_feed_forward

CHANNELS = 3
"""The number of channels of the images that tasks see."""


def build_model(
    name: str,
    *,
    num_classes: int,
    image_size: tuple[int, int] | None = None,
    mixer: str | MixerFactory | None = None,
    layer_mixers: Mapping[str, str | MixerFactory] | None = None,
    pretrained: bool = False,
    weights: str | None = None,
    top_down: str | Mapping[str, Any] | None = None,
    model_args: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a timm model whose attention layers are mixers of the zoo, for images (B, 3, height, width).

    A model that builds its blocks around a mixer, as ours do, is given it. Any other is built by timm, and its layers
    are swapped then. Either way all else starts, for one seed, with the same weights whatever the mixer.

    Args:
        name: a name of ``timm.list_models()``.
        num_classes: outputs of the classifier.
        image_size: height and width; models of a fixed input size are built for it.
        mixer: the mixer of all layers; None keeps the model's own.
        layer_mixers: mixers of some layers, see `swap_mixers`.
        pretrained: whether to start from timm's released weights.
        weights: file to start from, of this model with these mixers: a checkpoint of a training run, or weights as
            timm or the authors keep them. A classifier of another size starts afresh, and so does the feedback path of
            a model that looks twice where the file is of one that looks once.
        top_down: a mode of `TopDown`, or its arguments, to look twice; attention of timm is made `DotProduct`. None
            looks once, unless the model itself looks twice, as AbSViT's do.
        model_args: further arguments of the timm model; ``feed_forward: ista`` builds a ``VisionTransformer`` of
            `WhiteBoxBlock`, whose feed-forward step is one of sparse coding.

    Raises:
        InputError: the model or an argument is unknown, it would not see the images whole, weights cannot be had,
            or the model hosts no mixers or cannot look twice.
    """
    arguments = dict(model_args or {})
    for key, value in (("in_chans", CHANNELS), ("num_classes", num_classes)):
        if image_size is not None and arguments.get(key, value) != value:
            raise InputError(f"model_args: {key}={arguments[key]!r}, but it is {value} for these data; leave it out")
    model: nn.Module = timm_model(
        name,
        num_classes=num_classes,
        image_size=image_size,
        mixer=mixer or ("DotProduct" if top_down and not takes_mixer(name.partition(".")[0]) else None),
        layer_mixers=layer_mixers,
        pretrained=pretrained,
        model_args=arguments,
    )
    try:
        check_patches(model, image_size)
        if image_size is not None and not (isinstance(model, VisionTransformer) or takes_mixer(name.partition(".")[0])):
            check_runs(model, image_size)
    except InputError as error:
        raise InputError(f"model {name!r}: {error}") from error
    if top_down:
        model = look_twice(model, top_down)
    if weights is not None:
        load_checkpoint(model, weights, fresh_classifier=True)
    return model


def look_twice(model: nn.Module, top_down: str | Mapping[str, Any]) -> TopDown:
    """Return a model under `TopDown`, with the facts that timm has of it.

    Args:
        model: a model of self-mixers.
        top_down: a mode of `TopDown`, or its arguments.

    Raises:
        InputError: an argument is unknown or does not fit, or the model cannot look twice, or does so already.
    """
    options = {"mode": top_down} if isinstance(top_down, str) else dict(top_down)
    known = [name for name in inspect.signature(TopDown).parameters if name != "model"]
    for name in options:
        if name not in known:
            raise unknown("option of TopDown", str(name), known)
    if isinstance(model, TopDown):
        raise InputError(f"top_down={top_down!r}: the model looks twice already; its options are model_args: top_down")
    twice = TopDown(model, **options)
    for name in ("pretrained_cfg", "default_cfg"):
        if hasattr(model, name):
            setattr(twice, name, getattr(model, name))
    return twice


def timm_model(
    name: str,
    *,
    num_classes: int,
    image_size: tuple[int, int] | None = None,
    mixer: str | MixerFactory | None = None,
    layer_mixers: Mapping[str, str | MixerFactory] | None = None,
    pretrained: bool = False,
    model_args: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a model as `build_model` does, but load no file and do not check that the model sees images whole.

    Raises:
        InputError: the model or an argument is unknown, released weights cannot be had, or the model hosts no mixers.
    """
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise unknown("timm model", name, timm.list_models(), "timm.list_models() lists what there is")
    for key, value in (model_args or {}).items():
        if isinstance(value, int) and value < 0:  # -1 divides all numbers, so that timm takes it for one of heads
            raise InputError(f"model_args: {key}={value} must not be negative")
    args = with_feed_forward({"num_classes": num_classes, **(model_args or {})})
    config = timm.get_pretrained_cfg(architecture)
    if image_size is not None and config is not None and config.fixed_input_size:
        args.setdefault("img_size", image_size)
    if mixer is not None and takes_mixer(architecture):
        if "mixer" in args:
            raise InputError(f"model_args: mixer={args['mixer']!r}, beside the mixer {mixer!r}; give one")
        args["mixer"], mixer = mixer, None
    try:
        model = timm.create_model(name, pretrained=pretrained, **args)
    except InputError:
        raise
    except Exception as error:
        what = "its released weights cannot be had" if pretrained else "timm cannot build it"
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        stray = STRAY.search(reason)
        if stray is not None and stray[1] in (model_args or {}):
            reason += "; it stands in model_args, perhaps those of another model, which model_args={} leaves out"
        own = {key: value for key, value in args.items() if key != "mixer"}  # the mixer's repr is long, and told apart
        raise InputError(f"model {name!r} with {own}: {what}: {reason}") from error
    tell_layers(layer for _, layer in mixer_layers(model))  # a model that builds its blocks around mixers does not
    if mixer is None and not layer_mixers:
        return model
    try:
        check_patches_fit(model)  # or a mixer would be the one to complain, about a grid without tokens
    except InputError as error:
        raise InputError(f"model {name!r}: {error}") from error
    return swap_mixers(model, mixer, layers=layer_mixers)
