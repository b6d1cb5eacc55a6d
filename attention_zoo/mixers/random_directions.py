"""The random directions of the mixers whose features are random: drawn once, saved with the layer."""

import torch
from torch import Tensor

from attention_zoo.functional.precision import precise
from attention_zoo.functional.random_features import orthogonal_directions
from attention_zoo.options import real


class RandomDirections:
    """Mix-in of a `SelfMixer`: the buffer ``rand_matrix`` (H, D, M) of directions."""

    rand_matrix: Tensor

    def draw_directions(self, feature_ratio: float, orthogonal: bool = True, most: int = 1 << 16) -> int:
        """Draw and register ``feature_ratio`` directions per channel of a head; returns their number M.

        Args:
            feature_ratio: directions per channel.
            orthogonal: within each block of a head's width; else all are independent, as the released VARS has them.
            most: directions of a head that memory will hold.

        Raises:
            InputError: the ratio leaves none, or too many.
        """
        self.check(*real("feature_ratio", feature_ratio, strict=True))
        number = round(feature_ratio * self.head_dim)
        self.check(number <= most, f"feature_ratio={feature_ratio} makes more than {most} features a head")
        self.check(number > 0, f"feature_ratio={feature_ratio} leaves no feature for heads of width {self.head_dim}")
        weight = self.proj.weight
        shape = (self.num_heads, self.head_dim, number)
        draw = orthogonal_directions if orthogonal else torch.randn
        drawn = draw(*shape, device=weight.device)
        self.register_buffer("rand_matrix", drawn.to(weight.dtype))
        return number

    @property
    def directions(self) -> Tensor:
        """The directions in float32 or wider, since features are exponentials."""
        return precise(self.rand_matrix)
