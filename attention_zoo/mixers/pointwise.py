"""A 1 x 1 convolution that takes tokens in place of an image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Pointwise(nn.Conv2d):
    """A linear layer (B, N, in) -> (B, N, out) whose weight (out, in, 1, 1) is that of a 1 x 1 convolution.

    Models that keep their tokens as images have such weights, and these load unchanged.

    Args:
        inputs: width of the tokens.
        outputs: width of the result.
        bias: whether the layer has a bias.
        device: where the parameters are made.
        dtype: type of the parameters.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool = True,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(inputs, outputs, 1, bias=bias, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return the linear map (B, N, out) of tokens x (B, N, in)."""
        return F.linear(x, self.weight.flatten(1), self.bias)
