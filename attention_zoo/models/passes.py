"""What the two passes of a model that looks twice leave: tokens, what flows back, and states of layers."""

from dataclasses import dataclass

from torch import Tensor

from attention_zoo.models.token_hosts import TokenHost


@dataclass(frozen=True)
class FirstPass:
    """The bottom-up pass of images, which the second passes of all priors share.

    Attributes:
        tokens: (B, N, dim), the input of the first layer.
        output: (B, M, dim), the tokens that a prior is compared with; the head of the plain model reads them.
        states: input and output of each of the layers to keep, (B, N, dim) each.
        host: the model taken apart, which remembers the token grids of these images.
    """

    tokens: Tensor
    output: Tensor
    states: list[tuple[Tensor, Tensor]]
    host: TokenHost


@dataclass(frozen=True)
class SecondPass:
    """The top-down pass of images under a prior.

    Attributes:
        output: (B, M, dim), the tokens that the head reads.
        similarity: (B, M, 1), how much each output token of the first pass is what the prior asks for, in [0, 1].
        signals: what flows back to each layer, r of the equations, (B, N, dim) each, from the first layer to the
            last; empty in the modes without feedback.
        states: input and output of each of the layers to keep; with ``perceiver_io``, which has no second pass, those
            that the first pass kept.
    """

    output: Tensor
    similarity: Tensor
    signals: list[Tensor]
    states: list[tuple[Tensor, Tensor]]
