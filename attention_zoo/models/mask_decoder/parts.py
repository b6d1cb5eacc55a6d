"""Parts of mask decoders: normalised projections of maps and tokens, coordinates, resizing."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import DropPath, trunc_normal_tf_
from torch import Tensor, nn

EPS, MOMENTUM = 1e-3, 0.01
"""The epsilon and momentum of every batch normalisation, as in kMaX-DeepLab."""

MapNorm: Any = partial(nn.BatchNorm2d, eps=EPS, momentum=MOMENTUM)
"""Batch normalisation of the channels of maps (B, C, h, w)."""


class TokenNorm(nn.Module):
    """Batch normalisation of the channels of tokens (B, N, C).

    Args:
        channels: C.
        gain: the gain before training; with 0 a residual branch starts as zero.
    """

    def __init__(self, channels: int, gain: float = 1.0) -> None:
        super().__init__()
        # a part, so that it can be made a SyncBatchNorm
        self.norm = nn.BatchNorm1d(channels, eps=EPS, momentum=MOMENTUM)
        nn.init.constant_(self.norm.weight, gain)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised tokens (B, N, C)."""
        return self.norm(x.flatten(0, 1)).view(x.shape)


class ConvNorm(nn.Sequential):
    """A convolution of a map, batch normalisation, and GELU if asked for.

    Args:
        in_channels: number of channels of the map.
        out_channels: number of channels of the result.
        kernel_size: side of the kernel, odd; the map keeps its size.
        depthwise: whether each channel is convolved by itself.
        act: whether a GELU follows.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, *, depthwise: bool = False, act: bool = True
    ) -> None:
        groups = in_channels if depthwise else 1
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding="same", groups=groups, bias=False)
        if depthwise:
            nn.init.xavier_uniform_(conv.weight)
        else:
            nn.init.kaiming_normal_(conv.weight)
        super().__init__(conv, MapNorm(out_channels), nn.GELU() if act else nn.Identity())


class LinearNorm(nn.Sequential):
    """A linear map of tokens, batch normalisation, and GELU if asked for.

    Args:
        in_dim: width of the tokens.
        out_dim: width of the result.
        act: whether a GELU follows.
        gain: the normalisation's gain before training.
    """

    def __init__(self, in_dim: int, out_dim: int, *, act: bool = False, gain: float = 1.0) -> None:
        linear = nn.Linear(in_dim, out_dim, bias=False)
        trunc_normal_tf_(linear.weight, std=in_dim**-0.5)
        super().__init__(linear, TokenNorm(out_dim, gain), nn.GELU() if act else nn.Identity())


class PixelHead(nn.Module):
    """Prepares a map for mask prediction: depthwise 5 x 5 and 1 x 1 convolution, each normalised and activated.

    Args:
        in_channels: number of channels of the map.
        out_channels: number of channels of the result.
        coordinates: add where a pixel is, so that equal things in two places can be told apart (CMT-DeepLab's
            coordinate convolution): two more channels of the 1 x 1 convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, *, coordinates: bool = False) -> None:
        super().__init__()
        self.coordinates = coordinates
        self.near = ConvNorm(in_channels, in_channels, 5, depthwise=True)
        self.mix = ConvNorm(in_channels + 2 * coordinates, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the prepared map (B, out_channels, h, w) of a map (B, in_channels, h, w)."""
        x = self.near(x)
        return self.mix(with_coordinates(x) if self.coordinates else x)


class ClassHead(nn.Module):
    """Gives the class logits of queries; before training the probability of void is about 0.9.

    Args:
        dim: width of the queries.
        num_classes: C, the number of classes without void.
    """

    VOID_PRIOR = 0.9

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, num_classes + 1)
        trunc_normal_tf_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)
        odds = torch.tensor(num_classes * self.VOID_PRIOR / (1 - self.VOID_PRIOR))
        self.register_buffer("prior", F.pad(odds.log()[None], (num_classes, 0)), persistent=False)

    def forward(self, queries: Tensor) -> Tensor:
        """Return the class logits (B, L, C + 1) of queries (B, L, dim), void last."""
        return self.linear(queries) + self.prior


def with_coordinates(x: Tensor) -> Tensor:
    """Return a map (B, C + 2, h, w): the map (B, C, h, w) and each pixel's row and column in -1..1."""
    sides = [torch.linspace(-1, 1, side, device=x.device, dtype=x.dtype) for side in x.shape[2:]]
    places = torch.stack(torch.meshgrid(*sides, indexing="ij"))
    return torch.cat([x, places.expand(len(x), -1, -1, -1)], 1)


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Return a map (B, C, h, w) resized to (B, C, *size), bilinear; if all sides are odd, the corners coincide."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    corners = all(side % 2 == 1 for side in (*x.shape[2:], *size))
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=corners)


def drop_path(rate: float) -> nn.Module:
    """Return a module for stochastic depth of a residual branch; for rate 0 it does nothing."""
    return DropPath(rate) if rate else nn.Identity()
