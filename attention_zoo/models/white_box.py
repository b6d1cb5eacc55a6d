"""The white-box block: a mixer compresses tokens, then one step of sparse coding takes the place of the MLP.

    x <- x + mix(norm(x)),    z = norm(x),    x <- relu(z + eta D^T (z - D z) - eta lambda)

With the mixer `CRATE` it is the block of Y. Yu, S. Buchanan, D. Pai, T. Chu, Z. Wu, S. Tong, B. Haeffele, Y. Ma,
White-Box Transformers via Sparse Rate Reduction, NeurIPS 2023 (eq. 14, 17). Any timm ``VisionTransformer`` is built of
it with ``model_args: {feed_forward: ista}``.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.errors import InputError
from attention_zoo.models.blocks import MixerBlock

STEP_SIZE, SPARSITY = 0.1, 0.1
"""eta and lambda of the released code."""


class SparseCoding(nn.Module):
    """One step of ISTA from tokens z to their non-negative sparse codes in a square dictionary D, in place of an MLP.

    From u = z, where z is not negative, it lowers ``½ |z − D u|² + λ |u|₁`` as long as eta is below 1 over the largest
    eigenvalue of DᵀD.

    Args:
        dim: token width.
        step_size: eta.
        sparsity: lambda.
        device: where the dictionary is made.
        dtype: type of the dictionary.
    """

    def __init__(
        self,
        dim: int,
        step_size: float = STEP_SIZE,
        sparsity: float = SPARSITY,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.step_size, self.sparsity = step_size, sparsity
        self.weight = nn.Parameter(torch.empty(dim, dim, device=device, dtype=dtype))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, z: Tensor) -> Tensor:
        """Return the codes (..., dim) of tokens z (..., dim)."""
        rest = z - F.linear(z, self.weight)
        return (z + self.step_size * F.linear(rest, self.weight.mT) - self.step_size * self.sparsity).relu()


class WhiteBoxBlock(MixerBlock):
    """Mixer with a residual, then `SparseCoding` without one; see `MixerBlock`.

    Dictionaries are square and have no activation but their own, so that ``mlp_ratio``, ``mlp_layer`` and ``act_layer``
    say nothing here.
    """

    MODEL = "feed_forward='ista'"

    attn: nn.Module

    def feed_forward(self, mlp_layer: type[nn.Module], dim: int, hidden: int, **mlp: Any) -> nn.Module:
        """Return the step of sparse coding in ``dim`` atoms."""
        return SparseCoding(dim, device=mlp["device"], dtype=mlp["dtype"])

    def run(self, x: Tensor, **signal: Any) -> Tensor:
        """Return the tokens (B, N, dim) after the block; keyword arguments, such as signals, go to the mixer."""
        return self.mlp(self.norm2(x + self.drop_path(self.attn(self.norm1(x), **signal))))


FEED_FORWARD = {"ista": WhiteBoxBlock}
"""The blocks of other feed-forward steps than timm's, by the name that ``model_args`` give the step."""

WITHOUT = ("block_fn", "mlp_layer", "mlp_ratio", "act_layer")
"""Arguments of timm's models that say nothing, or something else, beside a feed-forward step of ours."""


def with_feed_forward(args: dict[str, Any]) -> dict[str, Any]:
    """Return arguments of a timm model, with the blocks of its ``feed_forward`` step if they name one.

    Raises:
        InputError: there is no such step, or another argument says what the blocks are made of.
    """
    if "feed_forward" not in args:
        return args
    rest = {key: value for key, value in args.items() if key != "feed_forward"}
    name = args["feed_forward"]
    if name is None:
        return rest
    if not isinstance(name, str) or name not in FEED_FORWARD:
        raise InputError(
            f"model_args: feed_forward={name!r} must be one of: {', '.join(FEED_FORWARD)}; or leave it out"
        )
    for key in WITHOUT:
        if key in rest:
            raise InputError(
                f"model_args: {key}={rest[key]!r} has no meaning beside feed_forward={name!r}; leave it out"
            )
    return {**rest, "block_fn": FEED_FORWARD[name]}
