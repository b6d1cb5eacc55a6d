"""Corrective self-attention: a head whose units read each other, and whose values contain the clicks.

    q, k = W x,    v = W [x, P, N],    logits = mix(q, k, v; clicked units fixed to the logit of their class)

x are the features and P, N the corrective channels, 1 where somebody clicked. Axial: a block along the height, then
one along the width that is densely connected, v = W [x, output of the height, P, N]. Its queries and keys are still
those of x, so that who reads whom depends on what is seen and not on what was clicked.

P. Gabbur, M. Bilkhu, J. Movellan, Probabilistic Attention for Interactive Segmentation, NeurIPS 2021, sections 4.3 and
4.4.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.clicks import Clicks
from attention_zoo.errors import InputError, unknown
from attention_zoo.functional.fixed_units import FixedValues
from attention_zoo.mixers.axial import Axial
from attention_zoo.mixers.base import MixerFactory, SelfMixer
from attention_zoo.mixers.probabilistic import Probabilistic
from attention_zoo.mixers.registry import as_factory
from attention_zoo.models.interactive.head import InteractiveHead, upsample
from attention_zoo.models.interactive.units import ClickedUnits

CLASSES = 2
"""The number of classes, background and object; the mask's logit is the object's logit minus the background's."""
BETA = 0.1
"""The default precision of the values (appendix C.4)."""
FIRST_LOGIT = 4.0
"""The logit of a clicked unit's class before training: 98 % sure."""


