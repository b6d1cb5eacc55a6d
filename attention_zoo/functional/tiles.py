"""Softmax attention of tiles of the grid: windows and neighbourhoods without the N x N matrix.

A tiling says for every tile which tokens read (t of them), which are read (u of them), and who of the first may read
whom of the second. Each tile is one small fused attention; a prefix token reads all tokens and is read by all.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from attention_zoo.functional.attention import attention_within_bound, bounded_by, largest_entry, softmax_attention

MOST_AT_ONCE = 1 << 19
"""Numbers of the keys, tile by tile, made together on a CPU; more would leave the cache before they are read."""


@dataclass(frozen=True)
class Tiling:
    """Which tokens read which, tile by tile; tokens are positions of the grid counted row by row.

    Attributes:
        readers: the tokens that read, (T, t) int64; a slot beyond a tile's end may hold any token, ``where`` skips it.
        read: the tokens that are read, (T, u) int64.
        allowed: (T, t, u) bool, true where a reader may read; None allows every pair of a tile.
        where: (grid positions,) int64, the place of each token in the flattened ``readers``.
    """

    readers: Tensor
    read: Tensor
    allowed: Tensor | None
    where: Tensor

    def inside(self) -> Tensor:
        """Return which slots of ``readers`` hold a token (T, t) bool; the others only fill their tile."""
        inside = torch.zeros(self.readers.numel(), dtype=torch.bool, device=self.readers.device)
        return inside.scatter(0, self.where, True).view_as(self.readers)


def attend_in_tiles(
    q: Tensor, k: Tensor, v: Tensor, tiling: Tiling, *, prefix: int = 0, bias: Tensor | None = None, dropout: float = 0
) -> Tensor:
    """Return softmax attention in which each token reads only what its tile allows.

    Args:
        q: queries (B, H, N, D); the first ``prefix`` tokens stand before the grid.
        k: keys (B, H, N, D).
        v: values (B, H, N, E).
        tiling: the tiles of the grid.
        prefix: number of tokens before the grid.
        bias: (H, t, u), added to the scores of every tile.
        dropout: rate at which weights are dropped.

    Returns:
        The attended values (B, H, N, E).
    """
    tiles = len(tiling.readers)
    readers, read = prefix + tiling.readers, prefix + tiling.read
    if prefix:
        everybody = torch.arange(prefix, device=q.device).expand(tiles, -1)
        read = torch.cat((everybody, read), 1)
    if bias is None:
        mixed = _attend_to_rows(q, k, v, tiling, readers, read, dropout)
    else:
        mask = _scores_of_pairs(tiling, q.shape[1], prefix, bias, q.dtype)
        asking, keys, values = (
            x[:, :, places].flatten(1, 2) for x, places in ((q, readers), (k, read), (v, read))
        )  # (B, H T, t, D)
        mixed = softmax_attention(asking, keys, values, mask, dropout, always_open=True)
        mixed = mixed.unflatten(1, (q.shape[1], tiles)).flatten(2, 3)[:, :, tiling.where]
    if not prefix:
        return mixed
    first = softmax_attention(q[:, :, :prefix], k, v, dropout=dropout)
    return torch.cat((first, mixed), 2)


def _attend_to_rows(
    q: Tensor, k: Tensor, v: Tensor, tiling: Tiling, readers: Tensor, read: Tensor, dropout: float
) -> Tensor:
    """Return what `attend_in_tiles` does without a bias for the tokens of the grid, (B, H, grid positions, E).

    Whole rows are copied, each a token of all heads and of as many batches as `MOST_AT_ONCE` has room for, and one mask
    serves these.

    Args:
        q: queries (B, H, N, D).
        k: keys (B, H, N, D).
        v: values (B, H, N, E).
        tiling: the tiles of the grid.
        readers: the places in q of those that read, (T, t).
        read: the places in k and v of those that are read, (T, u) or more with a prefix.
        dropout: rate at which weights are dropped.
    """
    allowed = tiling.allowed
    if allowed is not None:
        allowed = F.pad(allowed, (read.shape[1] - allowed.shape[2], 0), value=True)[:, None]
    some = [(q, k, v)]
    if q.device.type == "cpu" and not torch.compiler.is_compiling():  # a graph would hold the loop written out
        size = max(1, MOST_AT_ONCE // max(1, read.numel() * q.shape[1] * q.shape[3]))
        some = list(zip(q.split(size), k.split(size), v.split(size), strict=True))
    mixed = []
    for asking, keys, values in some:
        rows = _rows_of_tiles(asking, keys, values, allowed, readers, read, dropout).index_select(0, tiling.where)
        mixed.append(rows.unflatten(1, (*asking.shape[:2], v.shape[3])).permute(1, 2, 0, 3))
    return torch.cat(mixed) if len(mixed) > 1 else mixed[0]


def _rows_of_tiles(
    q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, readers: Tensor, read: Tensor, dropout: float
) -> Tensor:
    """Return what every reader takes (T t, B H E), arguments see `_attend_to_rows`; ``allowed`` is (T, 1, t, u)."""
    asking, keys, values = (_in_tiles(x, places) for x, places in ((q, readers), (k, read), (v, read)))
    scale = q.shape[-1] ** -0.5
    if q.numel():  # the bound of each tile, from one look at each key, of which the tiles hold several copies
        asking = bounded_by(asking, _in_tiles(largest_entry(k), read).amax(-2, keepdim=True), scale)
    mixed = attention_within_bound(
        asking, keys, values, allowed, dropout, scale=scale, always_open=True
    )  # (T, B H, t, E)
    return mixed.transpose(1, 2).flatten(0, 1).flatten(1)


def _in_tiles(tokens: Tensor, places: Tensor) -> Tensor:
    """Return the tokens (T, B H, t, D) at ``places`` (T, t) of tokens (B, H, N, D)."""
    rows = tokens.permute(2, 0, 1, 3).flatten(1)  # (N, B H D)
    chosen = rows.index_select(0, places.flatten())
    chosen = chosen.unflatten(1, (tokens.shape[0] * tokens.shape[1], tokens.shape[3]))
    return chosen.unflatten(0, places.shape).transpose(1, 2)


def rows_at(tokens: Tensor, places: Tensor) -> Tensor:
    """Return the tokens (B, T, H, u, D) at ``places`` (B, T, u) or (T, u) of tokens (B, H, N, D), copied in whole rows.

    Args:
        tokens: (B, H, N, D).
        places: integers below N, of each batch or of all.
    """
    batch, heads, number, width = tokens.shape
    start = number * torch.arange(batch, device=places.device)
    places = start[:, None, None] + places
    rows = tokens.transpose(1, 2).flatten(0, 1).flatten(1)  # (B N, H D), a view of what one projection gives
    chosen = rows.index_select(0, places.flatten()).unflatten(0, places.shape)
    return chosen.unflatten(3, (heads, width)).transpose(2, 3)


def attend_in_windows(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: tuple[int, int],
    window: tuple[int, int],
    *,
    bias: Tensor | None = None,
    dropout: float = 0,
) -> Tensor:
    """Return softmax attention inside the windows that a grid divides into, without an index: views and one copy each.

    Args:
        q: queries (B, H, N, D) of the tokens of the grid.
        k: keys (B, H, N, D).
        v: values (B, H, N, E).
        grid: rows and columns of the tokens.
        window: rows and columns of a window, which divide those of the grid.
        bias: (H, t, t), added to the scores of every window of t tokens.
        dropout: rate at which weights are dropped.

    Returns:
        The attended values (B, H, N, E).
    """
    down, right = grid[0] // window[0], grid[1] // window[1]
    (batch, heads), tokens = q.shape[:2], window[0] * window[1]

    def windows(x: Tensor) -> Tensor:
        """Return (B * windows, H, t, D) of (B, H, N, D)."""
        parts = x.view(batch, heads, down, window[0], right, window[1], x.shape[3]).permute(0, 2, 4, 1, 3, 5, 6)
        return parts.reshape(batch * down * right, heads, tokens, x.shape[3])

    mask = None if bias is None else bias.to(q.dtype)[None]
    mixed = softmax_attention(windows(q), windows(k), windows(v), mask, dropout, always_open=True)
    parts = mixed.transpose(1, 2).view(batch, down, right, *window, heads, v.shape[3]).transpose(2, 3)
    return parts.reshape(batch, grid[0] * grid[1], heads, v.shape[3]).transpose(1, 2)


def weights_in_tiles(q: Tensor, k: Tensor, tiling: Tiling, *, prefix: int = 0, bias: Tensor | None = None) -> Tensor:
    """Return the weights of `attend_in_tiles` as a matrix (B, H, N, N)."""
    scores = q @ k.mT * q.shape[-1] ** -0.5
    number = scores.shape[-1] - prefix
    pairs = _scores_of_pairs(tiling, q.shape[1], 0, bias, q.dtype)
    shape = (q.shape[1], *tiling.readers.shape, tiling.read.shape[1])
    pairs = scores.new_zeros(shape) if pairs is None else pairs.unflatten(1, shape[:2])[0]
    allowed = scores.new_full((q.shape[1], number, number), -torch.inf)
    rows, columns = torch.broadcast_tensors(tiling.readers[:, :, None], tiling.read[:, None])
    kept = tiling.inside()[:, :, None] & (pairs[0] > -torch.inf)
    allowed[:, rows[kept], columns[kept]] = pairs[:, kept]
    return (scores + F.pad(allowed, (prefix, 0, prefix, 0))).softmax(-1)


def _scores_of_pairs(tiling: Tiling, heads: int, prefix: int, bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return what is added to the scores, (1, H T, t, prefix + u): the bias, and -inf where a pair is not allowed."""
    if bias is None and tiling.allowed is None:
        return None
    tiles, readers, read = *tiling.readers.shape, tiling.read.shape[1]
    zero = torch.zeros((), dtype=dtype, device=tiling.readers.device)
    added = zero.expand(heads, readers, read) if bias is None else bias.to(dtype)
    added = added[:, None].expand(heads, tiles, readers, read)
    if tiling.allowed is not None:
        added = added.masked_fill(~tiling.allowed, -torch.inf)
    return F.pad(added, (prefix, 0)).flatten(0, 1)[None]


