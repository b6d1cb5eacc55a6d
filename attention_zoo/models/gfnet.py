"""GFNet: a global filter, or any self-mixer, and a feed-forward layer under one residual.

    x <- x + FFN(norm(filter(norm(x))))

Y. Rao, W. Zhao, Z. Zhu, J. Lu, J. Zhou, Global Filter Networks for Image Classification, NeurIPS 2021. State dicts of
the authors' code (github.com/raoyongming/GFNet, the isotropic models) load unchanged. With ``stem="conv"`` and a mixer
of VARS these are GFNet's rows of technical report EECS-2024-49, section 1.4.
"""

from functools import partial
from typing import Any, Literal

from timm.layers import PatchEmbed
from torch import Tensor, nn

from attention_zoo.errors import InputError
from attention_zoo.mixers.base import MixerFactory
from attention_zoo.mixers.swapping import swap_mixers
from attention_zoo.models.blocks import MixerBlock
from attention_zoo.models.conv_embed import ConvPatchEmbed
from attention_zoo.models.registration import Variant, build, configs, mixer_factory, refuse_attn_layer, register_host
from attention_zoo.models.sizes import SizedVisionTransformer, check_patches

STEMS = {"patch": PatchEmbed, "conv": ConvPatchEmbed}


class FilterBlock(MixerBlock):
    """Mixer and feed-forward layer in one residual; see `MixerBlock`."""

    MODEL = "GFNet"
    MIXER = "filter"

    filter: nn.Module

    @property
    def attn(self) -> nn.Module:
        """The mixer, under the name it has in timm's blocks."""
        return self.filter

    def run(self, x: Tensor, **signal: Any) -> Tensor:
        """Return the tokens (B, N, dim) after the block; keyword arguments, such as signals, go to the mixer."""
        return x + self.drop_path(self.mlp(self.norm2(self.filter(self.norm1(x), **signal))))


class GFNet(SizedVisionTransformer):
    """timm's ``VisionTransformer`` with GFNet's blocks and any self-mixer, without a class token.

    Args:
        mixer: a name of ``list_mixers("self")`` or a factory.
        mixer_args: the mixer's own arguments.
        variant: handed to mixers that know it; "released" also resamples position embeddings as the authors do.
        stem: "patch" for the authors' patch embedding, or "conv" for the convolutions of VARS.
        **vit: arguments of timm's ``VisionTransformer``.

    Raises:
        InputError: the stem or the mixer is unknown, or the patches do not divide the images.
    """

    def __init__(
        self,
        *,
        mixer: str | MixerFactory = "GlobalFilter",
        mixer_args: dict[str, Any] | None = None,
        variant: Variant = "paper",
        stem: Literal["patch", "conv"] = "patch",
        **vit: Any,
    ) -> None:
        if stem not in STEMS:
            raise InputError(f"GFNet: stem={stem!r} must be 'patch' or 'conv'")
        refuse_attn_layer("GFNet", vit)
        own = {
            "embed_layer": STEMS[stem],
            "block_fn": FilterBlock,
            "norm_layer": partial(nn.LayerNorm, eps=1e-6),
            "class_token": False,
            "global_pool": "avg",
            "fc_norm": False,
        }
        super().__init__(**{**own, **vit})
        self.plain_resampling = variant == "released"
        check_patches(self)
        swap_mixers(self, mixer_factory(mixer, mixer_args, variant))


default_cfgs = configs(("gfnet_tiny", "gfnet_xs", "gfnet_small", "gfnet_base"), first_conv="patch_embed.proj")


@register_host
def gfnet_tiny(pretrained: bool = False, **kwargs: Any) -> GFNet:
    """Build GFNet-Ti, 7.5 M parameters; arguments are those of `GFNet`."""
    return build(GFNet, "gfnet_tiny", pretrained, kwargs, embed_dim=256, depth=12, num_heads=4)


@register_host
def gfnet_xs(pretrained: bool = False, **kwargs: Any) -> GFNet:
    """Build GFNet-XS, 16 M parameters; arguments are those of `GFNet`."""
    return build(GFNet, "gfnet_xs", pretrained, kwargs, embed_dim=384, depth=12, num_heads=6)


@register_host
def gfnet_small(pretrained: bool = False, **kwargs: Any) -> GFNet:
    """Build GFNet-S, 25 M parameters; arguments are those of `GFNet`."""
    return build(GFNet, "gfnet_small", pretrained, kwargs, embed_dim=384, depth=19, num_heads=6)


@register_host
def gfnet_base(pretrained: bool = False, **kwargs: Any) -> GFNet:
    """Build GFNet-B, 43 M parameters; arguments are those of `GFNet`."""
    return build(GFNet, "gfnet_base", pretrained, kwargs, embed_dim=512, depth=19, num_heads=8)
