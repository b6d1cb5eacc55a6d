"""RVT, the robust vision transformer, as VARS used it: tokens in stages, and convolutions around them.

X. Mao et al., Towards Robust Vision Transformer, CVPR 2022; B. Shi, T. Darrell, X. Wang, Visual Attention Emerges
from Recurrent Sparse Reconstruction, ICML 2022 (technical report EECS-2024-49, section 1.4). With
``variant="released"`` the state dicts of the authors' code (github.com/bfshi/VARS) load unchanged. ``rvt_*_plus``, RVT*
of Mao et al., scale attention by position; `PatchAugmentation` is the other half of their recipe.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from timm.layers import DropPath, Mlp
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attention_zoo.errors import InputError
from attention_zoo.mixers.base import MixerFactory, SelfMixer
from attention_zoo.mixers.running_statistics import hold_statistics
from attention_zoo.mixers.vars.released import ChannelBatchNorm
from attention_zoo.models.position_scaling import PositionScaled
from attention_zoo.models.registration import Variant, build, build_apart, configs, mixer_factory, register_host
from attention_zoo.models.token_hosts import StagedHost, TokenModel

RELEASED_NAMES = {
    "v": "attn.qkv",
    "proj": "attn.proj",
    "kernel": "attn.kernel",
    "kernel2": "attn.kernel2",
    "kernel_norm": "attn.kernel_norm",
    "L": "attn.L",
    "norm1": "attn.norm",
}
"""The names of parts that the released VARS-S keeps in the block itself, and their names here."""

layer_norm = partial(nn.LayerNorm, eps=1e-6)


class ConvStem(nn.Module):
    """Patch embedding by two convolutions, (B, in_chans, H, W) -> (B, dim, h, w)."""

    stride = 16

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.Conv2d(in_chans, 32, 7, stride=2, padding=2),
            nn.BatchNorm2d(32),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.Conv2d(32, dim, 4, stride=4),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps (B, dim, h, w) of images (B, in_chans, H, W)."""
        return self.proj(x)

    @staticmethod
    def length(pixels: int) -> int:
        """Return the number of tokens along a side of so many pixels."""
        return ((pixels - 3) // 2 // 2 + 1) // 4


class ConvMlp(nn.Module):
    """A feed-forward layer on tokens (B, N, dim) of a grid, with a 3 x 3 depthwise convolution and batch norms."""

    def __init__(self, dim: int, hidden: int, drop: float) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.fc2 = nn.Conv2d(hidden, dim, 1)
        self.bn3 = nn.BatchNorm2d(dim)
        self.act = nn.GELU()
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return the tokens (B, N, dim) of a ``grid`` (rows, columns) after the layer."""
        x = x.unflatten(1, grid).permute(0, 3, 1, 2)
        x = self.drop(self.act(self.bn1(self.fc1(x))))
        x = self.act(self.bn2(self.dwconv(x)))
        x = self.drop(self.bn3(self.fc2(x)))
        return x.permute(0, 2, 3, 1).flatten(1, 2)


class Block(nn.Module):
    """Mixer and feed-forward layer, each with its residual: (B, N, dim) -> (B, N, dim).

    With a mixer that normalises by batch, such as the released VARS-S, the block does so before its feed-forward layer,
    and has no norm before the mixer.
    """

    attn: SelfMixer

    def __init__(
        self, attn: SelfMixer, dim: int, hidden: int, *, conv_ffn: bool, drop: float, drop_path: float
    ) -> None:
        super().__init__()
        self.by_batch = by_batch = attn.norms_by_batch
        self.norm1 = nn.Identity() if by_batch else layer_norm(dim)
        self.attn = attn
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = ChannelBatchNorm(dim) if by_batch else layer_norm(dim)
        self.mlp = ConvMlp(dim, hidden, drop) if conv_ffn else Mlp(dim, hidden, drop=drop)
        self.conv_ffn = conv_ffn
        if by_batch:
            self.register_load_state_dict_pre_hook(_released_block)

    def check_mixer(self, mixer: SelfMixer) -> None:
        """Refuse a mixer around which the block would have been built in another way.

        Raises:
            InputError: the mixer normalises by batch, as the released VARS-S, and the block's own does not, or the
                other way round.
        """
        if mixer.norms_by_batch != self.by_batch:
            own, new = (
                type(each).__name__ + (f" ({getattr(each, 'variant', 'by batch')})" if each.norms_by_batch else "")
                for each in (self.attn, mixer)
            )
            raise InputError(
                f"RVT's blocks are built around {own} and normalise in another way than those of {new}, which cannot "
                "be swapped in: give it as mixer= when the model is built"
            )

    def forward(self, x: Tensor, grid: tuple[int, int], **signal: Any) -> Tensor:
        """Return the tokens (B, N, dim) of a ``grid`` after the block; keyword arguments go to the mixer."""
        self.attn.set_grid(grid)
        x = self.drop_path(self.attn(self.norm1(x), **signal)) + x  # contiguous, which x is not where it was a map
        normed = self.norm2(x)
        return x + self.drop_path(self.mlp(normed, grid) if self.conv_ffn else self.mlp(normed))


def _released_block(block: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename, in a state dict, the parts that the released VARS-S keeps in the block itself."""
    for key in [key for key in state_dict if key.startswith(prefix)]:
        first, dot, rest = key.removeprefix(prefix).partition(".")
        if first in RELEASED_NAMES:
            state_dict[f"{prefix}{RELEASED_NAMES[first]}{dot}{rest}"] = state_dict.pop(key)


class Stage(nn.Module):
    """Blocks of one width on maps (B, dim, h, w) -> (B, dim, h, w)."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps with their places mixed as tokens by all blocks."""
        height, width = x.shape[2:]
        grid = (height, width)
        x = x.flatten(2).mT
        for block in self.blocks:
            saves = self.grad_checkpointing and self.training
            x = checkpoint(block, x, grid, use_reentrant=False) if saves else block(x, grid)
        return x.mT.unflatten(2, grid)


@dataclass(frozen=True)
class Common:
    """The arguments that timm's models have in common, as `RVT` takes them.

    Attributes:
        qkv_bias: whether the query, key and value projections have a bias.
        global_pool: only "avg", the average.
        drop_rate: dropout before the classifier.
        pos_drop_rate: dropout after the patch embedding.
        proj_drop_rate: dropout after the mixers' projections and in the feed-forward layers.
        attn_drop_rate: dropout on attention weights.
        drop_path_rate: stochastic depth; the first block is never dropped, one after the last would be at this rate.
    """

    qkv_bias: bool = True
    global_pool: str = "avg"
    drop_rate: float = 0.0
    pos_drop_rate: float = 0.0
    proj_drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0


class RVT(nn.Module, TokenModel):
    """Robust vision transformer with any self-mixer: no class token, no position embedding, a global average.

    Images of other sizes than ``img_size`` are accepted if the mixer is not bound to its grid.

    Args:
        img_size: height and width of the images that mixers are built for.
        in_chans: channels of the images.
        num_classes: outputs of the classifier; 0 for none.
        embed_dims: width of each stage; the resolution is halved between stages.
        depths: number of blocks of each stage.
        num_heads: number of heads of each stage.
        mlp_ratio: hidden width of the feed-forward layers, in widths of the stage.
        conv_ffn: whether the feed-forward layers have a depthwise convolution; those of the base model have none.
        mixer: a name of ``list_mixers("self")`` or a factory.
        mixer_args: the mixer's own arguments.
        variant: handed to mixers that know it. With "released", `VarsS` makes the blocks those of the authors' code.
        scaled_blocks: how many of the first stage's blocks scale their dot products by position, see `PositionScaled`.
        **common: arguments of `Common`.

    Raises:
        InputError: an argument does not fit.
    """

    transformers: Any
    """The stages of blocks, a ``ModuleList`` of `Stage`."""

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dims: Sequence[int] = (192, 384),
        depths: Sequence[int] = (10, 2),
        num_heads: Sequence[int] = (6, 12),
        mlp_ratio: float = 4.0,
        *,
        conv_ffn: bool = True,
        mixer: str | MixerFactory = "DotProduct",
        mixer_args: dict[str, Any] | None = None,
        variant: Variant = "paper",
        scaled_blocks: int = 0,
        **common: Any,
    ) -> None:
        super().__init__()
        timms = Common(**common)
        if not len(embed_dims) == len(depths) == len(num_heads):
            raise InputError(
                f"RVT: embed_dims={embed_dims}, depths={depths}, num_heads={num_heads}: one for each stage"
            )
        grid = self._grid(img_size)
        self.num_classes, self.in_chans, self.global_pool = num_classes, in_chans, _average(timms.global_pool)
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dims[-1]
        self.patch_embed = ConvStem(in_chans, embed_dims[0])
        self.pos_drop = nn.Dropout(timms.pos_drop_rate)
        self.transformers, self.pools = nn.ModuleList(), nn.ModuleList()
        factory = mixer_factory(mixer, mixer_args, variant)
        if scaled_blocks:
            PositionScaled.stays_for(factory)
        host: dict[str, Any] = {
            "qkv_bias": timms.qkv_bias,
            "attn_drop": timms.attn_drop_rate,
            "proj_drop": timms.proj_drop_rate,
        }
        for stage, (dim, depth, heads) in enumerate(zip(embed_dims, depths, num_heads, strict=True)):
            if stage:
                self.pools.append(_pool(embed_dims[stage - 1], dim))
                grid = (-(-grid[0] // 2), -(-grid[1] // 2))
            blocks = []
            for index in range(sum(depths[:stage]), sum(depths[:stage]) + depth):
                make = factory if stage or index >= scaled_blocks else PositionScaled
                attn = build_apart(make, dim=dim, num_heads=heads, grid=grid, **host)
                rate = timms.drop_path_rate * index / sum(depths)
                hidden, drop = int(dim * mlp_ratio), timms.proj_drop_rate
                blocks.append(Block(attn, dim, hidden, conv_ffn=conv_ffn, drop=drop, drop_path=rate))
            self.transformers.append(Stage(blocks))
        self.norm: nn.Module = layer_norm(self.embed_dim)
        self.head_drop = nn.Dropout(timms.drop_rate)
        self.head = self._classifier(num_classes)

    def _grid(self, img_size: int | tuple[int, int]) -> tuple[int, int]:
        """Return the height and width of the token grid of the first stage."""
        size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        if len(size) != 2 or min(map(ConvStem.length, size)) < 1:
            raise InputError(f"RVT: img_size={img_size} must be (height, width) of 15 pixels or more")
        return ConvStem.length(size[0]), ConvStem.length(size[1])

    def _classifier(self, num_classes: int) -> nn.Module:
        return nn.Linear(self.embed_dim, num_classes) if num_classes > 0 else nn.Identity()

    def get_classifier(self) -> nn.Module:
        """Return the last layer, the classifier."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put in a fresh classifier of ``num_classes`` outputs; 0 leaves it out."""
        self.num_classes = num_classes
        self.global_pool = _average(global_pool or self.global_pool)
        self.head = self._classifier(num_classes).to(next(self.norm.parameters()))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Make training keep only the inputs of blocks and compute the rest again in the backward pass."""
        for stage in self.transformers:
            stage.grad_checkpointing = enable
        hold_statistics(self)

    def keep_layers(self, number: int, *, norm: bool) -> None:
        """Keep the first blocks, counted over all stages, and drop the head with its norm, which reads averages."""
        self.norm, self.head = nn.Identity(), nn.Identity()
        for stage in self.transformers:
            stage.blocks = stage.blocks[:number]
            number -= len(stage.blocks)
        stages = sum(len(stage.blocks) > 0 for stage in self.transformers)
        self.transformers, self.pools = self.transformers[:stages], self.pools[: stages - 1]

    def no_weight_decay(self) -> set[str]:
        """Return no names: weight decay leaves out only the parameters that timm always leaves out."""
        return set()

    def token_host(self) -> StagedHost:
        """Return the model taken apart into stem, layers and head, for one call."""
        return StagedHost(
            stem=lambda images: self.pos_drop(self.patch_embed(images)),
            stages=[list(stage.blocks) for stage in self.transformers],
            pools=list(self.pools),
            head=self.forward_head,
            saves=self.training and self.transformers[0].grad_checkpointing,
            stride=ConvStem.stride,
        )

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the maps (B, embed_dim, h, w) of the last stage for images (B, in_chans, H, W)."""
        x = self.transformers[0](self.pos_drop(self.patch_embed(x)))
        for pool, stage in zip(self.pools, self.transformers[1:], strict=True):
            x = stage(pool(x))
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the logits (B, num_classes) of maps (B, embed_dim, h, w), or the classifier's input (B, embed_dim)."""
        x = self.head_drop(self.norm(x.mean((2, 3))))
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, num_classes) of images (B, in_chans, H, W)."""
        return self.forward_head(self.forward_features(x))


def _pool(dim: int, next_dim: int) -> nn.Module:
    """Return the convolution between stages: it makes several channels of half the resolution out of each channel."""
    conv = nn.Conv2d(dim, next_dim, 3, stride=2, padding=1, groups=dim)
    return nn.Sequential(OrderedDict(conv=conv))


def _average(global_pool: str) -> str:
    if global_pool != "avg":
        raise InputError(f"RVT: global_pool={global_pool!r} must be 'avg'")
    return global_pool


NAMES = ("rvt_tiny", "rvt_small", "rvt_base", "rvt_tiny_plus", "rvt_small_plus", "rvt_base_plus")
SMALL = {"embed_dims": (384,), "depths": (12,), "num_heads": (6,)}
BASE = {"embed_dims": (768,), "depths": (12,), "num_heads": (12,)}

default_cfgs = configs(NAMES, first_conv="patch_embed.proj.0")


@register_host
def rvt_tiny(pretrained: bool = False, **kwargs: Any) -> RVT:
    """Build RVT-Ti, 8.6 M parameters with `DotProduct`; arguments are those of `RVT`."""
    return build(RVT, "rvt_tiny", pretrained, kwargs)


@register_host
def rvt_small(pretrained: bool = False, **kwargs: Any) -> RVT:
    """Build RVT-S; arguments are those of `RVT`."""
    return build(RVT, "rvt_small", pretrained, kwargs, **SMALL)


@register_host
def rvt_base(pretrained: bool = False, **kwargs: Any) -> RVT:
    """Build RVT-B, whose feed-forward layers have no convolution; arguments are those of `RVT`."""
    return build(RVT, "rvt_base", pretrained, kwargs, **BASE, conv_ffn=False)


@register_host
def rvt_tiny_plus(pretrained: bool = False, **kwargs: Any) -> RVT:
    """Build RVT-Ti*, whose first stage scales attention by position; arguments are those of `RVT`."""
    return build(RVT, "rvt_tiny_plus", pretrained, kwargs, scaled_blocks=10)


@register_host
def rvt_small_plus(pretrained: bool = False, **kwargs: Any) -> RVT:
    """Build RVT-S*, whose first five blocks scale attention by position; arguments are those of `RVT`."""
    return build(RVT, "rvt_small_plus", pretrained, kwargs, **SMALL, scaled_blocks=5)


@register_host
def rvt_base_plus(pretrained: bool = False, **kwargs: Any) -> RVT:
    """Build RVT-B*, whose first five blocks scale attention by position; arguments are those of `RVT`.

    Its feed-forward layers have a convolution, as in the code of Mao et al. and unlike VARS' RVT-B.
    """
    return build(RVT, "rvt_base_plus", pretrained, kwargs, **BASE, scaled_blocks=5)
