"""Parameters of a mixture's units: numbers learned for each head or predicted from the token, and components."""

import math
from typing import Any, Literal, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.functional.mixture import Precision
from attention_zoo.functional.positions import SplitPrior
from attention_zoo.mixers.base import Made

LEAST = 1e-6
"""The least precision that is learned, so that its logarithm is finite."""


class UnitNumber(nn.Module):
    """A positive number for each unit: softplus of a parameter of its head, or of a linear map of its key in all heads.

    Keys are linear in the tokens, so the map is one of the token x_j: alpha_j(x), beta_j(x) of P. Gabbur et al. 2021,
    section 3.3. It works wherever keys do, also where there are no tokens but queries, keys and values.

    Args:
        start: the number at the start, for every token.
        dim: token width.
        num_heads: heads.
        source: "learned" or "predicted".
        **made: device and type of the parameters.
    """

    def __init__(
        self, start: float, dim: int, num_heads: int, source: Literal["learned", "predicted"], **made: Unpack[Made]
    ) -> None:
        super().__init__()
        raw = softplus_inverse(start)
        self.raw: nn.Parameter | None = None
        self.linear: nn.Linear | None = None
        if source == "learned":
            self.raw = nn.Parameter(torch.full((num_heads,), raw, **made))
        else:
            self.linear = nn.Linear(dim, num_heads, **made)
            nn.init.zeros_(self.linear.weight)
            nn.init.constant_(self.linear.bias, raw)

    def forward(self, k: Tensor) -> Tensor:
        """Return the numbers (B, H, M) of units with keys k (B, H, M, D), in the type of the keys."""
        if self.raw is not None:
            return F.softplus(self.raw.to(k.dtype)).clamp(min=LEAST)[:, None].expand(k.shape[:3])
        return F.softplus(of_keys(self.linear, k)).clamp(min=LEAST)


def of_keys(linear: nn.Linear | None, k: Tensor) -> Tensor:
    """Return a linear map (B, H, M) of the keys k (B, H, M, D), all heads of a unit together."""
    assert linear is not None  # for type checkers
    bias = None if linear.bias is None else linear.bias.to(k.dtype)
    return F.linear(k.transpose(1, 2).flatten(2), linear.weight.to(k.dtype), bias).transpose(1, 2)


def softplus_inverse(x: float) -> float:
    """Return the number whose softplus is ``x``, above 0."""
    return x + math.log(-math.expm1(-x))


class GaussianComponents(nn.Module):
    """Several Gaussians for each unit: of keys xi_j + shift_r, precisions alpha_j ratio_r and shares pi_r, all learned.

    At the start component r has three times the precision of the one before and the same key and share.

    Args:
        number: Gaussians of each unit.
        num_heads: heads.
        head_dim: width of a head.
        **made: device and type of the parameters.
    """

    def __init__(self, number: int, num_heads: int, head_dim: int, **made: Unpack[Made]) -> None:
        super().__init__()
        self.number = number
        ratios = torch.tensor([softplus_inverse(3.0**r) for r in range(number)], **made)
        self.shift = nn.Parameter(torch.zeros(num_heads, number, head_dim, **made))
        self.ratio = nn.Parameter(ratios.repeat(num_heads, 1))
        self.share = nn.Parameter(torch.zeros(num_heads, number, **made))

    def forward(self, k: Tensor, alpha: Precision) -> tuple[Tensor, Tensor, Tensor]:
        """Return keys (B, H, R M, D), precisions and log shares (B, H, R M), component by component."""
        shift, ratio, share = (x.to(k.dtype) for x in (self.shift, self.ratio, self.share))
        keys = k[:, :, None] + shift[:, :, None]  # (B, H, R, M, D)
        alpha = alpha[:, :, None] if isinstance(alpha, Tensor) else alpha
        precisions = (F.softplus(ratio).clamp(min=LEAST)[:, :, None] * alpha).expand(keys.shape[:4])
        shares = share.log_softmax(-1)[:, :, None].expand(keys.shape[:4])
        return keys.flatten(2, 3), precisions.flatten(2), shares.flatten(2)

    def repeated(self, x: Tensor, dim: int) -> Tensor:
        """Return what belongs to the units along ``dim``, once for each component."""
        return torch.cat([x] * self.number, dim)


def repeat_terms(terms: dict[str, Any], components: GaussianComponents) -> dict[str, Any]:
    """Return the terms that several Gaussians of a unit share, in the places of all."""
    mixing, prior = terms.get("log_mixing"), terms.get("log_prior")
    changed = dict(terms)
    if mixing is not None:
        changed["log_mixing"] = components.repeated(mixing, -1)
    if isinstance(prior, Tensor):
        changed["log_prior"] = _repeated_mask(prior, components)
    if isinstance(prior, SplitPrior) and prior.mask is not None:  # components have no other parts than a mask
        changed["log_prior"] = prior._replace(mask=_repeated_mask(prior.mask, components))
    return changed


def _repeated_mask(mask: Tensor, components: GaussianComponents) -> Tensor:
    """Return a mask (..., N, M) once for each component (..., N, R M)."""
    if mask.shape[-1] == 1:
        return mask
    once = mask[tuple(slice(1) if not step else slice(None) for step in mask.stride()[:-1])]  # what is expanded
    return components.repeated(once, -1)
