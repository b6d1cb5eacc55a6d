"""Axial attention: a mixer of tokens along the height of the grid, then one along its width.

    x <- mix of every column,    x <- mix of every row

H. Wang et al., Axial-DeepLab, ECCV 2020. The local context of mixers without masks is that of A. Vaswani et al.,
Scaling Local Self-Attention for Parameter Efficient Visual Backbones, CVPR 2021: blocks with a halo.
"""

from dataclasses import dataclass
from typing import Any, Literal, Unpack, cast

import torch
from torch import Tensor

from attention_zoo.domains import PositiveInt
from attention_zoo.functional.fixed_units import FixedValues, resolved
from attention_zoo.functional.positions import window_prior
from attention_zoo.mixers.base import HostOptions, MixerFactory, SelfMixer, TopDownOptions, gated
from attention_zoo.mixers.dot_product import DotProduct
from attention_zoo.mixers.inside import building_inside
from attention_zoo.mixers.registry import as_factory, wraps_mixers


@dataclass(frozen=True)
class Segments:
    """A line of tokens cut into overlapping segments of one length, each of which has some tokens of its own.

    Attributes:
        index: tokens of each segment (number of segments, length of a segment).
        segment: the segment that each token is of (length of the line).
        place: the place of each token in its segment (length of the line).
    """

    index: Tensor
    segment: Tensor
    place: Tensor


