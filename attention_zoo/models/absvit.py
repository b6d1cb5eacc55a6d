"""AbSViT, a vision transformer with top-down attention, registered with timm.

B. Shi, T. Darrell, X. Wang, Top-Down Visual Attention from Analysis by Synthesis, CVPR 2023; technical report
EECS-2024-49, section 2.5. Released state dicts load unchanged and, with the default variant, give the released logits.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from attention_zoo.mixers.base import MixerFactory
from attention_zoo.mixers.swapping import swap_mixers
from attention_zoo.models.registration import Variant, build, configs, refuse_attn_layer, register_host
from attention_zoo.models.sizes import SizedVisionTransformer, check_patches
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


def _absvit(
    *,
    mixer: str | MixerFactory = "DotProduct",
    mixer_args: Mapping[str, Any] | None = None,
    variant: Variant = "released",
    top_down: Mapping[str, Any] | None = None,
    **vit: Any,
) -> TopDown:
    """Build a ViT of self-mixers under `TopDown`.

    Args:
        mixer: a name of ``list_mixers("self")`` or a factory.
        mixer_args: the mixer's own arguments.
        variant: "released" sends the signal through its projection with the bias, "paper" without; and for images of
            another size it resamples position embeddings as the authors do, "paper" as timm does (see
            `SizedVisionTransformer`).
        top_down: further arguments of `TopDown` (mode, alpha, ...).
        **vit: arguments of timm's ``VisionTransformer``.

    Raises:
        InputError: the mixer is unknown, or the patches do not divide the images.
    """
    refuse_attn_layer("AbSViT", vit)
    model = SizedVisionTransformer(**{"norm_layer": partial(nn.LayerNorm, eps=1e-6), **vit})
    model.plain_resampling = variant == "released"
    check_patches(model)
    swap_mixers(model, mixer, **(mixer_args or {}))
    return TopDown(model, variant=variant, **(top_down or {}))


@register_host
def absvit_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> TopDown:
    """Build AbSViT-Ti, 6.6 M parameters. See `_absvit` for the arguments."""
    return build(_absvit, "absvit_tiny_patch16_224", pretrained, kwargs, embed_dim=192, num_heads=3)


@register_host
def absvit_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> TopDown:
    """Build AbSViT-S, 25.6 M parameters. See `_absvit` for the arguments."""
    return build(_absvit, "absvit_small_patch16_224", pretrained, kwargs, embed_dim=384, num_heads=6)


@register_host
def absvit_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> TopDown:
    """Build AbSViT-B, 100.7 M parameters. See `_absvit` for the arguments."""
    return build(_absvit, "absvit_base_patch16_224", pretrained, kwargs, embed_dim=768, num_heads=12)


@register_host
def absvit_tiny_patch8_224_gap(pretrained: bool = False, **kwargs: Any) -> TopDown:
    """Build AbSViT-Ti on patches of 8 pixels; class prototypes share the space of its averaged tokens (report 2.6)."""
    size = {"embed_dim": 192, "num_heads": 3, "patch_size": 8, "global_pool": "avg"}
    return build(_absvit, "absvit_tiny_patch8_224_gap", pretrained, kwargs, **size)