def window_tiling(
    grid: tuple[int, int], window: tuple[int, int], shift: tuple[int, int], device: torch.device
) -> Tiling:
    """Return the tiling by windows side by side, moved up and left by ``shift`` and cut at the borders of the grid.

    As in Swin, tokens that the shift pushes over one border go into the windows at the other, where they read only
    each other, so that the number of windows does not grow. A grid that windows do not divide is padded, and no token
    reads the padding.
    """
    axes = [_window_axis(*sizes, device) for sizes in zip(grid, window, shift, strict=True)]
    (rows, row_parts), (columns, column_parts) = axes  # (windows, w) each
    position = rows[:, None, :, None] * grid[1] + columns[None, :, None, :]
    inside = (row_parts >= 0)[:, None, :, None] & (column_parts >= 0)[None, :, None, :]
    part = row_parts[:, None, :, None] * 3 + column_parts[None, :, None, :]
    position, inside, part = (of.flatten(2).flatten(0, 1) for of in (position, inside, part))  # (T, w w)
    whole = not any(shift) and not any(size % width for size, width in zip(grid, window, strict=True))
    # a slot of padding reads every slot, so that its softmax does not divide by zero
    allowed = (part[:, :, None] == part[:, None]) & inside[:, None] | ~inside[:, :, None]
    where = _places(position, inside, grid[0] * grid[1])
    return Tiling(position, position, None if whole else allowed, where)