@wraps_mixers
class Axial(SelfMixer):
    """Any self-mixer along the height, then another along the width: ``N (height + width)`` where it was ``N²``.

    It wraps two whole mixers, their projections included, and is no reading of its own. Class and register
    tokens go in front of every line; each line mixes its copy, and the copies are averaged.

    Args:
        dim: token width.
        num_heads: heads.
        mixer: what runs along the lines, a name, a dotted path or a factory; None is `DotProduct`.
        context: local context: a token is mixed with those up to ``context // 2`` places away on its line. Readings
            without masks run in blocks of ``context`` tokens with a halo of ``context // 2`` on each side instead.
        **host: see `SelfMixer`.
    """

    reading = "around a mixer, along axes"
    paper = "Wang et al. 2020 (Axial-DeepLab)"
    equation = "mixer of every column, then of every row"
    complexity = "N (h + w)"
    projections = ()
    tokens = "grid"
    drops_attention = True  # the mixers of the lines refuse it where they do not

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        mixer: str | MixerFactory | None = None,
        context: PositiveInt | None = None,
        **host: Unpack[HostOptions],
    ) -> None:
        own: HostOptions = {**host, "qk_norm": False, "scale_norm": False, "proj_drop": 0.0}
        super().__init__(dim, num_heads, **own)
        self.context = context
        height, width = self.grid or (None, None)
        with building_inside(self, mixer):
            factory = as_factory(DotProduct if mixer is None else mixer)
            self.height = self._line_mixer(factory, dim, num_heads, height, host)
            self.width = self._line_mixer(factory, dim, num_heads, width, host)
        self.norms_by_batch = self.height.norms_by_batch

    def _line_mixer(
        self, factory: MixerFactory, dim: int, num_heads: int, length: int | None, host: HostOptions
    ) -> SelfMixer:
        """Return a mixer for lines of ``length`` tokens, or for segments of them."""
        line: HostOptions = {**host, "grid": (1, length) if length else None}
        mixer = factory(dim, num_heads, **line)
        if length and not mixer.takes_masks() and self._segment_length(length) < length:
            segment: HostOptions = {**host, "grid": (1, self._segment_length(length))}
            mixer = factory(dim, num_heads, **segment)
        return mixer

    def set_grid(self, grid: tuple[int, int]) -> None:
        """Expect tokens of another grid from now on, as `SelfMixer.set_grid` does, in the lines too."""
        super().set_grid(grid)
        for mixer, length in zip((self.height, self.width), grid, strict=True):
            self._tell_line(mixer, length)

    def _tell_line(self, mixer: SelfMixer, length: int) -> None:
        """Tell a mixer of lines the length of its own, or of their segments."""
        mixer.set_grid((1, length if mixer.takes_masks() else self._segment_length(length)))

    def forward(
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        *,
        top_down: Tensor | None = None,
        **how: Unpack[TopDownOptions],
    ) -> Tensor:
        """Mix tokens as `SelfMixer.forward` does; a top-down signal enters the values along both axes.

        Raises:
            InputError: there is a mask, which lines cannot use, or the tokens are no grid.
        """
        self.check(attn_mask is None and not is_causal, "lines cannot use attn_mask or is_causal")
        self.check_tokens(x)
        return self._along(self.width, 2, self._along(self.height, 1, x, top_down, how), top_down, how)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the values mixed along the height, then the width, with the same queries and keys both times."""
        return self.mix_along("width", q, k, self.mix_along("height", q, k, v))

    def mix_along(
        self, axis: Literal["height", "width"], q: Tensor, k: Tensor, v: Tensor, fixed: FixedValues | None = None
    ) -> Tensor:
        """Return the values mixed along one axis: q, k (B, H, N, D) and v (B, H, N, E) -> (B, H, N, E).

        Args:
            axis: the height, mixing every column, or the width, mixing every row.
            q: queries (B, H, N, D).
            k: keys (B, H, N, D).
            v: values (B, H, N, E).
            fixed: values that a user has given for some tokens, which spread along their own line; for a `mixer`
                that takes them, without prefix tokens.
        """
        mixer, place = (self.height, 1) if axis == "height" else (self.width, 2)
        batch, _, number, _ = q.shape
        given: dict[str, Any] = {} if fixed is None else {"fixed": self._fixed_in_lines(fixed, place, q)}
        parts = [self._lines(x.transpose(1, 2).flatten(2), place) for x in (q, k, v)]
        mask, segments = self._context(mixer, place, number, q)
        lines = [_cut(x, segments, self.num_prefix_tokens).unflatten(-1, (self.num_heads, -1)) for x in parts]
        q, k, v = (x.transpose(1, 2) for x in lines)
        mixed = mixer.mix(q, k, v, **given) if mask is None else mixer.mix_masked(q, k, v, mask, False, **given)
        merged = self._merge(mixed.transpose(1, 2).flatten(2), segments, place, batch, number)
        return merged.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _fixed_in_lines(self, fixed: FixedValues, axis: int, q: Tensor) -> FixedValues:
        """Return the fixed tokens as places in every line; they count only in their own."""
        self.check(self.num_prefix_tokens == 0, "fixed values need tokens without a prefix")
        height, width = self.spatial_shape(q.shape[2])
        index, values, given = resolved(q, fixed)
        line, place = (index % width, index // width) if axis == 1 else (index // width, index % width)
        count = width if axis == 1 else height
        counted = line[:, None] == torch.arange(count, device=index.device)[:, None]  # (B, lines, S)
        counted = (counted & cast(Tensor, given)[:, None]).flatten(0, 1)
        return FixedValues(place.repeat_interleave(count, 0), values.repeat_interleave(count, 0), counted)

    def _along(
        self, mixer: SelfMixer, axis: int, x: Tensor, top_down: Tensor | None = None, how: TopDownOptions | None = None
    ) -> Tensor:
        """Return tokens x (B, N, dim) with the lines of one axis mixed: 1 is the height, 2 the width."""
        mask, segments = self._context(mixer, axis, x.shape[1], x)
        options = self._in_lines(axis, segments, {"top_down": top_down, **(how or {})})
        mixed = mixer(_cut(self._lines(x, axis), segments, self.num_prefix_tokens), mask, **options)
        return self._merge(mixed, segments, axis, x.shape[0], x.shape[1])

    def _in_lines(self, axis: int, segments: Segments, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options of a top-down signal with those that are one for each token cut into lines."""
        cut = {
            name: _cut(self._lines(options[name], axis), segments, self.num_prefix_tokens)
            for name in ("top_down", "value_gate")
            if options.get(name) is not None
        }
        return options | cut

    def _context(self, mixer: SelfMixer, axis: int, num_tokens: int, like: Tensor) -> tuple[Tensor | None, Segments]:
        """Return what makes the context local: a mask, if the mixer takes one, and the segments of a line.

        Without a ``grid``, where the tokens are taken for a square, the mixer is told the length of these lines.
        """
        length = self.spatial_shape(num_tokens)[axis - 1]
        if self.grid is None:
            self._tell_line(mixer, length)
        everything = torch.arange(length, device=like.device)
        whole = Segments(everything[None], torch.zeros_like(everything), everything)
        if self.context is None or length <= self.context // 2:
            return None, whole
        if mixer.takes_masks():
            return window_prior((1, length), 2 * (self.context // 2) + 1, self.num_prefix_tokens, like=like), whole
        size = self._segment_length(length)
        starts = torch.arange(0, length, self.context, device=like.device)
        starts = (starts - self.context // 2).clamp(0, length - size)
        segment = everything // self.context
        return None, Segments(starts[:, None] + everything[:size], segment, everything - starts[segment])

    def _segment_length(self, length: int) -> int:
        return length if self.context is None else min(length, self.context + 2 * (self.context // 2))

    def _lines(self, x: Tensor, axis: int) -> Tensor:
        """Return columns (axis 1) or rows (axis 2) of tokens (B, N, C), with prefix: (B, lines, P + length, C)."""
        prefix, spatial = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        lines = spatial.unflatten(1, self.spatial_shape(x.shape[1])).movedim(axis, 2)
        return torch.cat((prefix[:, None].expand(-1, lines.shape[1], -1, -1), lines), 2)

    def _merge(self, mixed: Tensor, segments: Segments, axis: int, batch: int, num_tokens: int) -> Tensor:
        """Return tokens (B, N, C) from the mixed segments of all lines (B * lines * segments, P + S, C)."""
        prefix, shape = self.num_prefix_tokens, self.spatial_shape(num_tokens)
        mixed = mixed.unflatten(0, (batch, shape[2 - axis], len(segments.index)))
        lines = mixed[:, :, segments.segment, prefix + segments.place]  # (B, lines, length, C)
        return torch.cat((mixed[..., :prefix, :].mean((1, 2)), lines.movedim(2, axis).flatten(1, 2)), 1)

    @property
    def has_closed_map(self) -> bool:
        """Whether the readings along both axes have their maps at once; maps under a mask are differentiated."""
        return self.context is None and self.height.has_closed_map and self.width.has_closed_map

    def attention_map(self, x: Tensor, top_down: Tensor | None = None, **how: Unpack[TopDownOptions]) -> Tensor:
        """Return who reads whom for tokens ``x`` (B, N, dim): (B, H, N, N), the product of the maps along the axes.

        Entry (i, j) is what i takes along its row from those who took it along their columns from j; the output
        projection between the two is left out.
        """
        between = self._along(self.height, 1, x, top_down, how)
        options: dict[str, Any] = {"top_down": top_down, **how}
        return self._stage_map(self.width, 2, between, options) @ self._stage_map(self.height, 1, x, options)

    def _stage_map(self, mixer: SelfMixer, axis: int, x: Tensor, options: dict[str, Any]) -> Tensor:
        """Return who reads whom along one axis, as a matrix of all tokens (B, H, N, N)."""
        (batch, number), prefix = x.shape[:2], self.num_prefix_tokens
        mask, segments = self._context(mixer, axis, number, x)
        heard: Any = self._in_lines(axis, segments, options)
        q, k, v = mixer.project(_cut(self._lines(x, axis), segments, prefix), **heard)
        weights = mixer.map_weights(q, k, v) if mask is None else mixer.masked_map_weights(q, k, v, mask)
        weights = gated(weights, heard)
        ids = self._lines(torch.arange(number, device=x.device)[None, :, None].to(x.dtype), axis)
        ids = _cut(ids, segments, prefix).long()[..., 0]  # which token each is, (lines * segments, P + S)
        own = torch.zeros(len(segments.index), prefix + segments.index.shape[1], device=x.device, dtype=torch.bool)
        own[segments.segment, prefix + segments.place] = True
        share = own.repeat(len(ids) // len(own), 1).to(x.dtype)
        share[:, :prefix] = 1 / len(ids)  # the lines' copies of a prefix token are averaged
        total = weights.new_zeros(batch, self.num_heads, number, number)
        for line, weight in enumerate(weights.unflatten(0, (batch, -1)).unbind(1)):
            total[:, :, ids[line][:, None], ids[line]] += share[line][:, None] * weight
        return total


def _cut(lines: Tensor, segments: Segments, prefix: int) -> Tensor:
    """Return segments (B * lines * segments, P + S, C) of lines (B, lines, P + length, C), each with the prefix."""
    parts = lines[:, :, prefix:][:, :, segments.index]  # (B, lines, segments, S, C)
    first = lines[:, :, None, :prefix].expand(-1, -1, parts.shape[2], -1, -1)
    return torch.cat((first, parts), 3).flatten(0, 2)
