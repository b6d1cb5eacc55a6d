"""Depthwise convolutions that some mixers add to attention: applied to values on the grid, and as matrices."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def convolve_grid(conv: nn.Conv2d, v: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return a depthwise convolution of the tokens of the grid; prefix tokens have no neighbours and get zero.

    Args:
        conv: the convolution, of H * D channels.
        v: values of the tokens (B, H, N, D).
        grid: height and width; the tokens before it are the prefix.

    Returns:
        The convolved values (B, H, N, D).
    """
    prefix = v.shape[2] - grid[0] * grid[1]
    image = v[:, :, prefix:].transpose(2, 3).flatten(1, 2).unflatten(-1, grid)  # (B, H D, height, width)
    convolved = conv(image).flatten(2).unflatten(1, v.shape[1::2]).transpose(2, 3)
    return F.pad(convolved, (0, 0, prefix, 0)).to(v.dtype)


def convolution_map(conv: nn.Conv2d, heads: int, grid: tuple[int, int], prefix: int) -> Tensor:
    """Return `convolve_grid` as a matrix (H, N, N): the mean kernel of a head's channels, at every token."""
    number = grid[0] * grid[1]
    kernel = conv.weight.unflatten(0, (heads, -1)).mean(1)  # (H, 1, kh, kw)
    impulses = torch.eye(number, dtype=kernel.dtype, device=kernel.device).view(number, 1, *grid)
    answers = F.conv2d(impulses, kernel, padding=conv.padding).flatten(2)  # (read, H, reader)
    return F.pad(answers.permute(1, 2, 0), (prefix, 0, prefix, 0))
