"""A 1 x 1 convolution on tokens."""

import torch.nn.functional as F
from torch import Tensor, nn


class Pointwise(nn.Conv2d):
    """A linear layer (B, N, in) -> (B, N, out) whose weight (out, in, 1, 1) is that of a 1 x 1 convolution.

    Models that keep their tokens as images have such weights, which so load as they are.

    Args:
        inputs: width of the tokens.
        outputs: width of the result.
        **options: ``bias``, ``device`` and ``dtype`` of ``torch.nn.Conv2d``.
    """

    def __init__(self, inputs: int, outputs: int, **options: object) -> None:
        super().__init__(inputs, outputs, 1, **options)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, in) -> (B, N, out)."""
        return F.linear(x, self.weight.flatten(1), self.bias)
