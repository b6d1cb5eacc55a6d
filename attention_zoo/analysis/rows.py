"""Rows and columns of attention maps as they are asked for: no map of N x N tokens is formed to read one row of it.

    layer = lazy_map(seen)                 # seen: a `LayerInput`
    layer.rows([17])                       # (B, H, 1, N), what token 17 reads
    layer.columns([17])                    # (B, H, N, 1), who reads token 17
    rollout_rows(layers, [17])             # (B, 1, N), what it reads through several layers

They are those of `SelfMixer.attention_map`, whatever the reading; how they are computed depends on it:

* `SoftmaxMap`: of a softmax of scores a row takes O(N), and so does a column after one fused pass over the tokens.
* `WholeMap`: a map that has a closed form is computed at once and kept, up to `MOST_BYTES`.
* `RecurrentMap`: one that would be larger, of a recurrent reading, is multiplied with vectors from either side.
* `DerivedRows`: a reading without a closed form is differentiated row by row; columns would take as long as all rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor

from attention_zoo.analysis.maps import LayerInput
from attention_zoo.errors import InputError
from attention_zoo.functional.diagnostics import row_entropy
from attention_zoo.functional.mixture import BLOCK, Joint
from attention_zoo.functional.precision import precise
from attention_zoo.mixers.base import SelfMixer, TopDownOptions, gated
from attention_zoo.mixers.protocols import Responsibilities, Steps

MOST_BYTES = 1 << 29
"""Bytes up to which maps of a layer are kept whole: those of 12 heads and 3,136 tokens in float32 just fit."""

MOST_DERIVATIVES = 1 << 12
"""Tokens times channels up to which a reading without a closed form is differentiated for all rows at once."""


ALL_ROWS = "the mean and the entropies of its heads"
"""What takes all rows of a map, in words."""


class Overview(NamedTuple):
    """What one pass over all rows of a map leaves.

    Attributes:
        mean: (B, N, N), the mean of the map over heads.
        entropy: (B, H), the mean entropy of the rows of each head, see `row_entropy`.
    """

    mean: Tensor
    entropy: Tensor


class LazyMap(ABC):
    """The attention map (B, H, N, N) of a layer, whose rows, columns and products can be had without the rest.

    Args:
        seen: the layer and its input.

    Attributes:
        seen: the layer and its input.
        number: the number N of tokens, prefix included.
        steps: number of updates of a recurrent reading, whose map before and after each can be had too; otherwise 0.
    """

    how: ClassVar[str]
    """How rows are computed, in words."""
    has_columns: ClassVar[bool] = True
    """Whether columns can be had."""
    has_overview: ClassVar[bool] = True
    """Whether the overview can be had."""

    def __init__(self, seen: LayerInput) -> None:
        self.seen, self.number, self.steps = seen, seen.tokens.shape[1], 0

    @abstractmethod
    def rows(self, tokens: Sequence[int], step: int | None = None) -> Tensor:
        """Return what R ``tokens`` read from each token, (B, H, R, N).

        Args:
            tokens: places of tokens, from 0, prefix included.
            step: the map after so many updates of a recurrent reading; None is the map itself.

        Raises:
            InputError: there is no such token or step.
        """

    @abstractmethod
    def columns(self, tokens: Sequence[int], step: int | None = None) -> Tensor:
        """Return how much each token reads from R ``tokens``, (B, H, N, R), for arguments of `rows`.

        Raises:
            InputError: as `rows`, or the columns of this map cannot be had.
        """

    @cached_property
    @abstractmethod
    def overview(self) -> Overview:
        """The mean over heads and the entropies, after one pass over all rows.

        Raises:
            InputError: all rows of this map would take too long.
        """

    def mean_pull(self, weights: Tensor) -> Tensor:
        """Return ``weights @ map`` (B, R, N), mean over heads, for weights (B, R, N) of the tokens."""
        return weights @ self.overview.mean

    def mean_push(self, values: Tensor) -> Tensor:
        """Return ``map @ values`` (B, N, R), mean over heads, for values (B, N, R) of the tokens."""
        return self.overview.mean @ values

    def held(self) -> int:
        """Return the bytes of the maps that this object keeps."""
        kept = vars(self).get("overview")
        return 0 if kept is None else kept.mean.nbytes

    def _check(self, tokens: Sequence[int], step: int | None) -> None:
        mixer = self.seen.mixer
        wrong = [token for token in tokens if not 0 <= token < self.number]
        mixer.check(not wrong, f"token {wrong[:1]} must be one of 0 to {self.number - 1}")
        if step is not None and step not in range(self.steps + 1):
            has = f"steps 0 to {self.steps}" if self.steps else "no steps"
            raise mixer.refusal(f"step {step}: this map has {has}")


class SoftmaxMap(LazyMap):
    """A map that is a softmax of scores; see `LazyMap`.

    Args:
        seen: the layer and its input.
        joint: the scores.
    """

    how = "a softmax of scores: each row and column is computed alone"

    def __init__(self, seen: LayerInput, joint: Joint) -> None:
        super().__init__(seen)
        self.joint = joint
        gate = seen.signal.get("value_gate")  # (B, N, 1)
        self._gate = None if gate is None else gate.mT[:, None]

    def rows(self, tokens: Sequence[int], step: int | None = None) -> Tensor:
        """Return what ``tokens`` read from each token, (B, H, R, N); see `LazyMap.rows`."""
        self._check(tokens, step)
        index = torch.tensor(tokens, device=self.joint.q.device).expand(self.joint.q.shape[0], -1)
        return _gated(self.joint.scores(index).softmax(-1), self.seen)

    def columns(self, tokens: Sequence[int], step: int | None = None) -> Tensor:
        """Return how much each token reads from ``tokens``, (B, H, N, R); see `LazyMap.columns`."""
        self._check(tokens, step)
        scores = torch.cat([self.joint.scores(slice(None), slice(token, token + 1)) for token in tokens], -1)
        weights = (scores - self._log_normaliser).exp()
        return weights if self._gate is None else weights * self._gate[..., list(tokens)]

    @cached_property
    def _log_normaliser(self) -> Tensor:
        """The logarithm of each row's normaliser (B, H, N, 1); 0 for a row that may read nobody."""
        with torch.no_grad():
            normaliser = self.joint.read(self.joint.k)[1]
        return normaliser.masked_fill(normaliser.isneginf(), 0.0)[..., None]

    @cached_property
    def overview(self) -> Overview:
        """The mean over heads and the entropies, block of rows by block."""
        batch, heads = self.joint.q.shape[:2]
        step = max(1, BLOCK // (batch * heads * self.number))
        means, entropy = [], torch.zeros(batch, heads, device=self.joint.q.device)
        for start in range(0, self.number, step):
            rows = _gated(self.joint.scores(slice(start, start + step)).softmax(-1), self.seen)
            means.append(rows.mean(1))
            entropy = entropy + row_entropy(rows) * (rows.shape[2] / self.number)
        return Overview(torch.cat(means, 1), entropy)


class WholeMap(LazyMap):
    """A map that is computed at once, and kept; see `LazyMap`."""

    how = "a closed form: the map is computed once and kept here"

    def __init__(self, seen: LayerInput) -> None:
        super().__init__(seen)
        mixer = seen.mixer
        if isinstance(mixer, Steps):
            self._path = mixer.attention_path(seen.tokens, **seen.signal)
            self.steps = len(self._path) - 1
        else:
            self._path = mixer.attention_map(seen.tokens, **seen.signal)[None]

    def rows(self, tokens: Sequence[int], step: int | None = None) -> Tensor:
        """Return what ``tokens`` read from each token, (B, H, R, N); see `LazyMap.rows`."""
        self._check(tokens, step)
        return self._path[-1 if step is None else step][:, :, list(tokens)]

    def columns(self, tokens: Sequence[int], step: int | None = None) -> Tensor:
        """Return how much each token reads from ``tokens``, (B, H, N, R); see `LazyMap.columns`."""
        self._check(tokens, step)
        return self._path[-1 if step is None else step][..., list(tokens)]

    @cached_property
    def overview(self) -> Overview:
        """The mean over heads and the entropies."""
        return Overview(precise(self._path[-1]).mean(1), row_entropy(self._path[-1]))

    def held(self) -> int:
        """Return the bytes of the maps that this object keeps."""
        return super().held() + self._path.nbytes


class RecurrentMap(LazyMap):
    """A map of a recurrent reading, multiplied with vectors from the right, and from the left by its derivative.

    Args:
        seen: the layer and its input.
        mixer: its mixer.
        qkv: its queries, keys and values (B, H, N, D).
    """

    how = "a recurrence that is linear along its path: each row and column is computed alone"
    has_overview = False

    def __init__(self, seen: LayerInput, mixer: Steps, qkv: tuple[Tensor, Tensor, Tensor]) -> None:
        super().__init__(seen)
        self._mixer, self.steps = mixer, mixer.steps
        self._q, _, self._v = qkv
        self._gate = seen.signal.get("value_gate", 1.0)  # (B, N, 1)

    def rows(self, tokens: Sequence[int], step: int | None = None) -> Tensor:
        """Return what ``tokens`` read from each token, (B, H, R, N); see `LazyMap.rows`."""
        self._check(tokens, step)
        return self._pull(self._one_hot(tokens), step)

    def columns(self, tokens: Sequence[int], step: int | None = None) -> Tensor:
        """Return how much each token reads from ``tokens``, (B, H, N, R); see `LazyMap.columns`."""
        self._check(tokens, step)
        return self._push(self._one_hot(tokens).mT, step)

    def mean_pull(self, weights: Tensor) -> Tensor:
        """Return ``weights @ map`` (B, R, N), mean over heads, for weights (B, R, N) of the tokens."""
        return self._pull(weights, None).mean(1)

    def mean_push(self, values: Tensor) -> Tensor:
        """Return ``map @ values`` (B, N, R), mean over heads, for values (B, N, R) of the tokens."""
        return self._push(values, None).mean(1)

    def _push(self, values: Tensor, step: int | None) -> Tensor:
        """Return ``map @ values`` (B, H, N, R)."""
        along = (values * self._gate)[:, None].to(self._v.dtype).expand(-1, self._v.shape[1], -1, -1)
        return self._mixer.weights_path(self._q, self._v, along)[-1 if step is None else step]

    def _pull(self, weights: Tensor, step: int | None) -> Tensor:
        """Return ``weights @ map`` (B, H, R, N)."""
        batch, heads, number, _ = self._v.shape
        with torch.enable_grad():
            along = self._v.new_zeros(batch, heads, number, weights.shape[1], requires_grad=True)
            out = self._mixer.weights_path(self._q, self._v, along)[-1 if step is None else step]
            pulled = torch.autograd.grad(out, along, weights.mT[:, None].expand_as(out).to(out.dtype))[0]
        return _gated(pulled.mT, self.seen)

    def _one_hot(self, tokens: Sequence[int]) -> Tensor:
        return _one_hot([self], tokens).to(self._v.dtype)

    @cached_property
    def overview(self) -> Overview:
        """Refused: it would take all rows."""
        raise self.seen.mixer.refusal(
            f"the map of {self.number} tokens is too large to be kept, which {ALL_ROWS} would take"
        )


class DerivedRows(LazyMap):
    """A map without a closed form, of which rows are had by differentiating the reading; see `LazyMap`.

    Args:
        seen: the layer and its input.
        qkv: its queries, keys and values (B, H, N, D).
    """

    how = "no closed form: the reading is differentiated for each row, and nobody knows who reads a token"
    has_columns = has_overview = False

    def __init__(self, seen: LayerInput, qkv: tuple[Tensor, Tensor, Tensor]) -> None:
        super().__init__(seen)
        q, k, v = (part.detach() for part in qkv)
        with torch.enable_grad():
            self._values = v.requires_grad_()
            self._mixed = seen.mixer.mix(q, k, self._values)

    def rows(self, tokens: Sequence[int], step: int | None = None) -> Tensor:
        """Return what ``tokens`` read from each token, (B, H, R, N); see `LazyMap.rows`."""
        self._check(tokens, step)
        with torch.enable_grad():
            return torch.stack([self._derivative(self._mixed[:, :, token]) for token in tokens], 2)

    def mean_pull(self, weights: Tensor) -> Tensor:
        """Return ``weights @ map`` (B, R, N), mean over heads, for weights (B, R, N) of the tokens."""
        with torch.enable_grad():
            read = weights[:, None].to(self._mixed.dtype) @ self._mixed  # (B, H, R, D)
            return torch.stack([self._derivative(read[:, :, row]) for row in range(read.shape[2])], 2).mean(1)

    def _derivative(self, read: Tensor) -> Tensor:
        """Return the mean over channels of d read / d values, (B, H, N), for what is read (B, H, D)."""
        total = torch.zeros_like(self._values[..., 0])
        for channel in range(read.shape[-1]):
            target = read[..., channel].sum()
            total += torch.autograd.grad(target, self._values, retain_graph=True)[0][..., channel]
        return _gated((total / read.shape[-1])[:, :, None], self.seen)[:, :, 0]

    def columns(self, tokens: Sequence[int], step: int | None = None) -> Tensor:
        """Refuse: a column would take the derivatives of all rows."""
        raise self._refusal("who reads a token")

    @cached_property
    def overview(self) -> Overview:
        """Refused: it would take the derivatives of all rows."""
        raise self._refusal(ALL_ROWS)

    def _refusal(self, what: str) -> InputError:
        return self.seen.mixer.refusal(
            f"no closed form of the map of {self.number} tokens, which {what} would take; a row can be had"
        )


@torch.no_grad()
def lazy_map(seen: LayerInput) -> LazyMap:
    """Return the attention map of a layer, whose rows and columns are computed as they are asked for.

    Raises:
        InputError: the map is too large to be kept whole, and no row of it can be had alone.
    """
    mixer, (batch, number) = seen.mixer, seen.tokens.shape[:2]
    # what writes a map of its own, as mixers around another one do, has it from the tokens alone
    of_projections = type(mixer).attention_map is SelfMixer.attention_map
    qkv = mixer.project(seen.tokens, **seen.signal) if of_projections else None
    if qkv is not None and isinstance(mixer, Responsibilities):
        joint = mixer.joint_probability(*qkv)
        if joint is not None:
            return SoftmaxMap(seen, joint)
    maps = batch * mixer.num_heads * (mixer.steps + 1 if isinstance(mixer, Steps) else 1)
    small = maps * number**2 * torch.float32.itemsize <= MOST_BYTES
    if small and (mixer.has_closed_map or number * mixer.head_dim <= MOST_DERIVATIVES):
        return WholeMap(seen)
    if qkv is not None and isinstance(mixer, Steps):
        return RecurrentMap(seen, mixer, qkv)
    if qkv is None:
        raise mixer.refusal(f"the map of {number} tokens is too large to be kept, and no row of it can be had alone")
    return DerivedRows(seen, qkv)


@torch.no_grad()
def rollout_rows(maps: Sequence[LazyMap], tokens: Sequence[int]) -> Tensor:
    """Return what R ``tokens`` after some layers read from the tokens before them, (B, R, N), through the layers.

    The maps, mean over heads, are averaged with the residual connection and multiplied, ``(A + I) / 2`` for each
    (S. Abnar, W. Zuidema, Quantifying Attention Flow in Transformers, ACL 2020); the product of a row with the maps
    takes vectors alone. Rows of maps that do not sum to one are taken as they are.

    Args:
        maps: maps of successive layers of the same tokens, from the first to the last.
        tokens: places of tokens, from 0, prefix included.

    Raises:
        InputError: the layers are not of the same tokens, as where a pyramid has fewer in each stage.
    """
    row = _one_hot(maps, tokens)
    for each in reversed(maps):
        row = (row + each.mean_pull(row)) / 2
    return row


@torch.no_grad()
def rollout_columns(maps: Sequence[LazyMap], tokens: Sequence[int]) -> Tensor:
    """Return how much each token after some layers reads, through them, from R ``tokens`` before them, (B, N, R).

    See `rollout_rows`.

    Raises:
        InputError: the layers are not of the same tokens, or the columns of one cannot be had.
    """
    column = _one_hot(maps, tokens).mT
    for each in maps:
        column = (column + each.mean_push(column)) / 2
    return column


def _gated(weights: Tensor, seen: LayerInput) -> Tensor:
    """Return rows (B, H, R, N) of what is read from the values before the gate that a layer may hear."""
    return gated(weights, cast(TopDownOptions, seen.signal))


def _one_hot(maps: Sequence[LazyMap], tokens: Sequence[int]) -> Tensor:
    """Return weights (B, R, N) of one for each of R ``tokens``."""
    first = maps[0]
    other = next((each for each in maps if each.number != first.number), None)
    if other is not None:
        raise InputError(
            f"a rollout multiplies maps of the same tokens; layer {first.seen.layer} has {first.number} and layer "
            f"{other.seen.layer} has {other.number}"
        )
    first._check(tokens, None)
    shape = (first.seen.tokens.shape[0], len(tokens), first.number)
    index = torch.tensor(tokens, device=first.seen.tokens.device)[:, None].expand(shape[0], -1, 1)
    return torch.zeros(shape, device=index.device).scatter_(2, index, 1.0)
