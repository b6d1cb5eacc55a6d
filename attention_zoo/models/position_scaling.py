"""Position-aware attention scaling: dot products are scaled by how much two places of the grid have to do with another.

    out = softmax(Q Kᵀ/√d ∘ sigmoid(W)) V,    W learned for every pair of places and every head

X. Mao et al., Towards Robust Vision Transformer, CVPR 2022, section 3.2. The sigmoid is that of the released code
(github.com/vtddggg/Robust-Vision-Transformer); the paper's eq. 5 has W itself.
"""

from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.errors import InputError
from attention_zoo.mixers.base import HostOptions, SelfMixer
from attention_zoo.mixers.registry import Factory


class PositionScaled(SelfMixer):
    """Softmax attention whose scores are scaled by position; a part of `RVT`'s models, not a mixer by name.

    On another grid than its own W is resampled bilinearly, in the places that read and in those that are read. W starts
    at zero, where all scores are halved; the released code leaves it to chance.

    Args:
        dim: token width.
        num_heads: heads.
        **host: see `SelfMixer`; a ``grid`` is needed, and no prefix tokens.

    Raises:
        InputError: there is no grid, or there are prefix tokens.
    """

    reading = "kernel smoothing, scaled by position"
    paper = "Mao et al. 2022 (RVT)"
    equation = "softmax(Q Kᵀ/√d ∘ σ(W)) V"
    complexity = "N²"
    drops_attention = True
    tokens = "grid"

    def __init__(self, dim: int, num_heads: int = 8, **host: Unpack[HostOptions]) -> None:
        super().__init__(dim, num_heads, **host)
        self.check(self.grid is not None and not self.num_prefix_tokens, "it needs grid= and takes no prefix tokens")
        self.made_for = height, width = self.grid or (1, 1)
        self.att_mask = nn.Parameter(torch.zeros(num_heads, height * width, height * width, **self.made))

    @staticmethod
    def stays_for(factory: Factory[SelfMixer]) -> bool:
        """Return True for `DotProduct`, whose scores these are; it is not swapped for the unscaled one.

        Raises:
            InputError: another mixer is to stand here, which would leave the scales behind.
        """
        if factory.name != "DotProduct" or factory.options:
            options = ", ".join(factory.options)
            chosen = factory.name if factory.name != "DotProduct" else f"DotProduct with {options}"
            raise InputError(
                f"RVT: the first blocks of a _plus model (scaled_blocks=) scale dot products by position, which "
                f"{chosen} does not do: give DotProduct, or a model without _plus"
            )
        return True

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the mixed values (B, H, N, D) of queries q, keys k and values v, all (B, H, N, D)."""
        return self.attn_drop(self.map_weights(q, k, v)).to(v.dtype) @ v

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the softmax weights (B, H, N, N)."""
        return (q @ k.mT * self.head_dim**-0.5 * self.scales(q.shape[2])).softmax(-1)

    def scales(self, number: int) -> Tensor:
        """Return the factors (H, N, N) of the scores between ``number`` tokens, N, each in 0..1."""
        grid, own = self.spatial_shape(number), self.made_for
        weight: Tensor = self.att_mask
        if grid != own:
            for _ in range(2):  # the places that are read, then those that read
                places = F.interpolate(weight.unflatten(2, own), grid, mode="bilinear", align_corners=False)
                weight = places.flatten(2).mT
        return weight.sigmoid()
