"""GFNet: a global filter, or any self-mixer, and a feed-forward layer under one residual.

    x <- x + FFN(norm(filter(norm(x))))

Y. Rao, W. Zhao, Z. Zhu, J. Lu, J. Zhou, Global Filter Networks for Image Classification, NeurIPS 2021. State dicts of
the authors' code (github.com/raoyongming/GFNet, the isotropic models) load unchanged. With ``stem="conv"`` and a mixer
of VARS these are GFNet's rows of technical report EECS-2024-49, section 1.4.
"""

from functools import partial
from typing import Any, Literal

from timm.layers import DropPath, PatchEmbed
from torch import Tensor, nn

from attention_zoo.errors import InputError
from attention_zoo.hosts import swap_mixers
from attention_zoo.interface import MixerFactory
from attention_zoo.models.conv_embed import ConvPatchEmbed
from attention_zoo.models.registration import Variant, build, configs, mixer_factory, refuse_attn_layer, register_host
from attention_zoo.models.sizes import SizedVisionTransformer, check_patches

STEMS = {"patch": PatchEmbed, "conv": ConvPatchEmbed}


class FilterBlock(nn.Module):
    """Mixer and feed-forward layer in one residual, (B, N, dim) -> (B, N, dim).

    Arguments: those of timm's ``Block``. A layer scale and a norm inside the feed-forward layer have no place here.

    Raises:
        InputError: one of these is asked for.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        *,
        attn_layer: type[nn.Module],
        mlp_layer: type[nn.Module],
        norm_layer: type[nn.Module],
        act_layer: type[nn.Module],
        proj_drop: float,
        attn_drop: float,
        drop_path: float,
        qkv_bias: bool,
        qk_norm: bool = False,
        scale_attn_norm: bool = False,
        scale_mlp_norm: bool = False,
        proj_bias: bool = True,
        init_values: float | None = None,
        depth: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if init_values is not None or scale_mlp_norm:
            raise InputError(
                f"GFNet: init_values={init_values}, scale_mlp_norm={scale_mlp_norm}: block {depth} has no layer scale "
                "and no norm in its feed-forward layer"
            )
        made = {"device": device, "dtype": dtype}
        self.norm1 = norm_layer(dim, **made)
        self.filter = attn_layer(
            dim,
            num_heads=num_heads,
            qkv_bias=qkv_bias,
            qk_norm=qk_norm,
            scale_norm=scale_attn_norm,
            proj_bias=proj_bias,
            attn_drop=attn_drop,
            proj_drop=proj_drop,
            norm_layer=norm_layer,
            **made,
        )
        self.norm2 = norm_layer(dim, **made)
        self.mlp = mlp_layer(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop, **made)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    @property
    def attn(self) -> nn.Module:
        """The mixer, by the name it has in timm's blocks."""
        return self.filter

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Tokens (B, N, dim) -> (B, N, dim); who may read whom goes to the mixer, which may refuse it."""
        return self.run(x, attn_mask=attn_mask, is_causal=is_causal)

    def run(self, x: Tensor, **signal: Any) -> Tensor:
        """Tokens, and what else the mixer should hear."""
        return x + self.drop_path(self.mlp(self.norm2(self.filter(self.norm1(x), **signal))))


class GFNet(SizedVisionTransformer):
    """timm's ``VisionTransformer`` with GFNet's blocks and any self-mixer, without a class token.

    Args:
        mixer: a name of ``list_mixers("self")`` or a factory.
        mixer_args: the mixer's own arguments.
        variant: handed to mixers that know it; "released" also resamples position embeddings as the authors do.
        stem: "patch", as the authors', or "conv", as VARS has it.
        **vit: arguments of timm's ``VisionTransformer``.

    Raises:
        InputError: unknown stem or mixer, or patches that do not divide the images.
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
    """GFNet-Ti, 7.5 M parameters; arguments are those of `GFNet`."""
    return build(GFNet, "gfnet_tiny", pretrained, kwargs, embed_dim=256, depth=12, num_heads=4)


@register_host
def gfnet_xs(pretrained: bool = False, **kwargs: Any) -> GFNet:
    """GFNet-XS, 16 M parameters; arguments are those of `GFNet`."""
    return build(GFNet, "gfnet_xs", pretrained, kwargs, embed_dim=384, depth=12, num_heads=6)


@register_host
def gfnet_small(pretrained: bool = False, **kwargs: Any) -> GFNet:
    """GFNet-S, 25 M parameters; arguments are those of `GFNet`."""
    return build(GFNet, "gfnet_small", pretrained, kwargs, embed_dim=384, depth=19, num_heads=6)


@register_host
def gfnet_base(pretrained: bool = False, **kwargs: Any) -> GFNet:
    """GFNet-B, 43 M parameters; arguments are those of `GFNet`."""
    return build(GFNet, "gfnet_base", pretrained, kwargs, embed_dim=512, depth=19, num_heads=8)
