"""BoTNet-50: timm's ResNet-50 whose 3 x 3 convolutions of the last stage (c5) are self-mixers.

A. Srinivas et al., Bottleneck Transformers for Visual Recognition, CVPR 2021; P. Gabbur, M. Bilkhu, J. Movellan,
Probabilistic Attention for Interactive Segmentation, NeurIPS 2021, section 4.1. The convolutional baseline is timm's
``resnet50``. Feature maps c2 to c5, of strides 4 to 32, are what
``timm.create_model("botnet50", features_only=True, out_indices=(1, 2, 3, 4))`` returns.
"""

from typing import Any, Literal

from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn

from attention_zoo.errors import InputError
from attention_zoo.mixers.axial import Axial
from attention_zoo.mixers.base import MixerFactory, SelfMixer
from attention_zoo.mixers.registry import as_factory
from attention_zoo.mixers.running_statistics import hold_statistics
from attention_zoo.models.registration import Variant, build, build_apart, configs, mixer_factory, register_host


class MapMixer(nn.Module):
    """A self-mixer in place of a convolution: maps (B, C, H, W) -> (B, C, H / stride, W / stride).

    With a stride, an average pooling of that stride follows the mixing.
    """

    def __init__(self, mixer: SelfMixer, stride: int) -> None:
        super().__init__()
        self.mixer = mixer
        self.pool = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps with their places mixed as tokens, (B, C, H / stride, W / stride), rounded up."""
        height, width = x.shape[2:]
        self.mixer.set_grid((height, width))
        return self.pool(self.mixer(x.flatten(2).mT).mT.unflatten(2, x.shape[2:]))


class BoTNet(ResNet):
    """timm's ``ResNet`` with any self-mixer in its last stage.

    The mixer keeps its output projection, which BoTNet's attention lacks. Images of other sizes than ``img_size``
    are accepted if the mixer is not bound to its grid. ``output_stride=16`` is BoTNet-S1, which keeps c5 at the size
    of c4.

    Args:
        img_size: height and width of the images that mixers are built for.
        mixer: a name of ``list_mixers("self")`` or a factory.
        mixer_args: the mixer's own arguments.
        variant: handed to mixers that know it.
        positions: handed to the mixer, one that has such an argument (`Probabilistic`): relative embeddings, factored
            into rows and columns or full.
        axial: whether to mix along the height and then along the width.
        num_heads: heads of every mixer.
        **resnet: arguments of timm's ``ResNet``.

    Raises:
        InputError: an argument does not fit.
    """

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        mixer: str | MixerFactory = "DotProduct",
        mixer_args: dict[str, Any] | None = None,
        variant: Variant = "paper",
        positions: Literal["factored", "full"] | None = None,
        axial: bool = False,
        num_heads: int = 4,
        **resnet: Any,
    ) -> None:
        super().__init__(**{"block": Bottleneck, "layers": (3, 4, 6, 3), **resnet})
        options = {**(mixer_args or {}), **({"positions": positions} if positions else {})}
        factory = mixer_factory(mixer, options, variant)
        factory = as_factory(Axial, {"mixer": factory}) if axial else factory
        grid = self._grid(img_size)
        blocks: Any = self.layer4
        for block in blocks:
            stride = block.conv2.stride[0]
            built = build_apart(factory, dim=block.conv2.in_channels, num_heads=num_heads, grid=grid, proj_bias=False)
            block.conv2 = MapMixer(built, stride)
            grid = (-(-grid[0] // stride), -(-grid[1] // stride))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Make training keep only the inputs of blocks and compute the rest again in the backward pass."""
        super().set_grad_checkpointing(enable)
        hold_statistics(self)

    def _grid(self, img_size: int | tuple[int, int]) -> tuple[int, int]:
        """Return the height and width of the maps that the last stage takes; every stride rounds up."""
        size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        if len(size) != 2 or min(size) < 1:
            raise InputError(f"BoTNet: img_size={img_size} must be (height, width)")
        info: Any = self.feature_info
        stride = info[-2]["reduction"]
        return -(-size[0] // stride), -(-size[1] // stride)


default_cfgs = configs(
    ("botnet50",), first_conv="conv1", classifier="fc", pool_size=(7, 7), interpolation="bilinear", crop_pct=0.875
)


@register_host
def botnet50(pretrained: bool = False, **kwargs: Any) -> BoTNet:
    """Build BoTNet-50; arguments are those of `BoTNet`."""
    return build(BoTNet, "botnet50", pretrained, kwargs)
