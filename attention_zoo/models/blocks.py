"""The block of a mixer and a feed-forward step of another kind than timm's, with the signature of timm's ``Block``."""

from typing import Any, ClassVar

from timm.layers import DropPath
from torch import Tensor, nn

from attention_zoo.errors import InputError


class MixerBlock(nn.Module):
    """Norm, mixer, norm and feed-forward step, (B, N, dim) -> (B, N, dim); a subclass says how they are put together.

    The arguments are those of timm's ``Block``; those not named here go to the mixer, which refuses unknown ones.
    A layer scale and a norm inside the feed-forward step have no place here.

    Raises:
        InputError: a layer scale or such a norm is asked for.
    """

    MODEL: ClassVar[str]
    """What has these blocks, for messages."""
    MIXER: ClassVar[str] = "attn"
    """The name of the mixer in state dicts."""

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
        drop_path: float,
        scale_mlp_norm: bool = False,
        init_values: float | None = None,
        depth: int = 0,
        **attention: Any,
    ) -> None:
        super().__init__()
        if init_values is not None or scale_mlp_norm:
            raise InputError(
                f"{self.MODEL}: init_values={init_values}, scale_mlp_norm={scale_mlp_norm}: block {depth} has no layer "
                "scale and no norm in its feed-forward step"
            )
        placed: dict[str, Any] = {name: attention.get(name) for name in ("device", "dtype")}
        scale_norm, drop = attention.pop("scale_attn_norm", False), attention.get("proj_drop", 0.0)
        mixer = {"num_heads": num_heads, "scale_norm": scale_norm, "norm_layer": norm_layer, **attention}
        self.norm1 = norm_layer(dim, **placed)
        self.add_module(self.MIXER, attn_layer(dim, **mixer))
        self.norm2 = norm_layer(dim, **placed)
        self.mlp = self.feed_forward(mlp_layer, dim, int(dim * mlp_ratio), act_layer=act_layer, drop=drop, **placed)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def feed_forward(self, mlp_layer: type[nn.Module], dim: int, hidden: int, **mlp: Any) -> nn.Module:
        """Return the feed-forward step from and to ``dim`` channels: timm's layer."""
        return mlp_layer(dim, hidden, **mlp)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Return the tokens (B, N, dim) after the block; the masks go to the mixer, which may refuse them."""
        return self.run(x, attn_mask=attn_mask, is_causal=is_causal)

    def run(self, x: Tensor, **signal: Any) -> Tensor:
        """Return the tokens (B, N, dim) after the block; keyword arguments, such as signals, go to the mixer."""
        raise NotImplementedError
