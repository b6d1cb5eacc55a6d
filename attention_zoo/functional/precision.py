"""In which type exponents, normalisers and long sums are computed."""

import torch
from torch import Tensor


def precise(x: Tensor) -> Tensor:
    """``x`` in float32 or wider, whatever type autocast made it."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
