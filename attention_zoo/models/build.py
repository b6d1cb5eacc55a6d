"""Any timm model with any mixer."""

from collections.abc import Mapping
from typing import Any

import timm
from torch import nn

from attention_zoo.errors import InputError, unknown
from attention_zoo.hosts import swap_mixers
from attention_zoo.interface import MixerFactory
from attention_zoo.models.checkpoints import load_checkpoint


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
    """A timm model whose attention layers are mixers of the zoo.

    The model is built by timm first and its layers are swapped then, so that for one seed all else starts with the
    same weights whatever the mixer.

    Args:
        name: a name of ``timm.list_models()``.
        num_classes: outputs of the classifier.
        image_size: height and width; models of a fixed input size are built for it.
        mixer: for all layers; None keeps timm's attention.
        layer_mixers: for some layers, see `swap_mixers`.
        pretrained: start from timm's released weights.
        weights: file to start from, of this model with these mixers: a checkpoint of a training run, or weights as
            timm or the authors keep them. A classifier of another size starts afresh.
        model_args: further arguments of the timm model.

    Raises:
        InputError: unknown model or argument, weights that cannot be had, or a model that hosts no mixers.
    """
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise unknown("timm model", name, timm.list_models(), "timm.list_models() lists what there is")
    args = {"num_classes": num_classes, **(model_args or {})}
    config = timm.get_pretrained_cfg(architecture)
    if image_size is not None and config is not None and config.fixed_input_size:
        args.setdefault("img_size", image_size)
    try:
        model = timm.create_model(name, pretrained=pretrained, **args)
    except Exception as error:
        what = "its released weights cannot be had" if pretrained else "timm cannot build it"
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"model {name!r} with {args}: {what}: {reason}") from error
    if mixer is not None or layer_mixers:
        swap_mixers(model, mixer, layers=layer_mixers)
    if weights is not None:
        load_checkpoint(model, weights, fresh_classifier=True)
    return model
