"""DeiT with a convolutional patch embedding, the baseline of VARS that is called DeiT* when its mixer is Performer.

H. Touvron et al., Training Data-Efficient Image Transformers, ICML 2021, and T. Xiao et al., Early Convolutions Help
Transformers See Better, NeurIPS 2021, as put together in technical report EECS-2024-49, section 1.4.
"""

from functools import partial
from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from attention_zoo.mixers.base import MixerFactory
from attention_zoo.mixers.swapping import swap_mixers
from attention_zoo.models.conv_embed import ConvPatchEmbed
from attention_zoo.models.registration import Variant, build, configs, mixer_factory, refuse_attn_layer, register_host
from attention_zoo.models.sizes import check_patches


class ConvDeiT(VisionTransformer):
    """timm's ``VisionTransformer`` with a convolutional stem and any self-mixer.

    All blocks are kept, while Xiao et al. drop one for the stem's cost; the report does not say what it did.

    Args:
        mixer: a name of ``list_mixers("self")`` or a factory.
        mixer_args: the mixer's own arguments.
        variant: handed to mixers that know it.
        **vit: arguments of timm's ``VisionTransformer``.

    Raises:
        InputError: the mixer is unknown, or the patches do not divide the images.
    """

    def __init__(
        self,
        *,
        mixer: str | MixerFactory = "DotProduct",
        mixer_args: dict[str, Any] | None = None,
        variant: Variant = "paper",
        **vit: Any,
    ) -> None:
        refuse_attn_layer("ConvDeiT", vit)
        super().__init__(**{"embed_layer": ConvPatchEmbed, "norm_layer": partial(nn.LayerNorm, eps=1e-6), **vit})
        check_patches(self)
        swap_mixers(self, mixer_factory(mixer, mixer_args, variant))


default_cfgs = configs(("deit_conv_tiny_patch16_224", "deit_conv_small_patch16_224"), first_conv="patch_embed.proj.0")


@register_host
def deit_conv_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> ConvDeiT:
    """Build DeiT-Ti with a convolutional stem; arguments are those of `ConvDeiT`."""
    size = {"embed_dim": 192, "num_heads": 3}
    return build(ConvDeiT, "deit_conv_tiny_patch16_224", pretrained, kwargs, **size)


@register_host
def deit_conv_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> ConvDeiT:
    """Build DeiT-S with a convolutional stem; arguments are those of `ConvDeiT`."""
    size = {"embed_dim": 384, "num_heads": 6}
    return build(ConvDeiT, "deit_conv_small_patch16_224", pretrained, kwargs, **size)