def _places(position: Tensor, inside: Tensor, number: int) -> Tensor:
    """Return the slot of each of ``number`` positions (number,), from that of each slot (T, t) that is inside."""
    slots = torch.arange(position.numel(), device=position.device).view_as(position)
    where = torch.zeros(number, dtype=torch.long, device=position.device)
    return where.scatter_reduce(0, position.flatten(), torch.where(inside, slots, 0).flatten(), "amax")


def _window_axis(size: int, window: int, shift: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return each slot's position on one axis, and the part of its window it is in, (windows, w); -1 is padding."""
    padded = size + -size % window
    slot = torch.arange(padded, device=device)
    position = (slot + shift) % padded
    # the shift brings positions 0..shift-1 into the last window, where they are a part of their own
    part = torch.where(position < shift, 2, torch.where(slot >= padded - window, 1, 0))
    part = torch.where(position < size, part, -1)
    return position.clamp(max=size - 1).view(-1, window), part.view(-1, window)


def neighborhood_tiling(
    grid: tuple[int, int], kernel: tuple[int, int], dilation: tuple[int, int], device: torch.device, tile: int = 8
) -> Tiling:
    """Return the tiling in which every token reads the ``kernel`` tokens nearest to it in each axis.

    At the borders they are moved inward, so that they stay as many. Under a dilation d a token's neighbours are those
    whose distance is a multiple of d. A grid smaller than the kernel is read whole.
    """
    axes = [_neighborhood_axis(*sizes, tile, device) for sizes in zip(grid, kernel, dilation, strict=True)]
    (rows, read_rows, row_near), (columns, read_columns, column_near) = axes
    inside = (rows >= 0)[:, None, :, None] & (columns >= 0)[None, :, None, :]
    readers = rows.clamp(min=0)[:, None, :, None] * grid[1] + columns.clamp(min=0)[None, :, None, :]
    read = read_rows[:, None, :, None] * grid[1] + read_columns[None, :, None, :]
    near = row_near[:, None, :, None, :, None] & column_near[None, :, None, :, None, :]  # (Th, Tw, t, t, u, u)
    readers, read, inside = (of.flatten(2).flatten(0, 1) for of in (readers, read, inside))
    near = near.flatten(4).flatten(2, 3).flatten(0, 1)
    where = _places(readers, inside, grid[0] * grid[1])
    return Tiling(readers, read, near, where)


def _neighborhood_axis(
    size: int, kernel: int, dilation: int, tile: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return one axis' readers in each tile (T, t; -1 is none), the read (T, u), and which are near which (T, t, u)."""
    readers, read, near = [], [], []
    groups = [torch.arange(start, size, dilation, device=device) for start in range(min(dilation, size))]
    longest = len(groups[0])
    tile = -(-longest // -(-longest // tile))  # as many tiles, of even sizes
    union = min(tile + kernel - 1, longest)
    for group in groups:
        length = len(group)
        reach = min(kernel, length)
        for start in range(0, length, tile):
            inside = torch.arange(start, start + tile, device=device)
            first = (inside.clamp(max=length - 1) - reach // 2).clamp(0, length - reach)  # of each reader's neighbours
            begin = max(0, min(start - reach // 2, length - union))
            seen = torch.arange(begin, begin + union, device=device)
            near.append((seen >= first[:, None]) & (seen < first[:, None] + reach))
            read.append(group[seen.clamp(max=length - 1)])
            readers.append(torch.where(inside < length, group[inside.clamp(max=length - 1)], -1))
    return torch.stack(readers), torch.stack(read), torch.stack(near)
