"""Builds any timm model with any mixer."""

from collections.abc import Mapping
from typing import Any

import timm
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from attention_zoo.errors import InputError, unknown
from attention_zoo.mixers.base import MixerFactory
from attention_zoo.mixers.swapping import swap_mixers
from attention_zoo.models.checkpoints import load_checkpoint
from attention_zoo.models.registration import takes_mixer
from attention_zoo.models.sizes import check_patches, check_runs
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
            timm or the authors keep them. A classifier of another size starts afresh.
        model_args: further arguments of the timm model; ``feed_forward: ista`` builds a ``VisionTransformer`` of
            `WhiteBoxBlock`, whose feed-forward step is one of sparse coding.

    Raises:
        InputError: the model or an argument is unknown, it would not see the images whole, weights cannot be had,
            or the model hosts no mixers.
    """
    given = dict(model_args or {})
    for key, value in (("in_chans", CHANNELS), ("num_classes", num_classes)):
        if image_size is not None and given.get(key, value) != value:
            raise InputError(f"model_args: {key}={given[key]!r}, but it is {value} for these data; leave it out")
    model = timm_model(
        name,
        num_classes=num_classes,
        image_size=image_size,
        mixer=mixer,
        layer_mixers=layer_mixers,
        pretrained=pretrained,
        model_args=given,
    )
    try:
        check_patches(model, image_size)
        if image_size is not None and not (isinstance(model, VisionTransformer) or takes_mixer(name.partition(".")[0])):
            check_runs(model, image_size)
    except InputError as error:
        raise InputError(f"model {name!r}: {error}") from error
    if weights is not None:
        load_checkpoint(model, weights, fresh_classifier=True)
    return model


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
        raise InputError(f"model {name!r} with {args}: {what}: {reason}") from error
    return swap_mixers(model, mixer, layers=layer_mixers) if mixer is not None or layer_mixers else model