class CorrectiveAttention(InteractiveHead):
    """A head that classifies pixels by corrective self-attention; see the module.

    Value propagation and key adaptation are the mixer's options, which `attention_zoo.set_adaptation` switches.
    The fixed logits are trained if ``mixer`` was built to propagate.

    Args:
        in_channels: number of channels of the features.
        dim: number of channels after the bottleneck, and of queries and keys.
        num_heads: number of heads; each has logits of its own, which are averaged.
        attention: "axial" for rows and columns in turn, or "full" for all units at once.
        context: number of units around it that a unit reads along an axis; None is the whole line.
        mixer: the mixer that reads; None is `Probabilistic` with beta = 0.1. Others cannot propagate.
        propagate_in: with axial attention, the "width" block alone, whose values are logits, or "both": each class and
            head then learns fixed values of the height block too.
        stride: side of a unit in pixels of the image; 1 is the full resolution.
        grid: rows and columns of units, for readings that learn something of each place.

    Raises:
        InputError: an argument does not fit.
    """

    reads_clicks = True

    mixer: SelfMixer
    height: "Projections | None"
    fixed_values: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        *,
        dim: int = 32,
        num_heads: int = 1,
        attention: Literal["axial", "full"] = "axial",
        context: int | None = 64,
        mixer: str | MixerFactory | None = None,
        propagate_in: Literal["width", "both"] = "width",
        stride: int = 1,
        grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        for name, value, choices in (
            ("attention", attention, ("axial", "full")),
            ("propagate_in", propagate_in, ("width", "both")),
        ):
            if value not in choices:
                raise unknown(name, value, choices)
        if stride < 1:
            raise InputError(f"CorrectiveAttention: stride={stride} must be at least 1")
        if dim < CLASSES * num_heads:
            raise InputError(f"CorrectiveAttention: dim={dim} must be at least twice num_heads={num_heads}")
        self.stride = stride
        factory = as_factory(mixer or partial(Probabilistic, beta=BETA))
        factory = as_factory(Axial, {"mixer": factory, "context": context}) if attention == "axial" else factory
        self.mixer = factory(dim=dim, num_heads=num_heads, grid=grid).drop_projections()
        axial = isinstance(self.mixer, Axial)
        reading = self.mixer.width if isinstance(self.mixer, Axial) else self.mixer
        self.propagates = isinstance(reading, Probabilistic)
        learns = isinstance(reading, Probabilistic) and reading.value_propagation > 0

        self.bottleneck = nn.Conv2d(in_channels, dim, 1)
        self.norm = nn.LayerNorm(dim)
        self.height = Projections(dim + CLASSES, dim, reading) if axial else None
        self.width = Projections((2 if axial else 1) * dim + CLASSES, CLASSES * num_heads, reading)
        self.fixed_logits = nn.Parameter(torch.full((CLASSES,), FIRST_LOGIT), requires_grad=learns)
        self.fixed_values = None
        if axial and propagate_in == "both" and self.propagates:
            shape = (CLASSES, num_heads, dim // num_heads)
            self.fixed_values = nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02), requires_grad=learns)

    def forward(self, features: Tensor, clicks: Clicks, size: tuple[int, int]) -> Tensor:
        """Return the mask logits (B, 1, H, W); the arguments are those of `InteractiveHead.forward`."""
        grid = -(-size[0] // self.stride), -(-size[1] // self.stride)
        x = self.norm(upsample(self.bottleneck(features), grid).flatten(2).mT)  # (B, N, dim)
        clicks = clicks if clicks.count else clicks.padded(1)  # what clicks teach is a part of every step, as DDP wants
        logits = self.classify(x, ClickedUnits.of(clicks, size, grid), grid)
        return upsample((logits[..., 1:] - logits[..., :1]).mT.unflatten(2, grid), size)

    def classify(self, x: Tensor, units: ClickedUnits, grid: tuple[int, int]) -> Tensor:
        """Return the class logits (B, N, 2), background first, of units x (B, N, dim)."""
        self.mixer.set_grid(grid)
        seen, planes = x, units.planes(x.shape[1]).to(x.dtype)
        read: Callable[..., Tensor] = self.mixer.mix
        if isinstance(self.mixer, Axial) and self.height is not None:
            fixed = None if self.fixed_values is None else _fixed(units, self.fixed_values)
            q, k, v = self.height(x, torch.cat((x, planes), -1))
            mixed = self.mixer.mix_along("height", q, k, v, fixed)
            seen = torch.cat((x, mixed.transpose(1, 2).flatten(2)), -1)
            read = partial(self.mixer.mix_along, "width")
        q, k, v = self.width(x, torch.cat((seen, planes), -1))
        logits = self.fixed_logits.diag()[:, None].expand(-1, q.shape[1], -1)  # (class, H, 2)
        clicked = {"fixed": _fixed(units, _widen(logits, v.shape[-1]))} if self.propagates else {}
        return read(q, k, v, **clicked)[..., :CLASSES].mean(1)


class Projections(nn.Module):
    """Projections that make queries and keys of what is seen, and values of that and more.

    Queries and keys start as one orthogonal map, so that at first units read units that look like themselves.

    Args:
        in_dim: width of the tokens that the values are made of.
        out_dim: width of the values, all heads together.
        mixer: the mixer that reads by them; it gives the number of heads, the width, and which projections it needs.
    """

    def __init__(self, in_dim: int, out_dim: int, mixer: SelfMixer) -> None:
        super().__init__()
        self.num_heads = mixer.num_heads
        reads = mixer.projections
        self.q: nn.Module = nn.Linear(mixer.dim, mixer.dim, bias=False) if "q" in reads else nn.Identity()
        self.k: nn.Module = nn.Linear(mixer.dim, mixer.dim, bias=False) if "k" in reads else nn.Identity()
        self.v = nn.Linear(in_dim, out_dim)
        if isinstance(self.q, nn.Linear):
            nn.init.orthogonal_(self.q.weight)
        if isinstance(self.k, nn.Linear):
            self.k.load_state_dict(self.q.state_dict())

    def forward(self, x: Tensor, more: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k, v (B, H, N, D), made of x (B, N, dim) and, for the values, of ``more`` (B, N, in_dim).

        Narrower values are filled up with zeros, since some readings need one width for all three.
        """
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (self.q(x), self.k(x), self.v(more))
        )
        return q, k, _widen(v, q.shape[-1])


def _fixed(units: ClickedUnits, table: Tensor) -> FixedValues:
    """Return the fixed values of clicked units, taken from a table of the values of each class (2, H, E)."""
    return FixedValues(units.index, table[units.labels].transpose(1, 2), units.counted)


def _widen(x: Tensor, width: int) -> Tensor:
    return F.pad(x, (0, width - x.shape[-1]))
