"""AbSViT, a vision transformer with top-down attention, registered with timm.

B. Shi, T. Darrell, X. Wang, Top-Down Visual Attention from Analysis by Synthesis, CVPR 2023; technical report
EECS-2024-49, section 2.5. Released state dicts load unchanged and, with the default variant, give the released logits.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from timm.models import get_pretrained_cfg, register_model
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from attention_zoo.errors import InputError
from attention_zoo.hosts import swap_mixers
from attention_zoo.models.registration import configs
from attention_zoo.models.top_down import TopDown

default_cfgs = configs(
    (
        "absvit_tiny_patch16_224",
        "absvit_small_patch16_224",
        "absvit_base_patch16_224",
        "absvit_tiny_patch8_224_gap",
    ),
    first_conv="model.patch_embed.proj",
    classifier="model.head",
)


def _absvit(name: str, pretrained: bool, size: Mapping[str, Any], given: dict[str, Any]) -> TopDown:
    """A ViT of self-mixers under `TopDown`.

    Arguments beside those of timm's ``VisionTransformer``: ``mixer``, a name or a factory (default `DotProduct`), and
    its ``mixer_args``; ``variant``, "released" (the default, with the bias in the signal's projection) or "paper";
    ``top_down``, further arguments of `TopDown` (mode, alpha, ...).

    Raises:
        InputError: weights were asked for, or something that does not fit.
    """
    if pretrained:
        raise InputError(f"{name} has no weights to download; give checkpoint_path=")
    own = {"mixer": "DotProduct", "mixer_args": None, "variant": "released", "top_down": None}
    own = {key: given.pop(key, default) for key, default in own.items()}
    config = (given.pop("pretrained_cfg", None) or get_pretrained_cfg(name)).to_dict()
    vit = {key: value for key, value in given.items() if key not in ("pretrained_cfg_overlay", "cache_dir")}
    model = VisionTransformer(**{"norm_layer": partial(nn.LayerNorm, eps=1e-6), **size, **vit})
    swap_mixers(model, own["mixer"], **(own["mixer_args"] or {}))
    wrapped = TopDown(model, variant=own["variant"], **(own["top_down"] or {}))
    wrapped.pretrained_cfg = wrapped.default_cfg = config
    return wrapped


@register_model
def absvit_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> TopDown:
    """AbSViT-Ti, 6.6 M parameters. See `_absvit` for the arguments."""
    return _absvit("absvit_tiny_patch16_224", pretrained, {"embed_dim": 192, "num_heads": 3}, kwargs)


@register_model
def absvit_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> TopDown:
    """AbSViT-S, 25.6 M parameters. See `_absvit` for the arguments."""
    return _absvit("absvit_small_patch16_224", pretrained, {"embed_dim": 384, "num_heads": 6}, kwargs)


@register_model
def absvit_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> TopDown:
    """AbSViT-B, 100.7 M parameters. See `_absvit` for the arguments."""
    return _absvit("absvit_base_patch16_224", pretrained, {"embed_dim": 768, "num_heads": 12}, kwargs)


@register_model
def absvit_tiny_patch8_224_gap(pretrained: bool = False, **kwargs: Any) -> TopDown:
    """AbSViT-Ti on patches of 8 pixels with averaged tokens, whose space the class prototypes share (report 2.6)."""
    size = {"embed_dim": 192, "num_heads": 3, "patch_size": 8, "global_pool": "avg"}
    return _absvit("absvit_tiny_patch8_224_gap", pretrained, size, kwargs)
