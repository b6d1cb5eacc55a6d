"""The random directions of the mixers whose features are random: drawn once, saved with the layer."""

import torch
from torch import Tensor

from attention_zoo.functional.random_features import orthogonal_directions
from attention_zoo.mixers.base import SelfMixer


def draw_directions(mixer: SelfMixer, feature_ratio: float, *, orthogonal: bool, most: int = 1 << 16) -> Tensor:
    """Draw directions (H, D, M) for a mixer's queries and keys, ``feature_ratio`` per channel of a head.

    Args:
        mixer: the mixer that will keep them as a buffer.
        feature_ratio: directions per channel of a head.
        orthogonal: whether directions are orthogonal within each block of a head's width; if not, all are independent,
            as in the released VARS.
        most: the most directions that a head may have, so that memory holds them.

    Raises:
        InputError: the ratio leaves none, or too many.
    """
    number = round(feature_ratio * mixer.head_dim)
    mixer.check(number <= most, f"feature_ratio={feature_ratio} makes more than {most} features a head")
    mixer.check(number > 0, f"feature_ratio={feature_ratio} leaves no feature for heads of width {mixer.head_dim}")
    shape, device = (mixer.num_heads, mixer.head_dim, number), mixer.made["device"]
    drawn = orthogonal_directions(*shape, device=device) if orthogonal else torch.randn(shape, device=device)
    return drawn.to(mixer.made["dtype"])
