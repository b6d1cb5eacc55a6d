"""FAN: fully attentional networks, whose feed-forward layers weigh channels by attention, around any self-mixer.

D. Zhou, Z. Yu, E. Xie, C. Xiao, A. Anandkumar, J. Feng, J. Alvarez, Understanding The Robustness in Vision
Transformers, ICML 2022. The stem, the Fourier positions and the two layers of class attention are XCiT's.
"""

from typing import Any

import torch
from timm.layers import DropPath
from timm.models.xcit import LPI, Xcit
from torch import Tensor, nn

from attention_zoo.mixers.base import MixerFactory, SelfMixer
from attention_zoo.mixers.running_statistics import hold_statistics
from attention_zoo.models.registration import Variant, build, build_apart, configs, mixer_factory, register_host


class ConvMlp(nn.Module):
    """Two linear layers with a residual convolution between them, of tokens (B, N, dim) on a grid."""

    def __init__(self, dim: int, hidden: int, drop: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = LPI(hidden)
        self.gamma = nn.Parameter(torch.ones(hidden))
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """Return the tokens (B, N, dim) of a grid of this height and width after both layers."""
        x = self.fc1(x)
        x = x + self.drop(self.gamma * self.dwconv(x, height, width))
        return self.drop(self.fc2(x))


class ChannelProcessing(nn.Module):
    """Weighs the channels of processed tokens by attention among channels, in the place of a feed-forward layer.

    A channel's weight is ``sigmoid(softmax(W x)ᵀ mean softmax(x))`` times a temperature of its head: softmax is over
    tokens, and the mean over the channels of a head (section 3.2).

    Args:
        dim: width of the tokens.
        num_heads: heads.
        hidden: width between the layers that process the tokens.
        qkv_bias: whether the projection of queries has a bias.
        attn_drop: dropout of weights.
        drop: dropout of the processed tokens.
    """

    def __init__(
        self, dim: int, num_heads: int, hidden: int, qkv_bias: bool = True, attn_drop: float = 0.0, drop: float = 0.0
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.mlp_v = ConvMlp(dim, hidden, drop)
        self.norm_v = nn.LayerNorm(dim, eps=1e-6)
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """Return the tokens (B, N, dim) of a grid of this height and width, processed and weighed."""
        q, k = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (self.q(x), x))  # (B, H, N, D)
        weights = (q.softmax(2).mT @ k.softmax(2).mean(-1, keepdim=True)).sigmoid() * self.temperature  # (B, H, D, 1)
        weights = self.attn_drop(weights).flatten(1)[:, None]
        return weights * self.norm_v(self.mlp_v(x, height, width))


class FanBlock(nn.Module):
    """A self-mixer and channel processing, each with a norm before and a learned scale after it."""

    def __init__(self, attn: SelfMixer, mlp: ChannelProcessing, drop_path: float, eta: float) -> None:
        super().__init__()
        dim = attn.dim
        self.norm1, self.attn = nn.LayerNorm(dim, eps=1e-6), attn
        self.norm2, self.mlp = nn.LayerNorm(dim, eps=1e-6), mlp
        self.gamma1, self.gamma2 = nn.Parameter(eta * torch.ones(dim)), nn.Parameter(eta * torch.ones(dim))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """Return the tokens (B, N, dim) of a grid of this height and width after the block."""
        self.attn.set_grid((height, width))
        x = x + self.drop_path(self.gamma1 * self.attn(self.norm1(x)))
        return x + self.drop_path(self.gamma2 * self.mlp(self.norm2(x), height, width))


class FAN(Xcit):
    """timm's ``Xcit`` with the blocks of FAN and any self-mixer; its stem takes images of any size of whole patches.

    The authors' weights load: their projections of queries, and of keys and values, are put together.

    Args:
        mixer: a name of ``list_mixers("self")`` or a factory.
        mixer_args: the mixer's own arguments.
        variant: handed to mixers that know it.
        **xcit: arguments of timm's ``Xcit``, such as ``img_size``, which mixers are built for.

    Raises:
        InputError: the mixer is unknown or does not fit.
    """

    def __init__(
        self,
        *,
        mixer: str | MixerFactory = "DotProduct",
        mixer_args: dict[str, Any] | None = None,
        variant: Variant = "paper",
        **xcit: Any,
    ) -> None:
        timms = {"embed_dim": 192, "depth": 12, "num_heads": 4, "mlp_ratio": 4.0, "qkv_bias": True, "eta": 1.0, **xcit}
        super().__init__(**{"patch_size": 16, "tokens_norm": True, **timms, "depth": 0})
        factory = mixer_factory(mixer, mixer_args, variant)
        embed: Any = self.patch_embed
        dim, depth, heads, bias = self.embed_dim, timms["depth"], timms["num_heads"], timms["qkv_bias"]
        grid = embed.img_size[0] // embed.patch_size, embed.img_size[1] // embed.patch_size
        dropped, attn_dropped = timms.get("proj_drop_rate", 0.0), timms.get("attn_drop_rate", 0.0)
        host = {"qkv_bias": bias, "attn_drop": attn_dropped, "proj_drop": dropped, "grid": grid}
        for _ in range(depth):
            attn = build_apart(factory, dim=dim, num_heads=heads, **host)
            mlp = ChannelProcessing(dim, heads, int(dim * timms["mlp_ratio"]), bias, attn_dropped, dropped)
            mlp.apply(_start)
            self.blocks.append(FanBlock(attn, mlp, timms.get("drop_path_rate", 0.0), timms["eta"]))
        reduction = {"num_chs": dim, "reduction": embed.patch_size}
        self.feature_info = [reduction | {"module": f"blocks.{index}"} for index in range(depth)]
        self.register_load_state_dict_pre_hook(_as_ours)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Make training keep only the inputs of blocks and compute the rest again in the backward pass."""
        super().set_grad_checkpointing(enable)
        hold_statistics(self)


def _start(part: nn.Module) -> None:
    """Give the layers of channel processing their first weights, as released."""
    if isinstance(part, nn.Linear):
        nn.init.trunc_normal_(part.weight, std=0.02)
        if part.bias is not None:
            nn.init.zeros_(part.bias)
    elif isinstance(part, nn.Conv2d):
        nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        if part.bias is not None:
            nn.init.zeros_(part.bias)


def _as_ours(model: nn.Module, state: dict[str, Tensor], prefix: str, *more: Any) -> None:
    """Rename the weights of the authors' files in ``state`` to those of `FAN`; others stay as they are."""
    for name in [name for name in state if name.startswith(prefix)]:
        head, dot, kind = name.rpartition(".attn.q.")
        if dot and ".blocks." in f".{head}":
            rows = state.pop(name), state.pop(f"{head}.attn.kv.{kind}")
            state[f"{head}.attn.qkv.{kind}"] = torch.cat(rows)
        elif name.startswith(f"{prefix}pos_embeder."):
            state[name.replace("pos_embeder.", "pos_embed.")] = state.pop(name)


SIZES: dict[str, dict[str, int]] = {
    "fan_tiny": {"embed_dim": 192, "depth": 12, "num_heads": 4},
    "fan_small": {"embed_dim": 384, "depth": 12, "num_heads": 8},
    "fan_base": {"embed_dim": 448, "depth": 18, "num_heads": 8},
    "fan_large": {"embed_dim": 480, "depth": 24, "num_heads": 10},
}
"""Width, depth and heads of the released models."""

FEATURES = {"out_indices": 3, "feature_cls": "getter"}
"""How timm takes the maps of some blocks from the model."""

default_cfgs = configs(SIZES, first_conv="patch_embed.proj.0.0")


@register_host
def fan_tiny(pretrained: bool = False, **kwargs: Any) -> FAN:
    """Build FAN-T-ViT, 7 M parameters; arguments are those of `FAN`."""
    return build(FAN, "fan_tiny", pretrained, kwargs, **SIZES["fan_tiny"], feature_cfg=FEATURES)


@register_host
def fan_small(pretrained: bool = False, **kwargs: Any) -> FAN:
    """Build FAN-S-ViT, 28 M parameters; arguments are those of `FAN`."""
    return build(FAN, "fan_small", pretrained, kwargs, **SIZES["fan_small"], feature_cfg=FEATURES)


@register_host
def fan_base(pretrained: bool = False, **kwargs: Any) -> FAN:
    """Build FAN-B-ViT, 54 M parameters; arguments are those of `FAN`."""
    return build(FAN, "fan_base", pretrained, kwargs, **SIZES["fan_base"], feature_cfg=FEATURES)


@register_host
def fan_large(pretrained: bool = False, **kwargs: Any) -> FAN:
    """Build FAN-L-ViT, 81 M parameters; arguments are those of `FAN`."""
    return build(FAN, "fan_large", pretrained, kwargs, **SIZES["fan_large"], feature_cfg=FEATURES)
